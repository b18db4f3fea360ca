"""MuST-C: English TED talks, cut into sentences, with their translations into one of 14 languages.

    python -m local.must_c manifests --target de --corpus /corpora/MUSTC_v1.0 --out data/manifests

Di Gangi et al., NAACL 2019 (N19-1202); Cattoni et al., Computer Speech & Language 66, 2021. All releases have the same
layout. Translations are as they are written, which is what published BLEU is of; transcripts are in lower case without
punctuation and remarks such as "(Laughter)", digits as they are (`custom["raw_text"]` has the line as it was).

Lhotse's recipe is not used: the text of its supervisions is the translation and the transcript is lost, one bad file or
line ends it, and its YAML loader takes 82 s for 230,000 segments, which are a line each (2 s here).
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from local.corpus import (
    AudioFiles,
    Program,
    Published,
    Unusable,
    compare_with_published,
    find_folder,
    leave_manifests,
    read_text,
    read_utterances,
    usable,
)
from local.manifests import Utterance, make_utterance
from local.text import normalise
from utils.errors import UserError, nearest, run

SPLITS = ("train", "dev", "tst-COMMON", "tst-HE")
# releases that have the pair: v1.0 and v1.2 (Cattoni et al.), v2.0 and v3.0 (IWSLT 2023, offline track: training data)
TARGETS = {
    **dict.fromkeys(("es", "fr", "it", "nl", "pt", "ro", "ru"), "v1.0"),
    **dict.fromkeys(("ar", "cs", "fa", "tr", "vi"), "v1.2"),
    **{"de": "v1.0, v2.0, v3.0", "ja": "v2.0", "zh": "v1.2, v2.0"},
}
# de: ESPnet, egs3/must_c/st/dataset/README.md; es, fr, pt: huggingface datasets' mustc, dataset_infos.json. All of v1.0
PUBLISHED = {
    "de": dict(zip(SPLITS, map(Published, (229703, 1423, 2641, 600)), strict=True)),
    "es": dict(zip(SPLITS, map(Published, (265625, 1316, 2502)), strict=False)),
    "fr": dict(zip(SPLITS, map(Published, (275085, 1412, 2632)), strict=False)),
    "pt": dict(zip(SPLITS, map(Published, (206155, 1367, 2502)), strict=False)),
}
BEYOND = 0.5  # seconds by which a segment may end behind its talk: that much is cut off
AGAIN = "unpack its archive (MUSTC_v..._en-{target}.tar.gz) again"
ASK = (
    "MuST-C can no longer be downloaded: ask its authors at Fondazione Bruno Kessler (https://mt.fbk.eu) for "
    "MUSTC_v..._en-{target}.tar.gz, unpack it, and give --corpus the folder that has en-{target}."
)
SEGMENT = re.compile(r"\{([^{}]*)\}")
FIELD = re.compile(r"(\w+):\s*['\"]?([^,'\"]+)")


class Segment(NamedTuple):
    """A line of <split>.yaml and those of the two texts."""

    fields: dict[
        str, str
    ]  # duration, offset (seconds), speaker_id, wav; in most releases also rW, uW (counts of words)
    english: str
    translation: str


def check_target(target: str) -> str:
    """`target` if some release has it; `UserError` with the nearest one otherwise."""
    if target not in TARGETS:
        known = " ".join(f"{language} ({releases})" for language, releases in sorted(TARGETS.items()))
        raise UserError(f"MuST-C is not translated into '{target}'{nearest(target, TARGETS)}: give one of {known}.")
    return target


def download(arguments: Namespace) -> None:
    """Nobody can: say where the corpus is to be had."""
    raise UserError(ASK.format(target=arguments.target))


# ---- the authors' files


def find_pair(folder: Path, target: str, splits: Sequence[str]) -> Path:
    """The folder with train, dev ... of English to `target`, at or below `folder`; `UserError` where there is none."""
    pairs = sorted(path.parent.name for path in folder.glob("en-*/data"))
    if pairs and f"en-{target}" not in pairs:
        near = nearest(f"en-{target}", pairs)
        raise UserError(f"{folder} has {' '.join(pairs)} but no en-{target}{near}: give another --target or --corpus.")
    again = AGAIN.format(target=target)
    found = find_folder(folder, splits, (f"en-{target}/data", "data"), again)
    texts = found / splits[0] / "txt"
    there = sorted({path.suffix[1:] for path in texts.glob(f"{splits[0]}.*")} - {"yaml", "en"})
    if there and target not in there:
        raise UserError(f"{texts} has translations into {' '.join(there)}, not {target}: give another --target.")
    return found


def read_segments(folder: Path, target: str) -> dict[str, Segment]:
    """The segments of a split by fairseq's ids: `ted_767_0` is the first one of ted_767.wav.

    Errors: `UserError` where one of the three files is missing or no text, or where they differ in length.
    """
    split, again = folder.name, AGAIN.format(target=target)
    names = [folder / "txt" / f"{split}.{kind}" for kind in ("yaml", "en", target)]
    lines, english, translation = (read_text(name, again) for name in names)
    fields = [dict(FIELD.findall(found)) for found in SEGMENT.findall("\n".join(lines))]
    sizes = (len(fields), len(english), len(translation))
    if len(set(sizes)) > 1:
        said = ", ".join(f"{size} in {name.name}" for size, name in zip(sizes, names, strict=True))
        raise UserError(f"{folder / 'txt'} has different numbers of segments: {said}: {again}.")
    found, seen = {}, Counter()
    for segment in map(Segment, fields, english, translation):
        talk = Path(segment.fields.get("wav", "no-wav")).stem
        found[f"{talk}_{seen[talk]}"] = segment
        seen[talk] += 1
    return found


def times_of(segment: Segment, path: Path, length: float) -> tuple[float, float]:
    """(start, duration) in seconds in the talk `path` of `length` seconds; `Unusable` if it has no such part."""
    try:
        start, duration = (float(segment.fields[key]) for key in ("offset", "duration"))
    except (KeyError, ValueError):
        raise Unusable("malformed", f"{segment.fields} has no offset and duration in seconds.") from None
    if not (start >= 0 and duration > 0):  # neither is NaN
        raise Unusable("no audio", f"{path} is cut at {start:g} s for {duration:g} s.")
    if start + duration > length + BEYOND or start >= length:
        raise Unusable("beyond the audio", f"{path} has {length:.2f} s, a segment ends at {start + duration:.2f} s.")
    return start, min(duration, length - start)


def read_split(folder: Path, target: str, jobs: int, left_out: list[dict]) -> list[Utterance]:
    """The utterances of a split in the corpus' order, without those added to `left_out`."""
    segments = read_segments(folder, target)
    audio = {segment.fields["wav"] for segment in segments.values() if "wav" in segment.fields}
    files = AudioFiles((folder / "wav" / name for name in sorted(audio)), jobs, folder.name)

    def read(key: str, segment: Segment) -> Utterance:
        if missing := {"wav", "speaker_id"} - segment.fields.keys():
            raise Unusable("malformed", f"{segment.fields} has no {' and no '.join(sorted(missing))}.")
        path = folder / "wav" / segment.fields["wav"]
        recording = files.recording(path)
        start, duration = times_of(segment, path, recording.duration)
        text, translation = normalise(segment.english, "en", digits=True), " ".join(segment.translation.split())
        if not text and not translation:
            raise Unusable("no text", f"{path} has a segment that says {segment.english!r}, and no translation.")
        custom = {"raw_text": segment.english, **({"translation": {target: translation}} if translation else {})}
        return make_utterance(key, recording, text, "en", segment.fields["speaker_id"], custom, start, duration)

    again = AGAIN.format(target=target)
    return usable(read_utterances(segments, read, left_out, folder, again))


# ---- manifests


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print their sizes beside the published."""
    corpus, target = Path(arguments.corpus), arguments.target
    if not corpus.exists():
        raise UserError(f"Corpus folder {corpus} does not exist. {ASK.format(target=target)}")
    pair, left_out = find_pair(corpus, target, arguments.splits), []
    splits = {split: read_split(pair / split, target, arguments.jobs, left_out) for split in arguments.splits}
    leave_manifests(Path(arguments.out), splits, left_out)
    compare_with_published(splits, PUBLISHED.get(target, {}))


def main() -> None:
    """Command line."""
    program = Program("must_c", "MuST-C: manifests of a copy that you have.")
    ask = program.download(download, "say where the corpus is to be had")
    make = program.manifests(make_manifests, "folder that has en-<target>, or en-<target> itself")
    for command in (ask, make):
        command.add_argument("--target", type=check_target, default="de", help="language translated into: ISO 639-1")
    make.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="what is read of the corpus")
    program.main()


if __name__ == "__main__":
    run(main)
