"""How far the confidences of recognised words can be trusted.

    python -m steps.scoring.calibration exp/asr/decode/dev.ctc.greedy exp/asr/decode/dev.ctc.hlg --out exp/asr

reads the `words` of `hyp.jsonl` and writes `calibration.json` and `reliability.png`: of the words with a confidence,
how many are right (aligned with the reference by edit distance, an inserted word is wrong).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import kaldialign
import numpy as np

from steps.scoring.hypotheses import decode_folders, read_rows
from steps.scoring.measures import EPSILON
from utils.errors import UserError, run
from utils.files import atomic_path, write_json
from utils.options import Parser

BINS = 10
LEAST = 1e-4  # a wrong word with confidence 1 would make the cross entropy infinite


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="steps.scoring.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="DECODE_DIR", help="folders with hyp.jsonl, or their parents")
    parser.add_argument("--out", required=True, type=Path, help="folder for calibration.json and reliability.png")
    args = parser.parse_args(argv)
    found = {}
    for folder in decode_folders(args.folders):
        found[str(folder)] = measures = calibration(*judged(read_rows(folder / "hyp.jsonl"), str(folder)))
        shown = ", ".join(f"{name} {value}" for name, value in measures.items() if name != "bins")
        print(f"{folder}: {shown}")
    write_json(args.out / "calibration.json", found)
    draw(args.out / "reliability.png", found)
    print(args.out / "reliability.png")
    return 0


def judged(rows: Sequence[dict], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidences `(words,)`, and whether each word is right; utterances without reference are left out."""
    confidences: list[float] = []
    right: list[bool] = []
    for row in rows:
        if row.get("ref") is None:
            continue
        words = row.get("words")
        told = words if isinstance(words, list) and all(word[3] is not None for word in words) else [[None]]
        if [word[0] for word in told] != row["hyp"].split():
            raise UserError(f"{where}: '{row['id']}' has no confidences of its words: decode again (stage 6).")
        aligned = kaldialign.align(row["ref"].split(), row["hyp"].split(), EPSILON)
        right += [expected == said for expected, said in aligned if said != EPSILON]
        confidences += [word[3] for word in words]
    if not confidences:
        raise UserError(f"{where}: no word was recognised where there is a reference: there is nothing to judge.")
    return np.array(confidences), np.array(right)


def calibration(confidences: np.ndarray, right: np.ndarray) -> dict:
    """Measures of confidences `(words,)` in [0, 1] of words that are `right (words,)` or not.

    `ece`: expected calibration error over ten bins of equal width (Guo et al. 2017, arXiv:1706.04599). `nce`:
    normalised cross entropy as NIST's sclite has it: 1 is perfect, 0 as good as saying how many are right in all, None
    where all are or none is. `auc`: the probability that a right word has more confidence than a wrong one.
    """
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        own = places == number
        if own.any():
            row = {
                "words": int(own.sum()),
                "confidence": float(confidences[own].mean()),
                "right": float(right[own].mean()),
            }
            bins.append({key: round(value, 4) for key, value in row.items()})
    error = sum(row["words"] * abs(row["confidence"] - row["right"]) for row in bins) / len(right)
    return {
        "words": len(right),
        "right": round(float(right.mean()), 4),
        "confidence": round(float(confidences.mean()), 4),
        "ece": round(error, 4),
        "nce": _nce(confidences, right),
        "auc": _auc(confidences, right),
        "bins": bins,
    }


def _nce(confidences: np.ndarray, right: np.ndarray) -> float | None:
    """(H - H(confidences)) / H, where H is the entropy of knowing only how many words are right (NIST, sclite)."""
    if right.all() or not right.any():
        return None
    share, p = right.mean(), confidences.clip(LEAST, 1 - LEAST)
    most = -(right.sum() * np.log2(share) + (~right).sum() * np.log2(1 - share))
    own = -(np.log2(p[right]).sum() + np.log2(1 - p[~right]).sum())
    return round(float((most - own) / most), 4)


def _auc(confidences: np.ndarray, right: np.ndarray) -> float | None:
    """The area under the curve of detection (Mann and Whitney's U), ties counting half."""
    if right.all() or not right.any():
        return None
    from scipy.stats import rankdata

    good, bad = int(right.sum()), int((~right).sum())
    above = rankdata(confidences)[right].sum() - good * (good + 1) / 2
    return round(float(above / (good * bad)), 4)


def draw(path: Path, found: dict[str, dict]) -> None:
    """A reliability diagram: in each bin, how many words are right, with as many words as the circle is large."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 6.0), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="silver", linewidth=1.0)
    for name, measures in found.items():
        bins = measures["bins"]
        x, y = ([row[key] for row in bins] for key in ("confidence", "right"))
        (line,) = axes.plot(x, y, label=f"{Path(name).name} (ECE {measures['ece']:.3f})")
        axes.scatter(x, y, s=[400 * row["words"] / measures["words"] + 4 for row in bins], color=line.get_color())
    axes.set(xlabel="confidence", ylabel="share of right words", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


if __name__ == "__main__":
    run(main)
