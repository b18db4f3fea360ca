"""CoVoST 2: Common Voice's read sentences, from 21 languages into English and from English into 15.

    python -m local.covost2 download --source fr --target en --out downloads
    python -m local.covost2 manifests --source fr --target en --corpus /corpora/cv-corpus-4-2019-12-10 \\
        --translations downloads --out data/manifests

Wang et al. 2020 (arXiv:2007.10310). The speech is Common Voice's release 4 (2019-12-10), which Mozilla gives to those
who accept its terms; the translations are downloaded. Splits are those of the authors' get_covost_splits.py: `train` is
what the table calls train or train_covost, and only clips that validated.tsv has are used. Translations are as they are
written, which is what published BLEU is of; transcripts are in lower case without punctuation (`custom["raw_text"]` has
the sentence). Lhotse knows nothing of the translations, and its recipe for Common Voice drops missing clips in silence.

Both tables have quotation marks and backslashes that are read as the authors' script reads them, but that sentences
which validated.tsv wraps in quotes, as CSV does, lose them: "She'll be all right.", ""building blocks"".
"""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from local.archives import download_archives
from local.corpus import (
    BAD,
    AudioFiles,
    Header,
    Program,
    Published,
    Unusable,
    compare_with_published,
    find_folder,
    leave_manifests,
    measure_mono,
    read_text,
    read_utterances,
    usable,
)
from local.covost2_sizes import ARCHIVES, UTTERANCES
from local.fetch import Archive
from local.manifests import Utterance, make_utterance
from local.text import spelling, tidy
from utils.errors import UserError, nearest, run

SPLITS = {"train": ("train", "train_covost"), "dev": ("dev",), "test": ("test",)}  # values of the table's column
URL = "https://dl.fbaipublicfiles.com/covost/{}"
GET = (
    "get Common Voice's release 4 (cv-corpus-4-2019-12-10) of '{source}' from https://commonvoice.mozilla.org/datasets "
    "and unpack it into a folder {source}"
)
LATER = "is it Common Voice's release 4 (cv-corpus-4-2019-12-10), and '{source}'?"


class Row(NamedTuple):
    """A clip: what is said by whom, and the translation."""

    path: str
    sentence: str
    speaker: str
    translation: str


# ---- directions


def check_direction(source: str, target: str) -> str:
    """`<source>_<target>` if CoVoST 2 has it; a `UserError` with what is near and there otherwise."""
    pair = f"{source}_{target}"
    if pair in ARCHIVES:
        return pair
    into = sorted(name.removesuffix("_en") for name in ARCHIVES if name.endswith("_en"))
    out_of = sorted(name.removeprefix("en_") for name in ARCHIVES if name.startswith("en_"))
    if source == "en":
        near = nearest(target, out_of)
        raise UserError(f"CoVoST 2 has no English into '{target}'{near}: give --target one of {' '.join(out_of)}.")
    if target == "en":
        near = nearest(source, into)
        raise UserError(f"CoVoST 2 has no '{source}'{near} into English: give --source one of {' '.join(into)}.")
    raise UserError(f"CoVoST 2 has no '{source}' into '{target}': one of --source and --target has to be en.")


def language_of(code: str) -> str:
    """The ISO 639-1 code of a language of Common Voice: "sv" of sv-SE."""
    return code.partition("-")[0]


def download(arguments: Namespace) -> None:
    """Fetch the translations; the clips are had from Mozilla."""
    pair = check_direction(arguments.source, arguments.target)
    name = f"covost_v2.{pair}.tsv.tar.gz"
    download_archives([Archive(name, *ARCHIVES[pair], url=URL.format(name))], Path(arguments.out))
    print(f"{arguments.out}/covost_v2.{pair}.tsv is there. For the speech, {GET.format(source=arguments.source)}.")


# ---- the two tables


def read_table(path: Path, columns: tuple[str, ...], remedy: str) -> list[tuple]:
    """`columns` of the rows of a TSV, as get_covost_splits.py reads it: quotes are letters, a backslash is no letter.

    Of a row with too many, the first and what is wrong. `UserError` where it cannot be read, or lacks a column.
    """
    lines = (line.replace("\r", " ") for line in read_text(path, remedy))
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
    header = next(rows, [])
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path} has no column '{missing[0]}' but {', '.join(header) or 'no line'}: {remedy}.")
    places = [header.index(name) for name in columns]
    found: list[tuple] = []
    try:
        for row in filter(None, rows):
            cells = tuple(row[place] if place < len(row) else "" for place in places)
            wrong = f"{path}, line {rows.line_num}, has {len(row)} columns, not {len(header)}."
            found.append(cells if len(row) <= len(header) else (cells[0], Unusable("malformed", wrong)))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}, is damaged ({error}): {remedy}.") from None
    return found


def unwrap(sentence: str) -> str:
    """A sentence of validated.tsv without the quotes of CSV, with single spaces."""
    if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
        sentence = sentence[1:-1].replace('""', '"')
    return tidy(sentence)


def by_path(rows: list[tuple], where: Path) -> dict[str, tuple[str, ...] | Unusable]:
    """{clip: its other columns}; of a clip with two different rows nobody knows which is right."""
    found: dict[str, tuple[str, ...] | Unusable] = {}
    for clip, *rest in rows:
        item = rest[0] if isinstance(rest[0], Unusable) else tuple(rest)
        if found.setdefault(clip, item) != item:
            found[clip] = Unusable("duplicate id", f"{where} has different rows for {clip}.")
    return found


