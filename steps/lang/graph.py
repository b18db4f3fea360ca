"""Stage 4: decoding graphs of a lang folder and an n-gram model, for k2.

    python -m steps.lang.graph --lang data/lang_bpe_500 --lm data/lm/3gram.arpa.gz --out data/graph_bpe_3gram
    python -m steps.lang.graph --lang data/lang_phone --lm data/lm/3gram.arpa.gz --lexicon lexicon.txt --silence SIL \\
        --out data/graph_phone_3gram

The words are the language model's, each spelled as in the lexicon; without `--lexicon` the lang folder's tokenizer
spells them. Words that cannot be spelled are left out and listed (`--missing refuse`: end instead). What is written is
a lang folder as icefall's: `tokens.txt` and `words.txt` (disambiguation symbols at their ends), `lexicon.txt`, and
`L.pt`, `L_disambig.pt`, `G.pt`, `LG.pt`, `HLG.pt`; `graph.json` has the sizes and what was left out. `--openfst`, and
where there is no k2, writes `L.fst` ... `HLG.fst` of OpenFst, made by kaldifst: for `--search ctc:wfst`, kaldi-decoder
and sherpa, whose HLG reads tokens' ids plus one. Without `--lm` the words are the lexicon's, and G allows any sentence
of them: HLG is what others call HL. `--only-g` writes `words.txt` and G alone, for rescoring: the way to use a model
of which no HLG would fit in memory.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from steps.lang.arcs import FINAL, Arcs
from steps.lang.hlg import compose_hlg, compose_lg
from steps.lang.lexicon import BACKOFF, Entry, disambiguated, lexicon_graph, read_lexicon
from steps.lang.openfst import GRAPHS, compiled, compose_fsts, load_kaldifst, write_fst
from steps.lang.tables import UNK, UNKNOWN_WORD, word_table, write_lexicon, write_table
from steps.lang.tokenizer import Tokenizer
from steps.lm.arpa import read_arpa
from steps.lm.backoff import BOS, EOS, BackoffModel
from steps.lm.grammar import grammar
from steps.objectives.backend import have_k2, load_k2
from utils.devices import peak_memory_mb
from utils.errors import UserError, run
from utils.files import atomic_path, require, write_json
from utils.options import Parser, share

if TYPE_CHECKING:
    import k2

SHOWN = 10  # words that a message lists


def spell(words: Sequence[str], tokenizer: Tokenizer, lexicon: Sequence[Entry] | None) -> tuple[list[Entry], list[str]]:
    """Entries of `words`, from the lexicon if there is one, else by the tokenizer; the words that have none."""
    if lexicon is None:
        spelled = [(word, tuple(tokenizer.pieces(word))) for word in words if not tokenizer.unknown(word)]
        entries = [(word, pieces) for word, pieces in spelled if pieces]
        return entries, sorted(set(words) - {word for word, _ in entries})
    wanted = set(words)
    entries = [entry for entry in lexicon if entry[0] in wanted]
    return entries, sorted(wanted - {word for word, _ in entries})


def build(
    model: BackoffModel | None, tokenizer: Tokenizer, args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, list], list[str]]:
    """The graphs by file name (k2's, OpenFst's), the tables by name, and the words that were left out."""
    if args.only_g:
        words = word_table(word for word in model.words if word != UNK)  # as beside the other graphs
        g = grammar(model, words)[0]
        return {"G.pt": g.to_k2(acceptor=True)} if have_k2() else {"G.fst": compiled(g)}, {"words": words}, []
    spelled = read_lexicon(args.lexicon) if args.lexicon else None
    known = model.words if model else dict.fromkeys(word for word, _ in spelled or ())
    spoken = [word for word in known if word not in (BOS, EOS, UNK)]
    entries, missing = spell(spoken, tokenizer, spelled)
    if missing and (args.missing == "refuse" or not entries):
        listed = " ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
        where = args.lexicon or f"the tokens of {args.lang}"
        raise UserError(f"{where} cannot spell {len(missing)} of {len(spoken)} words of {args.lm}: {listed}.")
    words = word_table(word for word, _ in entries)
    entries = [*entries, (UNKNOWN_WORD, (UNK,))]  # icefall wants it spelled; no G has it
    told_apart, highest = disambiguated(entries)
    tokens = [*tokenizer.tokens, *(f"#{number}" for number in range(highest + 1))]
    silence = {"silence": args.silence, "silence_prob": args.silence_prob}
    plain = lexicon_graph(entries, tokens, words, **silence)
    lexicon = lexicon_graph(told_apart, tokens, words, **silence, loops=True)
    g, count, graphs = grammar(model, words)[0] if model else any_sentence(words), len(tokenizer.tokens), {}
    if have_k2():
        left, right = lexicon.to_k2(), g.to_k2(acceptor=True)
        lg = compose_lg(left, right, count, words.index(BACKOFF))
        found = (plain.to_k2(), left, right, lg, compose_hlg(lg, count, args.modified))
        graphs |= {f"{name}.pt": graph for name, graph in zip(GRAPHS, found, strict=True)}
    if args.openfst or not have_k2():
        found = (*map(compiled, (plain, lexicon, g)), *compose_fsts(lexicon, g, count, highest + 1, args.modified))
        graphs |= {f"{name}.fst": graph for name, graph in zip(GRAPHS, found, strict=True)}
    return graphs, {"tokens": tokens, "words": words, "lexicon": entries}, missing


def any_sentence(words: Sequence[str]) -> Arcs:
    """A G to which all sentences of the words (as `word_table` has them) are alike."""
    spoken = range(2, words.index(BACKOFF))
    return Arcs.of_rows([(0, 0, word, word, 0.0) for word in spoken] + [(0, 1, FINAL, FINAL, 0.0)]).sorted()


def _sizes(graph: Any) -> tuple[int, int]:
    """States and arcs."""
    if hasattr(graph, "shape"):
        return graph.shape[0], graph.num_arcs
    return graph.num_states, sum(graph.num_arcs(state) for state in range(graph.num_states))


def write(out: Path, graphs: dict[str, Any], tables: dict[str, list], about: dict) -> None:
    """The folder; `graph.json` is last, so that a folder that has it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "graph.json").unlink(missing_ok=True)
    for name in {"tokens", "words"} & tables.keys():
        write_table(out / f"{name}.txt", tables[name])
    if "lexicon" in tables:
        write_lexicon(out / "lexicon.txt", tables["lexicon"])
    for file, graph in graphs.items():
        if file.endswith(".fst"):
            write_fst(graph, out / file)
            continue
        with atomic_path(out / file) as temporary:
            torch.save(graph.as_dict(), temporary)
    write_json(out / "graph.json", about)


