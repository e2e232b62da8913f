"""How much memory a case needs, before the work on it begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from nnduet.errors import TooLargeError

__all__ = [
    "DESCRIBED_BYTES",
    "available_bytes",
    "check_described",
    "choose_accumulator",
    "naming_shortage",
    "needed_bytes",
    "peak_bytes",
]

DESCRIBED_BYTES = 64
"""What a voxel in the box of a region takes while the region is described, most of it distances to its border and the positions
of its voxels; measured with tracemalloc, 58 to 63."""

_BOX_MARGIN = 9
"""Voxels along an axis of a box beyond the distance of its first and last: one of them, three on either side, padding."""

_SHORTAGES = ("can't allocate memory", "not enough memory", "bad allocation", "Unable to allocate")
"""What torch and OpenVINO say in place of a MemoryError."""

CGROUP = Path("/sys/fs/cgroup")
STATUS = Path("/proc/self/status")


def needed_bytes(
    shape: Sequence[int],
    network_shape: Sequence[int],
    *,
    channels: int,
    outputs: int,
    folds: int,
    accumulator: torch.dtype,
) -> int:
    """Estimate of the largest arrays that are held at once, the network's own aside.

    Args:
        shape, network_shape: (Z, Y, X) of the file and of the preprocessed image.
        outputs: logits per voxel.
        folds: models that are averaged.

    Returns:
        Bytes: the image as it is read and cropped (float32 each) and preprocessed; the logits, twice where folds are averaged;
        two maps of weights; the regions and labels that the features are taken from. What describing a region takes depends on
        its size, see :func:`check_described`.
    """
    read, voxels = prod(shape), prod(network_shape)
    logits = outputs * accumulator.itemsize * (1 if folds == 1 else 2)
    return 8 * channels * read + voxels * (4 * channels + logits + 8 + 8 + outputs)


def check_described(masks: NDArray[np.bool_]) -> None:
    """Refuse regions (R, Z, Y, X) whose descriptors need more memory than there is; they are described one by one.

    Raises:
        TooLargeError: the box around one of them is too large.
    """
    needed = DESCRIBED_BYTES * max((_box_voxels(mask) for mask in masks), default=0)
    available = available_bytes()
    if needed > available:
        raise TooLargeError(
            f"a region's shape takes about {needed / 2**30:.1f} GiB to describe; {available / 2**30:.1f} GiB are available"
        )


def _box_voxels(mask: NDArray[np.bool_]) -> int:
    lengths = []
    for axis in range(mask.ndim):
        (found,) = np.nonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        lengths.append(int(found[-1] - found[0]) + _BOX_MARGIN if len(found) else 0)
    return prod(lengths)


@contextmanager
def naming_shortage(what: str) -> Iterator[None]:
    """Name the case where memory runs out in spite of the estimates, as under ``ulimit -v``; ``what`` begins the message.

    Raises:
        TooLargeError: an allocation failed in the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _SHORTAGES):
            raise TooLargeError(f"{what}: the memory ran out: {str(error).strip().partition(chr(10))[0][:200]}") from error
        raise


def available_bytes(cgroup: Path = CGROUP) -> int:
    """What this process may still take: the machine's free memory, less where a container or a limit (ulimit -v) says so."""
    limits: list[int] = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):  # no container, or one without a limit
        files = {line.split()[0]: int(line.split()[1]) for line in (cgroup / "memory.stat").read_text().splitlines()}
        used = int((cgroup / "memory.current").read_text()) - files.get("inactive_file", 0)
        limits.append(int((cgroup / "memory.max").read_text()) - used)
    with suppress(ImportError):  # Windows has no such limit
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            limits.append(most - psutil.Process().memory_info().vms)
    return max(min(limits), 0)


def peak_bytes(status: Path = STATUS) -> int:
    """The most memory that this process has held at once (resident).

    On Linux from ``VmHWM``: the more common ``ru_maxrss`` survives ``execve`` (fs/exec.c, exec_mmap), so that a process begins
    with the peak of the one that started it. Elsewhere from ``ru_maxrss``, bytes on macOS and KiB on other systems.
    """
    with suppress(OSError, StopIteration):
        lines = status.read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def choose_accumulator(
    shape: Sequence[int], network_shape: Sequence[int], *, channels: int, outputs: int, folds: int, source: str
) -> torch.dtype:
    """float32 where the case fits into the memory that is available, else float16.

    Args:
        source: what the message calls the case.

    Raises:
        TooLargeError: it does not fit in float16 either.
    """
    available = available_bytes()
    least = 0
    for accumulator in (torch.float32, torch.float16):
        least = needed_bytes(shape, network_shape, channels=channels, outputs=outputs, folds=folds, accumulator=accumulator)
        if least <= available:
            return accumulator
    raise TooLargeError(
        f"{source}: {tuple(shape)} voxels become {tuple(network_shape)} for the network, which takes about {least / 2**30:.1f} "
        f"GiB; {available / 2**30:.1f} GiB are available; crop the image, predict with one fold, or find more memory"
    )
