"""Commands in place of files, as Kaldi's wav.scp and Lhotse's manifests may hold: run only where that is allowed."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from local.corpus import Header, Unusable
from local.rows import Given, find_file, measure_any
from utils.errors import UserError
from utils.files import atomic_path


def audio_file(entry: str, recording: str, where: str, near: Path, given: Given) -> Path:
    """The file that an entry names, or the one that keeps what it writes if it is a command with `|` at its end.

    `UserError` for a command that may not be run. Relative paths start at `given.base`, or at `near` or above it.
    """
    entry = entry.strip()
    if not entry.endswith("|"):
        return find_file(entry, given.base, near)
    if given.keep_output is None:
        raise UserError(
            f"{where}: '{entry}' is a command, and commands of data are run only if you trust them: name the file "
            "itself (WAV, FLAC, SPHERE, MP3 and all that FFmpeg decodes are read as they are), or add --allow-pipes, "
            "which runs each once and keeps what it writes as FLAC."
        )
    return given.keep_output(recording, entry, given.base or near)


class Pipes:
    """Commands by the FLAC file that is to keep their output, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._commands: dict[Path, tuple[str, Path]] = {}

    def keep(self, recording: str, command: str, near: Path) -> Path:
        """The file for what `command` writes; relative paths in it start at `near`, or at a folder above it."""
        command = command.strip().rstrip("|")
        name = re.sub(r"[^\w.-]", "-", recording)
        path = self._folder / f"{name}-{hashlib.sha256(command.encode()).hexdigest()[:8]}.flac"
        self._commands[path] = (command, _home(command, near))
        return path

    def measure(self, path: Path) -> Header:
        """`measure_any`, after the command whose output the file keeps was run, if it was not before."""
        if path in self._commands and not path.exists():
            self._run(path, *self._commands[path])
        return measure_any(path)

    def _run(self, path: Path, command: str, home: Path) -> None:
        """Atomically: an interrupted command is run again."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".tmp-", suffix=".wav") as heard:
            done = subprocess.run(
                ["sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=heard,
                stderr=subprocess.PIPE,
                cwd=home,
                check=False,
            )
            if done.returncode:
                told = done.stderr.decode(errors="replace").strip().splitlines()
                why = f" ({told[-1]})" if told else ""
                raise Unusable("failed command", f"'{command.strip()}' ended with status {done.returncode}{why}.")
            _to_flac(Path(heard.name), path, command)


def _to_flac(source: Path, target: Path, command: str) -> None:
    """Copy audio block by block, with its 16 bits or, where it has more, 24."""
    import soundfile

    try:
        with soundfile.SoundFile(source) as heard, atomic_path(target) as temporary:
            deep = heard.subtype not in ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW")
            kind, subtype = ("int32", "PCM_24") if deep else ("int16", "PCM_16")
            with soundfile.SoundFile(
                temporary, "w", heard.samplerate, heard.channels, subtype, format="FLAC"
            ) as written:
                for block in heard.blocks(blocksize=1 << 20, dtype=kind, always_2d=True):
                    written.write(block)
    except soundfile.SoundFileError:
        raise Unusable("corrupt", f"What '{command.strip()}' writes is not audio that libsndfile reads.") from None


def _home(command: str, near: Path) -> Path:
    """Where the command's relative paths start: the first of `near` and the folders above it that has one of them."""
    try:
        words = [word for word in shlex.split(command) if not word.startswith(("/", "-"))]
    except ValueError:
        return near
    places = [near, *near.resolve().parents]
    return next((place for place in places if any((place / word).is_file() for word in words)), near)
