"""The doctor finds a healthy environment healthy, and names what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from utils import doctor, environment, hardware


def test_healthy_environment():
    done = subprocess.run([sys.executable, "-m", "utils.doctor"], cwd=environment.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert version("torch").split("+")[0] in done.stdout and version("lhotse") in done.stdout
    assert "all that is there works" in done.stdout
    if not environment.has("k2"):
        assert "off  k2" in done.stdout


@pytest.mark.k2
def test_k2_really_works():
    assert version("k2") in doctor.check_k2_build()
    assert "0.2877" in doctor.check_k2_loss()


@pytest.mark.k2
def test_k2_of_another_torch_is_broken(monkeypatch, capsys):
    import k2

    monkeypatch.setattr(k2, "k2_torch_version", "2.0.0+cu117")
    report = doctor.Report()
    assert not report.check("k2 build", doctor.check_k2_build)
    assert report.broken == 1
    assert "was built for torch 2.0.0, this is" in capsys.readouterr().out


def test_torchaudio_of_another_torch_is_broken(monkeypatch):
    torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed in this profile")
    monkeypatch.setattr(torchaudio, "__version__", "0.12.0")
    with pytest.raises(RuntimeError, match=r"0\.12\.0 is not of torch"):
        doctor.check_torchaudio()


def test_package_that_does_not_import_is_broken(tmp_path):
    (tmp_path / "sentencepiece.py").write_text("raise ImportError('libsomething.so: cannot open')\n")
    path = os.pathsep.join([str(tmp_path), str(environment.ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "utils.doctor"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "BROKEN  imports" in done.stdout and "sentencepiece: libsomething.so: cannot open" in done.stdout
    assert "1 broken" in done.stdout


def test_hardware_is_complete_and_true():
    import torch

    facts = hardware.hardware()
    assert set(facts) == {
        *("cpu", "cores", "threads", "gpu", "memory_gb", "python", "torch"),
        *("k2", "lhotse", "profile", "commit", "dirty"),
    }
    assert facts["torch"] == torch.__version__ and facts["threads"] == torch.get_num_threads()
    assert 1 <= facts["cores"] <= os.cpu_count() and facts["memory_gb"] > 0.5
    assert (facts["k2"] is not None) == environment.has("k2")


def test_commit_and_dirty(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(hardware, "ROOT", tmp_path)
    assert hardware.commit() == (None, None)
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    name, dirty = hardware.commit()
    assert len(name) == 12 and dirty is False
    (tmp_path / "a").write_text("2")
    assert hardware.commit() == (name, True)
