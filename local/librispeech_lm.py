"""LibriSpeech's language model data (OpenSLR 11): n-gram models, 803 million words of text, a lexicon of phones.

    python -m local.librispeech_lm download --out downloads/librispeech-lm --parts 3-gram.pruned.1e-7 4-gram

All is in upper case, as the transcripts are. The files stay as they are published: `steps.lang.graph --lm` takes an
ARPA file and `--lexicon` the lexicon, `steps.train` and `steps.lm.ngram train --text` take the text.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from local.archives import fetch_all
from local.corpus import Program
from local.fetch import openslr
from utils.errors import run

# sizes: Kaldi's egs/librispeech/s5/local/download_lm.sh; SHA-256 of the large n-grams: RWTH's i6_experiments,
# common/datasets/librispeech/language_model.py; of the text: tensorflow_datasets' url_checksums/librispeech_lm.txt
FILES = {
    "3-gram.pruned.3e-7": openslr(11, "3-gram.pruned.3e-7.arpa.gz", size=13_654_242),
    "3-gram.pruned.1e-7": openslr(11, "3-gram.pruned.1e-7.arpa.gz", size=34_094_057),
    "3-gram": openslr(
        11,
        "3-gram.arpa.gz",
        size=759_636_181,
        sha256="263649573475c2991d3e755eb4e690c9d2656f2b3283a1eb589e1e4e174bf874",
    ),
    "4-gram": openslr(
        11,
        "4-gram.arpa.gz",
        size=1_355_172_078,
        sha256="f2b2d1507637ddf459d3579159f7e8099ed7d77452ff1059aeeeaea33d274613",
    ),
    "text": openslr(
        11,
        "librispeech-lm-norm.txt.gz",
        size=1_507_274_412,
        sha256="927d47656638c2ca93566640e56bcbeb2aa4ca237b8490fe1eff7d6e610a53c7",
    ),
    "lexicon": openslr(11, "librispeech-lexicon.txt"),  # Kaldi's editions give 5,627,646 and 5,627,653 bytes
    "vocab": openslr(11, "librispeech-vocab.txt", size=1_737_588),
}


def download(arguments: Namespace) -> None:
    """Fetch the files of `--parts`; the same command continues, and fetches again what is damaged."""
    for path in fetch_all([FILES[part] for part in arguments.parts], Path(arguments.out)):
        print(path)


def main() -> None:
    """Command line."""
    program = Program("librispeech_lm", "LibriSpeech's language model data: download.")
    fetch = program.download(download, "fetch n-gram models, text, lexicon or vocabulary", "librispeech-lm")
    fetch.add_argument(
        "--parts",
        nargs="+",
        choices=tuple(FILES),
        default=["3-gram.pruned.1e-7", "4-gram"],
        help="(3-gram.pruned.1e-7 4-gram)",
    )
    program.main()


if __name__ == "__main__":
    run(main)
