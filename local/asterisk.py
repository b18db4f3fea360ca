"""The Asterisk core sounds: some 560 telephone prompts spoken in English, Spanish, French, Italian and Russian.

    python -m local.asterisk download --out downloads
    python -m local.asterisk manifests --corpus downloads --out data/manifests

One voice a language (English and Spanish are the same woman), 16 kHz, CC BY(-SA) 3.0. Since the same prompts come in
every language, each supervision has its translations: a speech translation corpus in 20 directions.
"""

from __future__ import annotations

import io
from argparse import Namespace
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from local.apt import Apt
from local.archives import download_archives, is_at_hand
from local.asterisk_prompts import Prompt, find_language, read_prompts
from local.corpus import Program
from local.fetch import Archive
from local.manifests import (
    Utterance,
    count_by,
    make_recording,
    make_utterance,
    print_counts,
    spread_of_seconds,
    write_manifests,
)
from local.splits import assign_splits, find_families
from local.text import LANGUAGES, check_language
from utils.errors import UserError, run
from utils.files import atomic_path, read_json, write_json

RATE = 16000  # Hz
SPLITS = ("train", "dev", "test")
SPEAKERS = {"en": "allison", "es": "allison", "fr": "june", "it": "carlo", "ru": "ivrvoice"}
DEBIAN_VERSION = "1.6.1-1"
DEBIAN = {  # SHA-256 of version 1.6.1-1
    "asterisk-core-sounds-en": "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    "asterisk-core-sounds-es": "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
    "asterisk-core-sounds-fr": "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
    "asterisk-core-sounds-it": "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
    "asterisk-core-sounds-ru": "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
    "asterisk-core-sounds-en-g722": "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
    "asterisk-core-sounds-es-g722": "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
    "asterisk-core-sounds-fr-g722": "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
    "asterisk-core-sounds-it-g722": "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
    "asterisk-core-sounds-ru-g722": "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
}
UPSTREAM_URL = "https://downloads.asterisk.org/pub/telephony/sounds/releases/"
UPSTREAM = {  # size and SHA-256 of upstream's archives, which Debian's source package lists and keeps as they are
    "en": (10756090, "59891033e764d9dffc5ccdd78e845a1c8ea6bed0b434128bb0199c63ef591770"),
    "es": (13175419, "3c474f73cc4f65478b3cf05ab0c5da19c8ce408699f61491f6aafba450cb540a"),
    "fr": (10975670, "7ff3ca96bbb295a6458e6eb1ff92690d9a5d0db0b4ddfa2c488237e4d251efbe"),
    "it": (10191350, "44a7fd7b067ff7f71df7fec31f9a8c960e13d35ca30c31878913c4020bfc00b6"),
    "ru": (10635740, "fde2a071b811a081219138693d6813d122d91c2c3423936274b110b97645b61b"),
}


# ---- download


def plan_apt(languages: list[str], apt: Apt) -> list[Archive] | None:
    """The Debian packages to fetch: every language's prompt list (the splits need them all), the chosen ones' audio."""
    packages = [f"asterisk-core-sounds-{language}" for language in LANGUAGES]
    packages += [f"asterisk-core-sounds-{language}-g722" for language in languages]
    archives = apt.archives(packages)
    for archive in archives or []:
        if f"_{DEBIAN_VERSION}_" not in archive.name:
            tqdm.write(f"{archive.name} is not the version this was made for: checked against apt's index instead")
        elif archive.sha256 != DEBIAN[archive.package]:
            raise UserError(f"apt's index gives {archive.name} another checksum than Debian's: run apt-get update.")
    return archives


def plan_upstream(languages: list[str]) -> list[Archive]:
    """Upstream's archives, each with a language's prompt list and audio."""
    names = {language: f"asterisk-core-sounds-{language}-g722-1.6.1.tar.gz" for language in languages}
    return [
        Archive(name, *UPSTREAM[language], url=UPSTREAM_URL + name, into=language) for language, name in names.items()
    ]


