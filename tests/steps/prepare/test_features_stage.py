"""Stage 2 as a user runs it: good corpora, bad utterances, bad manifests, interruptions."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, CutSet, Fbank, FbankConfig, Recording

from steps.prepare import chunks as chunks_module
from steps.prepare import features
from steps.prepare.audio import compute_features, load_audio
from steps.prepare.config import FeatureConfig
from steps.prepare.cuts import Cuts
from utils.errors import UserError, run
from utils.files import read_jsonl
from utils.options import load_config

HALF_TICK = 2**-6 + 1e-4  # lilcom stores multiples of 2**-5


def prepare(corpus, out: Path, *more: str, splits=("train",)) -> None:
    assert features.main(["--manifests", str(corpus.manifests), "--out", str(out), "--splits", *splits, *more]) == 0


def quarantine(out: Path, split: str = "train") -> dict[str, str]:
    return {row["id"]: row["reason"] for row in read_jsonl(out / split / "quarantine.jsonl")}


def test_cuts_are_plain_lhotse_and_keep_everything(prepared):
    cuts = list(CutSet.from_file(prepared / "train" / "cuts.jsonl.gz"))
    assert len(cuts) == 72 and len({cut.id for cut in cuts}) == 72
    assert [cut.id for cut in cuts[:3]] == ["train-000", "train-000_sp0.9", "train-000_sp1.1"]
    for cut in cuts:
        (supervision,) = cut.supervisions
        assert supervision.text and supervision.language == "en"
        assert supervision.custom["translation"] == {"fr": "bonjour"}
        assert cut.load_features().shape == (cut.num_frames, 80) == (cut.features.num_frames, 80)
        assert supervision.duration == pytest.approx(cut.duration)
    assert cuts[1].duration == pytest.approx(cuts[0].duration / 0.9, abs=1e-4)
    assert len(list(CutSet.from_file(prepared / "dev" / "cuts.jsonl.gz"))) == 6  # no speed perturbation there


def test_stored_features_are_lhotses_own(prepared):
    extractor = Fbank(FbankConfig(num_mel_bins=80))
    for cut in list(CutSet.from_file(prepared / "train" / "cuts.jsonl.gz"))[:6]:
        expected = extractor.extract(cut.load_audio(), 16000)
        assert np.abs(cut.load_features() - expected).max() <= HALF_TICK


def test_transcribing_computes_what_was_stored(prepared):
    config = load_config(prepared / "features.yaml", FeatureConfig)
    cut = CutSet.from_file(prepared / "dev" / "cuts.jsonl.gz")[0]
    values = compute_features(load_audio(cut.recording.sources[0].source), config)
    assert np.abs(values - cut.load_features()).max() <= HALF_TICK


def test_every_bad_utterance_is_quarantined_with_its_reason(corpus, tmp_path):
    names = ("missing", "no-bytes", "not-audio", "cut-off", "longer", "nan", "other-rate", "declared-rate", "silent")
    bad = {name: corpus.recording(name, seed=i) for i, name in enumerate(names)}
    (corpus.audio / "missing.wav").unlink()
    (corpus.audio / "no-bytes.wav").write_bytes(b"")
    (corpus.audio / "not-audio.wav").write_text("this is a text\n" * 100)
    whole = (corpus.audio / "cut-off.wav").read_bytes()
    (corpus.audio / "cut-off.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(corpus.audio / "longer.wav", np.ones(32000) * 0.1, 16000)
    soundfile.write(corpus.audio / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(corpus.audio / "other-rate.wav", np.ones(8000) * 0.1, 8000)
    bad["declared-rate"] = corpus.recording("declared-rate", rate=8000)
    soundfile.write(corpus.audio / "silent.wav", np.zeros(16000), 16000)
    good = [corpus.recording(f"good-{i}", seed=i) for i in range(24)]
    long, short = corpus.recording("long", 31.0), corpus.recording("short", 0.05)
    beyond, lonely = corpus.recording("beyond"), corpus.recording("lonely")
    supervisions = [corpus.supervision(r) for r in [*bad.values(), *good, long, short]]
    supervisions.append(corpus.supervision(good[0], "again"))
    supervisions.append(corpus.supervision(corpus.recording("not-in-manifest")))
    supervisions.append(corpus.supervision(beyond, duration=2.0))
    others = [corpus.recording(name) for name in ("no-text", "fast", "slow", "translated")]
    texts = [" ", "a" * 60, "a", ""]
    supervisions += [corpus.supervision(r, t, custom={}) for r, t in zip(others[:3], texts, strict=False)]
    supervisions.append(corpus.supervision(others[3], "", custom={"translation": {"fr": "oui"}}))
    corpus.write("train", [*bad.values(), *good, long, short, beyond, lonely, *others], supervisions)
    prepare(corpus, tmp_path / "data", "chars_per_second=[2, 40]", "min_duration=0.1")
    assert quarantine(tmp_path / "data") == {
        "missing": "missing file",
        "no-bytes": "empty",
        "not-audio": "corrupt",
        "cut-off": "truncated",
        "longer": "corrupt",
        "nan": "corrupt",
        "other-rate": "wrong rate",
        "declared-rate": "wrong rate",
        "silent": "silent",
        "long": "too long",
        "short": "too short",
        "good-0": "duplicate id",
        "not-in-manifest": "missing file",
        "beyond": "truncated",
        "lonely": "no text",
        "no-text": "no text",
        "fast": "implausible characters per second",
        "slow": "implausible characters per second",
    }
    kept = Cuts.load(tmp_path / "data" / "train" / "cuts.jsonl.gz").ids
    assert sorted(kept) == sorted([recording.id for recording in good] + ["translated"])


def test_resample_takes_other_rates(corpus, tmp_path):
    recording = corpus.recording("r8", rate=8000)
    corpus.write("train", [recording], [corpus.supervision(recording)])
    prepare(corpus, tmp_path / "data", "resample=true", "speed_perturb=[1.1]")
    cuts = CutSet.from_file(tmp_path / "data" / "train" / "cuts.jsonl.gz")
    assert [cut.sampling_rate for cut in cuts] == [16000, 16000]
    assert cuts[0].load_features().shape == (100, 80) and cuts[0].load_audio().shape == (1, 16000)


def test_segments_of_one_recording_are_read_in_one_pass(corpus, tmp_path, monkeypatch):
    recording = corpus.recording("long-talk", 6.0)
    segments = [corpus.supervision(recording, start=s, duration=1.5) for s in (0.0, 2.25, 4.4)]
    for number, segment in enumerate(segments):
        segment.id = f"talk-{number}"
    corpus.write("train", [recording], segments)
    reads, original = [], chunks_module.read_recording
    monkeypatch.setattr(chunks_module, "read_recording", lambda *a: reads.append(1) or original(*a))
    prepare(corpus, tmp_path / "data", "speed_perturb=[0.9]")
    cuts = CutSet.from_file(tmp_path / "data" / "train" / "cuts.jsonl.gz")
    assert len(reads) == 1 and len(list(cuts)) == 6
    extractor = Fbank(FbankConfig(num_mel_bins=80))
    for cut in cuts:
        expected = extractor.extract(cut.load_audio(), 16000)
        difference = np.abs(cut.load_features() - expected)
        # Lhotse perturbs a little more than the segment: only the frames at the two ends may differ
        assert difference[3:-3].max() <= HALF_TICK + (0.5 if "sp" in cut.id else 0)


def test_mostly_bad_split_stops_with_a_sentence(corpus, tmp_path):
    corpus.add_split("train", 9)
    for number in range(5):
        (corpus.audio / f"train-{number:03d}.wav").unlink()
    with pytest.raises(UserError, match=r"5 of 9 utterances are unusable, 5 of them for 'missing file'.*max_bad"):
        prepare(corpus, tmp_path / "data")
    assert len(quarantine(tmp_path / "data")) == 5
    assert not (tmp_path / "data" / "train" / "cuts.jsonl.gz").exists()
    prepare(corpus, tmp_path / "data", "max_bad=0.6")
    assert len(Cuts.load(tmp_path / "data" / "train" / "cuts.jsonl.gz")) == 4


@pytest.mark.parametrize("line", ["{not json", '{"id": "x"}', '["a"]'])
def test_broken_manifest_line_is_named(corpus, tmp_path, line):
    corpus.add_split("train", 3)
    path = corpus.manifests / "train_supervisions.jsonl.gz"
    text = gzip.decompress(path.read_bytes()).decode().splitlines()
    text[1] = line
    with gzip.open(path, "wt") as out:
        out.write("\n".join(text) + "\n")
    with pytest.raises(UserError, match=r"train_supervisions.jsonl.gz, (line|entry) 2: not"):
        prepare(corpus, tmp_path / "data")


def test_missing_manifest_and_unknown_option(corpus, tmp_path):
    with pytest.raises(UserError, match=r"train_recordings.jsonl.gz does not exist: run stage 1"):
        prepare(corpus, tmp_path / "data")
    with pytest.raises(UserError, match=r"unknown key 'num_mel_bin' \(did you mean 'num_mel_bins'"):
        prepare(corpus, tmp_path / "data", "num_mel_bin=40")
    with pytest.raises(UserError, match="num_ceps"):
        prepare(corpus, tmp_path / "data", "type=mfcc", "num_ceps=90")


def test_mfcc_and_on_the_fly(corpus, tmp_path):
    corpus.add_split("train", 3)
    prepare(corpus, tmp_path / "mfcc", "type=mfcc", "num_mel_bins=40", "num_ceps=13")
    cut = CutSet.from_file(tmp_path / "mfcc" / "train" / "cuts.jsonl.gz")[0]
    assert cut.load_features().shape == (cut.num_frames, 13) and cut.features.type == "kaldi-mfcc"
    prepare(corpus, tmp_path / "fly", "storage=on_the_fly", "speed_perturb=[1.1]")
    cuts = Cuts.load(tmp_path / "fly" / "train" / "cuts.jsonl.gz")
    assert len(cuts) == 6 and not cuts.stored and not list((tmp_path / "fly").rglob("*.lca"))


def test_stored_augmentation_is_reproducible(corpus, tmp_path):
    corpus.add_split("train", 4)
    volume = "augment={volume: {gain: [-9, -3], probability: 1}}"
    for name in ("a", "b"):
        prepare(corpus, tmp_path / name, volume, "copies=2", "--chunk-size", "3")
    a, b = (list(CutSet.from_file(tmp_path / n / "train" / "cuts.jsonl.gz")) for n in "ab")
    assert [cut.id for cut in a[:3]] == ["train-000", "train-000_aug1", "train-000_aug2"]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.load_features(), other.load_features())
    change = a[1].load_features() - a[0].load_features()
    gain = np.median(change) / np.log(10) * 10  # log-mel energies move with the square of the samples
    assert -9.3 <= gain <= -2.7 and np.quantile(np.abs(change - np.median(change)), 0.8) < 0.1


def test_second_run_does_nothing_and_changes_are_noticed(corpus, tmp_path, capsys, monkeypatch):
    corpus.add_split("train", 5)
    prepare(corpus, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("0*.jsonl"))
    with monkeypatch.context() as patched:
        patched.setattr(features, "process_all", lambda *a: pytest.fail("computed again"))
        prepare(corpus, tmp_path / "data")
    assert "done before" in capsys.readouterr().out
    prepare(corpus, tmp_path / "data", "num_mel_bins=40")
    assert Cuts.load(tmp_path / "data" / "train" / "cuts.jsonl.gz")[0].num_features == 40
    soundfile.write(corpus.audio / "train-001.wav", np.zeros(16000), 16000)
    prepare(corpus, tmp_path / "data", "num_mel_bins=40")
    assert list(quarantine(tmp_path / "data")) == ["train-001"]
    (tmp_path / "data" / "train" / "feats" / "00000.lca").unlink()
    prepare(corpus, tmp_path / "data", "num_mel_bins=40")
    assert Cuts.load(tmp_path / "data" / "train" / "cuts.jsonl.gz")[0].load_features().shape[1] == 40


def test_full_disk_is_one_sentence_and_leaves_no_rubbish(corpus, tmp_path, monkeypatch, capsys):
    corpus.add_split("train", 4)

    def full(self, key, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(chunks_module.LilcomChunkyWriter, "write", full)
        with pytest.raises(SystemExit) as exit:
            run(lambda: prepare(corpus, tmp_path / "data"))
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert exit.value.code == 1 and message.startswith("error: No space left on device while writing")
    assert "00000.lca" in message and not list((tmp_path / "data" / "train" / "feats").iterdir())
    prepare(corpus, tmp_path / "data")
    assert len(Cuts.load(tmp_path / "data" / "train" / "cuts.jsonl.gz")) == 4


def test_two_runs_at_once_are_refused(corpus, tmp_path):
    corpus.add_split("train", 2)
    with features._only_run(tmp_path / "data" / "train"), pytest.raises(UserError, match="another run"):
        prepare(corpus, tmp_path / "data")


def _command(corpus, out: Path, jobs: int) -> list[str]:
    program = [sys.executable, "-m", "steps.prepare.features", "--manifests", str(corpus.manifests), "--out", str(out)]
    return [*program, "--splits", "train", "--jobs", str(jobs), "--chunk-size", "10", "speed_perturb=[0.9, 1.1]"]


def _rows(out: Path) -> list[dict]:
    return json.loads(json.dumps(list(read_jsonl(out / "train" / "cuts.jsonl.gz"))).replace(str(out), ""))


@pytest.mark.slow
def test_kill_9_then_the_same_command_gives_the_uninterrupted_result(corpus, tmp_path):
    corpus.add_split("train", 120)
    prepare(corpus, tmp_path / "whole", "--chunk-size", "10", "speed_perturb=[0.9, 1.1]")
    out = tmp_path / "killed"
    process = subprocess.Popen(_command(corpus, out, 2), stderr=subprocess.DEVNULL, start_new_session=True)
    feats = out / "train" / "feats"
    while len(list(feats.glob("0*.jsonl"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert _all_gone(process.pid), "workers outlived their parent"
    finished = {path: path.stat().st_mtime_ns for path in feats.glob("0*.jsonl")}
    archives = {path.with_suffix(".lca"): path.with_suffix(".lca").stat().st_mtime_ns for path in finished}
    assert 2 <= len(finished) < 12 and not (out / "train" / "cuts.jsonl.gz").exists()
    (feats / ".tmp-1-00007.lca").write_bytes(b"half")
    prepare(corpus, out, "--chunk-size", "10", "speed_perturb=[0.9, 1.1]")
    assert archives == {path: path.stat().st_mtime_ns for path in archives}, "a finished chunk was computed again"
    assert _rows(out) == _rows(tmp_path / "whole")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "train" / "feats").iterdir()}
    assert {path.name: path.read_bytes() for path in feats.iterdir()} == whole


def _all_gone(session: int, seconds: float = 20) -> bool:
    """Whether every process of the session ends within `seconds`."""
    deadline = time.time() + seconds
    while _alive(session) and time.time() < deadline:
        time.sleep(0.1)
    return not _alive(session)


def _alive(session: int) -> bool:
    """Whether any process of the session that `session` led is still there."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "error"])
