"""Makes or repairs the environment: python utils/install.py --venv .venv (path.sh does it). Standard library only.

The profiles `k2-index`, `pypi` and `no-k2` are tried in this order (DRAGOMAN_PROFILE names one). What is there is noted
in <venv>/dragoman.json, written as ready last: whatever is not ready, or was made from other requirements, is repaired.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("k2-index", "pypi", "no-k2")
PYTHONS = {
    "k2-index": ("3.11", "3.12", "3.10", "3.13", "3.14"),
    "pypi": ("3.10", "3.11"),
    "no-k2": ("3.11", "3.12", "3.10", "3.13", "3.14"),
}
SPACE = {"k2-index": 8, "pypi": 6, "no-k2": 4}  # GB while installing; measured 3.9 (pypi) and 1.5 (no-k2) afterwards
IMPORTS = {"k2-index": "torch, lhotse, k2", "pypi": "torch, lhotse, k2", "no-k2": "torch, lhotse"}
UNAVAILABLE = re.compile(
    "No matching distribution|Could not find a version|not a supported wheel|DO NOT MATCH|is not a valid"
)


class Unavailable(Exception):
    """This profile cannot be had here; another may."""


class Failed(Exception):
    """The installation stopped; the same command continues it."""


def files_of(profile: str) -> list[str]:
    """The requirement files of a profile and of DRAGOMAN_EXTRAS, in the order of installation."""
    names = [profile, *(["pypi-k2"] if profile == "pypi" else []), *os.environ.get("DRAGOMAN_EXTRAS", "").split()]
    return [f"{name}.txt" for name in names]


def digests(profile: str) -> dict[str, str]:
    """Content hashes of the files that decide what is installed."""
    names = [*files_of(profile), "common.txt", "constraints.txt"]
    return {name: hashlib.sha256((ROOT / "requirements" / name).read_bytes()).hexdigest() for name in names}


def read_mark(venv: Path) -> dict:
    """What dragoman.json says, or {} where we made no environment."""
    try:
        return json.loads((venv / "dragoman.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def write_mark(venv: Path, mark: dict) -> None:
    """Write dragoman.json to a temporary name and rename it."""
    temporary = venv / "dragoman.json.tmp"
    temporary.write_text(json.dumps(mark, indent=1), "utf-8")
    os.replace(temporary, venv / "dragoman.json")


def foreign(venv: Path) -> bool:
    """Whether the user named (DRAGOMAN_VENV) an environment that we did not make: it is used as it is."""
    return bool(os.environ.get("DRAGOMAN_VENV")) and not (venv / "dragoman.json").exists() and runs(venv)


def runs(venv: Path) -> bool:
    """Whether the environment's Python starts."""
    command = [str(venv / "bin" / "python"), "-c", "import pip"]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def ready(venv: Path) -> bool:
    """Whether the environment is complete, of the profile asked for, and made from today's requirements."""
    mark = read_mark(venv)
    if mark.get("state") != "ready":
        return False
    if os.environ.get("DRAGOMAN_PROFILE", mark["profile"]) != mark["profile"]:
        return False
    return all(mark["files"].get(name) == digest for name, digest in digests(mark["profile"]).items())


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def pip(venv: Path, lock: int, *arguments: str) -> None:
    """Run the environment's pip; `Unavailable` or `Failed` with the line of its output that tells why."""
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(venv / "install.log", "a", encoding="utf-8") as log:
        # The lock stays with pip: if we are killed, the next run waits for the pip that we left behind.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, cwd=str(ROOT), pass_fds=(lock,)
        )
        errors = []
        for raw in process.stdout or ():
            line = raw.decode("utf-8", "replace").rstrip()
            log.write(line + "\n")
            if re.search(r"Downloading .*\(\d{2,}\.\d MB\)|Downloading .*GB\)", line):
                say(line.strip())
            if re.match(r"Installing collected packages", line):
                say(f"installing {line.count(',') + 1} packages")
            if re.search(r"ERROR|No space left|Could not", line):
                errors.append(line.replace("ERROR: ", ""))
    if process.wait() == 0:
        return
    text = "\n".join(errors)
    if "No space left" in text:
        raise Failed(f"no space left on device for {venv}: free some space")
    why = errors[0][:300] if errors else f"pip ended with status {process.returncode}"
    raise (Unavailable if UNAVAILABLE.search(text) else Failed)(f"{why} (log: {venv / 'install.log'})")


def remove_broken(venv: Path) -> None:
    """Forget packages that an interrupted pip left incomplete (a file of RECORD missing or cut): pip redoes them."""
    for site in venv.glob("lib/python3*/site-packages"):
        for info in site.glob("*.dist-info"):
            try:
                rows = [line.rsplit(",", 2) for line in (info / "RECORD").read_text("utf-8").splitlines()]
                whole = all(
                    size == "" or (site / name.strip('"')).stat().st_size == int(size) for name, _, size in rows
                )
            except (OSError, ValueError):
                whole = False
            if not whole:
                say(f"{info.name} is incomplete: installing it again")
                shutil.rmtree(info)
        for rest in site.glob("~*"):
            shutil.rmtree(rest, ignore_errors=True)


