"""MuST-C's manifests, on a miniature in its layout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import soundfile
import yaml
from lhotse.recipes.must_c import prepare_must_c

import local.must_c as corpus
from tests.corpora import must_c
from tests.local.written import change, left_out, rows
from utils.errors import UserError
from utils.files import read_jsonl

SIZES = {"train": 36, "dev": 11, "tst-COMMON": 11, "tst-HE": 11}


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return must_c.make(tmp_path_factory.mktemp("must_c"), sizes=SIZES)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break; its folder en-fr/data."""
    return Path(shutil.copytree(whole, tmp_path / "corpus")) / "en-fr" / "data"


# ---- facts of the real corpus, and the miniature has them


def test_layout(whole: Path):
    # huggingface datasets' reader of v3.0 draws it: en-de/data/{dev,train,tst-COMMON,tst-HE}/{txt,wav},
    # txt/dev.{de,en,yaml}, wav/ted_767.wav the first of dev; fairseq's and Lhotse's readers go by the same
    data = whole / "en-fr" / "data"
    assert {path.name for path in data.iterdir()} == set(corpus.SPLITS) == {"train", "dev", "tst-COMMON", "tst-HE"}
    assert (data / "dev/wav/ted_767.wav").exists()
    for split in corpus.SPLITS:
        assert {path.name for path in data.joinpath(split).iterdir()} == {"txt", "wav"}
        texts = {path.suffix: path.read_text("utf-8").split("\n") for path in (data / split / "txt").iterdir()}
        assert texts.keys() == {".yaml", ".en", ".fr"} and len({len(lines) for lines in texts.values()}) == 1
        # Lhotse, lhotse/recipes/must_c.py: "{duration: 3.500000, offset: 16.080000, rW: 9, uW: 0, speaker_id: spk.767,
        # wav: ted_767.wav}"; ESPnet's data_prep.sh reads a line each, fields by their place
        number = r"\d+\.\d{6}"
        line = rf"- {{duration: {number}, offset: {number}, rW: \d+, uW: \d+, speaker_id: spk\.\d+, wav: ted_\d+\.wav}}"
        assert all(re.fullmatch(line, found) for found in texts[".yaml"][:-1])
        for path in (data / split / "wav").iterdir():
            info = soundfile.info(path)  # huggingface datasets' reader wants 16,000 Hz; ESPnet's pipes wavs as they are
            assert (info.samplerate, info.channels, info.format) == (16000, 1, "WAV")


def test_published_sizes():
    # ESPnet's egs3/must_c/st/dataset/README.md: dev over the 14 pairs of v1.2 has 17,740 segments, these are some
    assert 0 < sum(sizes["dev"].utterances for sizes in corpus.PUBLISHED.values()) < 17740
    assert corpus.PUBLISHED["de"]["tst-COMMON"].utterances == 2641
    # Cattoni et al. 2021: 14 languages (v1.2); v2.0 and v3.0 have de, ja, zh
    assert sum("v1" in releases for releases in corpus.TARGETS.values()) == 14 and len(corpus.TARGETS) == 15


def test_segments_are_those_of_a_yaml_parser(whole: Path):
    train = whole / "en-fr" / "data" / "train"
    found = corpus.read_segments(train, "fr")
    parsed = yaml.load((train / "txt" / "train.yaml").read_text(), Loader=yaml.BaseLoader)
    assert [segment.fields for segment in found.values()] == parsed
    assert list(found)[:2] == ["ted_1_0", "ted_1_1"]  # fairseq's prep_mustc_data.py: f"{wav_path.stem}_{i}"


# ---- manifests


def test_manifests_say_what_lhotses_recipe_reads_and_the_transcript(copy: Path, tmp_path: Path, manifests, capsys):
    shutil.rmtree(copy / "train")  # which Lhotse's recipe does not survive
    shutil.copytree(copy / "tst-HE", copy / "train")
    for path in (copy / "train/txt").iterdir():
        path.rename(path.with_stem("train"))
    manifests("--corpus", copy.parents[1], "--out", tmp_path / "m", "--target", "fr")
    assert "dev: 11 utterances, 0.01 h (published: 1412): -1401 utterances, so scores do not" in capsys.readouterr().out
    prepare_must_c(copy.parents[1], tmp_path / "theirs", "fr")
    for split in corpus.SPLITS:
        ours = rows(tmp_path / "m", split)
        theirs = list(read_jsonl(tmp_path / "theirs" / f"must_c_supervisions_en-fr_{split}.jsonl.gz"))
        assert len(ours) == len(theirs) == 11
        for own, other in zip(ours, theirs, strict=True):
            assert own["custom"]["translation"] == {"fr": other["text"]}
            assert (own["start"], own["speaker"]) == (other["start"], other["speaker"]) and own["language"] == "en"
            assert own["duration"] == pytest.approx(other["duration"], abs=1e-4)
            assert re.fullmatch(r"[\w' .-]+", own["text"]) and own["text"] == own["text"].lower()
        assert len(rows(tmp_path / "m", split, "recordings")) == 1