def test_ctrl_c_and_errors_in_workers_are_one_sentence(corpus, tmp_path, how):
    corpus.add_split("train", 60)
    out = tmp_path / "data"
    if how == "error":
        (out / "train").mkdir(parents=True)
        (out / "train" / "feats").write_text("a file where the folder should be")
    process = subprocess.Popen(
        _command(corpus, out, 2),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    if how == "ctrl-c":
        while not list((out / "train" / "feats").glob("0*.jsonl")):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    last = errors.replace("\r", "\n").strip().splitlines()[-1]
    assert "Traceback" not in errors
    assert process.returncode == (130 if how == "ctrl-c" else 1)
    assert last.startswith("interrupted" if how == "ctrl-c" else "error: ")
    assert _all_gone(process.pid)
    if how == "error":
        assert str(out / "train" / "feats") in last


def test_lhotse_recordings_that_are_not_files(corpus, tmp_path):
    """Recordings that a command writes (or a URL names) are read through Lhotse."""
    plain = corpus.recording("plain")
    source = AudioSource(type="command", channels=[0], source=f"cat {plain.sources[0].source}")
    piped = Recording("piped", [source], plain.sampling_rate, plain.num_samples, plain.duration)
    corpus.write("train", [plain, piped], [corpus.supervision(plain), corpus.supervision(piped)])
    prepare(corpus, tmp_path / "data")
    one, other = CutSet.from_file(tmp_path / "data" / "train" / "cuts.jsonl.gz")
    np.testing.assert_array_equal(one.load_features(), other.load_features())
