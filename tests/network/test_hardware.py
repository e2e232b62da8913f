"""Devices and number formats are chosen from what the machine says of itself."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnduet.errors import SettingsError
from nnduet.network import hardware
from nnduet.network.hardware import autocast_dtype, cpu_has_bf16, select_device


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 sse", False),
        ("flags\t\t: fpu avx2 amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2 fma", False),
        ("model name\t: bf16 9000", False),
    ],
)
def test_bf16_is_read_from_the_flags_line(tmp_path: Path, line: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert cpu_has_bf16(cpuinfo) is expected


def test_without_cpuinfo_there_is_no_bf16(tmp_path: Path) -> None:
    assert cpu_has_bf16(tmp_path / "none") is False


def test_cpu_is_always_there() -> None:
    assert select_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(("cuda", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_prefers_cuda(monkeypatch: pytest.MonkeyPatch, cuda: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert select_device("auto").type == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="cuda is not available"):
        select_device("cuda")


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SettingsError, match="tpu"):
        select_device("tpu")


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [
        ("cuda", False, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, None),
        ("mps", True, None),
    ],
)
def test_number_format_follows_device_and_hardware(
    monkeypatch: pytest.MonkeyPatch, device: str, bf16: bool, expected: torch.dtype | None
) -> None:
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: bf16)
    assert autocast_dtype(torch.device(device)) == expected


_FAULTS = """
import ctypes, resource, torch
from nnduet.network.hardware import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [torch.ones(4_000_000) for _ in range(6)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

ctypes.CDLL(None).mallopt(-3, 2**20)  # every block is mapped and unmapped
without, kept = page_faults(), keep_freed_memory()
page_faults()
print(without, page_faults(), kept)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_not_fetched_anew() -> None:
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    without, kept, said = done.stdout.split()
    assert said == "True" and int(kept) < int(without) / 10
