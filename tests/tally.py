"""The last lines of tests/run.sh: how many tests ran in each profile, from the files that conftest.py wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def line(counts: dict) -> str:
    """`12 passed, 0 failed, 1 skipped`; errors count as failures, expected failures as passes."""
    passed = counts["passed"] + counts["xfailed"] + counts["xpassed"]
    return f"{passed} passed, {counts['failed'] + counts['error']} failed, {counts['skipped']} skipped"


def main(folder: str, profiles: list[str], everything: bool) -> int:
    total: dict[str, int] = {}
    status = 0
    for profile in profiles:
        path = Path(folder) / f"{profile}.json"
        if not path.exists():
            print(f"{profile}: pytest ended without a result (crashed or stopped)")
            status = 1
            continue
        counts = json.loads(path.read_text("utf-8"))
        print(f"{profile}: {line(counts)}")
        print(f"   {counts['k2']} of the passed ran the real k2")
        if everything and profile == "pypi" and counts["k2"] == 0:
            print("   but some must: where are the tests marked k2?")
            status = 1
        status |= counts["status"] != 0
        total = {key: total.get(key, 0) + value for key, value in counts.items()}
    if total:
        print(line(total))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2].split(), len(sys.argv) == 3))
