"""Mboshi to French: 5,130 sentences of a Bantu language of Congo-Brazzaville, read aloud and translated (4.5 hours).

    python -m local.mboshi download --out downloads
    python -m local.mboshi manifests --corpus downloads --out data/manifests

Godard et al., LREC 2018 (arXiv:1710.03501). Splits, held-out utterances and references are those of ESPnet's recipes:
a translation in lower case is, to the letter, the reference that ESPnet scores on `dev`.
"""

from __future__ import annotations

import unicodedata
from argparse import Namespace
from pathlib import Path

from local.clone import Clone
from local.corpus import (
    Program,
    Published,
    Unusable,
    compare_with_published,
    decode_text,
    find_folder,
    measure_mono,
    read_utterances,
    usable,
)
from local.manifests import (
    Utterance,
    count_by,
    make_recording,
    make_utterance,
    print_counts,
    spread_of_seconds,
    write_manifests,
)
from local.moses import detokenise_french, restore_case
from utils.errors import UserError, run
from utils.files import write_json

URL = "https://github.com/besacier/mboshi-french-parallel-corpus"
COMMIT = "83c5b428a8251881711fa45e4ea5bb5ea6bcdc9b"  # of 2022-04-08
CLONE = "mboshi-french-parallel-corpus"
LAYOUT = "full_corpus_newsplit"
LANGUAGE = "mdw"  # Mboshi in ISO 639-3
FOLDERS = {"train": Published(4616), "dev": Published(514)}  # utterances that the authors put there
VALID = 100  # of train, held out
TEXTS = ("mb", "mb.cleaned", "fr", "fr.cleaned")
AUDIO = ("wav", "opus")  # the first that is there; the authors' are WAV
AGAIN = "run 'python -m local.mboshi download' (stage 0), which fetches only what is missing"


def download(arguments: Namespace) -> None:
    """Fetch the corpus; the same command continues after an interruption and repairs what is damaged."""
    target = Path(arguments.out) / CLONE
    count = Clone(URL, COMMIT, ["README.md", *(f"{LAYOUT}/{folder}" for folder in FOLDERS)], target).fetch()
    print(f"{target}: {count} files of {URL} at {COMMIT[:12]}")


# ---- the authors' files


def find_corpus(folder: Path) -> Path:
    """The folder with train and dev in it, at or below the `folder` given; `UserError` where there is none."""
    return find_folder(folder, tuple(FOLDERS), (LAYOUT, f"{CLONE}/{LAYOUT}"), AGAIN)


def read_line(path: Path) -> str:
    """The one line of a text file, NFC, with single spaces; `Unusable` if it is none."""
    lines = [line for line in decode_text(path).splitlines() if line.strip()]
    if len(lines) != 1:
        raise Unusable("no text" if not lines else "corrupt", f"{path} has {len(lines)} lines of text, not one.")
    return unicodedata.normalize("NFC", " ".join(lines[0].split()))


def read_utterance(key: str, folder: Path) -> Utterance:
    """The utterance `key` of a folder (train or dev); `Unusable` if a file of it is missing or broken."""
    mboshi, text, french, cleaned = (read_line(folder / f"{key}.{suffix}") for suffix in TEXTS)
    audio = next((path for kind in AUDIO if (path := folder / f"{key}.{kind}").exists()), None)
    if audio is None:
        raise Unusable("missing file", f"{folder / key}.wav is not there.")
    custom = {
        "translation": {"fr": restore_case(detokenise_french(cleaned), french)},
        "raw_text": mboshi,
        "raw_translation": french,
    }
    header = measure_mono(audio)
    recording = make_recording(key, audio.resolve(), header.rate, header.samples)
    return make_utterance(key, recording, text, LANGUAGE, key.split("_")[0], custom)


def read_folder(folder: Path, left_out: list[dict]) -> list[Utterance | None]:
    """The utterances of train or dev in the order of their ids, as bytes; None for those added to `left_out`."""
    endings = tuple(f".{suffix}" for suffix in (*TEXTS, *AUDIO))
    names = [path.name for path in folder.iterdir() if path.name.endswith(endings) and not path.name.startswith(".")]
    keys = sorted({name.partition(".")[0] for name in names})
    return read_utterances(dict.fromkeys(keys, folder), read_utterance, left_out, folder, AGAIN)


# ---- manifests


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split, `left_out.jsonl` and `summary.json`; print the summary."""
    out, corpus = Path(arguments.out), find_corpus(Path(arguments.corpus))
    left_out: list[dict] = []
    train, dev = (read_folder(corpus / name, left_out) for name in FOLDERS)
    if not 0 <= arguments.valid < len(train):
        raise UserError(f"--valid {arguments.valid}: it is how many of the {len(train)} train utterances are held out.")
    parts = {"train": train[arguments.valid :], "valid": train[: arguments.valid], "dev": dev}
    splits = {split: usable(part) for split, part in parts.items()}
    seen = {reference(utterance) for utterance in splits["train"]}
    for utterance in splits["valid"] + splits["dev"]:
        utterance.supervision.custom["subsets"] = {"reference_in_train": reference(utterance) in seen}
    write_manifests(out, splits, left_out)
    summary = summarise(splits, len(left_out))
    write_json(out / "summary.json", summary)
    print_summary(summary, out)
    compare_with_published({"train": usable(train), "dev": usable(dev)}, FOLDERS)


def reference(utterance: Utterance) -> str:
    """The translation as ESPnet scores it: in lower case, with punctuation."""
    return utterance.supervision.custom["translation"]["fr"].lower()


def summarise(splits: dict[str, list[Utterance]], left_out: int) -> dict:
    """Utterances, minutes, words by speaker of each split, durations, and how often references repeat."""
    summary: dict = {"left_out": left_out, "splits": {}}
    for split, utterances in splits.items():
        spoken = [utterance.supervision for utterance in utterances]
        marked = [item.custom.get("subsets", {}) for item in spoken]
        summary["splits"][split] = {
            "speakers": count_by(spoken, lambda item: item.speaker),
            "seconds": spread_of_seconds(spoken),
            "texts": len({item.text for item in spoken}),
            "references": len(set(map(reference, utterances))),
            "reference_words": sum(len(reference(utterance).split()) for utterance in utterances),
            "reference_in_train": sum(subsets.get("reference_in_train", False) for subsets in marked),
        }
    return summary


def print_summary(summary: dict, out: Path) -> None:
    """The summary as a table."""
    print_counts("speaker", {split: values["speakers"] for split, values in summary["splits"].items()})
    for split, values in summary["splits"].items():
        seconds = values["seconds"]
        print(
            f"{split}: {values['texts']} different sentences, {values['references']} different translations of "
            f"{values['reference_words']} words in all; median {seconds['p50']} s, longest {seconds['p100']} s"
        )
        if split != "train":
            print(f"{split}: the translations of {values['reference_in_train']} utterances also stand in train")
    print(f"{out}: {summary['left_out']} left out (left_out.jsonl)")


def main() -> None:
    """Command line."""
    program = Program("mboshi", "The Mboshi-French corpus: download, manifests.")
    program.download(download, "fetch the corpus from its authors' repository (needs git)", CLONE)
    make = program.manifests(make_manifests, "folder that download made, or a clone of the authors' repository")
    make.add_argument(
        "--valid", type=int, default=VALID, help="first utterances of train that are held out for validation"
    )
    program.main()


if __name__ == "__main__":
    run(main)