def find_translations(pair: str, folders: list[Path]) -> Path:
    """`covost_v2.<pair>.tsv` in the first folder that has it; `UserError` where none does."""
    name = f"covost_v2.{pair}.tsv"
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{name} is not in {folders[0]}: run 'python -m local.covost2 download' (stage 0).")


def join(said: Mapping, translated: Mapping) -> tuple[dict[str, dict[str, Row | Unusable]], int]:
    """{split: {clip: row}} in validated.tsv's order, and how many translated clips of the splits it lacks."""
    splits: dict[str, dict[str, Row | Unusable]] = {split: {} for split in SPLITS}
    names = {name: split for split, names in SPLITS.items() for name in names}
    for clip, spoken in said.items():
        other = translated.get(clip, ("", ""))
        if isinstance(other, Unusable):
            splits["train"][clip] = other
        elif split := names.get(other[1]):
            splits[split][clip] = spoken if isinstance(spoken, Unusable) else Row(clip, *spoken, other[0])
    wanted = (clip for clip, row in translated.items() if not isinstance(row, Unusable) and row[1] in names)
    return splits, sum(clip not in said for clip in wanted)


# ---- audio


def measure_mp3(path: Path) -> Header:
    """`measure_mono` of an MP3 clip, decoded if it has no Xing or Info tag, without which its length is an estimate."""
    import soundfile

    header = measure_mono(path)
    with open(path, "rb") as file:
        beginning = file.read(4096)
    if b"Xing" in beginning or b"Info" in beginning:
        return header
    try:
        return header._replace(samples=len(soundfile.read(path, dtype="int16")[0]))
    except soundfile.SoundFileError:
        raise Unusable("corrupt", f"{path} cannot be decoded.") from None


# ---- manifests


def read_split(rows: Mapping[str, Row | Unusable], where: Path, options: Namespace, left_out: list) -> list[Utterance]:
    """The utterances of a split, without those added to `left_out`; `where` names the split for the user."""
    clips = where.parent / "clips"
    files = AudioFiles((clips / clip for clip in rows), options.jobs, where.name, measure_mp3)
    source, target = language_of(options.source), language_of(options.target)

    def read(key: str, row: Row) -> Utterance:
        recording, sentence = files.recording(clips / row.path, key), unwrap(row.sentence)
        text, translation = spelling(sentence, source), " ".join(row.translation.split())
        if not text:
            raise Unusable("no text", f"{row.path} has the transcript {row.sentence!r}.")
        if not translation:
            raise Unusable("no translation", f"{row.path} ({sentence}) has no translation.")
        custom = {"raw_text": sentence, "translation": {target: translation}}
        return make_utterance(key, recording, text, source, row.speaker, custom)

    keyed = {clip.removesuffix(".mp3"): row for clip, row in rows.items()}
    return usable(read_utterances(keyed, read, left_out, where, "unpack Common Voice's archive again"))


def make_manifests(options: Namespace) -> None:
    """Write recordings and supervisions of every split and `left_out.jsonl`; print their sizes beside the published."""
    source, pair = options.source, check_direction(options.source, options.target)
    corpus = Path(options.corpus)
    folder = find_folder(corpus, ("validated.tsv", "clips"), (source,), GET.format(source=source))
    table = find_translations(pair, [Path(options.translations or corpus), corpus, folder])
    again = "run 'python -m local.covost2 download' (stage 0) again"
    translated = by_path(read_table(table, ("path", "translation", "split"), again), table)
    validated = folder / "validated.tsv"
    columns = ("path", "sentence", "client_id")
    said = by_path(read_table(validated, columns, "unpack Common Voice's archive again"), validated)
    splits, lacking = join(said, translated)
    later, wanted = LATER.format(source=source), lacking + sum(map(len, splits.values()))
    if empty := [split for split, rows in splits.items() if not rows]:
        raise UserError(f"{validated} has none of the clips that {table} has in {' and '.join(empty)}: {later}")
    if lacking > BAD * wanted:
        again = "unpack Common Voice's archive again"
        raise UserError(f"{validated} lacks {lacking} of the {wanted} clips that {table} has: {again}; {later}")
    left_out: list[dict] = []
    read = {split: read_split(rows, folder / split, options, left_out) for split, rows in splits.items()}
    leave_manifests(Path(options.out), read, left_out)
    if lacking:
        print(f"{validated} lacks {lacking} clips that are translated: many, if it is not of Common Voice's release 4.")
    counts = zip(SPLITS, UTTERANCES["en" if source == "en" else source], strict=True)
    compare_with_published(read, {split: Published(count) for split, count in counts})


def main() -> None:
    """Command line."""
    program = Program(
        "covost2", "CoVoST 2: download of translations, manifests of a copy of Common Voice that you have."
    )
    fetch = program.download(download, "fetch the translations from their authors", "covost_v2.<source>_<target>.tsv")
    make = program.manifests(make_manifests, "folder that has <source>/validated.tsv and clips/, or <source> itself")
    for command in (fetch, make):
        command.add_argument("--source", default="fr", help="language spoken, by Common Voice's code: fr, sv-SE ...")
        command.add_argument("--target", default="en", help="language translated into: en, or de, zh-CN ... from en")
    make.add_argument("--translations", help="folder that download made (otherwise the corpus' folder)")
    program.main()


if __name__ == "__main__":
    run(main)
