"""Lang folders (stage 3) and graph folders (stage 4): as Kaldi's validate_lang.pl, and more."""

from __future__ import annotations

from pathlib import Path

import torch

from steps.lang.graph import load_graph
from steps.lang.lexicon import BACKOFF, disambiguated
from steps.lang.openfst import GRAPHS, read_fst
from steps.lang.tables import BLANK, UNKNOWN_WORD, read_table, read_tokens
from steps.lang.tokenizer import Tokenizer
from steps.objectives.backend import have_k2
from steps.prepare.checks.faults import Faults, Kind
from utils.errors import UserError
from utils.files import read_json, read_lines, require

AGAIN = "make the folder again (steps.lang.prepare, or steps.lang.graph for graphs)"
LAST = ["#0", "<s>", "</s>"]
EMPTY = Kind("entries", "have no tokens", AGAIN)
TWICE = Kind("entries", "are there twice", AGAIN)
WORD = Kind("entries", "have a word that words.txt lacks", AGAIN)
TOKEN = Kind("entries", "have a token that tokens.txt lacks, or the blank", AGAIN)
UNSPELLED = Kind("words", "have no entry in lexicon.txt, so they cannot be recognised", AGAIN)


def check_lang(folder: Path, faults: Faults) -> None:
    """All checks of one folder, ours or icefall's; graphs of k2 are read where k2 is there."""
    require(folder, "stage 3 (lang)")
    tokens = words = None
    if (folder / "graph.json").exists() and not (folder / "tokens.txt").exists():  # G alone, to rescore with
        words = check_words(folder / "words.txt")
        check_files(folder, [], words, faults)
        print(f"{folder}: {len(words)} words, G alone")
        return
    with faults.caught():
        tokens = check_tokens(folder)
    with faults.caught():
        words = check_words(folder / "words.txt")
    entries: list[tuple[str, tuple[str, ...]]] = []
    with faults.caught():
        entries = check_lexicon(folder, tokens, words, faults)
    with faults.caught():
        Tokenizer.load(folder)  # bpe.model, lang.json and tokenizer.json beside tokens.txt
    if tokens and words:
        check_graphs(folder, tokens, words, entries, faults)
        print(f"{folder}: {len(read_tokens(folder / 'tokens.txt'))} tokens, {len(words)} words, {len(entries)} entries")


def check_tokens(folder: Path) -> list[str]:
    """tokens.txt by id, disambiguation symbols included: these count from #0 on, and are last."""
    path = folder / "tokens.txt"
    table, tokens = read_table(path), read_tokens(path)
    symbols, wanted = table[len(tokens) :], [f"#{number}" for number in range(len(table) - len(tokens))]
    if symbols != wanted:
        raise UserError(f"{path} must end with {' '.join(wanted)}, in this order, found {' '.join(symbols)}: {AGAIN}.")
    about = folder / "lang.json"
    if about.exists() and (size := read_json(about).get("vocab_size", len(tokens))) != len(tokens):
        raise UserError(f"{path} has {len(tokens)} tokens, lang.json says {size}: {AGAIN}.")
    return table


def check_words(path: Path) -> list[str]:
    """words.txt by id: <eps> first, <UNK> somewhere, then #0, <s>, </s> (as in Kaldi; graphs count on the end)."""
    words = read_table(path)
    if words[0] != "<eps>":
        raise UserError(f"{path} must begin with <eps> 0, found {words[0]}: {AGAIN}.")
    if words[-3:] != LAST:
        raise UserError(f"{path} must end with {' '.join(LAST)}, found {' '.join(words[-3:])}: {AGAIN}.")
    if UNKNOWN_WORD not in words:
        raise UserError(f"{path} lacks {UNKNOWN_WORD}, which stands for words that it does not have: {AGAIN}.")
    return words


