"""Random translators of transformers with tokenizers made from twenty sentences, as folders in its layout."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece as spm
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    MarianConfig,
    MarianMTModel,
    MarianTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.steps.parallel import EN, FR

SIZES = {
    "d_model": 16,
    **{f"{half}_{what}": n for half in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 24))},
    **{f"{half}_attention_heads": 2 for half in ("encoder", "decoder")},
    "max_position_embeddings": 64,
    "init_std": 0.5,  # an untrained model says the same everywhere; this one has opinions
}


def _sentencepiece(lines: list[str], path: Path) -> list[str]:
    """A sentencepiece model in a file; its pieces but for the special ones."""
    model = io.BytesIO()
    options = {"unk_id": 0, "bos_id": -1, "eos_id": 1, "pad_id": -1, "hard_vocab_limit": False, "minloglevel": 2}
    spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=60, **options)
    path.write_bytes(model.getvalue())
    pieces = spm.SentencePieceProcessor()
    pieces.LoadFromSerializedProto(model.getvalue())
    return [pieces.id_to_piece(i) for i in range(2, pieces.get_piece_size())]


def _save(kind, config, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    return folder


def write_marian(folder: Path) -> Path:
    """One pair of languages, two sentencepiece models."""
    pieces = sorted({*_sentencepiece(EN, folder / "source.spm"), *_sentencepiece(FR, folder / "target.spm")})
    tokens = ["</s>", "<unk>", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    files = {"source_spm": "source.spm", "target_spm": "target.spm", "vocab": "vocab.json"}
    paths = {key: str(folder / name) for key, name in files.items()}
    MarianTokenizer(**paths, source_lang="en", target_lang="fr").save_pretrained(folder)
    pad = len(tokens) - 1
    ids = {"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad, "forced_eos_token_id": 0}
    return _save(MarianMTModel, MarianConfig(vocab_size=len(tokens), **ids, **SIZES), folder)


def write_m2m100(folder: Path) -> Path:
    """A hundred languages, whose names begin every text."""
    spm_file = folder / "sentencepiece.bpe.model"
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *_sentencepiece(EN + FR, spm_file)]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(spm_file), src_lang="en", tgt_lang="de")
    tokenizer.save_pretrained(folder)
    size = 1 + max(tokenizer.lang_token_to_id.values())
    return _save(M2M100ForConditionalGeneration, M2M100Config(vocab_size=size, **SIZES), folder)


def write_t5(folder: Path) -> Path:
    """A tokenizer.json, relative positions."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = {"special_tokens": ["<pad>", "</s>", "<unk>"], "unk_token": "<unk>"}
    trainer = trainers.UnigramTrainer(vocab_size=70, show_progress=False, **special)
    backend.train_from_iterator(EN + FR, trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.save_pretrained(folder)
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "vocab_size": len(tokenizer)}
    config = T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, initializer_factor=4.0, **ids)
    return _save(T5ForConditionalGeneration, config, folder)


WRITERS = {"marian": write_marian, "m2m100": write_m2m100, "t5": write_t5}