def clear(venv: Path) -> None:
    """Empty the folder but for our mark and lock."""
    for entry in venv.iterdir():
        if entry.name in ("dragoman.json", "dragoman.lock"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def make(venv: Path, python, profile: str) -> None:
    """An empty virtual environment with this Python, or the one that is there if it is of that kind and runs."""
    mark = read_mark(venv)
    if mark.get("profile") == profile and mark.get("python") == python.version and runs(venv):
        say("repairing what is there")
        remove_broken(venv)
        write_mark(venv, {**mark, "state": "installing"})
        return
    clear(venv)
    write_mark(venv, {"profile": profile, "python": python.version, "state": "installing"})
    done = subprocess.run([python.path, "-m", "venv", str(venv)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Failed(f"{python.path} -m venv failed: {done.stdout.decode('utf-8', 'replace').strip()[-300:]}")


def fill(venv: Path, profile: str, k2, lock: int) -> None:
    """Install the profile's packages and see that they import."""
    from utils.k2_index import torch_index

    requirements = ROOT / "requirements"
    files = [name for name in files_of(profile) if name != "pypi-k2.txt"]
    options = [word for name in files for word in ("-r", str(requirements / name))]
    if profile == "k2-index":
        options += torch_index(k2.cuda)
    elif profile == "no-k2" and not shutil.which("nvidia-smi"):
        options += torch_index("")
    if profile == "pypi":
        version = subprocess.check_output([str(venv / "bin" / "pip"), "--version"]).decode().split()[1]
        if int(version.split(".")[0]) >= 25:
            pip(venv, lock, "pip<25")  # newer ones reject the name of k2's wheel
    pip(venv, lock, "-c", str(requirements / "constraints.txt"), *options)
    if profile == "pypi":
        pip(venv, lock, "--no-deps", "-r", str(requirements / "pypi-k2.txt"))
    elif k2 is not None:
        pip(venv, lock, "--no-deps", k2.url)
    test = subprocess.run(
        [str(venv / "bin" / "python"), "-c", f"import {IMPORTS[profile]}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if test.returncode:
        last = test.stdout.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {test.returncode}"]
        raise Unavailable(f"its packages do not import: {last[0]}")


def prepare(profile: str):
    """The Python for `profile` and k2's wheel where it comes from the index; `Unavailable` with the reason."""
    from utils.k2_index import look_up
    from utils.pythons import find

    if profile == "pypi" and (sys.platform != "linux" or os.uname().machine != "x86_64"):
        raise Unavailable("PyPI's k2 is for Linux on x86_64 only")
    python, why = find(PYTHONS[profile])
    if python is None:
        raise Unavailable(why)
    if profile != "k2-index":
        return python, None
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / "requirements" / "k2-index.txt").read_text("utf-8"), re.MULTILINE)
    wheel, why = look_up(pinned.group(1) if pinned else "", python.version)
    if wheel is None:
        raise Unavailable(why)
    return python, wheel


def install(venv: Path, lock: int) -> None:
    """Make the first profile that can be had, or the one asked for."""
    asked = os.environ.get("DRAGOMAN_PROFILE")
    mark = read_mark(venv)
    kept = mark.get("profile") if mark.get("state") == "ready" else None  # new requirements do not change the profile
    reasons = []
    for profile in [asked or kept] if asked or kept else PROFILES:
        try:
            python, k2 = prepare(profile)
            free = shutil.disk_usage(venv).free / 1e9
            if free < SPACE[profile]:
                raise Unavailable(f"it wants {SPACE[profile]} GB of disk, {free:.1f} are free in {venv.parent}")
            say(f"{profile}: taken, with Python {python.release} ({python.path})")
            make(venv, python, profile)
            fill(venv, profile, k2, lock)
        except Unavailable as error:
            if not (asked or kept):
                say(f"{profile}: cannot be had: {error}")
            reasons.append(str(error))
            continue
        done = {"profile": profile, "python": python.version, "state": "ready", "files": digests(profile)}
        write_mark(venv, {**done, "k2": k2.url if k2 else None})
        return
    raise Failed(f"{asked or kept}: {reasons[0]}" if asked or kept else "no profile can be had (reasons above)")


def take_lock(venv: Path) -> int:
    """An open descriptor that holds the folder's lock; waits while another process installs into it."""
    import fcntl

    lock = os.open(venv / "dragoman.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say("another process is making it: waiting for that")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True, help="folder of the environment")
    parser.add_argument("--check", action="store_true", help="only say by the exit status whether it is ready")
    args = parser.parse_args()
    venv = args.venv.absolute()
    if args.check:
        return 0 if ready(venv) or foreign(venv) else 1
    if foreign(venv):
        return 0
    asked = os.environ.get("DRAGOMAN_PROFILE")
    if asked and asked not in PROFILES:
        from utils.errors import nearest

        raise Failed(f"DRAGOMAN_PROFILE={asked} is none of {', '.join(PROFILES)}{nearest(asked, PROFILES)}")
    if venv.exists() and any(venv.iterdir()) and not (venv / "dragoman.json").exists():
        raise Failed(f"{venv} was made by something else: remove it, or set DRAGOMAN_VENV to it to use it as it is")
    began = time.time()
    print(f"== environment in {venv}", flush=True)
    venv.mkdir(parents=True, exist_ok=True)
    if not read_mark(venv):
        write_mark(venv, {"state": "new"})
    lock = take_lock(venv)
    if not ready(venv) or not runs(venv):
        install(venv, lock)
    print(f"== environment ready in {time.time() - began:.0f} s (profile {read_mark(venv)['profile']})", flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    try:
        sys.exit(main())
    except Failed as error:
        print(f"error: {error}; mend that and give the same command again.", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(
            f"error: {error.filename or 'the environment'}: {error.strerror}; mend it and give the same command again.",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: the same command continues the installation", file=sys.stderr)
        sys.exit(130)
