"""The network as one graph that torch is not needed for: OpenVINO's or ONNX's, with logits, pooled sums and answers."""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnduet.io.files import naming_disk_errors, replacing
from nnduet.network.heads import JointNetwork, task_probabilities
from nnduet.network.network import use_instance_norms
from nnduet.process import import_quietly
from nnduet.runtimes.openvino.bfloat16_weights import use_bfloat16_weights
from nnduet.runtimes.openvino.staged_norms import use_staged_norms
from nnduet.runtimes.openvino.unjoined import use_unjoined_skips
from nnduet.runtimes.openvino.winograd import LEAST_CHANNELS, use_winograd
from nnduet.schema import Task

__all__ = ["ENDINGS", "PACKAGES", "Save", "conversion_digest", "convert", "write_onnx"]

PACKAGES = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnxscript")}
"""What each runtime needs beside torch."""

ENDINGS = {"openvino": (".bin", ".xml"), "onnx": (".onnx",)}
"""Of the files that a converted network is kept in."""

CONVERTER_VERSION = 1
"""Raised whenever the same weights may give another graph, so that networks converted before are converted again. A test of
the code that converts says when to think of it."""

Save = Callable[[Path], None]
"""Writes a converted network to a path with the last of its ENDINGS; the other files go beside it."""


class _Joint(nn.Module):
    """``forward_joint`` with plain tensors as outputs: logits, volumes, the numerators, then, if asked, what the network's
    heads answer: class probabilities (B, K) or standardised values (B, 1) of each task."""

    def __init__(self, network: JointNetwork, tasks: Sequence[Task] = ()) -> None:
        super().__init__()
        self.network = network
        self.tasks = tuple(tasks)

    def forward(self, patches: Tensor, shares: Tensor) -> tuple[Tensor, ...]:
        logits, sums = self.network.forward_joint(patches, shares)
        answers = self.network.heads(sums.features()) if self.tasks else {}
        outputs = [task_probabilities(t, answers[t.name]) if t.is_classification else answers[t.name] for t in self.tasks]
        return logits, sums.volumes, *sums.numerators, *outputs


def convert(network: JointNetwork, runtime: str, shape: Sequence[int], precision: str) -> Save:
    """The network as ``runtime`` computes it, without its heads; in memory, as what saves it.

    Args:
        network: with its weights, which are only read.
        runtime: "openvino" or "onnx", which computes in float32.
        shape: (B, C, *patch) of a full batch.
        precision: "float32" or "bfloat16".
    """
    return _openvino_graph(network, shape, precision) if runtime == "openvino" else _onnx_graph(network, shape)


def _openvino_graph(network: JointNetwork, shape: Sequence[int], precision: str) -> Save:
    ov = import_quietly("openvino")
    network = copy.deepcopy(network)
    use_instance_norms(network, len(shape) - 2)  # OpenVINO 2026.4 crashes on group norms of some batches
    if precision == "float32":
        use_staged_norms(network, LEAST_CHANNELS)
        use_unjoined_skips(network, LEAST_CHANNELS)
        use_winograd(network)
    else:
        use_unjoined_skips(network)
        use_bfloat16_weights(network)
    traced = _traced_shape(network, shape)
    patches, shares = torch.zeros(*traced), torch.zeros(traced[0], 1, *traced[2:])
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer notes that shapes are constants, which they are
        model = ov.convert_model(_Joint(network).eval(), example_input=(patches, shares))
    model.reshape({model.inputs[0]: list(shape), model.inputs[1]: [shape[0], 1, *shape[2:]]})

    def save(path: Path) -> None:
        with naming_disk_errors(path.parent, str(path)):
            ov.save_model(model, path, compress_to_fp16=False)

    return save


def _traced_shape(network: JointNetwork, shape: Sequence[int]) -> tuple[int, ...]:
    """(B, C, *patch) with the first and the last axis of a 3D patch shortened: tracing keeps every intermediate image, and
    reads no other numbers off their shapes than that of rows and the strides from stage to stage."""
    if len(shape) != 5:
        return tuple(shape)
    steps: Any = network.encoder.strides
    patch = list(shape[2:])
    for axis in (0, 2):
        stride = math.prod(step[axis] for step in steps)
        patch[axis] = min(2 * stride, patch[axis]) if patch[axis] % stride == 0 else patch[axis]
    return (*shape[:2], *patch)


def _onnx_graph(network: JointNetwork, shape: Sequence[int], tasks: Sequence[Task] = ()) -> Save:
    import_quietly("onnxscript")
    example = (torch.zeros(*shape), torch.ones(shape[0], 1, *shape[2:]))
    sums, answers = [f"sums_{k}" for k in range(1 + len(network.stages))], [f"task_{task.name}" for task in tasks]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _Joint(network, tasks).eval(),
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
    save = _onnx_graph(network, shape, tasks)
    with replacing(target) as temporary:
        save(temporary)


def conversion_digest(runtime: str, shape: Sequence[int], precision: str) -> str:
    """SHA-256 of what a converted network depends on beside the model: batch, precision, versions of packages and converter."""
    versions = [version(package) for package in ("torch", *PACKAGES[runtime])]
    return hashlib.sha256(repr([CONVERTER_VERSION, runtime, list(shape), precision, versions]).encode()).hexdigest()