def download(arguments: Namespace) -> None:
    """Fetch and unpack the corpus; the same command continues after an interruption and repairs what is damaged."""
    folder = Path(arguments.out)
    plan = folder / "archives" / "plan.json"
    arguments.languages = list(dict.fromkeys(arguments.languages))
    wanted = {"languages": arguments.languages, "source": arguments.source}
    known = read_json(plan) if plan.exists() else {}
    if known.get("wanted") == wanted:
        archives = [Archive(**values) for values in known["archives"]]
        if all(is_at_hand(archive, folder) for archive in archives):
            return unpack_all(archives, folder, None)
    apt, archives = None, None
    if arguments.source != "upstream":
        if Apt.available():
            apt = Apt(folder / "archives")
            archives = plan_apt(arguments.languages, apt)
        if archives is None and arguments.source == "apt":
            raise UserError("apt has no asterisk-core-sounds packages here: use --source upstream.")
    if archives is None:
        apt, archives = None, plan_upstream(arguments.languages)
    print(f"source: {'Debian packages through apt' if apt else UPSTREAM_URL}")
    write_json(plan, {"wanted": wanted, "archives": [asdict(archive) for archive in archives]})
    unpack_all(archives, folder, apt)


def unpack_all(archives: list[Archive], folder: Path, apt: Apt | None) -> None:
    """Fetch what is missing of `archives`, unpack it below `folder`, and say what is there."""
    count = download_archives(archives, folder, apt)
    print(f"{folder}: {count} files of {len(archives)} archives, all checksums right")


# ---- manifests


@dataclass(frozen=True)
class Voice:
    """One language of the corpus: its prompts, and the audio file of each prompt that has one."""

    prompts: dict[str, Prompt]
    audio: dict[str, Path]


def read_corpus(corpus: Path, languages: list[str]) -> dict[str, Voice]:
    """Every language with transcripts in `corpus`; `UserError` where one of `languages` is missing or half there."""
    again = f"run 'python -m local.asterisk download --out {corpus}' (stage 0), which fetches only what is missing"
    if not corpus.is_dir():
        raise UserError(f"Corpus folder {corpus} does not exist: {again}, or give --corpus the folder that has it.")
    voices = {}
    for language, name in LANGUAGES.items():
        listing, sounds = find_language(corpus, language)
        if language in languages and (listing is None or sounds is None):
            missing = (
                "transcripts (core-sounds-{0}.txt)" if sounds else "sounds" if listing else "transcripts and sounds"
            )
            raise UserError(f"{corpus} lacks the {name} {missing.format(language)}: {again}.")
        if listing is None:
            continue
        files = sorted(sounds.rglob("*.g722")) if sounds else []
        audio = {str(path.relative_to(sounds).with_suffix("")): path for path in files}
        prompts = read_prompts(listing, language, set(audio))
        without = sum(name not in audio for name in prompts)
        if language in languages and without > 0.1 * len(prompts):
            raise UserError(
                f"{sounds} is half there: {without} of the {len(prompts)} prompts in its list have no audio; {again}."
            )
        voices[language] = Voice(prompts, audio)
    return voices


def group_of(prompt: str) -> str | None:
    """The prompts that are variants of each other by their names: voice mail, conferences, agents."""
    group = prompt.split("-")[0]
    return {"vm": "vm", "conf": "conf", "confbridge": "conf", "agent": "agent"}.get(group)


def decode(source: Path, target: Path) -> int | str:
    """G.722 to 16-bit FLAC; the number of samples, or why it cannot be done. A finished `target` is not made again."""
    import av
    import numpy as np
    import soundfile

    try:
        expected = 2 * source.stat().st_size  # 64 kbit/s: a byte is two samples
        if expected == 0:
            return "empty"
        if target.exists() and target.stat().st_mtime >= source.stat().st_ctime:
            try:
                if soundfile.info(target).frames == expected:
                    return expected
            except soundfile.SoundFileError:
                pass
        with av.open(str(source), format="g722") as container:
            samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])
        flac = io.BytesIO()  # written by Python, whose errors say what is wrong with the disk
        soundfile.write(flac, samples, RATE, format="FLAC", subtype="PCM_16")
        with atomic_path(target) as temporary:
            temporary.write_bytes(flac.getvalue())
        return len(samples)
    except (av.error.FFmpegError, ValueError) as error:
        return f"corrupt: {' '.join(str(error).split())}"


def decode_all(voices: dict[str, Voice], folder: Path, jobs: int) -> dict[tuple[str, str], tuple[Path, int | str]]:
    """{(language, prompt): (FLAC file, samples or reason)} of all audio in `voices`, decoded by `jobs` threads."""
    work = {}
    for language, voice in voices.items():
        for prompt, source in voice.audio.items():
            work[language, prompt] = (source, folder / language / f"{utterance_id(language, prompt)}.flac")
    sources, targets = zip(*work.values(), strict=True)
    with ThreadPoolExecutor(jobs) as pool:
        results = pool.map(decode, sources, targets)  # decoder and encoder release the GIL
        results = list(tqdm(results, total=len(work), desc="audio", unit="file"))
    return {key: (target, result) for key, target, result in zip(work, targets, results, strict=True)}


