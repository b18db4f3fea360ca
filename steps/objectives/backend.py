"""Which code computes a loss: k2's or ours in plain torch."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from types import ModuleType
from typing import Literal

from utils.errors import UserError

Backend = Literal["auto", "k2", "torch"]


@lru_cache(maxsize=1)
def have_k2() -> bool:
    """Whether k2 can be imported (a broken installation, such as a k2 for another torch, counts as no)."""
    if importlib.util.find_spec("k2") is None:
        return False
    try:
        import k2  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def load_k2() -> ModuleType:
    """The module `k2`; `UserError` saying how to get it where it cannot be imported."""
    if not have_k2():
        raise UserError(
            "k2 is needed and cannot be imported here ('backend: torch' trains without): make the environment with "
            "DRAGOMAN_PROFILE=k2-index or DRAGOMAN_PROFILE=pypi."
        )
    import k2

    return k2


def backend_name(backend: Backend, auto: Literal["k2", "torch"] = "torch") -> Literal["k2", "torch"]:
    """The backend that `backend` stands for; "auto" is `auto`, or torch where that needs a k2 that is not there.

    Raises `UserError` when k2 is demanded and missing.
    """
    if backend == "auto":
        return "k2" if auto == "k2" and have_k2() else "torch"
    if backend == "k2":
        load_k2()
    return backend