def test_what_is_odd(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole / "en-fr", "--out", tmp_path, "--target", "fr")
    found = {row["id"]: row for row in rows(tmp_path, "train")}
    assert left_out(tmp_path) == {"ted_1_13": "no text", "ted_1_14": "no audio", "ted_1_15": "beyond the audio"}
    applause, named, sung, broken = (found[f"ted_1_{number}"] for number in range(4))
    assert (applause["text"], applause["custom"]["translation"]) == ("", {"fr": "(Applaudissements)"})
    assert named["text"].startswith("ca ") and "laughter" not in named["text"]
    assert named["custom"]["raw_text"].startswith("CA: ") and named["custom"]["raw_text"].endswith(" (Laughter)")
    assert "♫" not in sung["text"] and "♫" in sung["custom"]["translation"]["fr"]
    assert "\u2028" in broken["custom"]["raw_text"] and len(broken["text"].split()) > 2
    talk = next(row for row in rows(tmp_path, "train", "recordings") if row["id"] == "ted_1")
    assert found["ted_1_12"]["start"] + found["ted_1_12"]["duration"] == pytest.approx(talk["duration"])
    assert len(found) == SIZES["train"] + 1 and {row["speaker"] for row in found.values()} == {
        "spk.1",
        "spk.2",
        "spk.3",
    }


def test_releases_without_counts_of_words(copy: Path, tmp_path: Path, manifests):
    for path in copy.glob("*/txt/*.yaml"):  # as ESPnet's data_prep.sh has v1: the speaker is the third field
        path.write_text(re.sub(r"rW: \d+, uW: \d+, ", "", path.read_text()))
    manifests("--corpus", copy, "--out", tmp_path / "m", "--target", "fr", "--splits", "train", "tst-HE")
    assert {row["speaker"] for row in rows(tmp_path / "m", "tst-HE")} == {"spk.1362"}
    assert not (tmp_path / "m/dev_supervisions.jsonl.gz").exists()


def test_bad_segments_are_left_out_with_the_reason(copy: Path, tmp_path: Path, manifests):
    for split, old, new in (
        ("dev", "offset: 0.4", "offset: half"),
        ("tst-COMMON", "speaker_id: spk.1096, ", ""),
        ("tst-HE", "offset: 0.4", "offset: -0.4"),
    ):
        change(copy / split / "txt" / f"{split}.yaml", old, new)
    manifests("--corpus", copy, "--out", tmp_path / "m", "--target", "fr")
    reasons = {"ted_767_0": "malformed", "ted_1096_0": "malformed", "ted_1362_0": "no audio"}
    assert reasons.items() <= left_out(tmp_path / "m").items()


@pytest.mark.parametrize(
    ("offset", "duration", "reason"),
    [
        ("nan", "1.0", "no audio"),
        ("1.0", "nan", "no audio"),
        ("9.6", "1.0", "beyond the audio"),
        ("10.1", "0.2", "beyond the audio"),  # behind it, and by less than is cut off
    ],
)
def test_times_that_the_audio_does_not_have(offset: str, duration: str, reason: str):
    with pytest.raises(corpus.Unusable) as error:
        corpus.times_of(corpus.Segment({"offset": offset, "duration": duration}, "", ""), Path("ted_1.wav"), 10.0)
    assert error.value.reason == reason


# ---- wrong input


def test_where_to_ask_for_it(command, refused, tmp_path: Path):
    with pytest.raises(UserError, match=r"^MuST-C can no longer be downloaded: ask its authors .*MUSTC_v\.\.\._en-ja"):
        command("download", "--out", tmp_path, "--target", "ja")
    message = refused("--corpus", tmp_path / "nothing")
    assert "nothing does not exist. MuST-C can no longer be downloaded" in message and "en-de" in message


def test_languages(whole: Path, refused):
    message = refused("--corpus", whole, "--target", "frr")
    assert "MuST-C is not translated into 'frr' (did you mean 'fr'?): give one of ar (v1.2) cs (v1.2) de" in message
    assert refused("--corpus", whole).startswith(f"{whole} has en-fr but no en-de")
    message = refused("--corpus", whole / "en-fr", "--target", "es")
    assert message == f"{whole}/en-fr/data/train/txt has translations into fr, not es: give another --target."


def test_wrong_folders(whole: Path, copy: Path, tmp_path: Path, refused):
    message = refused("--corpus", whole / "en-fr/data/train", "--target", "fr")
    assert f"(did you mean '--corpus {whole / 'en-fr/data'}'?)" in message
    message = refused("--corpus", tmp_path, "--target", "fr")
    assert f"(did you mean '--corpus {copy}'?)" in message
    shutil.rmtree(copy / "tst-HE")
    message = refused("--corpus", copy, "--target", "fr")
    assert message == f"{copy} lacks tst-HE: unpack its archive (MUSTC_v..._en-fr.tar.gz) again."


def test_half_an_unpacked_archive(copy: Path, refused):
    (copy / "train/wav/ted_2.wav").unlink()
    (copy / "train/wav/ted_3.wav").write_bytes(b"")
    message = refused("--corpus", copy, "--target", "fr")
    assert f"{copy / 'train'}: 27 of its 40 utterances are unusable" in message and "again" in message
    (copy / "train/txt/train.fr").unlink()
    assert f"{copy}/train/txt/train.fr is not there: unpack" in refused("--corpus", copy, "--target", "fr")


def test_texts_that_do_not_fit(copy: Path, refused):
    texts = copy / "dev/txt"
    change(texts / "dev.en", "\n", "\nOne more.\n")
    message = refused("--corpus", copy, "--target", "fr")
    assert f"{texts} has different numbers of segments: 11 in dev.yaml, 12 in dev.en, 11 in dev.fr: unpack" in message
    (texts / "dev.en").write_bytes("Café\n".encode("latin-1"))
    assert f"{texts / 'dev.en'} is not text in UTF-8: unpack" in refused("--corpus", copy, "--target", "fr")
