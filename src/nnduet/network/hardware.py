"""Which device to compute on, and in which number format."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

import torch

from nnduet.errors import SettingsError

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "autocast_dtype",
    "cpu_has_bf16",
    "keep_freed_memory",
    "processor_name",
    "select_device",
    "select_precision",
]

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "float16", "bfloat16")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them, glibc's malloc.h
_KEPT_BYTES, _MOST_MAPPED_BYTES = 2**30, 2**25
"""What glibc may keep at the end of its heap, and the largest block that it is made to take from there: its own limit."""

_CPUINFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"amx_bf16", "bf16"}
"""Of x86 and arm64. AVX-512's dot products alone are slower than float32 (docs/explanation-evidence.md)."""


def cpu_has_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; False where ``cpuinfo`` cannot be read (not Linux).

    Without it torch emulates bfloat16, slower than float32.
    """
    return any(_BF16_FLAGS & set(value.split()) for key, value in _cpu_fields(cpuinfo) if key in ("flags", "Features"))


def processor_name(cpuinfo: Path = _CPUINFO) -> str:
    """What the processor calls itself; what Python knows of it where ``cpuinfo`` does not tell."""
    return next((value for key, value in _cpu_fields(cpuinfo) if key == "model name"), platform.processor())


def _cpu_fields(cpuinfo: Path) -> list[tuple[str, str]]:
    """Names and values of ``cpuinfo``; none where it cannot be read."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]


def select_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu``, ``cuda`` or ``mps``.

    ``auto`` is CUDA where it is available and else the CPU; ``mps`` is taken only when named, for our tests never ran on it.

    Raises:
        SettingsError: the name is unknown, or this machine has no such device.
    """
    if name not in DEVICES:
        raise SettingsError(f"device: expected one of {DEVICES}, got {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[name]:
        raise SettingsError(f"device: {name} is not available to torch {torch.__version__} on this machine")
    return torch.device(name)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The type for ``torch.autocast`` on a device; None means plain float32.

    CUDA: float16, as nnU-Net (P: predict_sliding_window_return_logits); its 10-bit mantissa is also nearer to float32 than
    bfloat16. CPU: bfloat16 where the hardware has it. Others: None.
    """
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else None


def select_precision(name: str, device: torch.device) -> str:
    """The number format that the network computes in: ``auto`` is that of :func:`autocast_dtype`, else the one that is named.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in PRECISIONS:
        raise SettingsError(f"precision: expected one of {PRECISIONS}, got {name!r}")
    return str(autocast_dtype(device) or torch.float32).removeprefix("torch.") if name == "auto" else name


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB that it frees, where the C library is glibc; returns whether it is.

    A training frees and takes the same blocks in every step. By default glibc gives them back to the system, which clears each
    page when it is touched again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_MMAP_THRESHOLD, _MOST_MAPPED_BYTES))
