"""Which utterances a model can be trained on: those whose text it can align, or has room for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from steps.prepare.cuts import Cuts
from steps.prepare.dataset import HeadTarget, encode_target, prompt_tokens


def feasible(
    cuts: Cuts, heads: dict[str, HeadTarget], output_lens: Callable[[Tensor], Tensor], fastest: float = 1.0
) -> tuple[list[int], list[dict], dict[str, int]]:
    """Indices of cuts that can be trained on, rows {"id", "reason", "detail"} of those that cannot, and by head of how
    many of the former it has no target.

    `output_lens` maps feature lengths (cuts,) to encoder lengths. CTC needs a frame a token and one more between
    equal neighbours (Graves et al. 2006); the pruned transducer's lattice needs a frame a token; a decoder may have
    a limited number of positions. `fastest` is the largest speed factor of on-the-fly augmentation. Errors: `UserError`
    for a prompt that the token set lacks.
    """
    lens = output_lens(torch.from_numpy((cuts.num_frames / fastest).astype(np.int64))).tolist()
    keep, drop, lacking = [], [], dict.fromkeys(heads, 0)
    for index, cut in enumerate(cuts):
        supervision = cut.supervisions[0]
        tokens = {name: encode_target(supervision, head) for name, head in heads.items()}
        prompts = {name: len(prompt_tokens(head, supervision.language)) for name, head in heads.items()}
        problem = _problem(tokens, prompts, heads, lens[index])
        if problem is None:
            keep.append(index)
            for name, row in tokens.items():
                lacking[name] += row is None
        else:
            drop.append({"id": cut.id, **problem})
    return keep, drop, lacking


def _problem(
    tokens: dict[str, list[int] | None], prompts: dict[str, int], heads: dict[str, HeadTarget], frames: int
) -> dict | None:
    if all(row is None for row in tokens.values()):
        return {
            "reason": "no target",
            "detail": "no text for any of " + ", ".join(f"{h.target}" for h in heads.values()),
        }
    if frames < 1:
        return {"reason": "too short", "detail": "no encoder frame"}
    for name, row in tokens.items():
        repeats = sum(a == b for a, b in pairwise(row or [])) if heads[name].ctc else 0
        if row is not None and heads[name].aligned and len(row) + repeats > frames:
            found = f"{len(row)} tokens and {repeats} repeats of head '{name}' in {frames} encoder frames"
            return {"reason": "more tokens than frames", "detail": found}
        most = heads[name].positions
        speech = heads[name].speech(frames) if heads[name].speech else 0
        if row is not None and most is not None and prompts[name] + len(row) + speech > most:
            heard = f" and {speech} of speech" if speech else ""
            found = f"{prompts[name]} + {len(row)} tokens{heard} for head '{name}', which takes {most}"
            return {"reason": "text too long", "detail": found}
    return None