def utterance_id(language: str, prompt: str) -> str:
    """The id of a recording and of its supervision: "en_digits-1"."""
    return f"{language}_{prompt.replace('/', '-')}"


def make_manifests(arguments: Namespace) -> None:
    """Write recordings and supervisions of every split, `left_out.jsonl` and `summary.json`; print the summary."""
    out = Path(arguments.out)
    arguments.languages = list(dict.fromkeys(arguments.languages))
    voices = read_corpus(Path(arguments.corpus), arguments.languages)
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for language, voice in voices.items():
        for name, prompt in voice.prompts.items():
            texts[name][language] = prompt.text
    families = find_families(texts, group_of)
    splits = assign_splits(texts, families, arguments.seed)
    chosen = {language: voices[language] for language in arguments.languages}
    audio = decode_all(chosen, Path(arguments.audio or out.parent / "audio").resolve(), arguments.jobs)
    utterances: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    left_out = []
    for (language, name), (path, samples) in sorted(audio.items()):
        key, prompt, split = utterance_id(language, name), voices[language].prompts[name], splits[name]
        if isinstance(samples, str):
            left_out.append({"id": key, "reason": samples.split(":")[0], "detail": samples})
            continue
        custom = {
            "translation": {other: text for other, text in texts[name].items() if text and other != language},
            "raw_text": prompt.raw,
            "prompt": name,
            "family": families[name],
        }
        recording = make_recording(key, path, RATE, samples)
        utterances[split].append(make_utterance(key, recording, prompt.text, language, SPEAKERS[language], custom))
    write_manifests(out, utterances, left_out)
    summary = summarise(utterances, arguments.seed, len(left_out))
    write_json(out / "summary.json", summary)
    print_summary(summary, out)


def summarise(utterances: dict[str, list[Utterance]], seed: int, left_out: int) -> dict:
    """Utterances, minutes, words per split and language, and how long and wordy the utterances of each split are."""
    summary: dict = {"seed": seed, "left_out": left_out, "splits": {}}
    for split, items in utterances.items():
        spoken = [item.supervision for item in items if item.supervision.text]
        words = Counter(min(len(item.text.split()), 31) for item in spoken)
        summary["splits"][split] = {
            "languages": count_by(spoken, lambda item: item.language),
            "prompts": len({item.custom["prompt"] for item in spoken}),
            "families": len({item.custom["family"] for item in spoken}),
            "without_text": len(items) - len(spoken),
            "seconds": spread_of_seconds(spoken),
            "over_20_s": sum(item.duration > 20 for item in spoken),
            "utterances_by_words": {
                "1-2": sum(n for w, n in words.items() if w <= 2),
                "3-10": sum(n for w, n in words.items() if 3 <= w <= 10),
                "11-30": sum(n for w, n in words.items() if 11 <= w <= 30),
                "over 30": words[31],
            },
        }
    return summary


def print_summary(summary: dict, out: Path) -> None:
    """The summary as a table."""
    print_counts("lang", {split: values["languages"] for split, values in summary["splits"].items()})
    for split, values in summary["splits"].items():
        by_words = ", ".join(f"{words} words: {count}" for words, count in values["utterances_by_words"].items())
        print(f"{split}: {values['prompts']} prompts in {values['families']} families; {by_words}")
    without = sum(values["without_text"] for values in summary["splits"].values())
    print(f"{out}: {without} recordings without text, {summary['left_out']} left out (left_out.jsonl)")


def main() -> None:
    """Command line."""
    program = Program("asterisk", "The Asterisk core sounds: download, manifests.")
    fetch = program.download(download, "fetch and unpack the corpus")
    fetch.add_argument(
        "--source", choices=("auto", "apt", "upstream"), default="auto", help="auto: apt where there is apt"
    )
    make = program.manifests(make_manifests, "folder that download made, or one of unpacked packages")
    make.add_argument("--audio", help="folder for the decoded audio (default: audio beside --out)")
    make.add_argument("--seed", type=int, default=0, help="another seed draws other splits")
    for command in (fetch, make):
        command.add_argument(
            "--languages", type=check_language, nargs="+", default=list(LANGUAGES), metavar="LANG", help="among these"
        )
    program.main()


if __name__ == "__main__":
    run(main)
