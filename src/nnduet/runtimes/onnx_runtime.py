"""The network computed by ONNX Runtime, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnduet.process import import_quietly
from nnduet.runtimes.runtime import Conversion, PassSpec, Save

if TYPE_CHECKING:
    from nnduet.network.heads import JointNetwork
    from nnduet.runtimes.array_pass import Arrays
    from nnduet.runtimes.joint_pass import JointPass

__all__ = ["OnnxRuntime", "onnx_pass"]


def _convert(network: JointNetwork, shape: Sequence[int], precision: str) -> Save:
    from nnduet.runtimes.onnx_graph import onnx_graph

    return onnx_graph(network, shape)


class OnnxRuntime:
    """ONNX Runtime on CPUs."""

    name = "onnx"
    packages = ("onnxruntime", "onnxscript")
    precisions = ("float32",)
    conversion: Conversion | None = Conversion((".onnx",), _convert)

    def num_streams(self, precision: str, num_batches: int) -> int:
        """One: ONNX Runtime gives each batch all threads."""
        return 1

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        """See :func:`onnx_pass`."""
        assert converted is not None
        return onnx_pass(converted, spec.shape)


def onnx_pass(path: Path, shape: Sequence[int]) -> JointPass:
    """A converted network computed by ONNX Runtime in float32.

    Args:
        path: ``.onnx`` of the converted network.
        shape: (B, C, *patch) of a full batch.
    """
    import numpy as np
    import torch

    from nnduet.runtimes.array_pass import pass_of_arrays

    onnxruntime = import_quietly("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [output.name for output in session.get_outputs() if not output.name.startswith("task_")]

    def compute(batches: list[Arrays]) -> Arrays:
        outputs = [session.run(wanted, {"image": patches, "share": shares}) for patches, shares in batches]
        return [np.concatenate(same) for same in zip(*outputs, strict=True)]

    return pass_of_arrays(compute, shape[0])
