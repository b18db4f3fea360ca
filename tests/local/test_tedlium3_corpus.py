"""TED-LIUM 3 from download to manifests and to features, on a miniature in its layout."""

from __future__ import annotations

import gzip
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse.recipes.tedlium import _parse_stm_file
from lhotse.recipes.utils import normalize_text_tedlium

import local.tedlium3 as corpus
from steps.prepare import chunks, features
from steps.prepare.cuts import Cuts
from steps.prepare.usable import cut_samples
from tests.corpora import tedlium3
from tests.local.written import rows
from utils.errors import UserError
from utils.files import read_jsonl, read_lines

PEOPLE = {
    "AlGore_2009": "Al_Gore",
    "BarrySchwartz_2005G": "Barry_Schwartz",
    "AimeeMullins_2009P": "AimeeMullins",
    "BillGates_2010": "BillGates",
}


@pytest.fixture(scope="module")
def whole(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tedlium3.make(tmp_path_factory.mktemp("tedlium3")) / corpus.FOLDER


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A corpus to break."""
    return Path(shutil.copytree(whole, tmp_path / "corpus" / corpus.FOLDER))


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["reason"], row["detail"]) for row in read_jsonl(folder / "left_out.jsonl")}


def stm(folder: Path, split: str, number: int = 0) -> Path:
    return sorted((folder / f"legacy/{split}/stm").glob("*.stm"))[number]


def change_line(path: Path, number: int, line: str | None) -> str:
    """Replace a line of an STM file (None: delete it); what it was."""
    lines = path.read_text().splitlines()
    before = lines[number]
    lines[number : number + 1] = [] if line is None else [line]
    path.write_text("".join(f"{line}\n" for line in lines))
    return before


# ---- facts of the real corpus, and the miniature has them


def test_layout(whole: Path):
    # the corpus' README (quoted in lhotse/recipes/tedlium.py) and torchaudio.datasets.tedlium
    names = {"LM", "README", "TEDLIUM.152k.dic", "data", "doc", "legacy", "speaker-adaptation"}
    assert {path.name for path in whole.iterdir()} == names
    for split in corpus.SPLITS:
        folder = whole / "legacy" / split
        talks = {path.stem for path in (folder / "sph").iterdir()}
        assert talks == {path.stem for path in (folder / "stm").iterdir()}
        for path in (folder / "sph").iterdir():
            # README, "SPH format info": 1 channel, 16000 Hz, 16-bit signed integer PCM
            info = soundfile.info(path)
            assert (info.format, info.subtype, info.samplerate, info.channels) == ("NIST", "PCM_16", 16000, 1)
            # ESPnet, "Because the legacy contains symbolic links to data, we use find -L" (local/data.sh of a recipe)
            assert path.is_symlink() == (split == "train")
    assert not {path.stem for path in (whole / "data/sph").iterdir()} & set(
        PEOPLE
    )  # README: dev and test are not in it


def test_lines_of_stm_files(whole: Path):
    train, dev, test = (stm(whole, split).read_text() for split in corpus.SPLITS)
    # "911Mothers_2010W 1 911Mothers_2010W 14.95 16.19 <NA> <unk> because of", then "16.12 25.02" (dzubke/speech on
    # GitHub, data/preprocess.py): labels <NA>, the talk as its speaker, segments that overlap
    assert all(re.fullmatch(r"(\w+) 1 \1 \d+\.\d\d \d+\.\d\d <NA> .+", line) for line in train.splitlines())
    assert re.search(r"<NA> <unk> \w", train)
    times = [line.split()[3:5] for line in train.splitlines()]
    assert all(float(before[1]) > float(after[0]) for before, after in pairwise(times))
    # "AlGore_2009 1 Al_Gore 23.46 40.05 <F0_M> but this understates ... it doesn 't show" (a loader on GitHub)
    assert re.search(r"(?m)^AlGore_2009 1 Al_Gore \d+\.\d\d \d+\.\d\d <F0_M> ", dev)
    # "AimeeMullins_2009P 1 inter_segment_gap 0 17.82 <o,,unknown> ignore_time_segment_in_scoring" and
    # "AimeeMullins_2009P 1 AimeeMullins 17.82 28.81 <o,f0,female> i 'd like to share ..." (tests of a loader on GitHub)
    assert re.search(r"(?m)^AimeeMullins_2009P 1 inter_segment_gap 0 \d.* <o,,unknown> ignore_time_segment_in_s", test)
    assert re.search(r"(?m)^AimeeMullins_2009P 1 AimeeMullins \d\S+ \d\S+ <o,f0,female> ", test)
    assert any(re.search(r"\w 's ", path.read_text()) for path in (whole / "data/stm").iterdir())


def test_text_and_dictionary(whole: Path):
    # RWTH's i6_experiments, datasets/tedlium2: six files; "sed 's/ <\/s>//g'" in Kaldi's ted_train_lm.sh: their lines
    assert {path.name for path in (whole / "LM").iterdir()} == {f"{name}.en.gz" for name in tedlium3.LM_FILES}
    for path in (whole / "LM").iterdir():
        assert all(line.endswith(" </s>") for line in gzip.decompress(path.read_bytes()).decode().splitlines())
    # "sed 's:([0-9])::g'" of Kaldi's prepare_dict.sh
    assert re.search(r"(?m)^(\S+) .*\n\1\(2\) ", (whole / "TEDLIUM.152k.dic").read_text())


def test_published_sizes():
    # icefall: 804789 cuts and 1370.6 h of train at speeds of 1, 0.9 and 1.1
    assert corpus.PUBLISHED["train"].utterances * 3 == 804789
    assert corpus.PUBLISHED["train"].hours * (1 + 1 / 0.9 + 1 / 1.1) == pytest.approx(1370.6, abs=0.05)
    # Kaldi, RESULTS: dev has 17783 words; ted_train_lm.sh: 18290 with the ends of its sentences
    assert corpus.PUBLISHED["dev"].utterances == 18290 - 17783
    # RWTH's returnn-experiments, tedlium2: dev lasts 5753.43 s
    assert corpus.PUBLISHED["dev"].hours == pytest.approx(5753.43 / 3600, abs=0.05)


# ---- texts


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("it doesn 't show", "it doesn't show"),
        ("i 'd say it 's", "i'd say it's"),
        ("rock 'n 'roll", "rock'n 'roll"),  # Kaldi's join_suffix.py joins two by two
        ("'cause it 's", "'cause it's"),
        ("the class of ' 60s", "the class of' 60s"),
        ("so {NOISE} utterly [COUGH] <sil> unqualified for(2) this", "so utterly unqualified for this"),
        ("at the end (AaronHuey_2010X-16.13-24.16)", "at the end"),
        ("<unk> because  of", "<unk> because of"),
        ("Upper Case", "upper case"),
        ("{SMACK}", ""),
    ],
)
def test_normalise(text: str, wanted: str):
    assert corpus.normalise(text) == wanted


def test_text_for_language_models(whole: Path, copy: Path, tmp_path: Path, command):
    out = tmp_path / "text.en.gz"
    command("text", "--corpus", whole.parent, "--out", out)
    lines = list(read_lines(out))
    assert len(lines) == 60 + 6 and lines.count("the note") == 6  # "the € 20 note"
    assert not any(re.search(r"[^a-z' ]| '", line) for line in lines)
    command("text", "--corpus", whole, "--lines", 2, "--out", out)
    assert list(read_lines(out)) == [line for number in range(6) for line in lines[11 * number : 11 * number + 2]]
    for path in (copy / "LM").iterdir():
        path.rename(path.with_suffix(""))
    with pytest.raises(UserError, match=r"LM has no text \(\*\.en\.gz\) in it: run 'python -m local.tedlium3 downl"):
        command("text", "--corpus", copy, "--out", out)


# ---- manifests


def test_segments_are_lhotses(whole: Path, copy: Path, tmp_path: Path, manifests, capsys):
    manifests("--corpus", whole, "--out", tmp_path)
    for split in corpus.SPLITS:
        found = {(row["recording_id"], row["start"]): row for row in rows(tmp_path, split)}
        wanted = {}
        for path in (copy / f"legacy/{split}/stm").iterdir():
            if path.read_text().startswith(";;"):
                change_line(path, 0, None)  # a comment, at which Lhotse's parser ends
            wanted |= {(item.recording_id, item.start): item for item in _parse_stm_file(path)}
        assert found.keys() == wanted.keys()
        for key, item in wanted.items():
            row = found[key]
            assert (row["duration"], row["language"]) == (item.duration, "en")
            text = normalize_text_tedlium(re.sub(r"<sil>| \(\S+\)$", "", item.text), "kaldi")
            assert row["text"] == " ".join(text.split())
            # the person, where the STM file says who it is; Lhotse has the talk
            assert row["speaker"] == (item.speaker if split == "train" else PEOPLE[item.speaker])
        for row in rows(tmp_path, split, "recordings"):
            info = soundfile.info(whole / f"legacy/{split}/sph/{row['id']}.sph")
            assert (row["num_samples"], row["sampling_rate"]) == (info.frames, 16000)
            assert Path(row["sources"][0]["source"]).parent.parent.name == ("data" if split == "train" else split)
    printed = capsys.readouterr().out
    assert "dev: 8 utterances, 0.01 h (published: 507, 1.60 h): -499 utterances, so scores" in printed
    assert "0 left out" in printed


def test_ids_are_kaldis(whole: Path, tmp_path: Path, manifests):
    manifests("--corpus", whole, "--out", tmp_path)
    line = stm(whole, "test").read_text().splitlines()[2].split()
    # awk's %s-%07d-%07d of the times in hundredths, which cuts them off
    wanted = f"{line[0]}-{int(line[3].replace('.', '')[:-1]):07d}-{int(line[4].replace('.', '')[:-1]):07d}"
    assert rows(tmp_path, "test")[0]["id"] == wanted


def test_unknown_words_stay_in_references_only(copy: Path, tmp_path: Path, manifests):
    path, dev = stm(copy, "train"), stm(copy, "dev")
    line = change_line(path, 4, f"{path.stem} 1 {path.stem} 20.00 21.00 <NA> <unk> {{NOISE}} <unk>")
    change_line(dev, 1, (said := dev.read_text().splitlines()[1]) + " <unk>")
    manifests("--corpus", copy, "--out", tmp_path / "m")
    assert not any("<unk>" in row["text"] for row in rows(tmp_path / "m", "train"))
    assert rows(tmp_path / "m", "dev")[0]["text"] == f"{said.split('> ')[1]} <unk>".replace(" '", "'")
    (reason,) = left_out(tmp_path / "m").values()
    assert reason[0] == "no text" and "has no words but <unk>" in reason[1] and line


def test_every_level_of_the_corpus_may_be_named(whole: Path, tmp_path: Path, manifests):
    for number, folder in enumerate((whole, whole.parent)):
        manifests("--corpus", folder, "--out", tmp_path / str(number))
    assert rows(tmp_path / "0", "train") == rows(tmp_path / "1", "train")


# ---- damage


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ("{talk} 1 {talk} 1.0", "corrupt", "is not 'talk channel speaker start end <label> text'."),
        ("{talk} 1 {talk} one 2.0 <NA> a", "corrupt", "is not 'talk channel speaker start end <label> text'."),
        ("{talk} 1 {talk} 1.0 2.0 hello there", "corrupt", "has 'hello' where a label such as <o,f0,male> belongs."),
        ("{talk} 1 {talk} 2.0 1.0 <NA> a", "corrupt", "is from 2.0 to 1.0 s."),
        ("{talk} 1 {talk} 1.0 inf <NA> a", "corrupt", "is from 1.0 to inf s."),
        ("{talk} 1 {talk} 1.0 2.0 <NA>", "no text", "has no words but <unk>."),
        ("{talk} 1 {talk} 8000.0 8001.0 <NA> a", "truncated", "-0800000-0800100 ends at 8001.00 s."),
        ("Nobody_2010 1 Nobody_2010 1.0 2.0 <NA> a", "missing file", "legacy/train/sph/Nobody_2010.sph is not there."),
        ("{again}", "duplicate id", "has two segments {id}."),
    ],
)
def test_one_bad_line(line: str, reason: str, detail: str, copy: Path, tmp_path: Path, manifests):
    path = stm(copy, "train", 1)
    again = path.read_text().splitlines()[0]
    start, end = (f"{round(float(time) * 100):07d}" for time in again.split()[3:5])
    known = {"talk": path.stem, "again": again, "id": f"{path.stem}-{start}-{end}"}
    change_line(path, 5, line.format(**known))
    manifests("--corpus", copy, "--out", tmp_path / "m")
    ((found, said),) = left_out(tmp_path / "m").values()
    assert found == reason and said.endswith(detail.format(**known)) and str(copy) in said
    assert len(rows(tmp_path / "m", "train")) == 59


def test_a_segment_that_ends_a_little_after_its_audio_is_cut(copy: Path, tmp_path: Path, manifests):
    path = stm(copy, "dev")
    seconds = soundfile.info(path.parent.parent / f"sph/{path.stem}.sph").duration
    said = change_line(path, -1, None).split()
    with open(path, "a") as more:
        more.write(" ".join([*said[:4], f"{seconds + 0.4:.2f}", *said[5:]]) + "\n")
    manifests("--corpus", copy, "--out", tmp_path / "m")
    last = [row for row in rows(tmp_path / "m", "dev") if row["recording_id"] == path.stem][-1]
    assert last["start"] + last["duration"] == pytest.approx(seconds, abs=1e-6) and left_out(tmp_path / "m") == {}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("sph", None, "missing file"),
        ("sph", b"", "empty"),
        ("sph", b"NIST_1A\n   1024\njunk", "corrupt"),
        ("stm", None, "no text"),
        ("stm", b"", "no text"),
        ("stm", b"caf\xe9 1 a 1.0 2.0 <NA> a\n", "not UTF-8"),
    ],
)
def test_one_bad_file_of_a_talk(name: str, content: bytes | None, reason: str, copy: Path, tmp_path: Path, manifests):
    talk = stm(copy, "train", 2)
    talk.write_text("".join(f"{line}\n" for line in talk.read_text().splitlines()[:3]))  # a short one
    path = copy / f"legacy/train/{name}/{talk.stem}.{name}"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (path.parent / f"._{talk.stem}.{name}").write_bytes(b"a Mac was here")
    manifests("--corpus", copy, "--out", tmp_path / "m")
    assert {why for why, _ in left_out(tmp_path / "m").values()} == {reason}
    assert len(rows(tmp_path / "m", "train")) == 48


# ---- wrong input


def test_wrong_folders(whole: Path, copy: Path, tmp_path: Path, refused):
    assert "does not exist: run 'python -m local.tedlium3 download' (stage 0)" in refused("--corpus", tmp_path / "x")
    assert f"(did you mean '--corpus {whole}'?)" in refused("--corpus", whole / "legacy")
    assert f"(did you mean '--corpus {copy}'?)" in refused("--corpus", tmp_path)
    shutil.rmtree(copy / "legacy/test")
    assert f"{copy} lacks legacy/test: run" in refused("--corpus", copy)
    (copy / "legacy/test").mkdir()
    assert f"{copy / 'legacy/test'} holds no utterances: run" in refused("--corpus", copy)


def test_half_an_unpacked_archive(whole: Path, tmp_path: Path, refused):
    half = Path(shutil.copytree(whole, tmp_path / "half", symlinks=True))
    for path in sorted((half / "data/sph").iterdir())[:2]:
        path.unlink()
    message = refused("--corpus", half)
    assert f"{half / 'legacy/train'}: 24 of its 60 utterances are unusable" in message and "is not there" in message


def test_text_in_another_encoding(copy: Path, refused):
    stm(copy, "dev").write_bytes("café".encode("latin-1"))
    assert f"{stm(copy, 'dev')} is not text in UTF-8): run" in refused("--corpus", copy)


def test_what_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command):
    asked = []
    monkeypatch.setattr(corpus, "download_archives", lambda archives, folder, **_: asked.extend(archives))
    monkeypatch.setattr(corpus, "fetch_all", lambda archives, folder: asked.extend(archives) or [])
    command("download", "--out", tmp_path)
    command("ngrams", "--out", tmp_path)
    assert [archive.url for archive in asked] == [
        "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz",
        "http://kaldi-asr.org/models/5/4gram_small.arpa.gz",
        "http://kaldi-asr.org/models/5/4gram_big.arpa.gz",
    ]
    assert asked[0].sha256


# ---- a talk of usual length


def test_a_long_talk_is_read_once_and_its_segments_are_where_they_are(tmp_path: Path, manifests, monkeypatch):
    rate, minutes = 16000, 18
    rng = np.random.default_rng(0)
    samples = np.zeros(minutes * 60 * rate, dtype=np.int16)
    starts = [11.25, 500.5, minutes * 60 - 4.125]
    noises = [(rng.standard_normal(4 * rate) * 3000).astype(np.int16) for _ in starts]
    for start, noise in zip(starts, noises, strict=True):
        samples[int(start * rate) : int(start * rate) + len(noise)] = noise
    for split in corpus.SPLITS:
        folder = tmp_path / "legacy" / split
        tedlium3.write_audio(folder / "sph/Long_2016.sph", samples if split == "dev" else samples[: 20 * rate], "NIST")
        (folder / "stm").mkdir()
        lines = [f"Long_2016 1 Long {start:.3f} {start + 4:.3f} <F0_M> so it begins" for start in starts]
        (folder / "stm/Long_2016.stm").write_text("\n".join(lines if split == "dev" else lines[:1]) + "\n")
    manifests("--corpus", tmp_path, "--out", tmp_path / "m")
    read = []
    monkeypatch.setattr(
        chunks, "read_recording", lambda *given, real=chunks.read_recording: read.append(1) or real(*given)
    )
    features.main(["--manifests", str(tmp_path / "m"), "--out", str(tmp_path / "data"), "--splits", "dev"])
    assert len(read) == 1
    cuts = Cuts.load(tmp_path / "data/dev/cuts.jsonl.gz")
    assert len(cuts) == 3
    for cut, noise in zip(cuts, noises, strict=True):
        wanted = chunks.compute_features(noise.astype(np.float32) / 32768, cuts.config)
        assert np.abs(cut.load_features() - wanted).max() < 0.1  # lilcom rounds
        assert np.array_equal(
            cut_samples(cut), noise.astype(np.float32) / 32768
        )  # the part alone, from the SPHERE file