def load_graph(folder: str | Path, name: str = "HLG", device: torch.device | str = "cpu") -> k2.Fsa:
    """A graph that `steps.lang.graph`, or icefall, wrote; `UserError` where there is none or it is another's."""
    file = require(Path(folder) / f"{name}.pt", "stage 4 (language models)")
    try:
        saved = torch.load(file, map_location=device, weights_only=False)  # ragged labels are no tensors
        return load_k2().Fsa.from_dict(saved)
    except (RuntimeError, LookupError, AttributeError, EOFError, ValueError, TypeError, UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} is no graph of k2 ({reason}): make it again (stage 4).") from None


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.lang.graph", description=__doc__.splitlines()[0])
    parser.add_argument("--lang", type=Path, required=True, help="lang folder: the tokens")
    parser.add_argument("--lm", type=Path, help="ARPA file: the words, and how probable they are")
    parser.add_argument("--lexicon", type=Path, help="'word token token ...' a line; otherwise the tokenizer spells")
    parser.add_argument("--silence", help="token of silence, which may stand around every word")
    parser.add_argument("--silence-prob", type=share, default=0.5, help="of silence at each of these places")
    parser.add_argument(
        "--missing", choices=("leave-out", "refuse"), default="leave-out", help="words without spelling"
    )
    parser.add_argument("--modified", action="store_true", help="a repeated token needs no blank between (smaller)")
    parser.add_argument("--openfst", action="store_true", help="also write OpenFst's files")
    parser.add_argument("--only-g", action="store_true", help="write G alone, to rescore lattices with")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args(argv)
    if args.only_g and args.lm is None:
        raise UserError("--only-g needs --lm, the model that G is made of.")
    if args.lm is None and args.lexicon is None:
        raise UserError("Neither --lm nor --lexicon tells the words: give one of them, or both.")
    if args.openfst or not have_k2():
        load_kaldifst()
    started = time.perf_counter()
    graphs, tables, missing = build(read_arpa(args.lm) if args.lm else None, Tokenizer.load(args.lang), args)
    sizes = {file: _sizes(graph) for file, graph in graphs.items()}
    about = {
        "lang": str(args.lang),
        "lm": str(args.lm) if args.lm else None,
        "words": len(tables["words"]) - 5,
        "missing": missing,
        "states": {file.removesuffix(".pt"): states for file, (states, _) in sizes.items()},
        "arcs": {file.removesuffix(".pt"): arcs for file, (_, arcs) in sizes.items()},
        "modified": args.modified,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mb": peak_memory_mb(torch.device("cpu")),
    }
    write(args.out, graphs, tables, about)
    if missing:
        print(f"warning: {len(missing)} words have no spelling: {' '.join(missing[:SHOWN])}", file=sys.stderr)
    sizes = ", ".join(f"{name} {count}" for name, count in about["arcs"].items())
    print(f"{args.out}: {about['words']} words; arcs: {sizes}; {about['seconds']} s")
    return 0


if __name__ == "__main__":
    run(main)
