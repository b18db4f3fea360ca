"""One command of a stage: skipped when it was done with the same inputs, else run with a log (`run` in a run.sh).

    python -m utils.run NAME --in "paths globs" --out "paths" -- command argument ...

A second run of a finished recipe is many of these, so this imports only the standard library, and little of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError, run
from utils.fingerprint import expand, files_below, fingerprint, same

PATIENCE = 20.0  # seconds to wait for another run of the same command


@dataclass
class Job:
    """One `run` line of a recipe."""

    name: str = ""
    log: str = "exp/log"
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @property
    def log_file(self) -> Path:
        return Path(self.log) / f"{self.name}.log"

    @property
    def stamp(self) -> Path:
        return Path(self.log) / ".done" / f"{self.name}.json"


def parse(arguments: list[str]) -> Job:
    """A run line; `UserError` for one that is malformed (the recipe's author made it)."""
    job, (own, dashes, job.command) = Job(), _split(arguments)
    rest = iter(own)
    for word in rest:
        if word in ("--in", "--out", "--log"):
            value = next(rest, None)
            if value is None:
                raise UserError(f"run {job.name}: {word} needs a value.")
            if word == "--log":
                job.log = value
            else:
                (job.inputs if word == "--in" else job.outputs).append(value)
        elif word.startswith("-") or job.name or not re.fullmatch(r"[\w.+-]+", word):
            raise UserError(f"run: '{word}' is neither --in, --out nor a name: run NAME --in .. --out .. -- command.")
        else:
            job.name = word
    if not (job.name and dashes and job.command):
        raise UserError(
            f"run {job.name}: a line is run NAME --in .. --out .. -- command; the name or command is missing."
        )
    return job


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


def clock(seconds: float) -> str:
    """3.2 s, 45 s, 1:02:03."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def require_inputs(job: Job) -> list[str]:
    """The input paths; `UserError` naming a missing one and the stage that makes it."""
    paths = expand(job.inputs)
    missing = [path for path in paths if not os.path.exists(path)]
    if not missing:
        return paths
    from utils.recipe import maker, read_recipe  # only a mistake pays for reading the script

    script = os.environ.get("DRAGOMAN_SCRIPT", "")
    hint = "check the path"
    if os.path.exists(script):
        recipe = read_recipe(script, json.loads(os.environ.get("DRAGOMAN_GIVEN") or "{}"))
        number = maker(recipe, missing[0])
        if number is not None:
            hint = f"stage {number} ({recipe.stages[number]}) makes it: start with --stage {number}"
    raise UserError(f"{job.name}: its input {missing[0]} does not exist: {hint}.")


def done_before(job: Job, paths: list[str]) -> dict | None:
    """The stamp of an earlier run if command, input contents and outputs are as they were then, else None."""
    try:
        stamp = json.loads(job.stamp.read_text("utf-8"))
        if stamp["command"] != job.command or stamp["finished"] < float(os.environ.get("DRAGOMAN_SINCE") or 0):
            return None
        if not all(os.path.exists(path) for path in [*expand(job.outputs), *stamp["made"]]):
            return None
        prints = fingerprint(paths, stamp["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same(prints, stamp["inputs"]):
        return None
    if prints != stamp["inputs"]:  # only times changed: remember them, so that next time need not read the files
        write_stamp(job, {**stamp, "inputs": prints})
    return stamp


def write_stamp(job: Job, stamp: dict) -> None:
    """Write the stamp to a temporary name and rename it: a killed run leaves none."""
    temporary = job.stamp.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(stamp), "utf-8")
    os.replace(temporary, job.stamp)


def take(path: Path, seconds: float, waiting: str = "") -> int | None:
    """An open descriptor that holds the lock `path`, or None if others hold it for longer than that."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    end, told = time.monotonic() + seconds, not waiting
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() > end:
                os.close(descriptor)
                return None
        if not told:
            print(waiting, flush=True)
            told = True
        time.sleep(0.1)


def lock(job: Job) -> int:
    """Exclude a second run of this command and end what a killed one left; returns the lock for the command to hold.

    We hold `.lock` ourselves; the command and all its processes hold `.group`, in which their process group stands.
    """
    job.stamp.parent.mkdir(parents=True, exist_ok=True)
    if take(job.stamp.with_suffix(".lock"), PATIENCE, f"   {job.name}: waiting for another run of it") is None:
        raise UserError(f"{job.name} is being run by another process: wait for it or end it.")
    path = job.stamp.with_suffix(".group")
    descriptor = take(path, 2)
    if descriptor is None:  # its runner is dead, or we would not hold .lock
        print(f"   {job.name}: ending what an interrupted run left behind", flush=True)
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)
        descriptor = take(path, PATIENCE)
    if descriptor is None:
        raise UserError(f"{job.name}: processes of an interrupted run still work on it: end them (see fuser {path}).")
    return descriptor


