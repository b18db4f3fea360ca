"""Faults of lang folders and of graphs, with Kaldi's rules for words.txt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steps.lang.graph import main as graph
from steps.lang.prepare import prepare
from steps.lm.ngram import main as ngram
from steps.objectives.backend import have_k2
from utils.files import read_json, write_json

SENTENCES = ["désolé cette extension n'est pas valide", "veuillez laisser votre message", "vous n'avez pas de message"]
ABOUT = {"targets": ["text"], "tags": False, "same_language": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Lang folders of characters and of BPE, and graphs of the first one's lexicon."""
    root = tmp_path_factory.mktemp("lang")
    prepare({"fr": SENTENCES}, root / "char", "char", ABOUT, 0, "")
    prepare({"fr": SENTENCES}, root / "bpe", "bpe", ABOUT, 30, "unigram")
    spelled = ["--lexicon", str(root / "char/lexicon.txt"), "--lang", str(root / "char")]
    assert graph([*spelled, "--openfst", "--out", str(root / "graph")]) == 0
    return root


@pytest.fixture
def lang(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "lang")
    return tmp_path / "lang"


def test_folders_without_faults(made, validate):
    status, lines, out = validate("--lang", made / "char", made / "bpe", made / "graph")
    assert (status, lines) == (0, []) and out.count(" tokens, ") == 3


def test_a_grammar_alone(lang, validate, capsys):
    (lang / "text").write_text("\n".join(SENTENCES))
    model = ["--order", "2", "--backend", "numpy", "--text", str(lang / "text"), "--out", str(lang / "lm.arpa")]
    assert ngram(["train", *model]) == 0
    folders = ["--lang", str(lang / "char"), "--out", str(lang / "g")]
    assert graph([*folders, "--lm", str(lang / "lm.arpa"), "--only-g"]) == 0
    capsys.readouterr()
    assert validate("--lang", lang / "g")[:2] == (0, [])
    edited(lang / "g/words.txt", "<eps> 0", "<e> 0")
    assert "must begin with <eps> 0" in validate("--lang", lang / "g")[1][0]


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


CHAR = {  # file, what is replaced, by what: what is said
    "gap": ("tokens.txt", "▁ 3", "▁ 300", "tokens.txt: id 3 is missing"),
    "token twice": ("tokens.txt", "▁ 3", "a 3", "is there twice"),
    "blank": ("tokens.txt", "<blk> 0", "<pad> 0", "must begin with <blk> 0, <sos/eos> 1, <unk> 2"),
    "fields": ("tokens.txt", "▁ 3", "▁\u00a0▁ 3", "expected 'symbol id'"),
    "size": ("lang.json", '"vocab_size": ', '"vocab_size": 1', "tokens, lang.json says 1"),
    "epsilon": ("words.txt", "<eps> 0", "<e> 0", "must begin with <eps> 0, found <e>"),
    "end": ("words.txt", "</s>", "</S>", "must end with #0 <s> </s>, found #0 <s> </S>"),
    "unknown": ("words.txt", "<UNK>", "<OOV>", "lacks <UNK>"),
    "no tokens": ("lexicon.txt", "de ▁ d e\n", "de\nde ▁ d e\n", "entries have no tokens (de)"),
    "twice": ("lexicon.txt", "de ▁ d e\n", "de ▁ d e\nde ▁ d e\n", "entries are there twice (de)"),
    "word": ("lexicon.txt", "de ▁ d e\n", "de ▁ d e\ndu ▁ d e\n", "have a word that words.txt lacks (du)"),
    "token": (
        "lexicon.txt",
        "de ▁ d e\n",
        "de ▁ d e\nde Q\n",
        "token that tokens.txt lacks, or the blank (de; de: Q)",
    ),
    "unspelled": ("lexicon.txt", "de ▁ d e\n", "", "1 words have no entry in lexicon.txt"),
}


