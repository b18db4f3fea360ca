"""A made-up task that a tiny model learns in seconds: tones for letters, features stored, no audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lhotse import CutSet, Features, MonoCut, SupervisionSegment
from lhotse.features.io import NumpyFilesWriter

from steps.lang.prepare import main as prepare_lang
from utils.options import load_yaml

torch.set_num_threads(1)
LETTERS = "abcdef"
ENCODER = {
    "name": "zipformer",
    "subsampling": {"factor": 4, "channels": [4, 8, 16], "convnext": False},
    "downsampling_factor": [1, 2],
    "num_encoder_layers": 1,
    "encoder_dim": [16, 24],
    "encoder_unmasked_dim": [16, 16],
    "num_heads": 2,
    "query_head_dim": 4,
    "value_head_dim": 4,
    "feedforward_dim": 32,
    "cnn_module_kernel": 7,
    "warmup_batches": 50,
    "schedule_scale": 0.01,
}


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """`count` utterances of letters, 16 frames each, every letter a bump at its own place of 20 mel bins."""
    rng = np.random.default_rng(seed)
    store = NumpyFilesWriter(folder / split / "feats")
    cuts = []
    for i in range(count):
        text = "".join(rng.choice(list(LETTERS), size=rng.integers(2, 7)))
        places = np.repeat([LETTERS.index(letter) for letter in text], 16)
        bins = np.arange(20)[None, :]
        values = (3 * np.exp(-((bins - 3 * places[:, None]) ** 2) / 4) + rng.normal(size=(len(places), 20)) / 4).astype(
            np.float32
        )
        name, seconds = f"{split}-{i:03d}", len(places) / 100
        key = store.write(name, values)
        features = Features(
            type="kaldi-fbank",
            num_frames=len(places),
            num_features=20,
            frame_shift=0.01,
            sampling_rate=16000,
            start=0.0,
            duration=seconds,
            storage_type="numpy_files",
            storage_path=str(folder / split / "feats"),
            storage_key=key,
            recording_id=name,
            channels=0,
        )
        supervision = SupervisionSegment(
            id=name,
            recording_id=name,
            start=0.0,
            duration=seconds,
            channel=0,
            text=text,
            language="en",
            speaker="s",
            custom={"translation": {"fr": text[::-1]} if i % 4 else {}},
        )
        cuts.append(MonoCut(name, 0.0, seconds, 0, supervisions=[supervision], features=features))
    CutSet.from_cuts(cuts).to_file(folder / split / "cuts.jsonl.gz")


@pytest.fixture(scope="session")
def task(tmp_path_factory) -> Path:
    """A folder with `data/` and `conf.yaml`: CTC on the letters, a transducer on their reversal."""
    root = tmp_path_factory.mktemp("task")
    for split, count, seed in (("train", 40, 0), ("dev", 8, 1)):
        write_split(root / "data", split, count, seed)
    (root / "data" / "features.yaml").write_text("num_mel_bins: 20\n")
    cuts = root / "data" / "train" / "cuts.jsonl.gz"
    with pytest.MonkeyPatch.context() as patch:
        for target, out in (("text", "lang_char"), ("translation.fr", "lang_fr")):
            options = ["--cuts", str(cuts), "--target", target, "--type", "char", "--out", str(root / "data" / out)]
            patch.setattr("sys.argv", ["steps.lang.prepare", *options])
            prepare_lang()
    values = {
        "seed": 1,
        "data": {
            "train": str(cuts),
            "valid": str(root / "data/dev/cuts.jsonl.gz"),
            "max_duration": 5.0,
            "num_buckets": 3,
        },
        "encoder": ENCODER,
        "heads": {
            "ctc": {"target": "text", "lang": str(root / "data/lang_char"), "weight": 0.5},
            "transducer": {
                "target": "translation.fr",
                "lang": str(root / "data/lang_fr"),
                "decoder_dim": 16,
                "joiner_dim": 16,
                "warm_step": 20,
            },
        },
        "schedule": {"name": "eden", "warmup_batches": 5, "lr_batches": 100, "lr_epochs": 10},
        "precision": "float32",
        "epochs": 3,
        "average": {"period": 2, "last_epochs": 1},
        "log_every": 4,
    }
    (root / "conf.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return root


@pytest.fixture
def settings(task) -> dict:
    """The values of `conf.yaml`, to change."""
    return load_yaml(task / "conf.yaml")
