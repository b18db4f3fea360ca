"""A command whose output goes to a log and to the terminal, that ends when we are told to end, or when we vanish."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from utils.errors import UserError

GRACE = 30.0  # seconds between asking a command to end (it may write a checkpoint) and ending it
PROGRESS = 60.0  # seconds between two states of a progress bar in the log
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Log:
    """Copies a command's output to its log by lines, of a progress bar (\\r) only the last state of every minute."""

    def __init__(self, path: Path, append: bool) -> None:
        self.file = open(path, "ab" if append else "wb", buffering=0)  # noqa: SIM115  closed by close()
        self.line = b""
        self.shown = time.monotonic()

    def write(self, data: bytes) -> None:
        try:
            self.add(data)
        except OSError as error:
            error.filename = error.filename or self.file.name  # a full disk has no name of its own
            raise

    def add(self, data: bytes) -> None:
        *lines, self.line = (self.line + data.replace(b"\r\n", b"\n")).split(b"\n")
        for line in lines:
            self.file.write(self.last_state(line) + b"\n")
        if b"\r" in self.line:
            self.line = b"\r".join(self.line.split(b"\r")[-2:])  # the last may be cut anywhere
            if time.monotonic() - self.shown > PROGRESS:
                self.shown = time.monotonic()
                self.file.write(self.last_state(self.line) + b"\n")

    @staticmethod
    def last_state(line: bytes) -> bytes:
        return next((state for state in reversed(line.split(b"\r")) if state.strip()), b"")

    def close(self) -> None:
        if self.line.strip():
            self.file.write(self.last_state(self.line) + b"\n")
        self.file.close()


class Screen:
    """The terminal's copy: everything on a terminal, whole lines without progress bars elsewhere (a file, CI), and
    whole lines that begin with `label` where several commands share the terminal."""

    def __init__(self, label: str = "") -> None:
        self.out = sys.stdout.buffer
        self.label = label.encode()
        self.terminal = sys.stdout.isatty() and not label
        self.line = b""
        self.silent = False

    def write(self, data: bytes) -> None:
        if self.silent:
            return
        if not self.terminal:
            *lines, self.line = (self.line + data.replace(b"\r\n", b"\n")).split(b"\n")
            data = b"".join(self.label + Log.last_state(line) + b"\n" for line in lines)
            self.line = b"\r".join(self.line.split(b"\r")[-2:])
        try:
            self.out.write(data)
            self.out.flush()
        except BrokenPipeError:  # the reader of our output left; the work and its log go on
            self.silent = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def die_with(parent: int):
    """What a child does before it starts: lead a process group of its own, and end when `parent` is killed (Linux)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        os.setpgid(0, 0)
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


class Child:
    """The running command; `wait` copies its output, `interrupted` is the signal that ended us (0: none)."""

    def __init__(self, command: list[str], log: Path, append: bool, keep_open: int, beside: int = 1) -> None:
        self.log, self.screen = Log(log, append), Screen(f"{log.stem}: " if beside > 1 else "")
        self.log.file.write(f"# {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
        self.interrupted = 0
        self.deadline = float("inf")
        self.parent = os.getppid()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if beside > 1:  # they share the cores, and the shell has started us deaf to Ctrl-C
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // beside)))
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(keep_open,),
                preexec_fn=die_with(os.getpid()),
            )
        except FileNotFoundError:
            raise UserError(f"The command {command[0]} is not installed or not on PATH.") from None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, self.end)

    def end(self, number: int, _frame=None) -> None:
        """Pass a signal on to the whole group, once; the second one kills."""
        self.deadline = time.monotonic() + (0 if self.interrupted else GRACE)
        self.interrupted = self.interrupted or number
        self.screen.silent = True
        self.kill(signal.SIGTERM if number == signal.SIGHUP else number)

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Copy output until the command ends; returns its status (negative: the signal that killed it)."""
        selector = selectors.DefaultSelector()
        selector.register(self.process.stdout, selectors.EVENT_READ)
        descriptor = self.process.stdout.fileno()
        try:
            while True:
                if selector.select(timeout=0.5):
                    data = os.read(descriptor, 1 << 16)
                    if not data:
                        break
                    self.log.write(data)
                    self.screen.write(data)
                elif self.process.poll() is not None:
                    break  # something it left in the background still holds the pipe
                if os.getppid() != self.parent and not self.interrupted:
                    self.end(signal.SIGTERM)
                if time.monotonic() > self.deadline:
                    self.kill(signal.SIGKILL)
            while self.process.poll() is None:
                time.sleep(0.02)
                if time.monotonic() > self.deadline:
                    self.kill(signal.SIGKILL)
            return self.process.returncode
        finally:
            if self.process.poll() is None:  # we failed (a full disk, say): it must not go on without a log
                self.kill(signal.SIGKILL)
                self.process.wait()
            elif self.interrupted:
                self.kill(signal.SIGKILL)  # its workers too
            self.log.close()
