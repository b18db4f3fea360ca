"""What holds for every test: few threads, k2 where the profile has it, no skip without a reason."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

# Before torch is imported: two profiles are tested side by side on two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# With AMX, oneDNN in torch 2.13 gets bfloat16 convolutions wrong that only models as tiny as the tests' have: a stride
# that leaves a width of one, 128 taps on fewer than 16 channels a group. Torch 1.13 and the published sizes are right.
if not version("torch").startswith("1."):
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

import pytest

from utils.cpu import tune_cpu

# as the programs do, which some tests start as processes and compare with: to the last bit
tune_cpu()

K2 = find_spec("k2") is not None
# tests/run.sh sets it for a profile that has k2: there a test marked k2 that skips itself has failed.
NEED_K2 = bool(os.environ.get("DRAGOMAN_NEED_K2"))
NO_REASON = {"", "unconditional skip", "Skipped: ", "Skipped"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if K2 or NEED_K2:
        return
    for item in items:
        if "k2" in item.keywords and item.get_closest_marker("k2"):
            item.add_marker(pytest.mark.skip(reason="k2 is not installed (profile no-k2)"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = (yield).get_result()
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if NEED_K2 and item.get_closest_marker("k2"):
        report.outcome, report.longrepr = "failed", f"marked k2 and skipped where k2 must run: {reason}"
    elif reason.strip() in {text.strip() for text in NO_REASON}:
        report.outcome, report.longrepr = "failed", "skipped without a reason"


def pytest_terminal_summary(terminalreporter, exitstatus: int) -> None:
    """Leave the counts for tests/run.sh in the file that DRAGOMAN_TALLY names."""
    path = os.environ.get("DRAGOMAN_TALLY")
    if not path:
        return
    stats = terminalreporter.stats
    counts = {key: len(stats.get(key, [])) for key in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")}
    ran_k2 = sum("k2" in report.keywords for report in stats.get("passed", []))
    Path(path).write_text(json.dumps({**counts, "k2": ran_k2, "status": int(exitstatus)}), "utf-8")
