"""The installer's decisions, without installing anything: what is ready, what is repaired, which Python, which k2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils import install, k2_index, pythons

ROOT = Path(__file__).resolve().parents[2]
INSTALLER = [sys.executable, str(ROOT / "utils" / "install.py")]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [name for name in os.environ if name.startswith("DRAGOMAN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def ready(tmp_path) -> Path:
    """A folder that looks like a finished environment."""
    install.write_mark(tmp_path, {"profile": "pypi", "state": "ready", "files": install.digests("pypi")})
    return tmp_path


def test_ready_only_with_the_stamp_of_todays_requirements(ready, monkeypatch):
    assert install.ready(ready)
    mark = install.read_mark(ready)
    install.write_mark(ready, {**mark, "state": "installing"})
    assert not install.ready(ready)
    install.write_mark(ready, {**mark, "files": {**mark["files"], "common.txt": "older"}})
    assert not install.ready(ready)
    (ready / "dragoman.json").write_text("{")
    assert not install.ready(ready)


def test_another_profile_or_more_extras_are_not_ready(ready, monkeypatch):
    monkeypatch.setenv("DRAGOMAN_EXTRAS", "dev")
    assert not install.ready(ready)
    monkeypatch.setenv("DRAGOMAN_EXTRAS", "")
    monkeypatch.setenv("DRAGOMAN_PROFILE", "no-k2")
    assert not install.ready(ready)


def test_environment_made_elsewhere_is_used_only_when_named(tmp_path):
    venv = tmp_path / "own"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    for command in (["--check"], []):
        named = subprocess.run(
            [*INSTALLER, "--venv", str(venv), *command], env={**os.environ, "DRAGOMAN_VENV": str(venv)}
        )
        assert named.returncode == 0
    refused = subprocess.run([*INSTALLER, "--venv", str(venv)], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "was made by something else" in refused.stderr and refused.stderr.count("\n") == 1
    assert not (venv / "dragoman.json").exists()


def test_unknown_profile_is_refused_before_anything_is_made(tmp_path):
    done = subprocess.run(
        [*INSTALLER, "--venv", str(tmp_path / "v")],
        env={**os.environ, "DRAGOMAN_PROFILE": "pipy"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "DRAGOMAN_PROFILE=pipy is none of k2-index, pypi, no-k2" in done.stderr
    assert "did you mean 'pypi'" in done.stderr
    assert not (tmp_path / "v").exists()


def package(site: Path, name: str) -> Path:
    """A package as pip leaves it: one file of 3 bytes, listed in RECORD. Returns its dist-info."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (site / f"{name}.py").write_text("x=1")
    (info / "RECORD").write_text(f'{name}.py,sha256=abc,3\n{info.name}/RECORD,,\n"../../../share/a,b",,\n')
    return info


def test_incomplete_packages_are_forgotten_whole_ones_kept(tmp_path, capsys):
    site = tmp_path / "lib" / "python3.10" / "site-packages"
    infos = {name: package(site, name) for name in ("whole", "cut", "gone", "unrecorded")}
    (site / "cut.py").write_text("x")
    (site / "gone.py").unlink()
    (infos["unrecorded"] / "RECORD").unlink()
    (site / "~orch").mkdir()
    install.remove_broken(tmp_path)
    assert [name for name, info in infos.items() if info.exists()] == ["whole"]
    assert not (site / "~orch").exists()
    assert "cut-1.0.dist-info is incomplete" in capsys.readouterr().out


def test_no_python_of_that_version_names_what_to_do(monkeypatch):
    monkeypatch.setattr(pythons, "candidates", lambda version: [])
    with pytest.raises(install.Unavailable, match=r"no Python 3.10 or 3.11 here"):
        install.prepare("pypi")


