"""Cells and tables of a report; what a record lacks is "–"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

NONE = "–"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns are words and whose other columns are numbers."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(cells, headers, tablefmt="pipe", colalign=align, disable_numparse=True)


def number(value: Any, form: str = ",.0f") -> str:
    """`value` in `form`, or "–" where it is missing or no number."""
    return format(value, form) if isinstance(value, int | float) and not isinstance(value, bool) else NONE


def scaled(value: Any, factor: float) -> Any:
    """`value` times `factor` if it is a number."""
    return value * factor if isinstance(value, int | float) else value


def score_cell(entry: dict | None) -> str:
    """`45.23 ± 1.20` of an entry of score.json."""
    if not entry or entry.get("value") is None:
        return NONE
    shown = f"{entry['value']:.2f}"
    return f"{shown} ± {(entry['high'] - entry['low']) / 2:.2f}" if "low" in entry else shown


def pairs(mapping: Any) -> str:
    """`cpu EPYC, cores 2` of a mapping."""
    if not isinstance(mapping, dict) or not mapping:
        return str(mapping) if mapping else NONE
    return ", ".join(f"{key} {NONE if value is None else value}" for key, value in mapping.items())


def shortened(text: str, most: int = 100) -> str:
    """`text`, its end as "…" where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
