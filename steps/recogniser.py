"""A model folder ready to recognise: features in, hypotheses and texts out. What decode and transcribe share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steps.lang.graph import load_graph
from steps.lang.tables import read_table, read_tokens
from steps.model_folder import load_model, load_model_config
from steps.nets.pretrained_parts import parameter_counts
from steps.nets.speech import Encoded
from steps.prepare.config import FeatureConfig
from steps.prepare.dataset import pad_prompts
from steps.search.hypothesis import Hypothesis
from steps.search.lattice import DecodingGraph
from steps.search.methods import METHODS, Search, Spoken, plan_searches
from steps.training.data import head_prompt
from utils.devices import PRECISIONS, autocast, choose_device, inference_precision, is_out_of_memory
from utils.errors import UserError
from utils.files import require
from utils.fingerprint import digest
from utils.options import Parser, count, load_config, natural, positive, share


class Recogniser:
    """A model with the searches to run on it.

    `names` are `<head>:<method>` (none: every method of every head), `options` the searches' options that were given.
    Errors: `UserError` for what is missing, damaged or misspelt; the searches are checked before the model is loaded.
    """

    def __init__(
        self,
        folder: str | Path,
        names: Sequence[str] = (),
        options: dict[str, Any] | None = None,
        checkpoint: str = "averaged.pt",
        device: str = "auto",
        precision: str = "float32",
    ) -> None:
        self.folder, self.checkpoint = Path(folder), checkpoint
        self.device = choose_device(device)
        self.precision = inference_precision(precision, self.device)
        heads = {key: head.name for key, head in load_model_config(folder).heads.items()}
        self.searches = plan_searches(names, heads, options or {}, str(folder))
        self.model, self.tokenizers, self.config = load_model(folder, checkpoint, self.device)
        self._check_finite()
        self.seconds_per_frame = self.features.frame_shift * self.model.encoder.subsampling_factor
        self._check_tokens()
        folders = {graph for search in self.searches if (graph := search.options.get("graph"))}
        self.graphs = {
            folder: DecodingGraph(load_graph(folder, device=self.device), read_table(Path(folder) / "words.txt"))
            for folder in folders
        }
        if not self.model.encoder.bounds_text:
            for search in self.searches:
                if "max_length_ratio" in search.options:
                    search.options["max_length_ratio"] = float(search.options["max_tokens"])
        # what a search is told of an utterance before its first token
        self.prompt_of = {
            search.head: prompt
            for search in self.searches
            if (prompt := head_prompt(self.config.heads[search.head], self.tokenizers[search.head])) is not None
        }

    def _check_tokens(self) -> None:
        for search in self.searches:
            ctc = search.options.get("ctc_head")
            if ctc and self.tokenizers[ctc].tokens != self.tokenizers[search.head].tokens:
                raise UserError(f"--ctc-head {ctc} has other tokens than {search.head}: give one that shares them.")
            graph = search.options.get("graph")
            if graph and read_tokens(Path(graph) / "tokens.txt") != self.tokenizers[search.head].tokens:
                raise UserError(f"--graph {graph} has other tokens than {search.head}: make it of that lang folder.")

    def _check_finite(self) -> None:
        for name, value in self.model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise UserError(
                    f"{self.folder / self.checkpoint} holds values that are not finite ({name}): its training "
                    "diverged; give an older --checkpoint or train again with a lower learning rate."
                )

    @cached_property
    def digest(self) -> str:
        """Of the checkpoint's content."""
        file = self.folder / self.checkpoint
        file = file if file.exists() else Path(self.checkpoint)
        return digest(str(file), file.stat().st_size)

    @property
    def features(self) -> FeatureConfig:
        """What the model's features are made of; `UserError` where the folder does not say."""
        return load_config(require(self.folder / "features.yaml", "stage 5 (training)"), FeatureConfig)

    def target(self, search: Search) -> str:
        """What the search's head writes: `text` or `translation.<language>`."""
        return self.config.heads[search.head].target

    def parameters(self, search: Search) -> int:
        """Number of parameters that the search uses: the encoder's (also a frozen one's, of features), its head's."""
        counts, head = parameter_counts(self.model), self.config.heads[search.head]
        return (
            counts.get("features", 0)
            + counts["encoder"]
            + counts[f"heads.{getattr(head, 'share', None) or search.head}"]
        )

    def encode(self, features: Tensor, lens: Tensor) -> tuple[Encoded, float]:
        """Encoder output `(N, T', D)` and its lengths for features `(N, T, F)`, and the seconds that it took."""
        return self._timed(lambda: self.model.encode(features.to(self.device), lens.to(self.device)))

    def search(
        self, search: Search, encoded: Encoded, prompts: Tensor | None = None
    ) -> tuple[list[list[Hypothesis]], float]:
        """The hypotheses of each utterance, and the seconds that it took; `prompts (N, P)` where the head has them."""
        return self._timed(lambda: search(Spoken(self.model.heads, encoded, prompts, self.graphs)))

    def prompts(self, search: Search, languages: Sequence[str | None]) -> Tensor | None:
        """The prompts `(N, P)` of utterances in these languages, None where the head has none."""
        prompt = self.prompt_of.get(search.head)
        return prompt and pad_prompts([prompt(language) for language in languages])

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                result = call()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise UserError(f"Out of memory on {self.device}: give a smaller --max-duration.") from None
            raise
        return result, time.perf_counter() - started

    def text(self, search: Search, hypothesis: Hypothesis) -> str:
        """The text of a hypothesis."""
        if hypothesis.words is not None:
            return " ".join(hypothesis.words)
        return self.tokenizers[search.head].decode(hypothesis.tokens)

    def tokens(self, search: Search, hypothesis: Hypothesis, offset: float = 0.0) -> list[list]:
        """`[token, start in seconds, log probability]` of each token; `offset` seconds are added."""
        tokenizer, shift = self.tokenizers[search.head], self.seconds_per_frame
        columns = zip(hypothesis.tokens, hypothesis.frames, hypothesis.token_scores, strict=True)
        return [[tokenizer.token(i), round(offset + t * shift, 3), round(s, 4)] for i, t, s in columns]


