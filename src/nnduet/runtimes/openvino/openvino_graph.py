"""The network as OpenVINO's graph, with layers that it computes faster or more exactly in their places."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnduet.io.files import naming_disk_errors
from nnduet.network.heads import JointNetwork
from nnduet.network.network import use_instance_norms
from nnduet.process import import_quietly
from nnduet.runtimes.joint_graph import JointGraph
from nnduet.runtimes.openvino.bfloat16_weights import use_bfloat16_weights
from nnduet.runtimes.openvino.staged_norms import use_staged_norms
from nnduet.runtimes.openvino.unjoined import use_unjoined_skips
from nnduet.runtimes.openvino.winograd import LEAST_CHANNELS, use_winograd
from nnduet.runtimes.runtime import Save

__all__ = ["openvino_graph"]


def openvino_graph(network: JointNetwork, shape: Sequence[int], precision: str) -> Save:
    """The network as OpenVINO computes it, without its heads; in memory, as what saves it.

    Args:
        network: with its weights, which are only read.
        shape: (B, C, *patch) of a full batch.
        precision: "float32" or "bfloat16".
    """
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
        model = ov.convert_model(JointGraph(network).eval(), example_input=(patches, shares))
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
