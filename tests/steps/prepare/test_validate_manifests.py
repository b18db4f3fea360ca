"""Faults of manifests, each made on a small corpus: one sentence with file, id and remedy; `--fix`."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from steps.prepare.checks.words import text_faults, tidy
from steps.prepare.features import main as features
from steps.prepare.manifests import typed_rows
from steps.prepare.validate import main
from tests.steps.prepare.conftest import edit
from utils.errors import UserError
from utils.files import read_jsonl


@pytest.fixture
def small(corpus):
    """Six utterances in train, two in dev, without a fault."""
    corpus.add_split("train", 6)
    corpus.add_split("dev", 2)
    edit(corpus.manifests / "dev_supervisions.jsonl.gz", lambda rows: [said(row, f"dev {row['id']}") for row in rows])
    edit(corpus.manifests / "dev_supervisions.jsonl.gz", lambda rows: [{**row, "speaker": "b"} for row in rows])
    return corpus


def said(row: dict, text: str | None) -> dict:
    row["text"] = text
    return row


def change(corpus, kind: str, index: int = 2, split: str = "train", **values) -> None:
    edit(corpus.manifests / f"{split}_{kind}.jsonl.gz", lambda rows: rows[index].update(values))


def test_a_corpus_without_faults(small, validate):
    status, lines, out = validate("--manifests", small.manifests)
    assert (status, lines) == (0, [])
    assert "train_supervisions.jsonl.gz: 6 supervisions, 6 recordings" in out and out.endswith("validate: no faults\n")
    assert validate("--manifests", small.manifests, "--full")[:2] == (0, [])


def without(index: int):
    return lambda rows: rows.pop(index) and None


PLACE = "not inside of their recording (train-002; train-002: the utterance "
FAULTS = {  # (kind of manifest, change of its rows): what is said
    "twice": ("supervisions", lambda rows: rows.append(dict(rows[2])), "have an id that an earlier one has (train-002"),
    "recording twice": ("recordings", lambda rows: rows.append(dict(rows[2])), "have an id that an earlier one has"),
    "no recording": ("recordings", without(2), "name a recording that is not there (train-002; train-002: there is no"),
    "not said": ("supervisions", without(2), "1 of 6 recordings have no supervision (train-002)"),
    "beyond": ("supervisions", lambda rows: rows[2].update(duration=99.0), f"are {PLACE}ends at 99.00 s"),
    "before": ("supervisions", lambda rows: rows[2].update(start=-0.5), f"are {PLACE}begins at -0.50 s"),
    "nothing": ("supervisions", lambda rows: rows[2].update(duration=0.0), f"are {PLACE}begins at 0.00 s and takes 0"),
    "channel": ("supervisions", lambda rows: rows[2].update(channel=1), "are in a channel that their recording lacks"),
    "text": (
        "supervisions",
        lambda rows: rows[2].update(text=" ", custom={}),
        "neither a transcript nor a translation",
    ),
    "control": ("supervisions", lambda rows: rows[2].update(text="a\x07b"), "have control characters in a text"),
    "mark": ("supervisions", lambda rows: rows[2].update(text="\ufeffa b"), "have control characters in a text"),
    "spaces": ("supervisions", lambda rows: rows[2].update(text="a  b"), "double or odd white space"),
    "end": ("supervisions", lambda rows: rows[2].update(text="a b "), "spaces at the ends"),
    "odd": ("supervisions", lambda rows: rows[2].update(text="a\u00a0b"), "odd white space"),
    "form": ("supervisions", lambda rows: rows[2].update(text="de\u0301ja\u0300"), "not in Unicode's form NFC"),
    "translated": ("supervisions", lambda rows: rows[2]["custom"]["translation"].update(fr="a  b"), "odd white space"),
    "encoding": ("supervisions", lambda rows: rows[2].update(text="d\ufffdj\ufffd"), "have U+FFFD in a text"),
    "symbol": ("supervisions", lambda rows: rows[2].update(text="a <s> b"), "a word that graphs use as a symbol"),
    "length": ("recordings", lambda rows: rows[2].update(num_samples=7), "is not num_samples / sampling_rate"),
    "rate": ("recordings", lambda rows: rows[2].update(sampling_rate=8000), "is not num_samples / sampling_rate"),
    "not lhotse": (
        "recordings",
        lambda rows: rows[2].pop("sources") and None,
        "entry 3: not a Lhotse Recording (KeyErr",
    ),
    "number": ("supervisions", lambda rows: rows[2].update(start="0"), "entry 3: not a Lhotse SupervisionSegment"),
    "no text": ("supervisions", lambda rows: rows[2].update(text=5), "(TypeError: a text is not a string)"),
}
MENDED = ("twice", "recording twice", "no recording", "not said", "text", "control", "mark", "spaces", "end", "odd")
MENDED += ("form", "translated")


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_sentence_and_mended_where_it_can_be(small, validate, name):
    kind, make, sentence = FAULTS[name]
    edit(small.manifests / f"train_{kind}.jsonl.gz", make)
    status, lines, _ = validate("--manifests", small.manifests)
    errors = [line for line in lines if line.startswith("error: ")]
    assert status == 1 and len(errors) == 1, lines
    assert sentence in errors[0] and f"{small.manifests}/train_" in errors[0] and errors[0].endswith(".")
    assert ("--fix" in errors[0]) == (name in MENDED)
    status, lines, out = validate("--manifests", small.manifests, "--fix")
    if name in MENDED:
        assert (status, lines) == (0, []) and "fixed " in out
        assert validate("--manifests", small.manifests, "--fix")[2].count("fixed ") == 0
    else:
        assert status == 1 and sentence in lines[0]


def test_several_faults_of_a_kind_are_one_sentence_with_their_number(small, validate):
    def empty(rows):
        for row in rows:
            row.update(text="", custom=None)

    edit(small.manifests / "train_supervisions.jsonl.gz", empty)
    status, lines, _ = validate("--manifests", small.manifests, "--splits", "train")
    assert status == 1 and len(lines) == 1
    assert (
        "6 of 6 supervisions have neither" in lines[0]
        and "(train-000, train-001, train-002, train-003, ...)" in lines[0]
    )
    status, lines, _ = validate("--manifests", small.manifests, "--splits", "train", "--fix")
    assert status == 1 and "--fix would leave nothing" in lines[0]
    assert len(list(read_jsonl(small.manifests / "train_supervisions.jsonl.gz"))) == 6


def test_fix_removes_both_sides_and_keeps_the_old_files(small, validate):
    before = (small.manifests / "train_supervisions.jsonl.gz").read_bytes()
    change(small, "supervisions", 1, recording_id="elsewhere")
    change(small, "supervisions", 4, text=" déjà\tvu ")
    changed = (small.manifests / "train_supervisions.jsonl.gz").read_bytes()
    status, lines, out = validate("--manifests", small.manifests, "--fix")
    assert (status, lines) == (0, [])
    assert "1 removed without recording, 1 given tidy texts; 5 left" in out and "1 removed without supervision" in out
    rows = list(read_jsonl(small.manifests / "train_supervisions.jsonl.gz"))
    assert [row["id"] for row in rows] == [f"train-00{i}" for i in (0, 2, 3, 4, 5)] and rows[3]["text"] == "déjà vu"
    assert len(list(read_jsonl(small.manifests / "train_recordings.jsonl.gz"))) == 5
    assert (small.manifests / ".backup/train_supervisions.jsonl.gz").read_bytes() == changed != before
    assert not (small.manifests / ".backup/dev_supervisions.jsonl.gz").exists()
    assert features(["--manifests", str(small.manifests), "--out", str(small.root / "data"), "--splits", "train"]) == 0


def test_what_ends_a_little_late_is_clipped(small, validate):
    (recording,) = list(read_jsonl(small.manifests / "train_recordings.jsonl.gz"))[:1]
    change(small, "supervisions", 0, duration=recording["duration"] + 0.02)
    status, lines, _ = validate("--manifests", small.manifests)
    assert status == 0 and "end a little behind their recording (train-000; train-000: 0.020 s)" in lines[0]
    assert validate("--manifests", small.manifests, "--fix")[:2] == (0, [])
    (row,) = list(read_jsonl(small.manifests / "train_supervisions.jsonl.gz"))[:1]
    assert row["duration"] == pytest.approx(recording["duration"])


def test_audio_files(small, validate):
    files = [small.audio / f"train-00{number}.wav" for number in range(6)]
    files[0].unlink()
    files[1].write_bytes(b"")
    soundfile.write(files[2], np.zeros(800), 16000)  # too short
    soundfile.write(files[3], np.zeros(16000), 8000)
    files[4].write_bytes(files[4].read_bytes()[:2000])  # cut off: libsndfile's header has what is left
    files[5].write_bytes(b"this is no audio" * 100)
    status, lines, _ = validate("--manifests", small.manifests)
    assert status == 1 and len(lines) == 4
    assert "an audio file that is not there (train-000" in lines[0] and "zero bytes (train-001" in lines[1]
    assert "shorter than they say (train-002, train-004; train-002: 800 samples in" in lines[2]
    assert "another sampling rate than they say (train-003" in lines[3]
    status, lines, _ = validate("--manifests", small.manifests, "--full")
    assert len(lines) == 5 and "cannot be read or is not what they say (train-005" in lines[4]


def test_what_is_not_finite_is_found_by_reading_all(small, validate):
    length = soundfile.info(small.audio / "train-001.wav").frames
    soundfile.write(small.audio / "train-001.wav", np.full(length, np.nan), 16000, subtype="FLOAT")
    assert validate("--manifests", small.manifests)[0] == 0
    status, lines, _ = validate("--manifests", small.manifests, "--full")
    assert status == 1 and "holds samples that are not numbers" in lines[0]


def test_what_splits_share_is_a_warning(small, validate):
    rows = {
        kind: list(read_jsonl(small.manifests / f"train_{kind}.jsonl.gz"))[:2]
        for kind in ("recordings", "supervisions")
    }
    for kind, found in rows.items():
        edit(small.manifests / f"dev_{kind}.jsonl.gz", lambda _, found=found: found)
    status, lines, _ = validate("--manifests", small.manifests)
    assert status == 0 and all(line.startswith("warning: ") for line in lines)
    assert [line.split(": ")[2].split(" (")[0] for line in lines] == [
        "2 recordings of dev are in train too",
        "2 audio files of dev are in train too",
        "1 speakers of dev are in train too",
        "2 transcripts of dev are in train too",
    ]


def test_what_only_some_have_and_what_nobody_has_are_warnings(small, validate):
    change(small, "supervisions", 1, custom={"translation": {"fr": "oui", "de": "ja"}}, text=None)
    change(small, "supervisions", 2, custom={}, language=None)
    change(small, "supervisions", 3, custom={}, language="fr", speaker=None)
    status, lines, _ = validate("--manifests", small.manifests)
    text = "\n".join(lines)
    assert status == 0 and len(lines) == 4
    assert "1 of 6 supervisions have no transcript, others do" in text
    assert "5 of 6 supervisions lack a translation into a language that others have (de 5, fr 1)" in text
    assert "1 of 6 supervisions have no language (train-002)" in text
    assert "1 of 6 supervisions have no speaker (train-003)" in text


def test_overlapping_speakers_are_nothing_but_forgotten_starts_are_said(corpus, validate):
    recording = corpus.recording("long", seconds=5.0)
    spoken = [corpus.supervision(recording, start=start, duration=2.0) for start in (0.0, 1.0, 1.5)]
    for number, one in enumerate(spoken):
        one.id = f"long-{number}"
    corpus.write("train", [recording], spoken)
    assert validate("--manifests", corpus.manifests)[:2] == (0, [])
    edit(corpus.manifests / "train_supervisions.jsonl.gz", lambda rows: rows[1].update(start=0.0))
    status, lines, _ = validate("--manifests", corpus.manifests)
    assert status == 0 and "1 recordings have several supervisions that begin at 0 in one channel (long)" in lines[0]


def test_a_share_may_be_bad(small, validate):
    (small.audio / "train-000.wav").unlink()
    status, lines, _ = validate("--manifests", small.manifests, "--max-bad", "0.2")
    assert status == 0 and lines[0].startswith("warning: ")
    assert validate("--manifests", small.manifests, "--max-bad", "0.1")[0] == 1


def test_other_splits_are_checked_where_one_cannot_be_read(small, validate):
    (small.manifests / "train_recordings.jsonl.gz").unlink()
    change(small, "supervisions", 0, split="dev", text="a  b")
    status, lines, _ = validate("--manifests", small.manifests)
    assert status == 1 and len(lines) == 2
    assert "train_recordings.jsonl.gz does not exist: run stage 1 (manifests) first." in lines[0]
    assert "dev_supervisions.jsonl.gz: 1 of 2" in lines[1]


@pytest.mark.parametrize("options", [[], ["--splits", "dev"], ["--manifests", "nowhere"]])
def test_mistakes_on_the_command_line(options, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        assert main(options) == 1
        assert "nowhere does not exist" in capsys.readouterr().err
    except UserError as error:
        assert "give --manifests, --cuts or --lang" in str(error) or "--splits are those of --manifests" in str(error)


def test_texts_that_look_odd_and_are_right():
    for text in ("l'hôtel", "# 3 < 4", "ça\u200dva", "你好 世界", "Ёлка"):
        assert text_faults(text) == [] and tidy(text) == text
    assert tidy("\ufeff e\u0301 \x00 x\r\n") == "é x"


def test_rows_are_what_they_were(small):
    """Checking a row with Lhotse must not empty it."""
    from lhotse import SupervisionSegment

    path = small.manifests / "train_supervisions.jsonl.gz"
    assert list(typed_rows(path, SupervisionSegment)) == list(read_jsonl(path))
