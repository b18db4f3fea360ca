"""Your own data in all layouts: the same manifests from each, splits, and what is wrong with them, a sentence each."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from lhotse import CutSet, RecordingSet, SupervisionSet, load_manifest
from lhotse.kaldi import load_kaldi_data_dir

import local.own as corpus  # noqa: F401  of the fixtures
from local.corpus import Unusable
from local.rows import measure_any
from steps.prepare.audio import read_audio
from steps.prepare.features import main as features
from tests.corpora import own
from tests.local.own_data import change, content, left_out, make_tones, put, rows
from utils.errors import UserError
from utils.files import read_jsonl, write_jsonl

KINDS = ("kaldi", "lhotse", "table")
SIZES = ("--dev", "0.1", "--test", "0.1")


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own.make(tmp_path_factory.mktemp("own"))


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    return make_tones(tmp_path / "tones")


# ---- the same from all layouts


def test_all_layouts_give_the_same_manifests(whole: Path, tmp_path: Path, manifests):
    for kind in KINDS:
        manifests("--corpus", whole / kind, "--out", tmp_path / kind, *SIZES)
    found = [content(tmp_path / kind) for kind in KINDS]
    assert found[0] == found[1] == found[2] and len(found[0]) == 6
    for other in ("csv", "jsonl"):
        own.write_table(whole / f"table/other/own.{other}", own.rows_of(_spoken(whole)))
        manifests(
            "--corpus",
            whole / "table/other" / f"own.{other}",
            "--out",
            tmp_path / other,
            *SIZES,
            "--base",
            whole / "table",
        )
        assert content(tmp_path / other) == found[0]


def _spoken(whole: Path) -> list[own.Spoken]:
    lines = [line.split("\t") for line in (whole / "table/own.tsv").read_text("utf-8").splitlines()]
    return [
        own.Spoken(
            row["id"],
            row["audio"].removeprefix("../audio/"),
            row["speaker"],
            row["language"],
            row["text"],
            row["translation.en"],
            float(row["start"]) if row["start"] else None,
            float(row["end"]) if row["end"] else None,
            int(row["channel"]),
        )
        for row in (dict(zip(lines[0], line, strict=True)) for line in lines[1:])
    ]


def test_cuts_of_the_same(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / "lhotse", "--out", tmp_path / "m", *SIZES)
    folder = tmp_path / "cuts"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        recordings = RecordingSet.from_file(tmp_path / f"m/{split}_recordings.jsonl.gz")
        supervisions = SupervisionSet.from_file(tmp_path / f"m/{split}_supervisions.jsonl.gz")
        cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
        cuts.trim_to_supervisions(keep_overlapping=False).to_file(folder / f"own_cuts_{split}.jsonl.gz")
    manifests("--corpus", folder, "--out", tmp_path / "again")
    again, before = rows(tmp_path / "again"), rows(tmp_path / "m")
    assert again.keys() == before.keys()
    for key, row in before.items():
        assert row == {**again[key], "start": pytest.approx(row["start"]), "duration": pytest.approx(row["duration"])}


def test_recordings_are_what_decoders_give(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / "kaldi", "--out", tmp_path, *SIZES)
    seen = set()
    for path in tmp_path.glob("*_recordings.jsonl.gz"):
        for recording in RecordingSet.from_file(path):
            file = Path(recording.sources[0].source)
            samples, rate = read_audio(file)  # as stage 2 does
            assert (recording.num_channels, recording.num_samples) == samples.shape and recording.sampling_rate == rate
            seen.add((file.suffix, rate, samples.shape[0]))
    assert seen == {*((f".{ending}", rate, 1) for ending, rate in own.FORMATS.values()), (".wav", own.CALL, 2)}


def test_channels_and_times_are_the_tables(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / "table", "--out", tmp_path, *SIZES)
    found = rows(tmp_path)
    for item in _spoken(whole):
        row = found[item.id]
        assert (row["channel"], row["speaker"], row["language"]) == (item.channel, item.speaker, item.language)
        assert row["custom"]["translation"] == {"en": " ".join(item.english.split())}
        if item.start is not None:
            assert (row["start"], row["duration"]) == (item.start, pytest.approx(item.end - item.start))
    assert {row["channel"] for row in found.values()} == {0, 1}


def test_lhotse_reads_the_same_from_a_simple_directory(tones: Path, tmp_path: Path, manifests, monkeypatch):
    monkeypatch.chdir(tones)
    _, reference, _ = load_kaldi_data_dir(tones, sampling_rate=16000)
    manifests("--corpus", tones, "--out", tmp_path / "m", "--language", "en")
    found = rows(tmp_path / "m")
    wanted = {item.id: (item.text, item.speaker, item.duration) for item in reference}
    assert {key: (row["text"], row["speaker"], row["duration"]) for key, row in found.items()} == wanted
    assert {row["language"] for row in found.values()} == {"en"}


# ---- what is what


def test_wrong_places(whole: Path, tmp_path: Path, refused, copy: Path):
    assert "nowhere does not exist: give --corpus" in refused("--corpus", tmp_path / "nowhere")
    message = refused("--corpus", whole / "audio")
    assert f"{whole / 'audio'} is none of these, and has none in it: wav.scp (kaldi)" in message
    assert f"(did you mean '--corpus {whole}'?)" in message
    assert "(did you mean '--corpus" in refused("--corpus", tmp_path)
    shutil.copy(copy / "table/own.tsv", copy / "kaldi")
    message = refused("--corpus", copy / "kaldi")
    assert "has kaldi (wav.scp) and table (a .tsv, .csv or .jsonl) in it: say with --format which is meant" in message
    (copy / "lhotse/own_recordings_all.jsonl.gz").unlink()
    assert "has own_supervisions_all.jsonl.gz but not its recordings" in refused("--corpus", copy / "lhotse")


def test_manifests_that_are_none(copy: Path, refused):
    path = copy / "lhotse/own_recordings_all.jsonl.gz"
    good = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(good + b'{"id": 3}\n'))
    assert f"{path}, entry 43: not Lhotse's" in refused("--corpus", copy / "lhotse")
    path.write_bytes(gzip.compress(good)[:900])
    assert f"{path} is truncated or not gzip" in refused("--corpus", copy / "lhotse")


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"id": 5}, "an id or a text is not a string"),
        ({"text": ["no"]}, "an id or a text is not a string"),
        ({"custom": {"translation": {"en": 5}}}, "an id or a text is not a string"),
        ({"custom": {"translation": ["no"]}}, "an id or a text is not a string"),
        ({"start": "0"}, "'start' or 'duration' is not a number"),
        ({"duration": None}, "'start' or 'duration' is not a number"),
        ({"start": float("nan")}, "wrong times"),
        ({"channel": 7}, "no channel"),
        ({"channel": []}, "no channel"),
        ({"custom": {"translation": {"en": None}}}, ""),
    ],
)
def test_values_that_supervisions_do_not_have(value: dict, wrong: str, copy: Path, tmp_path: Path, manifests):
    path = copy / "lhotse/own_supervisions_all.jsonl.gz"
    first, *others = map(json.loads, gzip.decompress(path.read_bytes()).splitlines())
    write_jsonl(path, [first | value, *others])
    try:
        manifests("--corpus", copy / "lhotse", "--out", tmp_path / "m")
    except UserError as error:
        assert f"{path}, entry 1: not Lhotse's (" in str(error) and wrong in str(error)
    else:
        assert left_out(tmp_path / "m") == ({first["id"]: wrong} if wrong else {})


def test_values_that_cuts_do_not_have(copy: Path, tmp_path: Path, refused):
    path = tmp_path / "cuts.jsonl"
    names = (copy / f"lhotse/own_{kind}_all.jsonl.gz" for kind in ("recordings", "supervisions"))
    CutSet.from_manifests(*map(load_manifest, names)).to_file(path)
    change(path, '"start": 0,', '"start": "0",')
    assert f"{path}, entry 1: not Lhotse's (TypeError: 'start' or" in refused("--corpus", path)


def test_no_transcripts_and_nothing_else_to_learn(tones: Path, refused):
    lines = (tones / "text").read_text().splitlines()
    put(tones / "text.en", lines)
    put(tones / "text", [line.split()[0] for line in lines])
    assert f"{tones} has no transcripts: add them, or say with --target what to learn (en)." in refused(
        "--corpus", tones
    )


def test_ids_in_two_splits_stay_with_the_held_out_one(tones: Path, tmp_path: Path, manifests):
    for split in ("train", "dev", "test"):
        shutil.copytree(tones, tmp_path / "data" / split)
        if split != "train":
            for file in ("wav.scp", "text", "utt2spk"):
                lines = (tones / file).read_text().splitlines()
                put(tmp_path / "data" / split / file, lines[:1] if split == "dev" else [f"{split}-{x}" for x in lines])
    manifests("--corpus", tmp_path / "data", "--out", tmp_path / "m")
    assert left_out(tmp_path / "m") == {"s0-00": "duplicate id"}
    assert set(rows(tmp_path / "m", "dev")) == {"s0-00"} and len(rows(tmp_path / "m", "train")) == 11


def test_features_of_a_split_that_is_not_there(tones: Path, tmp_path: Path, manifests):
    manifests("--corpus", tones, "--out", tmp_path / "m")
    with pytest.raises(
        UserError, match=r"/m has no split 'deb' \(did you mean 'dev'\?\) but train, dev, test: correct"
    ):
        features(["--manifests", f"{tmp_path}/m", "--out", f"{tmp_path}/d", "--splits", "train", "deb"])
    assert not (tmp_path / "d").exists()  # before the first split is begun


@pytest.mark.parametrize(
    ("kind", "value", "wrong"),
    [
        ("supervisions", {"channel": None}, "'channel' is empty"),
        ("supervisions", {"channel": []}, "'channel' is empty"),
        ("recordings", {"sources": [{"type": "file", "channels": [0], "source": None}]}, "a 'source' is not a path"),
    ],
)
def test_features_of_values_that_manifests_do_not_have(kind, value, wrong, tones: Path, tmp_path: Path, manifests):
    manifests("--corpus", tones, "--out", tmp_path / "m")
    path = tmp_path / f"m/train_{kind}.jsonl.gz"
    write_jsonl(path, [row | value for row in read_jsonl(path)])
    with pytest.raises(UserError, match=rf"train_{kind}.jsonl.gz, entry 1: not a Lhotse .*{wrong}"):
        features(["--manifests", f"{tmp_path}/m", "--out", f"{tmp_path}/d", "--splits", "train"])


# ---- texts


@pytest.mark.parametrize(
    ("kind", "language", "text", "expected"),
    [
        ("keep", "de", "Was?  Ja, 3 <unk>", "Was? Ja, 3 <unk>"),
        ("lower", "tr", "IŞIK İzmir", "ışık izmir"),
        ("plain", "de", "„Geht’s?“ – Ja, 3 %: [lacht] E-Mail…", "geht's ja 3 e-mail"),
        ("plain", "en", "Dial 3, please!", "dial three please"),  # rules of local/text.py
        ("plain", "hi", "नमस्ते, क्या हाल है?", "नमस्ते क्या हाल है"),  # vowel signs are marks, not letters
        ("plain", "fa", "می‌خواهم؟", "می‌خواهم"),  # the joiner within is spelling
        ("plain", "und", "Cafe\u0301!", "café"),
    ],
)
def test_texts_as_they_are_wanted(kind, language, text, expected, tones: Path, tmp_path: Path, manifests):
    change(tones / "text", "what 00 says", text)
    manifests("--corpus", tones, "--out", tmp_path / "m", "--text", kind, "--language", language)
    assert rows(tmp_path / "m")["s0-00"]["text"] == expected


# ---- audio


def test_audio_that_is_none(tmp_path: Path):
    (tmp_path / "a.m4a").write_bytes(b"ftyp" * 100)
    with pytest.raises(Unusable, match="is not audio that libsndfile or FFmpeg reads"):
        measure_any(tmp_path / "a.m4a")


def test_g722_has_no_header_at_all(real_corpus: Path):
    path = sorted(real_corpus.rglob("*.g722"))[0]
    assert measure_any(path) == (16000, 2 * path.stat().st_size, 1)  # four bits a sample


def test_a_language_that_is_not_there(whole: Path, refused):
    message = refused("--corpus", whole / "kaldi", "--target", "eng")
    assert f"{whole / 'kaldi'} has translations only into en: --target eng (did you mean 'en'?)." in message
    assert "has no column 'translation.de'" in refused("--corpus", whole / "table", "--target", "de")
