"""The network computed by OpenVINO on CPUs, in float32 or bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnduet.runtimes.runtime import Conversion, PassSpec, Save

if TYPE_CHECKING:
    from nnduet.network.heads import JointNetwork
    from nnduet.runtimes.joint_pass import JointPass

__all__ = ["OpenVinoRuntime"]


def _convert(network: JointNetwork, shape: Sequence[int], precision: str) -> Save:
    from nnduet.runtimes.openvino.openvino_graph import openvino_graph

    return openvino_graph(network, shape, precision)


class OpenVinoRuntime:
    """OpenVINO on CPUs."""

    name = "openvino"
    packages = ("openvino",)
    precisions = ("float32", "bfloat16")
    conversion: Conversion | None = Conversion((".bin", ".xml"), _convert)

    def num_streams(self, precision: str, num_batches: int) -> int:
        """1 or 2. Two in bfloat16: while one's norms wait for memory, the other's convolutions multiply. In float32, where
        products take most of the time, two take as long as one after the other, and twice the memory."""
        import torch

        return 2 if precision == "bfloat16" and num_batches > 1 and torch.get_num_threads() > 1 else 1

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        """See :func:`~nnduet.runtimes.openvino.openvino_pass.openvino_pass`."""
        from nnduet.runtimes.openvino.openvino_pass import openvino_pass

        assert converted is not None
        return openvino_pass(converted, spec.shape, spec.precision, spec.streams)
