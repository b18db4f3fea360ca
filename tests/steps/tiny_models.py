"""Models of a few thousand parameters: a Zipformer's sizes, and a random Whisper in a folder of transformers's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

ZIPFORMER = {
    "name": "zipformer",
    "subsampling": {"factor": 4, "channels": [4, 8, 16], "convnext": False},
    "downsampling_factor": [1],
    "num_encoder_layers": 1,
    "encoder_dim": [24],
    "encoder_unmasked_dim": [24],
    "feedforward_dim": 24,
    "num_heads": 2,
    "cnn_module_kernel": 7,
}
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|it|>")
SPECIAL = (*SPECIAL, "<|transcribe|>", "<|notimestamps|>", "<|translate|>")
TIMES = tuple(f"<|{second / 50:.2f}|>" for second in range(4))
PROMPT = "<|startoftranscript|><|{language}|><|transcribe|><|notimestamps|>"
SIZES = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_mel_bins": 8}


def byte_tokenizer(texts: Iterable[str], size: int, **options):
    """The tokenizers library's byte-level BPE with a few merges, so many tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"initial_alphabet": alphabet, "show_progress": False, **options}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, **options))
    return tokenizer


def write_tokenizer(folder: Path, texts: Iterable[str]) -> dict[str, int]:
    """`tokenizer.json`: byte-level BPE, and Whisper's special tokens; their ids."""
    tokenizer = byte_tokenizer([f" {text}" for text in texts], 290)
    tokenizer.add_special_tokens([*SPECIAL, *TIMES])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return {token: tokenizer.token_to_id(token) for token in SPECIAL} | {"size": tokenizer.get_vocab_size()}


def make_whisper(folder: Path, texts: Iterable[str], seed: int = 0, **sizes):
    """Write the folder; transformers' `WhisperForConditionalGeneration` itself, in evaluation mode."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    ids = write_tokenizer(folder, texts)
    end = ids["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=ids["size"],
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **{**SIZES, "max_source_positions": 150, "max_target_positions": 40, **sizes},
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():  # as it is made, an untrained model hears nothing and says the same everywhere
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                parameter.mul_(60 if "decoder" in name else 1)
            elif parameter.dim() > 1:
                parameter.mul_(16)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        norm = model.model.decoder.layer_norm
        norm.weight.mul_(2)
        norm.bias.normal_(std=0.5)
        model.model.decoder.embed_tokens.weight[end] = 0.8 * norm.bias  # probable everywhere: texts have ends
    model.save_pretrained(folder, safe_serialization=True)
    return model


def make_speech_model(folder: Path, name: str, norm: str = "layer", stable: bool = True, normalize: bool = True):
    """Write a tiny random wav2vec2, hubert or wavlm to `folder`; transformers' model, in evaluation mode."""
    from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

    config = AutoConfig.for_model(
        name,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=[8, 8, 8],
        conv_kernel=[10, 8, 8],
        conv_stride=[5, 8, 8],
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        do_stable_layer_norm=stable,
        num_buckets=8,
        max_bucket_distance=16,
    )
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "encoder.layers" in key:
                parameter.mul_(8) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, safe_serialization=True)
    Wav2Vec2FeatureExtractor(do_normalize=normalize).save_pretrained(folder)
    return model


def assert_gradients_of_formula(encoder: torch.nn.Module, features: tuple, monkeypatch) -> None:
    """An encoder's gradients are those that it has with GELU by its definition in place of torch's kernel."""

    def gradients() -> dict[str, torch.Tensor]:
        encoder.zero_grad()
        out = encoder(*features).out
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    found = gradients()
    monkeypatch.setattr("torch.nn.functional.gelu", lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)))
    for name, expected in gradients().items():
        size = float(expected.abs().max())
        torch.testing.assert_close(found[name], expected, atol=1e-4 * size + 1e-6, rtol=1e-3, msg=name)