def add_arguments(parser: Parser, files_follow: bool = False) -> None:
    """The options of the command lines that use a `Recogniser`.

    Where files follow the options, every search has a `--search` of its own: it must not take a file for another one.
    """
    parser.add_argument("--model", required=True, help="model folder, exp/<model>")
    parser.add_argument("--checkpoint", default="averaged.pt", help="a file of the model folder, such as epoch-3.pt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number>")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--max-duration", type=positive, default=200.0, help="seconds a batch, padding included")
    group = parser.add_argument_group("searches", "each method has its own options; what is not given is its default")
    group.add_argument(
        "--search",
        action="extend",
        nargs=1 if files_follow else "+",
        default=[],
        metavar="HEAD:METHOD",
        help="such as transducer:modified_beam; may be given several times",
    )
    unset = {"default": argparse.SUPPRESS}
    group.add_argument("--beam", type=count, **unset, help="hypotheses kept by prefix_beam and modified_beam (4)")
    group.add_argument("--max-symbols", type=count, **unset, help="tokens a frame of a transducer's greedy search (1)")
    group.add_argument("--blank-penalty", type=float, **unset, help="taken off a transducer's blank logit (0)")
    group.add_argument("--temperature", type=positive, **unset, help="of modified_beam's softmax (1)")
    group.add_argument(
        "--length-penalty", type=float, **unset, help="beam of attention and llm: power of the length (1)"
    )
    group.add_argument("--min-tokens", type=natural, **unset, help="beam of attention and llm: shortest text (0)")
    group.add_argument("--max-tokens", type=count, **unset, help="attention and llm: longest text (200)")
    group.add_argument(
        "--max-length-ratio", type=positive, **unset, help="attention and llm: longest text, per frame (1)"
    )
    group.add_argument(
        "--no-repeat-ngram", type=natural, **unset, help="beam of attention and llm: no so many tokens twice (0)"
    )
    group.add_argument("--ctc-head", **unset, metavar="HEAD", help="beam of attention and llm: CTC head to score with")
    group.add_argument(
        "--ctc-weight", type=share, **unset, help="beam of attention and llm: its share of the score (0.3)"
    )
    group.add_argument("--graph", **unset, metavar="FOLDER", help="hlg: what steps.lang.graph wrote")
    group.add_argument("--lm-scale", type=positive, **unset, help="hlg: factor of the language model's scores (1)")
    group.add_argument("--search-beam", type=positive, **unset, help="hlg: nats below the best, while searching (20)")
    group.add_argument("--output-beam", type=positive, **unset, help="hlg: nats below the best, in the lattice (8)")
    group.add_argument("--max-active", type=count, **unset, help="hlg: states kept a frame (10000)")
    group.add_argument(
        "--no-length-norm", dest="length_norm", action="store_false", **unset, help="modified_beam: rank by total score"
    )


def search_options(args: argparse.Namespace) -> dict[str, Any]:
    """The searches' options that were given."""
    names = {name for methods in METHODS.values() for method in methods.values() for name in method.options}
    return {name: getattr(args, name) for name in names if hasattr(args, name)}
