"""steps.decode through graphs and lattices, as from the command line."""

from __future__ import annotations

import pytest

from steps.lang.arcs import Arcs
from steps.lang.graph import main as make_graph
from steps.lm.ngram import main as ngram
from steps.search.hypothesis import NO_PATH
from tests.steps.conftest import TEXTS
from tests.steps.test_decode import decode
from utils.errors import UserError
from utils.files import read_json, read_jsonl

pytestmark = pytest.mark.k2


@pytest.mark.parametrize(
    ("search", "more", "count"), [("ctc:hlg", (), 9), ("speech:fast_beam", ("--blank-penalty", "6"), 6)]
)
def test_through_a_graph(world, tmp_path, search, more, count):
    """Whatever the model hears, the words are the language model's; a graph of other tokens is refused."""
    texts = [line for lines in TEXTS.values() for line in lines]
    (tmp_path / "text").write_text("\n".join(texts))
    lm, lang = str(tmp_path / "lm"), str(world.model / "lang" / search.partition(":")[0])
    assert ngram(["train", "--backend", "numpy", "--text", str(tmp_path / "text"), "--out", lm]) == 0
    assert make_graph(["--lang", lang, "--lm", lm, "--out", str(tmp_path / "graph")]) == 0
    options = ("--search", search, "--graph", str(tmp_path / "graph"), *more)
    assert decode(world, tmp_path / "out", *options, "--lm-scale", "0.5") == 0
    folder = tmp_path / "out" / f"test.{search.replace(':', '.')}"
    rows = list(read_jsonl(folder / "hyp.jsonl"))
    known = {word for line in texts for word in line.split()}
    assert len(rows) == count and any(row["hyp"] for row in rows)
    assert all(set(row["hyp"].split()) <= known for row in rows)
    assert read_json(folder / "decode.json")["options"]["lm_scale"] == 0.5
    tokens = (tmp_path / "graph/tokens.txt").read_text().replace("g ", "q ")
    (tmp_path / "graph/tokens.txt").write_text(tokens)
    with pytest.raises(UserError, match=r"--graph .*graph has other tokens than the head: make it of that lang folder"):
        decode(world, tmp_path / "other", *options)


def test_lattices_from_the_command_line(world, tmp_path, capsys, monkeypatch):
    """A second graph as a folder and as ARPA; words that it lacks; n-best lists; utterances without a path."""
    texts = [line for lines in TEXTS.values() for line in lines]
    lang = str(world.model / "lang" / "ctc")
    for name, lines in (("two", texts), ("three", texts[::-1]), ("few", texts[:3])):
        (tmp_path / "text").write_text("\n".join(lines))
        order = "3" if name == "three" else "2"
        train = ["train", "--backend", "numpy", "--order", order, "--text", str(tmp_path / "text")]
        assert ngram([*train, "--out", str(tmp_path / f"{name}.arpa")]) == 0
        assert make_graph(["--lang", lang, "--lm", str(tmp_path / f"{name}.arpa"), "--out", str(tmp_path / name)]) == 0
    graph = ("--graph", str(tmp_path / "two"), "--search", "ctc:whole_lattice")
    for second in ("three", "three.arpa"):
        assert decode(world, tmp_path / f"{second}.out", *graph, "--rescore-graph", str(tmp_path / second)) == 0
    folder, arpa = (list(read_jsonl(path)) for path in sorted(tmp_path.glob("three*.out/*/hyp.jsonl")))
    assert [row["hyp"] for row in folder] == [row["hyp"] for row in arpa] and folder[0]["parts"]["lm"] < 0
    with pytest.raises(UserError, match=r"--rescore-graph .*few.arpa lacks \d+ words of --graph \(\w+ .*make both"):
        decode(world, tmp_path / "out", *graph, "--rescore-graph", str(tmp_path / "few.arpa"))
    assert decode(world, tmp_path / "n.out", "--search", "ctc:nbest", *graph[:2], "--nbest", "3") == 0
    lists = [row["nbest"] for row in read_jsonl(tmp_path / "n.out/test.ctc.nbest/nbest.jsonl")]
    assert len(lists) == 9 and all(1 <= len(one) <= 3 and set(one[0]["parts"]) == {"am", "lm"} for one in lists)
    monkeypatch.setattr(  # one word, no less
        "steps.lang.graph.any_sentence", lambda words: Arcs.of_rows([(0, 1, 2, 2, 0.0), (1, 2, -1, -1, 0.0)])
    )
    (tmp_path / "long.txt").write_text("tolong " + " ".join(["t o"] * 400))
    assert make_graph(["--lang", lang, "--lexicon", str(tmp_path / "long.txt"), "--out", str(tmp_path / "hl")]) == 0
    capsys.readouterr()
    assert decode(world, tmp_path / "hl.out", "--search", "ctc:hlg", "--graph", str(tmp_path / "hl")) == 0
    rows = list(read_jsonl(tmp_path / "hl.out/test.ctc.hlg/hyp.jsonl"))
    assert len(rows) == 9 and {(row["hyp"], row["score"]) for row in rows} == {("", NO_PATH)}
    assert "test.ctc.hlg: no path for 9 utterances, left empty: give a larger --search-beam" in capsys.readouterr().err
