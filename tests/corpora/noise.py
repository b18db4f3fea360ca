"""MUSAN and RIRS_NOISES in miniature: short sounds made of random numbers in the real corpora's exact layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.corpora.prompts import program

RATE = 16000  # Hz, as both corpora
MUSAN = {  # folders as in musan.tar.gz; each has ANNOTATIONS (but sound-bible) and LICENSE
    "music": ("fma", "fma-western-art", "hd-classical", "jamendo", "rfm"),
    "speech": ("librivox", "us-gov"),
    "noise": ("free-sound", "sound-bible"),
}
ANNOTATIONS = {
    "music": "{name} blues Y Cullah\n",
    "speech": "{name} f english\n",
    "noise": "{name} background\n",
}
REAL = {  # name of a response in real_rirs_isotropic_noises: channels
    "air_type1_air_binaural_office_0_1": 2,
    "RVB2014_type1_rir_largeroom1_near_angla": 8,
    "RWCP_type1_rir_cirline_e2b": 1,
}


def make(folder: Path, each: int = 2, seed: int = 0) -> Path:
    """Write `folder`/musan with `each` files a source, and `folder`/RIRS_NOISES; `folder`."""
    rng = np.random.default_rng(seed)
    make_musan(folder / "musan", each, rng)
    make_rirs(folder / "RIRS_NOISES", each, rng)
    return folder


def make_musan(folder: Path, each: int, rng: np.random.Generator) -> None:
    """`folder`/<kind>/<source>/<kind>-<source>-0000.wav, with what stands beside them."""
    for kind, sources in MUSAN.items():
        for source in sources:
            names = [f"{kind}-{source}-{number:04}" for number in range(each)]
            for name in names:
                write(folder / kind / source / f"{name}.wav", 0.1 * rng.normal(size=(RATE // 2, 1)))
            (folder / kind / source / "LICENSE").write_text("Public domain\n")
            if source != "sound-bible":
                lines = [ANNOTATIONS[kind].format(name=name) for name in names]
                (folder / kind / source / "ANNOTATIONS").write_text("".join(lines))
        (folder / kind / "README").write_text(f"The {kind} portion of MUSAN.\n")
    (folder / "README").write_text("MUSAN: a corpus of music, speech and noise.\n")


def make_rirs(folder: Path, each: int, rng: np.random.Generator) -> None:
    """Responses and noises, and the lists that name them, with paths from the folder above `folder` on."""
    for size in ("small", "medium", "large"):
        lines = []
        for number in range(1, each + 1):
            name = f"simulated_rirs/{size}room/Room001/Room001-{number:05}.wav"
            write(folder / name, response(rng, 1))
            lines.append(f"--rir-id {size}-Room001-{number:05} --room-id {size}-Room001 RIRS_NOISES/{name}\n")
        write_list(folder / f"simulated_rirs/{size}room/rir_list", lines)
    place, responses, noises = "real_rirs_isotropic_noises", [], []
    for number, (name, channels) in enumerate(REAL.items(), 1):
        write(folder / place / f"{name}.wav", response(rng, channels))
        responses.append(f"--rir-id {number:05} --room-id {name} RIRS_NOISES/{place}/{name}.wav\n")
    for number in range(1, each + 1):
        name = f"{place}/RVB2014_type1_noise_largeroom1_{number}.wav"
        write(folder / name, 0.1 * rng.normal(size=(RATE // 2, 8)))
        noises.append(f"--noise-id {number:05} --noise-type isotropic --bg-fg-type background RIRS_NOISES/{name}\n")
    write_list(folder / place / "rir_list", responses)
    write_list(folder / place / "noise_list", noises)
    points = []
    for number in range(each):
        name = f"pointsource_noises/noise-free-sound-{number:04}.wav"
        write(folder / name, 0.1 * rng.normal(size=(RATE // 2, 1)))
        points.append(f"--noise-id {number:05} --noise-type point-source --bg-fg-type background RIRS_NOISES/{name}\n")
    write_list(folder / "pointsource_noises/noise_list", points)


def response(rng: np.random.Generator, channels: int) -> np.ndarray:
    """(time, channels): the direct sound after 5 ms, then a decay."""
    time = np.arange(RATE // 4)[:, None]
    tail = 0.1 * rng.normal(size=(len(time), channels)) * np.exp(-time / (0.05 * RATE)) * (time > 80)
    return tail + 0.9 * (time == 80)


def write(path: Path, samples: np.ndarray) -> None:
    """16 bits, as the real files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")


def write_list(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines))


if __name__ == "__main__":
    program(make, "noise")
