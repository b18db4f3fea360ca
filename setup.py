"""`pip install -e .` makes steps, local and utils importable from anywhere; recipes do without (path.sh)."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

REQUIREMENTS = Path(__file__).parent / "requirements"


def pinned(name: str) -> list[str]:
    """The requirements in a file, without comments, options and files that it includes."""
    lines = [line.partition("#")[0].strip() for line in (REQUIREMENTS / f"{name}.txt").read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


setup(
    name="dragoman",
    version="0.1.0",
    description="Speech recognition and translation recipes on k2, Lhotse and language models",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["steps*", "local*", "utils*"]),
    # ranges where torch is concerned: who installs a package brings a torch, and its k2, of their own
    install_requires=["torch>=1.13.1", "numpy", *pinned("common")],
    # k2's wheels must be built for exactly the torch that is there, which pip cannot express: see utils/install.py
    extras_require={"torchaudio": ["torchaudio"], "dev": pinned("dev")},
)