def execute(job: Job, paths: list[str], descriptor: int) -> int:
    """Run the command with its log; stamp it when it succeeded and made all its outputs. Returns its exit status."""
    from utils.child import Child

    inputs = fingerprint(paths)  # before the command: what changes meanwhile has changed
    job.log_file.parent.mkdir(parents=True, exist_ok=True)
    continued = not job.stamp.exists()  # the log of a run that did not finish is continued, not lost
    job.stamp.unlink(missing_ok=True)
    print(f"   {job.name}: log in {job.log_file}", flush=True)
    began = time.time()
    beside = int(os.environ.get("DRAGOMAN_BESIDE") or 1)
    child = Child(job.command, job.log_file, append=continued, keep_open=descriptor, beside=beside)
    os.pwrite(descriptor, f"{child.process.pid:<20d}".encode(), 0)  # it leads a group of its own
    status = child.wait()
    seconds = time.time() - began
    resume = f"to resume: {os.environ.get('DRAGOMAN_RESUME', 'the same command')}"
    if child.interrupted:
        print(f"\n{job.name} interrupted after {clock(seconds)}; {resume}", file=sys.stderr)
        return 128 + child.interrupted
    missing = [path for path in expand(job.outputs) if not os.path.exists(path)]
    if status == 0 and not missing:
        # What it wrote beside its inputs itself (score.json beside hyp.jsonl) is no change of them.
        inputs = {**fingerprint(expand(job.inputs), inputs), **inputs}
        made = [path for top in expand(job.outputs) for path in files_below(top)]
        times = {"seconds": seconds, "finished": time.time()}
        write_stamp(job, {"command": job.command, "inputs": inputs, "made": made, **times})
        print(f"   {job.name}: {clock(seconds)}", flush=True)
        return 0
    why = f"(killed by signal {-status})" if status < 0 else f"with status {status}"
    if status == 0:
        why = f"because it ended without making {missing[0]}"
    told = last_lines(job.log_file) if beside > 1 else ""  # alone on the terminal, they have just been seen there
    print(f"{told}{job.name} failed {why} after {clock(seconds)}; its log: {job.log_file}\n{resume}", file=sys.stderr)
    return status if 0 < status < 128 else 1


def last_lines(log: Path, count: int = 10) -> str:
    """The last lines of a log, indented; of its last run where it was continued."""
    last = deque(maxlen=count)
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if re.match(r"# \d{4}-\d\d-\d\d ", line):
                last.clear()
            else:
                last.append(f"    {line.rstrip()}\n")
    return "".join(last)


def main() -> int:
    job = parse(sys.argv[1:])
    paths = require_inputs(job)
    descriptor = lock(job)
    stamp = done_before(job, paths)  # after the lock: another run may just have done it
    if stamp:
        print(f"   {job.name}: done before ({clock(stamp['seconds'])}), skipped", flush=True)
        return 0
    return execute(job, paths, descriptor)


if __name__ == "__main__":
    run(main)