def fake(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_python_that_exists_but_fails_is_passed_over(tmp_path, monkeypatch):
    shim = fake(tmp_path / "shims", "python3.10", "echo 'pyenv: python3.10: command not found' >&2; exit 127")
    good = fake(tmp_path / "good", "python3.10", "echo 3.10 3.10.99")
    monkeypatch.setenv("PATH", f"{shim.parent}:{good.parent}")
    found, _ = pythons.find(("3.10",))
    assert found == pythons.Python(str(good), "3.10", "3.10.99")


def test_python_without_venv_names_the_package(tmp_path, monkeypatch):
    bare = fake(tmp_path, "python3.10", "echo 3.10 3.10.99; exit 1")
    monkeypatch.setattr(pythons, "candidates", lambda version: [str(bare)])
    assert pythons.find(("3.10",)) == (None, f"{bare} cannot make environments: apt-get install python3.10-venv")


PAGE = """
<a href="https://hub.example/resolve/ubuntu-cuda/k2-1.24.4.dev20260601+cpu.torch2.11.0-cp310-cp310-{m}.whl">a</a>
<a href="https://hub.example/k2-1.24.4.dev20260625%2Bcpu.torch2.11.0-cp310-cp310-{m}.whl">newest</a>
<a href="https://hub.example/k2-1.24.4.dev20260701%2Bcpu.torch2.11.1-cp310-cp310-{m}.whl">other torch</a>
<a href="https://hub.example/k2-1.24.4.dev20260702%2Bcpu.torch2.11.0-cp311-cp311-{m}.whl">other Python</a>
<a href="https://hub.example/k2-1.24.4.dev20260703%2Bcpu.torch2.11.0-cp310-cp310-win_amd64.whl">other machine</a>
<a href="https://hub.example/k2-1.24.4.dev20260625%2Bcuda12.6.torch2.11.0-cp310-cp310-{m}.whl">cuda</a>
<a href="https://hub.example/k2-1.24.4.dev20260625%2Bcuda12.8.torch2.11.0-cp310-cp310-{m}.whl">cuda</a>
<a href="https://hub.example/k2-1.24.4.dev20260625%2Bcuda13.0.torch2.11.0-cp310-cp310-{m}.whl">cuda</a>
"""


@pytest.mark.parametrize(
    ("cuda", "built"), [("", ""), ("12.8", "12.8"), ("12.10", "12.8"), ("13.1", "13.0"), ("11.8", None)]
)
def test_k2_of_exactly_this_torch_python_machine_and_cuda(monkeypatch, cuda, built):
    monkeypatch.setattr(k2_index.platform, "system", lambda: "Linux")
    monkeypatch.setattr(k2_index.platform, "machine", lambda: "x86_64")
    page = PAGE.format(m="manylinux_2_27_x86_64.manylinux_2_28_x86_64")
    wheel = k2_index.choose(page, "https://x.example/cpu.html", "2.11.0", "3.10", cuda)
    if built is None:
        assert wheel is None
        return
    device = f"cuda{built}" if built else "cpu"
    assert (wheel.cuda, wheel.version) == (built, "1.24.4.dev20260625")
    assert f"dev20260625%2B{device}.torch2.11.0-cp310" in wheel.url
    assert k2_index.choose(page, "https://x.example/", "2.12.0", "3.10", cuda) is None


def test_index_that_cannot_be_reached_is_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(k2_index, "driver_cuda", lambda: "")
    monkeypatch.setenv("DRAGOMAN_K2_INDEX", (tmp_path / "none").as_uri() + "/")
    wheel, why = k2_index.look_up("2.11.0", "3.10")
    assert wheel is None and "cpu.html cannot be reached" in why


def test_every_pin_has_its_reason():
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        if path.name in ("constraints.txt", "pypi-k2.txt"):
            continue
        reasons: dict[str, str] = {}
        for line in path.read_text("utf-8").splitlines():
            if line and not line.startswith(("#", "-r")):
                requirement, _, reason = line.partition("#")
                name, equals, _ = requirement.partition("==")
                assert equals, f"{path.name}: {line} is not pinned"
                reasons[name] = reasons.get(name) or reason.strip()
        assert all(reasons.values()), {name for name, reason in reasons.items() if not reason}


def test_mark_is_written_whole(tmp_path):
    install.write_mark(tmp_path, {"state": "new"})
    assert json.loads((tmp_path / "dragoman.json").read_text()) == {"state": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["dragoman.json"]
