"""steps.tune: it chooses what decoding and scoring every combination would choose."""

from __future__ import annotations

import itertools
import shutil

import pytest
import yaml
from lhotse import CutSet

from steps.decode import main as decode
from steps.lang.graph import main as make_graph
from steps.lm.ngram import main as ngram
from steps.scoring.evaluate import Resampling, Settings, score_folder
from steps.search.lattice import Lattice
from steps.tune import main
from tests.steps.conftest import TEXTS
from utils.errors import UserError
from utils.files import read_json


def tune(world, folder, searches: dict, *more: str) -> dict:
    (folder / "searches.yaml").write_text(yaml.safe_dump(searches, sort_keys=False))
    paths = ["--model", str(world.model), "--cuts", str(world.cuts), "--device", "cpu"]
    out = ["--searches", str(folder / "searches.yaml"), "--out", str(folder / "out" / "chosen.yaml")]
    assert main([*paths, *out, *more]) == 0
    return yaml.safe_load((folder / "out" / "chosen.yaml").read_text())


def scores(world, folder, searches: dict, measure: str) -> dict[str, float]:
    """What steps.decode and steps.score make of searches without lists."""
    (folder / "single.yaml").write_text(yaml.safe_dump(searches))
    paths = ["--model", str(world.model), "--cuts", str(world.cuts), "--device", "cpu", "--out", str(folder / "decode")]
    assert decode([*paths, "--searches", str(folder / "single.yaml")]) == 0
    folders = {name: folder / "decode" / f"test.{name.replace(':', '.')}" for name in searches}
    found = {name: score_folder(path, Settings(resampling=Resampling(0))).score for name, path in folders.items()}
    return {name: score["all"][measure]["value"] for name, score in found.items()}


def by_hand(world, folder, name: str, options: dict, measure: str) -> tuple[dict, dict[tuple, float]]:
    """The first of the best combinations, and the scores of all."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in options.items()}
    every = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    names = {f"{name}+try{number}": one for number, one in enumerate(every)}
    found = scores(world, folder, names, measure)
    sign = -1 if measure in ("bleu", "chrf") else 1
    best = min(names, key=lambda one: sign * found[one])
    return names[best], {tuple(names[one].items()): value for one, value in found.items()}


@pytest.mark.parametrize(
    ("name", "options", "measure"),
    [
        ("ctc:prefix_beam", {"beam": [1, 2, 6]}, "cer"),  # all alike: the first
        ("speech:modified_beam+mine", {"blank_penalty": [0.0, 2.0, 5.0], "beam": [1, 4], "length_norm": False}, "chrf"),
    ],
)
def test_what_is_chosen_is_the_best_of_all(world, tmp_path, capsys, name, options, measure):
    searches = {name: options}
    chosen = tune(world, tmp_path, searches, "--measure", measure)
    best, values = by_hand(world, tmp_path, name, options, measure)
    assert chosen == {name: best}
    table = read_json(tmp_path / "out" / "chosen.json")["combinations"]
    assert {tuple(row["options"].items()): row[measure] for row in table} == values
    assert [row["options"] for row in table if row["chosen"]] == [best]
    assert (len(set(values.values())) > 1) == (name != "ctc:prefix_beam")
    printed = capsys.readouterr().out
    assert f"{len(values)} combinations of 1 searches: {name} {len(values)}" in printed
    assert f"* {name}" in printed


def test_a_search_without_lists_stays_and_is_not_decoded(world, tmp_path, monkeypatch):
    searches = {"ctc:greedy": {}, "ctc:prefix_beam+b": {"beam": 5, "nbest": 2}}
    monkeypatch.setattr("steps.tune.Recogniser", None)
    assert tune(world, tmp_path, searches) == searches
    assert (tmp_path / "out" / "chosen.yaml").read_text().startswith("# chosen on test, all scores in chosen.json:\n")


@pytest.mark.k2
def test_scales_of_lattices(world, tmp_path, monkeypatch):
    """Three scales and one lattice a batch; whole lattices are made of the same ones."""
    texts = [line for lines in TEXTS.values() for line in lines]
    (tmp_path / "text").write_text("\n".join(texts))
    lang = str(world.model / "lang" / "ctc")
    for order in ("2", "3"):
        train = ["train", "--backend", "numpy", "--order", order, "--text", str(tmp_path / "text")]
        assert ngram([*train, "--out", str(tmp_path / f"{order}.arpa")]) == 0
    graph = str(tmp_path / "graph")
    assert make_graph(["--lang", lang, "--lm", str(tmp_path / "2.arpa"), "--out", graph]) == 0
    options = {"graph": graph, "lm_scale": [0.0, 0.5, 4.0]}
    searches = {"ctc:hlg": options, "ctc:whole_lattice": {**options, "rescore_graph": str(tmp_path / "3.arpa")}}
    made = []
    plain = Lattice.of
    monkeypatch.setattr(Lattice, "of", lambda *args, **beams: made.append(args[0]) or plain(*args, **beams))
    chosen = tune(world, tmp_path, searches, "--measure", "cer")
    assert len(made) == 1
    for name, options in searches.items():
        assert chosen[name] == by_hand(world, tmp_path, name, options, "cer")[0]


@pytest.mark.parametrize(
    ("searches", "more", "sentence"),
    [
        ({"ctc:prefix_beem": {"beam": [1, 2]}}, [], r"not 'prefix_beem' \(did you mean 'prefix_beam'\?\)"),
        ({"ctc:prefix_beam": {"beam": [1, -2]}}, [], "ctc:prefix_beam: beam is -2: -2 is less than 1"),
        ({"ctc:prefix_beam": {"search_beam": [1, 2]}}, [], "--search-beam does nothing for ctc:prefix_beam"),
        ({"ctc:prefix_beam": {"beam": [1, 2]}}, ["--measure", "bleu"], "writes 'text': give wer or cer"),
    ],
)
def test_wrong_searches_are_one_sentence(world, tmp_path, searches, more, sentence):
    with pytest.raises(UserError, match=sentence):
        tune(world, tmp_path, searches, *more)
    assert not (tmp_path / "out").exists()


def test_the_lists_are_not_overwritten(world, tmp_path):
    path = tmp_path / "searches.yaml"
    path.write_text("ctc:greedy: {}")
    with pytest.raises(UserError, match=r"--out .* is the file with the lists to choose from: give another"):
        main(["--model", str(world.model), "--cuts", str(world.cuts), "--searches", str(path), "--out", str(path)])


def test_cuts_without_transcripts(world, tmp_path):
    folder = tmp_path / "test"
    folder.mkdir()
    silent = CutSet.from_file(world.cuts).map_supervisions(lambda one: type(one)(**{**vars(one), "text": None}))
    silent.to_file(folder / "cuts.jsonl.gz")
    shutil.copy(world.cuts.parent.parent / "features.yaml", folder)
    (tmp_path / "searches.yaml").write_text("ctc:prefix_beam: {beam: [1, 2]}")
    paths = ["--model", str(world.model), "--cuts", str(folder / "cuts.jsonl.gz"), "--device", "cpu"]
    with pytest.raises(UserError, match=r"ctc:prefix_beam.* has no reference for 'text' in any of its 9 utterances"):
        main([*paths, "--searches", str(tmp_path / "searches.yaml"), "--out", str(tmp_path / "out.yaml")])
