"""steps.align: alignments as cuts, CTM, TextGrids and subtitles; what cannot be aligned is told and left out."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import numpy as np
import pysubs2
import pytest
import soundfile
from lhotse import CutSet
from praatio import textgrid

from steps.align import main
from steps.decode import main as decode
from utils.errors import UserError
from utils.files import read_json, read_jsonl, write_jsonl


def align(world, out, *arguments) -> int:
    return main(["--model", str(world.model), "--device", "cpu", "--out", str(out), *map(str, arguments)])


@pytest.fixture(scope="module")
def aligned(world, tmp_path_factory):
    """The folder of an alignment in every format, with a picture."""
    out = tmp_path_factory.mktemp("align")
    formats = ["--format", "cuts", "ctm", "textgrid", "srt", "vtt"]
    assert align(world, out, "--cuts", world.cuts, *formats, "--plot", "fr-0") == 0
    return out


def test_every_word_and_token_has_its_time(world, aligned):
    cuts = {cut.id: cut for cut in CutSet.from_file(aligned / "cuts.jsonl.gz")}
    skipped = {row["id"]: row["reason"] for row in read_jsonl(aligned / "skipped.jsonl")}
    assert len(cuts) + len(skipped) == 9 and len(cuts) >= 5 and set(skipped.values()) <= {"more tokens than frames"}
    for cut in cuts.values():
        words, tokens = (cut.supervisions[0].alignment[kind] for kind in ("word", "token"))
        assert [word.symbol for word in words] == cut.supervisions[0].text.split()
        assert "".join(token.symbol for token in tokens) == "".join("▁" + word.symbol for word in words)
        ends = [0.0, *(token.end for token in tokens)]
        assert all(token.start >= end - 1e-3 for token, end in zip(tokens, ends, strict=False))
        assert all(0 <= item.score <= 1 and item.duration > 0 for item in (*words, *tokens))
        assert words[0].start < tokens[1].start and tokens[-1].end <= words[-1].end <= cut.duration + 0.02
        assert all(word.end <= after.start + 1e-3 for word, after in pairwise(words))
    about = read_json(aligned / "align.json")
    assert about["utterances"] == len(cuts) and about["words"] == sum(
        len(cut.supervisions[0].text.split()) for cut in cuts.values()
    )


def test_the_other_formats_say_the_same(aligned):
    (ctm,) = aligned.glob("*.ctm")
    lines = [line.split() for line in ctm.read_text("utf-8").splitlines()]
    assert lines == sorted(lines, key=lambda line: (line[0], line[1], float(line[2])))
    for cut in CutSet.from_file(aligned / "cuts.jsonl.gz"):
        words = cut.supervisions[0].alignment["word"]
        own = [line[1:] for line in lines if line[0] == cut.recording_id]
        expected = [["1", f"{w.start:.3f}", f"{w.duration:.3f}", w.symbol, f"{w.score:.4f}"] for w in words]
        assert own == expected
        grid = textgrid.openTextgrid(str(aligned / "textgrid" / f"{cut.id}.TextGrid"), includeEmptyIntervals=False)
        tier = grid.getTier("words").entries
        assert [(e.start, e.end, e.label) for e in tier] == [
            (pytest.approx(w.start), pytest.approx(w.end), w.symbol) for w in words
        ]
        for form in ("srt", "vtt"):
            shown = pysubs2.load(str(aligned / form / f"{cut.id}.{form}"))
            assert " ".join(event.plaintext for event in shown) == cut.supervisions[0].text
            assert shown[0].start == round(1000 * words[0].start) and shown[-1].end == round(1000 * words[-1].end)


def test_a_picture(aligned):
    from PIL import Image

    pixels = np.asarray(Image.open(aligned / "plot" / "fr-0.png").convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 100_000 and len(np.unique(pixels, axis=0)) > 100


def test_what_was_recognised_instead_of_what_was_said(world, tmp_path):
    options = ["--model", str(world.model), "--device", "cpu", "--search", "ctc:greedy"]
    decode([*options, "--cuts", str(world.cuts), "--out", str(tmp_path / "decode")])
    hyp = tmp_path / "decode" / "test.ctc.greedy" / "hyp.jsonl"
    assert align(world, tmp_path / "out", "--cuts", world.cuts, "--hyp", hyp, "--prior-scale", 0) == 0
    rows = {row["id"]: row for row in read_jsonl(hyp)}
    for cut in CutSet.from_file(tmp_path / "out" / "cuts.jsonl.gz"):
        supervision = cut.supervisions[0]
        assert supervision.text == rows[cut.id]["hyp"]
        symbols = [token.symbol for token in supervision.alignment["token"] if token.symbol != "▁"]
        assert symbols == [symbol for symbol, *_ in rows[cut.id]["tokens"] if symbol != "▁"]


def test_utterances_that_cannot_be_aligned_cost_no_other(world, tmp_path, capsys):
    """Characters without token, no text, more text than frames, no features; the rest as if these were not there."""
    rows = list(read_jsonl(world.cuts))
    by_name = {row["id"]: row for row in rows}
    texts = {"en-0": "good 早 mørning", "fr-0": " ", "it-0": "buongiorno " * 60}
    for name, text in texts.items():
        by_name[name]["supervisions"][0]["text"] = text
    by_name["en-1"]["features"]["storage_path"] = str(tmp_path / "nowhere.lca")
    data = tmp_path / "data" / "test"
    write_jsonl(data / "cuts.jsonl.gz", rows)
    shutil.copy(world.cuts.parent.parent / "features.yaml", data.parent)
    assert align(world, tmp_path / "out", "--cuts", data / "cuts.jsonl.gz", "--prior-scale", 0) == 0
    printed = capsys.readouterr()
    skipped = {row["id"]: row for row in read_jsonl(tmp_path / "out" / "skipped.jsonl")}
    reasons = {name: skipped[name]["reason"] for name in ("en-0", "fr-0", "it-0", "en-1")}
    assert reasons == {
        **{"en-0": "unknown characters", "fr-0": "no text"},
        **{"it-0": "more tokens than frames", "en-1": "unreadable"},
    }
    assert "nowhere.lca" in skipped["en-1"]["detail"] and skipped["en-0"]["detail"].endswith("早 ø")
    assert read_json(tmp_path / "out" / "align.json")["unknown_characters"] == {"早": 1, "ø": 1}
    assert (
        "characters that the tokens cannot spell: '早' 1, 'ø' 1" in printed.err and "skipped 1: no text" in printed.out
    )
    assert align(world, tmp_path / "whole", "--cuts", world.cuts, "--prior-scale", 0) == 0
    whole = {cut.id: cut for cut in CutSet.from_file(tmp_path / "whole" / "cuts.jsonl.gz")}
    found = {cut.id: cut for cut in CutSet.from_file(tmp_path / "out" / "cuts.jsonl.gz")}
    assert set(found) == set(whole) - set(texts) - {"en-1"} and found
    for name, cut in found.items():
        ours, theirs = (side.supervisions[0].alignment["word"] for side in (cut, whole[name]))
        assert [word[:3] for word in ours] == [word[:3] for word in theirs]


def test_nothing_to_align_is_status_1(world, tmp_path):
    rows = [row for row in read_jsonl(world.cuts) if row["id"] == "en-0"]
    rows[0]["supervisions"][0]["text"] = ""
    write_jsonl(tmp_path / "data" / "cuts.jsonl.gz", rows)
    shutil.copy(world.cuts.parent.parent / "features.yaml", tmp_path / "data")
    assert align(world, tmp_path / "out", "--cuts", tmp_path / "data" / "cuts.jsonl.gz") == 1
    assert read_json(tmp_path / "out" / "align.json")["skipped"] == {"no text": 1}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give either --cuts or --recording"),
        (["--recording", "a.wav"], "--recording and --text belong together"),
        (["--cuts", "CUTS", "--head", "speech"], "--head speech: the CTC heads of .* are ctc"),
        (["--cuts", "CUTS", "--hyp", "HYP"], "has none of the utterances of"),
        (["--cuts", "CUTS", "--plot", "nobody"], "--plot nobody: no utterance of this name was aligned"),
        (["--recording", "nowhere.wav", "--text", "HYP"], "nowhere.wav: no such file"),
    ],
)
def test_mistakes(world, tmp_path, arguments, sentence):
    (tmp_path / "hyp.jsonl").write_text('{"id": "x", "hyp": "no"}\n')
    named = {"CUTS": world.cuts, "HYP": tmp_path / "hyp.jsonl"}
    with pytest.raises(UserError, match=sentence):
        align(world, tmp_path / "out", *(named.get(word, word) for word in arguments))


def test_a_recording_that_is_longer_than_its_chunks(world, tmp_path):
    """Encoded in pieces of a second, with all of its words in order; what nobody says is listed."""
    soundfile.write(tmp_path / "talk.flac", world.speech(9.0, seed=5), 16000)
    (tmp_path / "talk.txt").write_text("good morning\nno thank you yes buongiorno\n", "utf-8")
    recording = ["--recording", tmp_path / "talk.flac", "--text", tmp_path / "talk.txt", "--chunk", 1]
    assert align(world, tmp_path / "out", *recording, "--format", "cuts", "textgrid") == 0
    (cut,) = CutSet.from_file(tmp_path / "out" / "cuts.jsonl.gz")
    words = [word.symbol for word in cut.supervisions[0].alignment["word"]]
    listed = [json.loads(line) for line in (tmp_path / "out" / "doubtful.jsonl").read_text("utf-8").splitlines()]
    missing = [word for row in listed if row["reason"] == "words that are not said" for word in row["words"]]
    assert sorted(words + missing) == ["buongiorno", "good", "morning", "no", "thank", "yes", "you"]
    assert cut.duration == 9.0
