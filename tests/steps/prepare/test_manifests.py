"""Manifests of a split as stage 2 holds them: whole recordings, in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from local.manifests import make_recording, make_utterance, write_manifests
from steps.prepare.manifests import read_manifests, unpack
from utils.files import read_jsonl


def write(folder: Path, count: int) -> None:
    utterances = []
    for number in range(count):
        recording = make_recording(f"talk-{number // 2}", Path(f"/corpus/{number // 2}.flac"), 16000, 160000)
        custom = {"translation": {"fr": f"numéro {number}"}}
        utterances.append(
            make_utterance(f"u-{number}", recording, f"number {number}", "en", "alice", custom, number % 2 * 4.0, 3.5)
        )
    write_manifests(folder, {"train": utterances}, [])


def test_what_is_unpacked_is_what_the_manifests_say(tmp_path):
    write(tmp_path, 6)
    work, bad = read_manifests(tmp_path, "train")
    recordings, supervisions = zip(*unpack(work), strict=True)
    assert not bad and list(recordings) == list(read_jsonl(tmp_path / "train_recordings.jsonl.gz"))
    assert [row for spoken in supervisions for row in spoken] == list(
        read_jsonl(tmp_path / "train_supervisions.jsonl.gz")
    )
    assert [len(spoken) for spoken in supervisions] == [2, 2, 2]


def test_an_utterance_takes_less_than_a_kilobyte(tmp_path):
    write(tmp_path, 2000)
    read_manifests(tmp_path, "train")  # what is imported on first use
    tracemalloc.start()
    held = read_manifests(tmp_path, "train")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held[0]) == 1000 and size / 2000 < 1000
