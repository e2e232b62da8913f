"""The network as an ONNX graph: to compute with, or as a file that answers without torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnduet.io.files import naming_disk_errors, replacing
from nnduet.network.heads import JointNetwork
from nnduet.process import import_quietly
from nnduet.runtimes.joint_graph import JointGraph
from nnduet.runtimes.runtime import Save
from nnduet.schema import Task

__all__ = ["onnx_graph", "write_onnx"]


def onnx_graph(network: JointNetwork, shape: Sequence[int], tasks: Sequence[Task] = ()) -> Save:
    """The network as ONNX Runtime computes it, in float32; in memory, as what saves it.

    Args:
        network: with its weights, which are only read.
        shape: (B, C, *patch) of a full batch.
        tasks: whose answers the graph has as outputs, too.
    """
    import_quietly("onnxscript")
    example = (torch.zeros(*shape), torch.ones(shape[0], 1, *shape[2:]))
    sums, answers = [f"sums_{k}" for k in range(1 + len(network.stages))], [f"task_{task.name}" for task in tasks]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            JointGraph(network, tasks).eval(),
            example,
            input_names=["image", "share"],
            output_names=["logits", "volumes", *sums, *answers],
            dynamo=True,
            verbose=False,
        )

    def save(path: Path) -> None:
        with naming_disk_errors(path.parent, str(path)):
            program.save(path, external_data=False)

    return save


def write_onnx(network: JointNetwork, shape: Sequence[int], tasks: Sequence[Task], target: Path) -> None:
    """Write the network with both outputs, segmentation and classes, as one ONNX file.

    Inputs: "image" (B, C, *patch) as nnU-Net preprocesses it, and "share" (B, 1, *patch), the tile's share of every voxel, ones
    for a single tile. Outputs: "logits" (B, K, *patch); "volumes" and "sums_k", which add up over the tiles of a case (see
    :class:`~nnduet.network.pooling.PooledSums`); and "task_<name>", what the heads say of each patch as if it were the
    case.

    Args:
        shape: (B, C, *patch), which the file is fixed to.

    Raises:
        DiskFullError: the disk is full; ``target`` is untouched.
    """
    save = onnx_graph(network, shape, tasks)
    with replacing(target) as temporary:
        save(temporary)
