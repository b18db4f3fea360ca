"""What stages hand on, checked: manifests (stage 1), cuts and features (stage 2), lang and graph folders (stages 3, 4).

    python -m steps.prepare.validate --manifests data/manifests
    python -m steps.prepare.validate --manifests data/manifests --splits train dev --fix
    python -m steps.prepare.validate --cuts data/train/cuts.jsonl.gz data/dev/cuts.jsonl.gz --full --jobs 8
    python -m steps.prepare.validate --lang data/lang_char data/graph_word_3gram

One sentence a kind of fault, with how many there are and the first of them; the exit status is 1 if there is one, and 0
for warnings alone. As Kaldi's validate_data_dir.sh, fix_data_dir.sh and validate_lang.pl.
"""

from __future__ import annotations

import os
from pathlib import Path

from utils.errors import UserError, run
from utils.files import require
from utils.options import Parser, count, share


def _options() -> Parser:
    parser = Parser(prog="steps.prepare.validate", description=__doc__.splitlines()[0])
    parser.add_argument("--manifests", type=Path, help="folder of <split>_{recordings,supervisions}.jsonl.gz")
    parser.add_argument("--splits", nargs="+", help="of the manifests (default: all that are there)")
    parser.add_argument("--cuts", nargs="+", type=Path, default=[], metavar="FILE", help="cuts of stage 2")
    parser.add_argument("--lang", nargs="+", type=Path, default=[], metavar="DIR", help="lang or graph folders")
    parser.add_argument("--fix", action="store_true", help="mend manifests and cuts; the old files go to .backup")
    parser.add_argument("--full", action="store_true", help="decode all audio of manifests, read all features of cuts")
    parser.add_argument("--jobs", type=count, default=os.cpu_count() or 1, help="threads that read files")
    parser.add_argument(
        "--max-bad",
        type=share,
        default=0.0,
        help="share of a file's entries that may have a fault, which is then a warning (stage 2 leaves them out)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    options = _options().parse_args(arguments)
    if not (options.manifests or options.cuts or options.lang):
        raise UserError("Nothing to check: give --manifests, --cuts or --lang.")
    if options.splits and not options.manifests:
        raise UserError("--splits are those of --manifests, which is not given.")
    from steps.prepare.checks.faults import Faults  # after --help, which should be quick

    faults = Faults(options.max_bad)
    if options.manifests:
        with faults.caught():
            _check_manifests(options, faults)
    for path in options.cuts:
        with faults.caught():
            _check_cuts(path, options, faults)
    for folder in options.lang:
        from steps.prepare.checks.lang import check_lang

        with faults.caught():
            check_lang(folder, faults)
    return faults.report()


def _check_manifests(options, faults) -> None:
    from steps.prepare.checks.manifests import Common, Split
    from steps.prepare.checks.mend import mend_split
    from steps.prepare.manifests import splits_in

    folder = require(options.manifests, "stage 1 (manifests)")
    splits = options.splits or splits_in(folder)
    if not splits:
        raise UserError(f"{folder} has no <split>_supervisions.jsonl.gz: check the path, or run stage 1 (manifests).")
    common = Common(folder, faults)
    for split in splits:
        with faults.caught():
            if options.fix:
                mend_split(folder, split)
            Split(folder, split, faults, common, options.full, options.jobs).check()


def _check_cuts(path: Path, options, faults) -> None:
    from steps.prepare.checks.cuts import CutFile
    from steps.prepare.checks.mend import mend_cuts

    if options.fix:
        mend_cuts(path)
    CutFile(path, faults, options.full, options.jobs).check()


if __name__ == "__main__":
    run(main)
