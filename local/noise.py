"""What speech is disturbed with in training: MUSAN (music, speech, noise) and RIRS_NOISES (room responses, noises).

    python -m local.noise download --parts musan rirs --out downloads
    python -m local.noise manifests --parts musan rirs --corpus downloads --out data/noise

MUSAN (Snyder, Chen, Povey 2015, arXiv:1510.08484) is OpenSLR 17, RIRS_NOISES (Ko et al. 2017, ICASSP) OpenSLR 28. The
manifests, one for each kind, are what `path` in the sections augment.noise and augment.reverb takes.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from local.archives import download_archives
from local.corpus import AudioFiles, Program, find_folder, measure, read_text, read_utterances, usable
from local.fetch import openslr
from local.manifests import make_recording
from utils.errors import UserError, run
from utils.files import write_jsonl

# MD5 of OpenSLR 28's checksum.md5 and as Kaldi's users know MUSAN; unpacked: 109 hours of 16 bits, and an estimate
ARCHIVES = {
    "musan": openslr(
        17, "musan.tar.gz", size=11_086_114_085, md5="0c472d4fc0c5141eca47ad1ffeb2a7df", unpacked=12_600_000_000
    ),
    "rirs": openslr(
        28, "rirs_noises.zip", size=1_311_166_223, md5="e6f48e257286e05de56413b4779d8ffb", unpacked=3_000_000_000
    ),
}
MUSAN = {"music": 660, "speech": 426, "noise": 930}  # WAV files below each folder
RIRS = {  # the lists that the corpus brings for each kind, and how many files they name
    "real": (("real_rirs_isotropic_noises/rir_list",), 325),
    "simulated": (tuple(f"simulated_rirs/{size}room/rir_list" for size in ("small", "medium", "large")), 60_000),
    "pointsource": (("pointsource_noises/noise_list",), 843),
    "isotropic": (("real_rirs_isotropic_noises/noise_list",), None),
}


def download(arguments: Namespace) -> None:
    """Fetch and unpack the parts; the same command continues after an interruption and repairs what is damaged."""
    out = Path(arguments.out)
    count = download_archives([ARCHIVES[part] for part in arguments.parts], out, keep=not arguments.delete_archives)
    print(f"{out}: {count} files of {' and '.join(arguments.parts)}, all checksums right")


def list_musan(corpus: Path, remedy: str) -> dict[str, list[Path]]:
    """{"musan_music": its WAV files, ...}; `UserError` where a kind has fewer than were published."""
    folder = find_folder(corpus, list(MUSAN), ["musan"], remedy)
    kinds = {}
    for kind, published in MUSAN.items():
        kinds[f"musan_{kind}"] = files = sorted((folder / kind).rglob("*.wav"))
        if len(files) < published:
            raise UserError(
                f"{folder / kind} is half there: {len(files)} of the {published} WAV files of MUSAN: {remedy}."
            )
    return kinds


def list_rirs(corpus: Path, remedy: str) -> dict[str, list[Path]]:
    """{"rirs_real": the files that its lists name, ...}; `UserError` where some are missing.

    Lhotse (`lhotse.recipes.rir_noise`) goes by names with "rir" in them instead, which leaves out 107 of the 325 real
    responses: those of the Aachen database, `air_type1_*`.
    """
    folders = {name.split("/")[0] for lists, _ in RIRS.values() for name in lists}
    folder = find_folder(corpus, sorted(folders), ["RIRS_NOISES"], remedy)
    kinds = {}
    for kind, (lists, published) in RIRS.items():
        lines = [line for name in lists for line in read_text(folder / name, remedy) if line.strip()]
        # --rir-id 00001 --room-id largeroom1 RIRS_NOISES/real_rirs_isotropic_noises/a.wav
        files = [folder / line.split()[-1].partition("/")[2] for line in lines]
        missing = [path for path in files if not path.is_file()]
        if missing or len(files) < (published or 1):
            there = len(files) - len(missing)
            raise UserError(
                f"{folder} is half there: {there} of the {published or len(files)} files of kind '{kind}': {remedy}."
            )
        kinds[f"rirs_{kind}"] = files
    return kinds


LISTS = {"musan": list_musan, "rirs": list_rirs}


def make_manifests(arguments: Namespace) -> None:
    """Write `<part>_<kind>_recordings.jsonl.gz` of every kind, and `left_out.jsonl`; print what is there."""
    corpus, out = Path(arguments.corpus), Path(arguments.out)
    left_out: list[dict] = []
    for part in arguments.parts:
        remedy = f"run 'python -m local.noise download --parts {part} --out {corpus}', which fetches what is missing"
        for kind, files in LISTS[part](corpus, remedy).items():
            headers = AudioFiles(files, arguments.jobs, kind, measure)

            def read(key: str, path: Path, headers: AudioFiles = headers):
                return make_recording(key, path, *headers[path])

            items = {_key(path): path for path in files}
            recordings = usable(read_utterances(items, read, left_out, corpus / kind, remedy))
            write_jsonl(out / f"{kind}_recordings.jsonl.gz", (recording.to_dict() for recording in recordings))
            hours = sum(recording.duration for recording in recordings) / 3600
            print(f"{kind}: {len(recordings)} files, {hours:.1f} h")
    write_jsonl(out / "left_out.jsonl", left_out)
    print(f"{out}: {len(left_out)} left out (left_out.jsonl)")


def _key(path: Path) -> str:
    """The id of a recording; the simulated rooms of all three sizes have the same file names."""
    return f"{path.parts[-3]}-{path.stem}" if path.parts[-4:-3] == ("simulated_rirs",) else path.stem


def main() -> None:
    """Command line."""
    program = Program(
        "noise", "MUSAN and RIRS_NOISES, with which speech is disturbed in training: download, manifests."
    )
    fetch = program.download(download, "fetch and unpack the corpora", "musan/ or RIRS_NOISES/")
    fetch.add_argument("--delete-archives", action="store_true", help="delete each archive once it is unpacked")
    make = program.manifests(make_manifests, "folder that download made")
    for command in (fetch, make):
        command.add_argument("--parts", nargs="+", choices=tuple(ARCHIVES), default=list(ARCHIVES), help="(both)")
    program.main()


if __name__ == "__main__":
    run(main)
