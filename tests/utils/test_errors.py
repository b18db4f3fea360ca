from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_reader_that_has_enough_is_no_error():
    program = "from utils.errors import run; run(lambda: [print('x' * 100) for _ in range(10000)] and 0)"
    command = f'"{sys.executable}" -c "{program}" | head -n 1'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "x" * 100 + "\n", "")
