"""What a trainer learns from: utterances that can be aligned at every speed, and the largest batch."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from steps.prepare.cuts import Cuts
from steps.prepare.dataset import HeadTarget
from steps.prepare.feasible import feasible
from steps.training.config import TrainConfig
from steps.training.data import SpeechBatches
from utils.distributed import World
from utils.errors import UserError
from utils.options import check_config

FRAMES = 90  # of the utterance that has just as many tokens as encoder frames


class Tokens:
    """A stand-in tokenizer: every text has as many tokens, none of them twice."""

    def encode(self, text: str, language: str | None = None) -> list[int]:
        return list(range(1, FRAMES // 4 + 1))

    def prompt(self, tokens: str) -> list[int]:
        return [1, 2]


def make_batches(world, heads: dict | None = None, **data) -> SpeechBatches:
    heads = heads or {"ctc": {"target": "text", "lang": "unused"}}
    parts = dict.fromkeys(heads, SimpleNamespace(positions=None, speech_positions=None))
    model = SimpleNamespace(encoder=SimpleNamespace(output_lens=lambda lens: lens // 4), heads=parts)
    values = {
        "data": {"train": str(world.cuts), "valid": str(world.cuts), "max_duration": 4.0, **data},
        "encoder": {"name": "zipformer"},
        "heads": heads,
    }
    return SpeechBatches(check_config(values, TrainConfig, "test"), model, dict.fromkeys(heads, Tokens()), World())


def test_an_utterance_too_fast_to_be_aligned_is_dropped(world):
    cuts = Cuts.load(world.cuts)
    assert FRAMES in cuts.num_frames
    plain = make_batches(world)
    speed = {"factors": [1.1], "probability": 0.5}
    batches = make_batches(world, on_the_fly=True, augment={"speed": speed})
    assert sum(cuts.num_frames < FRAMES) == len(plain.dropped) == len(batches.dropped) - 1
    assert batches.valid_dropped == plain.valid_dropped == plain.dropped
    for epoch in range(3):
        for batch in batches.train(epoch, 0):
            assert (batch.feature_lens // 4 >= batch.targets["ctc"].lens).all()


def test_a_text_longer_than_a_decoder_takes_is_dropped(world):
    head = HeadTarget("text", Tokens(), aligned=False, prompt=lambda language: [1, 2], positions=24)
    cuts = Cuts.load(world.cuts)
    assert feasible(cuts, {"asr": head}, lambda lens: lens)[1] == []
    _, dropped, _ = feasible(cuts, {"asr": replace(head, positions=23)}, lambda lens: lens)
    assert [row["id"] for row in dropped] == cuts.ids
    found = {"reason": "text too long", "detail": "2 + 22 tokens for head 'asr', which takes 23"}
    assert dropped[0] == {"id": cuts.ids[0], **found}
    spoken = replace(head, speech=lambda frames: frames // 10)  # a language model's positions are also the speech's
    row = feasible(cuts, {"asr": spoken}, lambda lens: lens)[1][0]
    assert re.fullmatch(r"2 \+ 22 tokens and \d+ of speech for head 'asr', which takes 24", row["detail"])


def test_a_head_must_have_a_target_somewhere(world):
    def heads(target: str) -> dict:
        return {"ctc": {"target": "text", "lang": "x"}, "st": {"name": "ctc", "target": target, "lang": "x"}}

    batches, cuts = make_batches(world, heads("translation.fr")), Cuts.load(world.cuts)
    dropped = {row["id"] for row in batches.dropped}
    kept = [cut.supervisions[0] for cut in cuts if cut.id not in dropped]
    without = sum("fr" not in supervision.custom["translation"] for supervision in kept)
    assert 0 < without < len(kept)
    assert batches.summary()[1] == f"heads.st: {without} utterances have no translation.fr"
    found = r"translation\.ru: there are text translation\.en translation\.fr translation\.it\."
    with pytest.raises(UserError, match=rf"heads\.st: no utterance of {world.cuts} has the target {found}"):
        make_batches(world, heads("translation.ru"))


@pytest.mark.parametrize(("factors", "longer"), [([0.9, 1.1], 1 / 0.9), ([1.0, 1.2], 1.0)])
def test_the_largest_batch_is_the_slowest(world, factors, longer):
    batches = make_batches(world, on_the_fly=True, augment={"speed": {"factors": factors}})
    assert batches.worst().frames == pytest.approx(make_batches(world).worst().frames * longer, rel=0.01)
    assert batches.sample().frames > 0
