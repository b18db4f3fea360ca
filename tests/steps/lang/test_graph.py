"""Decoding graphs from a lang folder and an ARPA file: the folder, words without spelling, mistakes."""

from __future__ import annotations

import kaldifst
import pytest
import torch

from steps.lang.graph import load_graph, main, spell
from steps.lang.openfst import read_fst
from steps.lang.prepare import prepare
from steps.lang.tables import read_table, read_tokens
from steps.lang.tokenizer import Tokenizer
from steps.lm.ngram import main as ngram
from steps.search_files import LOADERS
from tests.steps.lang.conftest import SENTENCES
from utils.errors import UserError
from utils.files import read_json

ABOUT = {"targets": ["text"], "tags": False, "same_language": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with lang folders of characters and of BPE, and a bigram model of the same French sentences."""
    folder = tmp_path_factory.mktemp("graph")
    prepare({"fr": SENTENCES["fr"]}, folder / "char", "char", ABOUT, 0, "")
    prepare({"fr": SENTENCES["fr"]}, folder / "bpe", "bpe", ABOUT, 45, "unigram")
    (folder / "text").write_text("\n".join(SENTENCES["fr"]))
    train = ["train", "--backend", "numpy", "--order", "2"]
    assert ngram([*train, "--text", str(folder / "text"), "--out", str(folder / "lm.arpa")]) == 0
    (folder / "more").write_text("\n".join([*SENTENCES["fr"], "un œuf", "80 %"]))
    assert ngram([*train, "--text", str(folder / "more"), "--out", str(folder / "more.arpa")]) == 0
    return folder


def options(world, out, *more: str, lang: str = "char", lm: str = "lm.arpa") -> list[str]:
    return ["--lang", str(world / lang), "--lm", str(world / lm), "--out", str(out), *more]


@pytest.mark.k2
@pytest.mark.parametrize("lang", ["char", "bpe"])
def test_the_folder_is_a_lang_folder_with_graphs(world, tmp_path, lang):
    assert main(options(world, tmp_path / "g", lang=lang)) == 0
    about, tokens = read_json(tmp_path / "g/graph.json"), read_tokens(world / lang / "tokens.txt")
    assert read_tokens(tmp_path / "g/tokens.txt") == tokens and read_table(tmp_path / "g/tokens.txt")[-1].startswith(
        "#"
    )
    words = read_table(tmp_path / "g/words.txt")
    assert words[-3:] == ["#0", "<s>", "</s>"] and about["words"] == len(
        {w for s in SENTENCES["fr"] for w in s.split()}
    )
    spelled = [line.split() for line in (tmp_path / "g/lexicon.txt").read_text("utf-8").splitlines()]
    # icefall's UniqLexicon wants every word spelled, its validate_bpe_lexicon.py with tokens only; Kaldi's, these ids
    assert sorted(words) == sorted([*(entry[0] for entry in spelled), "<eps>", "#0", "<s>", "</s>"])
    assert words[0] == "<eps>" and {token for entry in spelled for token in entry[1:]} <= set(tokens[1:])
    for name in ("L", "L_disambig", "G", "LG", "HLG"):
        graph = load_graph(tmp_path / "g", name)
        assert (graph.shape[0], graph.num_arcs) == (about["states"][name], about["arcs"][name])
    hlg = load_graph(tmp_path / "g")
    assert set(hlg.labels.unique().tolist()) <= {-1, *range(len(tokens))} and hlg.tokens.max() < len(tokens)
    assert main(options(world, tmp_path / "m", "--modified", lang=lang)) == 0
    assert read_json(tmp_path / "m/graph.json")["arcs"]["HLG"] < about["arcs"]["HLG"]


@pytest.mark.parametrize("without", [True, pytest.param(False, marks=pytest.mark.k2)], ids=["without k2", "k2"])
def test_openfst(world, tmp_path, without, monkeypatch):
    """Its files are Kaldi's by name; without k2 there are no others."""
    if without:
        monkeypatch.setattr("steps.lang.graph.have_k2", lambda: False)
    assert main(options(world, tmp_path / "g", *(() if without else ("--openfst",)))) == 0
    about, names = read_json(tmp_path / "g/graph.json"), ("L", "L_disambig", "G", "LG", "HLG")
    assert {path.stem for path in (tmp_path / "g").glob("*.pt")} == (set() if without else set(names))
    tokens, words = read_table(tmp_path / "g/tokens.txt"), read_table(tmp_path / "g/words.txt")
    plain = len(read_tokens(tmp_path / "g/tokens.txt"))
    highest = {"L": plain, "L_disambig": len(tokens), "G": len(words), "LG": len(tokens), "HLG": plain + 1}
    for name in names:
        fst = read_fst(tmp_path / "g", name)
        arcs = [arc for state in kaldifst.StateIterator(fst) for arc in kaldifst.ArcIterator(fst, state)]
        assert (fst.num_states, len(arcs)) == (about["states"][f"{name}.fst"], about["arcs"][f"{name}.fst"])
        assert 0 < max(arc.ilabel for arc in arcs) < highest[name]
        written = {arc.olabel for arc in arcs}
        assert words.index("#0") in written if name == "L_disambig" else max(written) < words.index("#0")
    (tmp_path / "g/HLG.fst").write_bytes(b"half")
    with pytest.raises(UserError, match=r"HLG\.fst is no graph of OpenFst: make it again"):
        read_fst(tmp_path / "g")


@pytest.mark.k2
def test_words_that_cannot_be_spelled(world, tmp_path, capsys):
    more = options(world, tmp_path / "g", lm="more.arpa")
    assert main(more) == 0
    assert read_json(tmp_path / "g/graph.json")["missing"] == ["%", "80", "œuf"]
    assert "3 words have no spelling: % 80 œuf" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"the tokens of .*char cannot spell 3 of \d+ words of .*: % 80 œuf\."):
        main([*more, "--missing", "refuse"])


