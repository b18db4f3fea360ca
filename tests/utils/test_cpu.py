"""Settings of the libraries below torch."""

import os
from pathlib import Path

import pytest

from utils.cpu import tune_cpu


@pytest.mark.parametrize(("vendor", "expected"), [("AuthenticAMD", "5"), ("GenuineIntel", None)])
def test_mkl_is_told_about_amd_and_no_other(monkeypatch, vendor, expected):
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path, **_: f"vendor_id : {vendor}\n")
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "")
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    tune_cpu()
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


def test_the_users_setting_stays(monkeypatch):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    tune_cpu()
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "4"


def test_more_kernels_are_kept(monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    tune_cpu()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    tune_cpu()
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) > 1024
