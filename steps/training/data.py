"""What a trainer learns from: cuts that can be aligned, as batches; and how large the largest of these is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

from steps.lang.prompts import REQUESTS, Request, TokenPrompt
from steps.lang.targets import parse_target, targets_of
from steps.lang.tokenizer import Tokenizer
from steps.nets.attention_head import AttentionConfig
from steps.nets.ctc_head import CtcConfig
from steps.nets.head import HeadConfig
from steps.nets.llm_head import LlmConfig
from steps.nets.model import Model
from steps.prepare.cuts import Cuts
from steps.prepare.dataset import Batch, Batches, HeadTarget, make_loader, speed_limits
from steps.prepare.feasible import feasible
from steps.prepare.sampler import BatchPlan
from steps.training.config import TrainConfig
from steps.training.step_size import StepSize
from utils.distributed import World
from utils.errors import UserError


class SpeechBatches:
    """Training and validation batches for the heads of a model.

    `dropped` lists the training utterances left out ({"id", "reason", "detail"}): those with fewer encoder frames than
    tokens (at the fastest speed that augmentation may choose), whose loss would be infinite, and those with no target
    at all. `total` is the seconds of the rest, `lacking` says of how many of them a head has no target. Errors:
    `UserError` for a head that has one of none.
    """

    unit, limit = TrainConfig.unit, TrainConfig.limit

    def __init__(self, config: TrainConfig, model: Model, tokenizers: dict[str, Tokenizer], world: World) -> None:
        self.data, self.world, self.source = config.data, world, config.data.train
        self.encoder = model.encoder
        self.heads = {
            name: replace(
                head_target(head, tokenizers[name]),
                positions=model.heads[name].positions,
                speech=model.heads[name].speech_positions,
            )
            for name, head in config.heads.items()
        }
        self.cuts, self.dropped, self.lacking = self._usable(config.data.train, speed_limits(config.data)[1])
        self._check_targets()
        self.valid_cuts, self.valid_dropped = None, []
        if config.data.valid:
            self.valid_cuts, self.valid_dropped, _ = self._usable(config.data.valid)
        self.total = float(self.cuts.durations.sum())
        self.resize(StepSize.of(config, world.size))

    def resize(self, step: StepSize) -> None:
        """Make steps and batches of this size from here on."""
        self.step, self.data = step, self.data.model_copy(update={"max_duration": step.most})
        ranks = {"rank": self.world.rank, "world_size": self.world.size}
        self.plan = make_loader(self.cuts, self.heads, self.data, **ranks).plan
        self.count = lru_cache(maxsize=4)(lambda epoch: len(self.plan.batches(epoch)))

    def _usable(self, path: str, fastest: float = 1.0) -> tuple[Cuts, list[dict], dict[str, int]]:
        cuts = Cuts.load(path)
        keep, dropped, lacking = feasible(cuts, self.heads, self.encoder.output_lens, fastest)
        if not keep:
            why = f"{dropped[0]['id']}: {dropped[0]['reason']} ({dropped[0]['detail']})"
            raise UserError(f"None of the {len(cuts)} utterances of {path} can be trained on; {why}.")
        return cuts.subset(keep) if dropped else cuts, dropped, lacking

    def _check_targets(self) -> None:
        for name, count in self.lacking.items():
            if count == len(self.cuts):
                there = sorted({target for cut in self.cuts for target in targets_of(cut.supervisions[0])})
                raise UserError(
                    f"heads.{name}: no utterance of {self.source} has the target {self.heads[name].target}: there are "
                    f"{' '.join(there)}."
                )

    def train(self, epoch: int, start: int) -> Iterable[Batch]:
        """This process's batches of an epoch, from `start` on."""
        return make_loader(self.cuts, self.heads, self.data, True, epoch, start, self.world.rank, self.world.size)

    def valid(self) -> Iterable[Batch]:
        """This process's share of the validation set, whole and unchanged."""
        share = self.valid_cuts and self.world.share(len(self.valid_cuts))
        if share is None:
            return ()
        return make_loader(self.valid_cuts, self.heads, self.data, False, rank=share[0], world_size=share[1])

    def frames(self, batch: Batch) -> int:
        """Encoder frames of a batch on the CPU."""
        return int(self.encoder.output_lens(batch.feature_lens).sum())

    def tokens(self, batch: Batch) -> dict[str, int]:
        """Numbers of tokens by head, of a batch on the CPU."""
        return {head: int(targets.lens.sum()) for head, targets in batch.targets.items()}

    def worst(self) -> Batch:
        """The largest batch that training can bring, with augmentation."""
        return self._batches().largest(self.plan.worst_batch())

    def sample(self, seconds: float = 20.0) -> Batch:
        """A small batch of utterances of middling length, about `seconds` long."""
        middle = self.plan.order[len(self.plan.order) // 2 :]
        count = int((self.cuts.durations[middle].cumsum() <= seconds).sum())
        return self._batches().make([int(index) for index in middle[: max(count, 1)]], 0)

    def size(self, batch: Batch) -> str:
        """How large a batch is, in words."""
        return f"{len(batch)} utterances of at most {float(batch.durations.max()):.1f} s"

    def summary(self) -> list[str]:
        """Sentences for the log on what there is."""
        said = [f"{self.total / 3600:.2f} hours, {len(self.cuts)} utterances"]
        for name, count in self.lacking.items():
            if count:
                said.append(f"heads.{name}: {count} utterances have no {self.heads[name].target}")
        if self.valid_dropped:
            said.append(f"validation leaves out {len(self.valid_dropped)} utterances that cannot be aligned")
        return said

    def amounts(self, seen: float) -> dict[str, float]:
        """What train.json says of the data; `seen` is in seconds."""
        return {"data_hours": round(self.total / 3600, 4), "speech_hours_seen": round(seen / 3600, 4)}

    def _batches(self) -> Batches:
        """Any batch of the first epoch, for which no order of batches is needed."""
        plan = BatchPlan(self.cuts.durations[:1], self.data.max_duration)
        return Batches(self.cuts, self.heads, self.data, plan, 0, True)

    def fingerprint(self) -> str:
        """Changes when the utterances, their lengths or their order change."""
        digest = hashlib.sha256("\n".join(self.cuts.ids).encode())
        digest.update(self.cuts.durations.tobytes())
        return digest.hexdigest()[:16]


def head_target(head: HeadConfig, tokenizer: Tokenizer) -> HeadTarget:
    """What `head` learns, with its tokens, as batches are made of it."""
    aligned = not isinstance(head, (AttentionConfig, LlmConfig))
    ctc = isinstance(head, CtcConfig)
    views = 2 if ctc and head.consistency else 1
    prompt = head_prompt(head, tokenizer)
    return HeadTarget(head.target, tokenizer, head.same_language, aligned, ctc, prompt, views=views)


def head_prompt(head: HeadConfig, tokenizer: Tokenizer) -> Callable[[str | None], list[int]] | None:
    """What `head` is given before the first token of a text, by the language of the speech; None: nothing."""
    target = parse_target(head.target)
    if isinstance(head, AttentionConfig):
        return TokenPrompt(tokenizer, head.prompt, target)
    if isinstance(head, LlmConfig):
        template = head.prompt or REQUESTS["text" if target is None else "translation"]
        return Request(tokenizer, template, target, head.chat, head.system, head.names)
    return None