def check_lexicon(folder: Path, tokens: list[str] | None, words: list[str] | None, faults: Faults) -> list:
    """The entries of lexicon.txt that are as they should be; without `tokens` or `words` they are not compared."""
    path, entries, spelled = folder / "lexicon.txt", {}, set()
    token_set, word_set = set(tokens or ()) - {BLANK}, set(words or ())
    lines = [line.split() for line in read_lines(path) if line.strip()]
    for word, *pieces in lines:
        spelled.add(word)
        wrong = [
            (EMPTY, not pieces),
            (TWICE, (word, tuple(pieces)) in entries),
            (WORD, words and word not in word_set),
            (TOKEN, tokens and not token_set.issuperset(pieces)),
        ]
        for kind in (kind for kind, holds in wrong if holds):
            lacking = next((piece for piece in pieces if piece not in token_set), "")
            faults.add(path, kind, word, lacking if kind is TOKEN else "")
        if pieces:
            entries[word, tuple(pieces)] = None
    faults.total(path, "entries", len(lines))
    for word in sorted(word_set - spelled - {"<eps>", *LAST}) if words else ():
        faults.add(folder / "words.txt", UNSPELLED, word)
    return list(entries)


def check_graphs(folder: Path, tokens: list[str], words: list[str], entries: list, faults: Faults) -> None:
    """The graphs of a folder that has any, against its tables and its lexicon."""
    if not any((folder / f"{name}.{kind}").exists() for name in GRAPHS for kind in ("pt", "fst")):
        return
    with faults.caught():
        check_symbols(folder, tokens, entries)
    check_files(folder, tokens, words, faults)


def check_files(folder: Path, tokens: list[str], words: list[str], faults: Faults) -> None:
    """Every graph that is there: it can be read, has arcs, and its labels are in the tables."""
    real = len(read_tokens(folder / "tokens.txt")) if tokens else 0
    for file in (file for name in GRAPHS for file in folder.glob(f"{name}.*")):
        with faults.caught():
            if file.suffix == ".fst":
                read_fst(folder, file.stem)
            elif have_k2():
                check_labels(file, tokens, words, real)
            else:
                print(f"{file}: not read, as k2 is not here")


def check_symbols(folder: Path, tokens: list[str], entries: list) -> None:
    """The disambiguation symbols that the lexicon needs are there, graph.json's files and its lang folder's tokens."""
    highest = disambiguated(entries)[1]
    if f"#{highest}" not in tokens or BACKOFF not in tokens:
        raise UserError(f"{folder / 'tokens.txt'} lacks #{highest}, which lexicon.txt needs: {AGAIN}.")
    if not (folder / "graph.json").exists():
        return
    about = read_json(folder / "graph.json")
    for name in about["arcs"]:
        require(folder / (name if name.endswith(".fst") else f"{name}.pt"), "stage 4 (steps.lang.graph)")
    lang = Path(about["lang"]) / "tokens.txt"
    if lang.exists() and read_tokens(lang) != read_tokens(folder / "tokens.txt"):
        raise UserError(f"{folder} was made of other tokens than {lang} has now: make it again (stage 4).")


def check_labels(file: Path, tokens: list[str], words: list[str], real: int) -> None:
    """`UserError` where a graph of k2 has no arcs or a label beyond its table; `real` tokens are no symbols."""
    graph = load_graph(file.parent, file.stem)
    if not graph.num_arcs:
        raise UserError(f"{file} has no arcs: {AGAIN}.")
    limits = {"L_disambig": len(tokens), "G": len(words)}
    read, limit = int(graph.labels.max()), limits.get(file.stem, real)
    if read >= limit:
        raise UserError(f"{file} reads label {read}, of {limit} there are: {AGAIN}.")
    if hasattr(graph, "aux_labels"):
        ragged = not isinstance(graph.aux_labels, torch.Tensor)  # several words an arc
        written = graph.aux_labels.values if ragged else graph.aux_labels
        if len(written) and int(written.max()) >= len(words):
            raise UserError(f"{file} writes word {int(written.max())}, words.txt has {len(words)}: {AGAIN}.")
