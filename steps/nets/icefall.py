"""Checkpoints of icefall's zipformer recipe (`egs/librispeech/ASR/zipformer`) to our model and back.

Our modules have icefall's parameter names, so only the prefixes differ: `encoder_embed` and `encoder` are parts of
`model.encoder`, `ctc_output` is the CTC head's, `decoder`, `joiner` and `simple_*_proj` are the transducer head's, and
`attention_decoder` is the attention head (with `final_norm: false`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import UserError

ENCODER = ("encoder_embed", "encoder")
# type of head -> icefall's prefixes and what they are in ours
HEADS = {
    "ctc": {"ctc_output": "ctc_output"},
    "transducer": {part: part for part in ("decoder", "joiner", "simple_am_proj", "simple_lm_proj")},
    "attention": {"attention_decoder.decoder": "decoder"},
}


def prefixes(model: nn.Module) -> dict[str, str]:
    """icefall's name of a part -> our prefix, for the parts that `model` (`steps.nets.model.Model`) has.

    Of several heads of a type, the one that is called like the type is meant; `UserError` if none is.
    """
    found = {part: f"encoder.{part}" for part in ENCODER}
    for kind, parts in HEADS.items():
        heads = [key for key, head in model.heads.items() if head.config.name == kind]
        if len(heads) > 1 and kind not in heads:
            raise UserError(f"Of the {kind} heads {', '.join(heads)}, call the one that icefall's is to be '{kind}'.")
        if heads:
            head = kind if kind in heads else heads[0]
            found |= {theirs: f"heads.{head}.{ours}" for theirs, ours in parts.items()}
    return found


def rename(state: dict[str, Tensor], names: dict[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """`state` with each key's first part (dots and all) replaced by `names`, and the keys that begin with none."""
    renamed, left = {}, []
    for key, value in state.items():
        prefix = next((name for name in names if key.startswith(name + ".")), None)
        if prefix is None:
            left.append(key)
        else:
            renamed[names[prefix] + key[len(prefix) :]] = value
    return renamed, left


def load_icefall(model: nn.Module, path: str | Path) -> str:
    """Load icefall's checkpoint at `path` into `model`; a sentence on what was loaded, left out, and not in the file.

    `UserError` if the file is no such checkpoint, or if its sizes are others than those of the model.
    """
    state = load_checkpoint(path)
    state = state.get("model", state)
    loaded, left = rename(state, prefixes(model))
    own = model.state_dict()
    left += [key for key in loaded if key not in own]
    loaded = {key: value for key, value in loaded.items() if key in own}
    if not loaded:
        raise UserError(
            f"{path} holds nothing of icefall's zipformer: give a .pt file with encoder_embed.*, encoder.*."
        )
    for key, value in loaded.items():
        if not isinstance(value, Tensor) or value.shape != own[key].shape:
            found, wanted = tuple(getattr(value, "shape", ())), tuple(own[key].shape)
            raise UserError(
                f"{path}: {key} is {found} there and {wanted} here: set the sizes that it was trained with."
            )
    model.load_state_dict(loaded, strict=False)
    missing = [key for key in own if key not in loaded]
    sentence = f"{path}: {len(loaded)} tensors loaded"
    sentence += f", no place for {_summary(left)}" if left else ""
    return sentence + (f", not in it: {_summary(missing)}." if missing else ".")


def _summary(keys: Iterable[str]) -> str:
    """`encoder.encoders (12), joiner.output_linear (2)`."""
    counts = Counter(".".join(key.split(".")[:-1][:2]) for key in keys)
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def save_icefall(model: nn.Module, path: str | Path) -> None:
    """Write `model` as a checkpoint that icefall's zipformer recipe reads; parts that it does not know are left out."""
    names = {ours: theirs for theirs, ours in prefixes(model).items()}
    state, _ = rename(model.state_dict(), names)
    save_checkpoint(path, {"model": state})
