"""The network with plain tensors as outputs, as graphs have them, and what a converted graph depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

from torch import Tensor, nn

from nnduet.network.heads import JointNetwork, task_probabilities
from nnduet.runtimes.runtime import Runtime
from nnduet.schema import Task

__all__ = ["JointGraph", "conversion_digest"]

CONVERTER_VERSION = 1
"""Raised whenever the same weights may give another graph, so that networks converted before are converted again. A test of
the code that converts says when to think of it."""


class JointGraph(nn.Module):
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


def conversion_digest(runtime: Runtime, shape: Sequence[int], precision: str) -> str:
    """SHA-256 of what a converted network depends on beside the model: batch, precision, versions of packages and converter."""
    versions = [version(package) for package in ("torch", *runtime.packages)]
    made_by = [CONVERTER_VERSION, runtime.name, list(shape), precision, versions]
    return hashlib.sha256(repr(made_by).encode()).hexdigest()
