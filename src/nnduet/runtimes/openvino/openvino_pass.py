"""A converted network that OpenVINO has compiled, whose batches are computed side by side."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from nnduet.process import import_quietly
from nnduet.runtimes.array_pass import Arrays, pass_of_arrays
from nnduet.runtimes.joint_pass import JointPass

__all__ = ["openvino_pass"]


def openvino_pass(path: Path, shape: Sequence[int], precision: str = "float32", streams: int = 1) -> JointPass:
    """A converted network compiled by OpenVINO.

    Args:
        path: ``.xml`` of the converted network, beside its ``.bin``.
        shape: (B, C, *patch) of a full batch.
        precision: "float32" or "bfloat16".
        streams: batches that are computed side by side; the pass takes at most so many.
    """
    ov = import_quietly("openvino")
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": streams,
    }
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    _let_go_of_files(path.parent.resolve())
    requests = [compiled.create_infer_request() for _ in range(streams)]
    joined = [np.empty((streams * output.shape[0], *output.shape[1:]), np.float32) for output in compiled.outputs]
    for index, request in enumerate(requests):  # each writes its rows, so that nothing is copied afterwards
        for output, rows in zip(compiled.outputs, joined, strict=True):
            own = rows[index * shape[0] : (index + 1) * shape[0]]
            request.set_tensor(output, ov.Tensor(own, shared_memory=True))

    def compute(batches: list[Arrays]) -> Arrays:
        used = requests[: len(batches)]
        for request, batch in zip(used, batches, strict=True):
            request.start_async(batch)
        for request in used:
            request.wait()
        return joined

    return pass_of_arrays(compute, shape[0])


def _let_go_of_files(folder: Path) -> None:
    """Free the memory of files of the folder that are mapped for reading: OpenVINO keeps the weights so, beside its own copies
    in the layout that it computes with. What is needed again is read again. On Linux; elsewhere, and where a sandbox does not
    tell what is mapped, nothing happens."""
    if sys.platform != "linux" or not hasattr(psutil.Process, "memory_maps"):
        return
    libc = ctypes.CDLL(None)
    for part in psutil.Process().memory_maps(grouped=False):
        if Path(part.path).parent == folder and "w" not in part.perms:
            start, end = (int(address, 16) for address in part.addr.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
