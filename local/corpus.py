"""What corpus modules share: utterances of which some are bad, folders one level off, published sizes, programs."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tqdm import tqdm

from local.manifests import Utterance, count_utterances, make_recording, print_counts, write_manifests
from utils.errors import UserError
from utils.options import Parser, count

if TYPE_CHECKING:
    from lhotse import Recording

BAD = 0.1  # share of a split's utterances that may be unusable before the corpus is refused
POINTER = b"version https://git-lfs"
# libsndfile's log of a WAV or AIFF file: bytes of audio that the header promises, and that are there
PROMISED = re.compile(r"^ *(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
STREAMED = 0x7FFFF000  # bytes, or more: what programs promise that write to a pipe
HEADER = 1024  # bytes; some programs count the header too

T = TypeVar("T")


class Unusable(Exception):
    """An utterance to leave out: `reason` is a fixed word or two, the message a sentence that names the file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


# ---- text


def decode_text(path: Path) -> str:
    """The content of a UTF-8 file; `Unusable` where it is missing, in another encoding, or a pointer of Git LFS."""
    try:
        if not path.is_file():
            raise Unusable("missing file", f"{path} is not there.")
        content = path.read_bytes()
        refuse_pointer(path, content)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("not UTF-8", f"{path} is not text in UTF-8.") from None
    except OSError as error:
        raise Unusable("unreadable", f"{path} cannot be read ({error.strerror}).") from None


def read_text(path: Path, remedy: str) -> list[str]:
    """The lines of a file that a whole split hangs on; `UserError` with `remedy` where it cannot be read.

    Only line feeds end a line: others, such as U+2028, are in the middle of some corpora's sentences.
    """
    try:
        return [line.removesuffix("\r") for line in decode_text(path).removesuffix("\n").split("\n")]
    except Unusable as error:
        raise UserError(f"{str(error).rstrip('.')}: {remedy}.") from None


def refuse_pointer(path: Path, content: bytes) -> None:
    """`Unusable` where `content`, the beginning of a file, is what Git LFS leaves in place of the file."""
    if content.startswith(POINTER):
        raise Unusable("LFS pointer", f"{path} is a pointer of Git LFS, not the file: run 'git lfs pull' there.")


# ---- audio


class Header(NamedTuple):
    """What the header of an audio file says."""

    rate: int  # Hz
    samples: int  # of one channel
    channels: int


def measure(path: Path) -> Header:
    """Rate, length and channels of an audio file that libsndfile reads, nothing decoded; `Unusable` if it is none."""
    import soundfile

    try:
        if not path.is_file():
            raise Unusable("missing file", f"{path} is not there.")
        if path.stat().st_size == 0:
            raise Unusable("empty", f"{path} has no bytes.")
        with open(path, "rb") as file:
            refuse_pointer(path, file.read(len(POINTER)))
        info = soundfile.info(path)
    except OSError as error:  # no permission, a name too long, a broken disk
        raise Unusable("unreadable", f"{path} cannot be read ({error.strerror}).") from None
    except soundfile.SoundFileError:
        raise Unusable("corrupt", f"{path} is not audio that libsndfile reads.") from None
    if info.frames <= 0:
        raise Unusable("empty", f"{path} has no samples.")
    refuse_cut(path, info.extra_info)
    return Header(info.samplerate, info.frames, info.channels)


def refuse_cut(path: Path, log: str) -> None:
    """`Unusable` where libsndfile's `log` says that a file ends before the audio that its header promises."""
    if found := PROMISED.search(log):
        promised, there = map(int, found.groups())
        if there + HEADER < promised < STREAMED:
            raise Unusable(
                "truncated", f"{path} has {there} of the {promised} bytes of audio that its header promises."
            )