@pytest.mark.parametrize("name", CHAR)
def test_each_fault_is_one_sentence(lang, validate, name):
    file, old, new, sentence = CHAR[name]
    edited(lang / "char" / file, old, new)
    status, lines, _ = validate("--lang", lang / "char")
    assert status == 1 and len(lines) == 1, lines
    assert sentence in lines[0] and lines[0].startswith(f"error: {lang}/char/")


def test_pieces_of_the_model_are_the_tokens(lang, validate):
    shutil.copy(lang / "char/tokens.txt", lang / "bpe/tokens.txt")
    status, lines, _ = validate("--lang", lang / "bpe")
    assert status == 1 and any("have different tokens: make both again (stage 3)" in line for line in lines)
    (lang / "bpe/bpe.model").write_bytes(b"cut off")
    assert any("not a sentencepiece model" in line for line in validate("--lang", lang / "bpe")[1])


def last_token(folder: Path) -> tuple[str, int]:
    symbol, index = (folder / "tokens.txt").read_text("utf-8").split("\n")[-2].split()
    return symbol, int(index)


def test_disambiguation_symbols(lang, validate):
    symbol, index = last_token(lang / "graph")
    edited(lang / "graph/tokens.txt", f"{symbol} {index}\n", f"{symbol}7 {index}\n")
    status, lines, _ = validate("--lang", lang / "graph")
    assert status == 1 and "tokens.txt must end with #0" in lines[0]


def test_a_lexicon_that_needs_more_symbols_than_there_are(lang, validate):
    words = [line.split()[0] for line in (lang / "graph/words.txt").read_text("utf-8").splitlines()][2:-3]
    with open(lang / "graph/lexicon.txt", "a", encoding="utf-8") as lexicon:
        lexicon.writelines(f"{word} ▁ d e s\n" for word in words)
    _, lines, _ = validate("--lang", lang / "graph")
    assert any(f"lacks #{len(words)}, which lexicon.txt needs" in line for line in lines)


def test_graphs_of_other_tokens_or_cut_off(lang, validate):
    about = read_json(lang / "graph/graph.json")
    write_json(lang / "graph/graph.json", {**about, "lang": str(lang / "bpe")})
    assert "was made of other tokens than" in validate("--lang", lang / "graph")[1][0]
    write_json(lang / "graph/graph.json", about)
    (lang / "graph/G.fst").unlink()
    assert "G.fst does not exist: run stage 4" in validate("--lang", lang / "graph")[1][0]
    shutil.copy(lang / "graph/lexicon.txt", lang / "graph/G.fst")
    assert "is no graph of OpenFst" in validate("--lang", lang / "graph")[1][0]


@pytest.mark.k2
def test_labels_are_in_the_tables(lang, validate):
    import torch

    assert have_k2()
    whole = torch.load(lang / "graph/L.pt")
    whole["aux_labels"] = torch.where(whole["aux_labels"] > 0, whole["aux_labels"] + 1000, whole["aux_labels"])
    torch.save(whole, lang / "graph/L.pt")
    shutil.copy(lang / "graph/L_disambig.pt", lang / "graph/LG.pt")
    (lang / "graph/HLG.pt").write_bytes((lang / "graph/HLG.pt").read_bytes()[:300])
    status, lines, _ = validate("--lang", lang / "graph")
    assert status == 1 and len(lines) == 3
    assert "L.pt writes word 10" in lines[0]
    assert "LG.pt reads label" in lines[1] and "HLG.pt is no graph of k2" in lines[2]


@pytest.mark.skipif(have_k2(), reason="says that graphs are not read where there is no k2")
def test_without_k2_graphs_of_k2_are_not_read(lang, validate):
    (lang / "graph/HLG.pt").write_bytes(b"x")
    status, lines, out = validate("--lang", lang / "graph")
    assert (status, lines) == (0, []) and "HLG.pt: not read, as k2 is not here" in out


def test_no_folder(tmp_path, validate):
    status, lines, _ = validate("--lang", tmp_path / "nowhere")
    assert status == 1 and lines == [f"error: {tmp_path}/nowhere does not exist: run stage 3 (lang) first."]