def test_a_word_of_no_tokens_has_no_spelling(world):
    """A model of tokens given for one of words: the mark of words' beginnings is none."""
    assert spell(["un", "▁"], Tokenizer.load(world / "char"), None) == ([("un", ("▁", "u", "n"))], ["▁"])


@pytest.mark.k2
def test_a_lexicon_of_ones_own(world, tmp_path):
    (tmp_path / "lexicon.txt").write_text("le ▁ l e\nle ▁ l\nbip ▁ b i p\nnowhere ▁ n\n")
    lexicon = ("--lexicon", str(tmp_path / "lexicon.txt"))
    assert main(options(world, tmp_path / "g", *lexicon)) == 0
    assert (tmp_path / "g/lexicon.txt").read_text() == "le ▁ l e\nle ▁ l\nbip ▁ b i p\n<UNK> <unk>\n"
    assert main(options(world, tmp_path / "s", *lexicon, "--silence", "▁")) == 0
    silent, plain = (read_json(tmp_path / name / "graph.json")["arcs"] for name in ("s", "g"))
    assert silent["L"] == plain["L"] + 3 + 4  # two beginnings, the pause, and each entry's second end


@pytest.mark.k2
def test_words_without_a_language_model(world, tmp_path):
    (tmp_path / "lexicon.txt").write_text("le ▁ l e\nbip ▁ b i p\nle ▁ l\n")
    lexicon = ["--lang", str(world / "char"), "--lexicon", str(tmp_path / "lexicon.txt")]
    assert main([*lexicon, "--out", str(tmp_path / "g")]) == 0
    assert read_table(tmp_path / "g/words.txt")[2:4] == ["bip", "le"]
    assert float(load_graph(tmp_path / "g").scores.abs().max()) == 0.0 and load_graph(tmp_path / "g", "G").num_arcs == 3


def test_words_must_come_from_somewhere(world, tmp_path):
    with pytest.raises(UserError, match="Neither --lm nor --lexicon tells the words: give one of them, or both"):
        main(["--lang", str(world / "char"), "--out", str(tmp_path / "g")])


@pytest.mark.k2
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--silence", "SIL"], "The tokens lack 'SIL'"),
        (["--lexicon", "EMPTY"], "empty is empty: give 'word token token"),
        (["--lexicon", "OTHER"], r"other cannot spell 28 of 28 words"),
        (["--lexicon", "WRONG"], r"The lexicon spells 'le' with 'q9', which is no token"),
        (["--lang", "NOWHERE"], r"nowhere"),
    ],
)
def test_mistakes_are_one_sentence(world, tmp_path, more, sentence):
    for name, text in (("empty", ""), ("other", "walrus w\n"), ("wrong", "le q9\n")):
        (tmp_path / name).write_text(text)
    more = [str(tmp_path / word.lower()) if word.isupper() and word != "SIL" else word for word in more]
    with pytest.raises(UserError, match=sentence):
        main(options(world, tmp_path / "g", *more))
    assert not (tmp_path / "g").exists()


@pytest.mark.k2
def test_a_file_that_is_no_graph(tmp_path):
    with pytest.raises(UserError, match=r"HLG\.pt does not exist: run stage 4"):
        load_graph(tmp_path)
    torch.save({"a": 1}, tmp_path / "HLG.pt")
    with pytest.raises(UserError, match=r"HLG\.pt is no graph of k2 .*: make it again \(stage 4\)"):
        load_graph(tmp_path)
    (tmp_path / "HLG.pt").write_bytes(b"half")
    with pytest.raises(UserError, match=r"HLG\.pt is no graph of k2 .*: make it again \(stage 4\)"):
        load_graph(tmp_path)


@pytest.mark.k2
def test_g_alone(world, tmp_path):
    """The same G as beside the other graphs, over all of the model's words; lattices are rescored with the folder."""
    assert main(options(world, tmp_path / "all")) == 0
    assert main(options(world, tmp_path / "g", "--only-g")) == 0
    assert {path.name for path in (tmp_path / "g").iterdir()} == {"words.txt", "G.pt", "graph.json"}
    assert read_table(tmp_path / "g/words.txt") == read_table(tmp_path / "all/words.txt")
    one, other = (load_graph(tmp_path / name, "G") for name in ("g", "all"))
    assert torch.equal(one.arcs.values(), other.arcs.values()) and torch.equal(one.scores, other.scores)
    words = read_table(tmp_path / "all/words.txt")
    g, backoffs = LOADERS["rescore_graph"](str(tmp_path / "g"), None, torch.device("cpu")).over(words)
    assert backoffs == 1 and g.num_arcs > one.num_arcs  # loops without a word
    with pytest.raises(UserError, match="--only-g needs --lm"):
        main(["--lang", str(world / "char"), "--lexicon", "x", "--only-g", "--out", str(tmp_path / "x")])