def measure_mono(path: Path) -> Header:
    """`measure` of a file that has one channel; `Unusable` if it has more."""
    header = measure(path)
    if header.channels != 1:
        raise Unusable("corrupt", f"{path} has {header.channels} channels, not one.")
    return header


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` makes of its arguments, or the `Unusable` that it raised."""
    try:
        return function(*arguments)
    except Unusable as error:
        return error


class AudioFiles:
    """The headers of many files, each read once, by `jobs` threads; `files[path]` raises what was wrong with it."""

    def __init__(
        self, paths: Iterable[Path], jobs: int = 1, name: str = "audio", read: Callable[[Path], Header] = measure_mono
    ) -> None:
        distinct = list(dict.fromkeys(paths))
        with ThreadPoolExecutor(jobs) as pool:  # libsndfile releases the GIL, and disks are what takes time
            found = pool.map(lambda path: attempt(read, path), distinct)
            self._found = dict(zip(distinct, tqdm(found, name, len(distinct), unit="file"), strict=True))
        self._recordings: dict[tuple[Path, str], Recording] = {}

    def __getitem__(self, path: Path) -> Header:
        if isinstance(found := self._found[path], Unusable):
            raise found
        return found

    def recording(self, path: Path, key: str = "") -> Recording:
        """The whole file as a recording with the id `key`, or its name; the same one each time."""
        key = key or path.stem
        if (path, key) not in self._recordings:
            header = self[path]  # before the path is touched, which may be none
            self._recordings[path, key] = make_recording(key, path.resolve(), *header)
        return self._recordings[path, key]


# ---- utterances


def read_utterances(
    items: Mapping[str, T | Unusable],
    read: Callable[[str, T], Utterance],
    left_out: list[dict],
    where: Path,
    remedy: str,
) -> list[Utterance | None]:
    """`read(id, item)` of all items, in order, None for those that are unusable, which are added to `left_out`.

    `UserError` with `remedy` where there is none, or where more than one in ten is unusable.
    """
    if not items:
        raise UserError(f"{where} holds no utterances: {remedy}.")
    found, wrong = [], []
    for key, item in tqdm(items.items(), desc=where.name, unit="utterance"):
        result = item if isinstance(item, Unusable) else attempt(read, key, item)
        if isinstance(result, Unusable):
            wrong.append({"id": key, "reason": result.reason, "detail": str(result)})
        found.append(None if isinstance(result, Unusable) else result)
    if len(wrong) > BAD * len(found):
        first = wrong[0]["detail"].rstrip(".")
        raise UserError(f"{where}: {len(wrong)} of its {len(found)} utterances are unusable ({first}): {remedy}.")
    left_out += wrong
    return found


def usable(found: Iterable[Utterance | None]) -> list[Utterance]:
    """Without those that were left out."""
    return [utterance for utterance in found if utterance]


# ---- folders


def find_folder(folder: Path, wanted: Sequence[str], below: Sequence[str], remedy: str) -> Path:
    """The folder that has all of `wanted` (files or folders) in it: `folder`, or one `below` it.

    `UserError` where it is not there, lacks some of them, or is a level too deep or too high, which is then named.
    """
    if not folder.is_dir():
        wrong = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserError(f"Corpus folder {folder} {wrong}: {remedy}, or give --corpus the folder that has it.")
    for place in (folder, *(folder / name for name in below)):
        missing = [name for name in wanted if not (place / name).exists()]
        if not missing:
            return place
        if len(missing) < len(wanted):
            raise UserError(f"{place} lacks {missing[0]}: {remedy}.")
    above = folder.resolve().parent
    candidates = [above, above.parent, *sorted(path for path in folder.glob("*/") if path.is_dir())]
    candidates += sorted(path for name in below for path in folder.glob(f"*/{name}"))
    near = next((place for place in candidates if all((place / name).exists() for name in wanted)), None)
    hint = f" (did you mean '--corpus {near}'?)" if near else ""
    raise UserError(f"{folder} has no {' and '.join(wanted)} in it{hint}: check the path, or {remedy}.")


# ---- published sizes


class Published(NamedTuple):
    """What is said of a split where the corpus was published."""

    utterances: int
    hours: float | None = None


def compare_with_published(splits: Mapping[str, Sequence[Utterance]], published: Mapping[str, Published]) -> None:
    """Print, for each split, utterances and hours beside the published ones, and where they differ."""
    for split, utterances in splits.items():
        line = f"{split}: {len(utterances)} utterances, {hours(utterances):.2f} h"
        if said := published.get(split):
            line += f" (published: {said.utterances}" + (f", {said.hours:.2f} h)" if said.hours is not None else ")")
            if more := len(utterances) - said.utterances:
                line += f": {more:+d} utterances, so scores do not compare with published ones"
        print(line)


def hours(utterances: Iterable[Utterance]) -> float:
    """Hours of speech."""
    return sum(item.supervision.duration for item in utterances) / 3600


def leave_manifests(out: Path, splits: Mapping[str, Sequence[Utterance]], left_out: Sequence[dict]) -> None:
    """Write the manifests and `left_out.jsonl`, and print what is in each split and why anything is left out."""
    write_manifests(out, splits, left_out)
    print_counts(
        "", {split: {"": count_utterances([item.supervision for item in own])} for split, own in splits.items()}
    )
    reasons = Counter(row["reason"] for row in left_out).most_common()
    why = f" ({', '.join(f'{count} {reason}' for reason, count in reasons)}: left_out.jsonl)" if reasons else ""
    print(f"{out}: {len(left_out)} left out{why}")


# ---- command line


class Program:
    """`python -m local.<corpus> <command> --options`, each command a function of its parsed options."""

    def __init__(self, module: str, description: str) -> None:
        self._parser = Parser(prog=f"python -m local.{module}", description=description)
        self._commands = self._parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    def add(self, function: Callable[[Namespace], None], name: str, text: str) -> Parser:
        """A command; its parser, for its options."""
        command = self._commands.add_parser(name, help=text)
        command.set_defaults(function=function)
        return command

    def download(self, function: Callable[[Namespace], None], text: str, made: str = "the corpus") -> Parser:
        """The command that fetches the corpus, with `--out`."""
        command = self.add(function, "download", text)
        command.add_argument("--out", required=True, help=f"folder in which {made} is made")
        return command

    def manifests(self, function: Callable[[Namespace], None], corpus: str) -> Parser:
        """The command that writes Lhotse manifests, with `--corpus`, `--out` and `--jobs`."""
        command = self.add(function, "manifests", "write Lhotse manifests")
        command.add_argument("--corpus", required=True, help=corpus)
        command.add_argument("--out", required=True, help="folder for the manifests")
        command.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="threads that read audio files")
        return command

    def main(self) -> None:
        """Do what the command line says."""
        options = self._parser.parse_args()
        options.function(options)
