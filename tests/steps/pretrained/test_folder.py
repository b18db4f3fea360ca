"""Folders of pretrained models: found by path or by name, their weights read whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steps.pretrained.folder import find_model, read_weights
from utils.errors import UserError

STATE = {"model.a": torch.arange(4.0), "model.b": torch.ones(2, 3), "head": torch.zeros(1)}


def rename(key: str) -> str | None:
    return key[6:] if key.startswith("model.") else None


def write(folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "x"}')
    half = {key: value.half() for key, value in STATE.items()}
    first, second = {"model.a": half["model.a"]}, {key: half[key] for key in ("model.b", "head")}
    suffix = "safetensors" if "safetensors" in kind else "bin"
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    save = save_file if suffix == "safetensors" else torch.save
    if kind.endswith("shards"):
        files = {f"{stem}-{n}-of-2.{suffix}": part for n, part in enumerate((first, second), 1)}
        places = {key: name for name, part in files.items() for key in part}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}))
    else:
        files = {f"{stem}.{suffix}": half}
    for name, part in files.items():
        save(part, str(folder / name))
    return folder


@pytest.mark.parametrize("kind", ["safetensors", "safetensors shards", "torch", "torch shards"])
def test_weights_in_every_layout(tmp_path, kind):
    found = read_weights(write(tmp_path, kind), rename)
    assert found.keys() == {"a", "b"} and {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["a"], STATE["model.a"]) and torch.equal(found["b"], STATE["model.b"])


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_weights(tmp_path, kind, share):
    folder = write(tmp_path, kind)
    file = next(path for path in folder.iterdir() if path.suffix != ".json")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(UserError, match=rf"{file} is truncated or (no safetensors file|is not a checkpoint) \("):
        read_weights(folder, rename)


def test_weights_that_are_not_there(tmp_path):
    folder = write(tmp_path, "safetensors shards")
    (folder / "model-2-of-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2-of-2.safetensors does not exist"):
        read_weights(folder, rename)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"holds no weights \(model.safetensors or pytorch_model.bin\)"):
        read_weights(folder, rename)


@pytest.fixture
def hub(monkeypatch):
    """A hub in a folder: what `snapshot_download` is asked for, and which files it then has."""
    import huggingface_hub

    class Hub:
        """`there` is what has been fetched, `offers` what can be, by the pattern of its weights."""

        def __init__(self) -> None:
            self.asked: list[str] = []
            self.there: Path | None = None
            self.offers: dict[str, Path] = {}

        def download(self, name, local_files_only=False, allow_patterns=None, **_):
            self.asked.append("cache" if local_files_only else allow_patterns[-1])
            if local_files_only and self.there is None:
                raise FileNotFoundError(name)
            if local_files_only:
                return str(self.there)
            if allow_patterns[-1] not in self.offers:
                raise ConnectionError("no route\nto the hub")
            return str(self.offers[allow_patterns[-1]])

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    return hub


def test_the_hub_is_asked_only_for_what_is_not_there(hub, tmp_path):
    hub.there = write(tmp_path / "whole", "safetensors shards")
    assert find_model("a/b") == hub.there and hub.asked == ["cache"]
    (hub.there / "model-2-of-2.safetensors").unlink()  # a download that was interrupted
    hub.offers = {"model*.safetensors": write(tmp_path / "new", "safetensors")}
    hub.asked.clear()
    assert find_model("a/b") == tmp_path / "new" and hub.asked == ["cache", "model*.safetensors"]


def test_old_models_have_no_safetensors(hub, tmp_path):
    bare = write(tmp_path / "bare", "torch")
    (bare / "pytorch_model.bin").unlink()
    hub.offers = {"model*.safetensors": bare, "pytorch_model*.bin": write(tmp_path / "old", "torch")}
    assert find_model("a/b") == tmp_path / "old"
    hub.offers["pytorch_model*.bin"] = bare
    with pytest.raises(UserError, match="path: 'a/b' on the hub is no model of transformers with its weights"):
        find_model("a/b")


def test_names_that_cannot_be_had(hub, tmp_path):
    message = r"encoder.path: 'opnai/whisper' is neither a folder here nor could it be had from the hub \(no route\): "
    with pytest.raises(UserError, match=message):
        find_model("opnai/whisper", "encoder.path")
    for path in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c", __file__):
        with pytest.raises(UserError, match=r"path: .* is no folder: give the folder of a model, or its name"):
            find_model(path)
    with pytest.raises(UserError, match=r"holds no config.json: give the folder of a model of transformers"):
        find_model(str(tmp_path))
