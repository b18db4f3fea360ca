"""A translator of text as a folder: `exp/<model>/` of steps.train, or a seq2seq model of transformers as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from steps.lang.hub_tokens import HubPair
from steps.lang.pair_tokens import LangPair, PairTokens, RequestPair
from steps.lang.pretrained import PretrainedTokenizer, check_tokens
from steps.lang.prompts import REQUESTS, TEXT, Request, requests
from steps.lang.targets import parse_target
from steps.lang.tokenizer import Tokenizer
from steps.model_folder import PRETRAINED, fill, read_checkpoint, saved_config
from steps.nets.llm_pair import LlmPairConfig
from steps.nets.translator import TransformerPairConfig, TranslationConfig, Translator
from steps.pretrained.folder import SMALL, find_model
from utils.errors import UserError
from utils.files import require
from utils.options import check_config, load_yaml

PART = "translator"


def pair_tokens(config: TranslationConfig, folder: Path) -> PairTokens:
    """The tokens of a model folder (of a folder in transformers' layout where there is no model folder)."""
    language, about = parse_target(config.target.target), config.translator
    if isinstance(about, LlmPairConfig):
        tokenizer = Tokenizer.load(folder / "lang" / "target")
        if not isinstance(tokenizer, PretrainedTokenizer):
            raise UserError(f"target.lang: {config.target.lang} is not of a model's tokens (--type pretrained).")
        template = requests(about.prompt, TEXT) if about.prompt else REQUESTS["translation of text"]
        return RequestPair(tokenizer, Request(tokenizer, template, language, about.chat, about.system, about.names))
    if isinstance(about, TransformerPairConfig):
        source, target = (Tokenizer.load(folder / "lang" / side) for side in ("source", "target"))
        return LangPair(source, target, language)
    own = folder / PRETRAINED / PART
    return HubPair(own if own.exists() else folder, language, (about.source_code, about.target_code), about.prefix)


def make_translator(config: TranslationConfig, folder: Path) -> Translator:
    """The model of a model folder, untrained; `UserError` where it shares embeddings of different tokens."""
    own, tokens = folder / PRETRAINED / PART, pair_tokens(config, folder)
    if getattr(config.translator, "share_embeddings", False):
        source, target = (tokens.tokenizers[side].tokens for side in ("source", "target"))
        if source != target:
            langs = f"{config.source.lang} and {config.target.lang}"
            raise UserError(f"translator.share_embeddings: {langs} have different tokens: give both one.")
    return Translator(config, tokens.sizes, own if own.exists() else None)


def copy_pretrained(config: TranslationConfig, folder: Path) -> None:
    """Copy all of a pretrained translator but its weights into a model folder: its shape and its tokens.

    Errors: `UserError` where it is not there, or the target's lang folder has another model's tokens.
    """
    path, own = getattr(config.translator, "path", None), folder / PRETRAINED / PART
    if path is None or (own / "config.json").exists():
        return
    source = find_model(path, "translator.path")
    if config.target.lang:
        check_tokens(Path(config.target.lang), source, "target.lang")
    own.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in SMALL for file in source.glob(pattern)}):
        shutil.copyfile(file, own / file.name)


def is_translator(folder: Path) -> bool:
    """Whether a model folder holds a translator of text, not a model of speech."""
    return "translator" in load_yaml(require(folder / "config.yaml", "stage 5 (training)"))


def load_config(folder: str | Path) -> TranslationConfig:
    """What `config.yaml` of a model folder says about the translator (not about its training)."""
    return saved_config(folder, TranslationConfig)


def load_translator(
    folder: str | Path, checkpoint: str = "averaged.pt", device: str | torch.device = "cpu"
) -> tuple[Translator, PairTokens]:
    """The translator in `exp/<model>/`, in evaluation mode on `device`, and its tokens.

    Errors: `UserError` when something is missing, truncated, or belongs to another model.
    """
    folder = Path(folder)
    config = load_config(folder)
    state, file = read_checkpoint(folder, checkpoint)
    model = make_translator(config, folder)
    tokens = pair_tokens(config, folder)
    fill(model, state, tokens.tokenizers, file)
    if isinstance(tokens, RequestPair):
        model.net.head.suppress(list(tokens.tokenizers["target"].suppressed))
    return model.to(device).eval(), tokens


def open_translator(
    name: str,
    checkpoint: str,
    device: torch.device,
    target_language: str | None = None,
    source_code: str | None = None,
    target_code: str | None = None,
    prefix: str = "",
) -> tuple[Translator, PairTokens]:
    """What `--model` names: a model folder of steps.train, or a seq2seq model of transformers used as it is.

    Of the latter `target_language` must be given, and the model's own names of languages where they are not found.
    Errors: `UserError` for anything else, and for options that a model folder already answers.
    """
    if (Path(name) / "config.yaml").exists():
        given = {"--target-language": target_language, "--source-code": source_code, "--target-code": target_code}
        if wrong := next((option for option, value in {**given, "--prefix": prefix}.items() if value), None):
            raise UserError(f"{wrong} is for a model of transformers as it is: {name} was trained for its own.")
        if not is_translator(Path(name)):
            raise UserError(f"--model {name} is a model of speech: give a translator, trained with 'translator'.")
        return load_translator(name, checkpoint, device)
    if not target_language:
        raise UserError(f"--model {name} is used as it is: give the --target-language that it translates into.")
    values = {"name": "seq2seq", "path": name, "source_code": source_code, "target_code": target_code, "prefix": prefix}
    target = {"target": f"translation.{target_language}"}
    config = check_config({"translator": values, "target": target}, TranslationConfig, "--target-language")
    folder = find_model(name, "--model")
    tokens = pair_tokens(config, folder)
    model = Translator(config, tokens.sizes, folder)
    model.load_pretrained({})
    return model.to(device).eval(), tokens
