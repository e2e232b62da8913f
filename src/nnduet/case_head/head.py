"""The case head: a small statistical model on the features of whole cases, stored as plain numbers.

It answers with calibrated probabilities, or with a value, and knows how far off it was on cases that it had not seen.
numpy and scipy only; :mod:`nnduet.case_head.fit` makes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from nnduet.case_head.calibration import conformal_threshold
from nnduet.case_head.families import Layers, apply_layers
from nnduet.errors import ModelError
from nnduet.records import convert_json
from nnduet.schema import Task

__all__ = ["CaseHead", "best_model", "describe_head", "standardise"]

Array = NDArray[np.float64]

LARGEST_DEVIATION = 6.0

Number = Annotated[float, Meta(ge=-1e30, le=1e30)]
"""Stored numbers this small stay finite in every product of a few layers."""


@dataclass(frozen=True)
class _Layer:
    weights: list[list[Number]]
    bias: list[Number]


@dataclass(frozen=True)
class _Model:
    model: str
    features: str


@dataclass(frozen=True)
class _Choice:
    models: list[_Model] = field(default_factory=list)
    inner_loss: float | None = None


@dataclass(frozen=True)
class _Stored:
    """A case head in JSON."""

    columns: list[Annotated[int, Meta(ge=0, le=2**31)]]
    mean: list[Number]
    scale: list[Number]
    layers: list[_Layer]
    network_share: Annotated[float, Meta(ge=0, le=1)]
    temperature: Annotated[float, Meta(ge=1e-3, le=1e3)]
    scores: list[Number]
    choice: _Choice = field(default_factory=_Choice)


@dataclass(frozen=True)
class CaseHead:
    """Layers on standardised features, mixed with the network head's answer, divided by a temperature.

    Attributes:
        task: the task it answers.
        columns: (D,) indices of the features it reads.
        mean, scale: (D,) of these features over the training cases.
        layers: see :data:`nnduet.case_head.families.Layers`.
        network_share: weight of the network head's log probabilities, in [0, 1]; the case head has the rest.
        temperature: divisor of the mixed logits; 1 for a regression.
        scores: (N,) ascending nonconformity of training cases under models that had not seen their patients: 1 - p(true
            class), or the absolute error of a regression.
        choice: what inner cross-validation chose, with the losses it chose by.
    """

    task: Task
    columns: NDArray[np.int64]
    mean: Array
    scale: Array
    layers: Layers
    network_share: float = 0.0
    temperature: float = 1.0
    scores: Array = field(default_factory=lambda: np.zeros(0))
    choice: dict[str, Any] = field(default_factory=dict)

    def __call__(self, features: Array, network: Array | None = None) -> Array:
        """Class probabilities (N, K), or values (N, 1) for a regression.

        Args:
            features: (N, F), NaN where undefined.
            network: the network head's class probabilities (N, K) or values (N, 1); needed where ``network_share`` > 0.
        """
        own = apply_layers(self.layers, standardise(features[:, self.columns], self.mean, self.scale))
        return self.task.kind.outputs(mix(self.task, own, network, self.network_share), self.temperature)

    def threshold(self, error_rate: float) -> float:
        """Nonconformity up to which a class belongs to the prediction set; see :func:`conformal_threshold`."""
        return conformal_threshold(self.scores, error_rate)

    def to_json(self) -> dict[str, object]:
        """Plain numbers; the task itself is in dataset.json."""
        return {
            "choice": self.choice,
            "columns": self.columns.tolist(),
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "layers": [{"weights": weights.tolist(), "bias": bias.tolist()} for weights, bias in self.layers],
            "network_share": self.network_share,
            "temperature": self.temperature,
            "scores": self.scores.tolist(),
        }

    @classmethod
    def from_json(cls, task: Task, json_object: Mapping[str, Any]) -> CaseHead:
        """Inverse of :meth:`to_json`.

        Raises:
            ModelError: an array is missing, not finite, or of the wrong shape.
        """
        place = f"case head of task {task.name}"
        stored = convert_json(json_object, _Stored, place, error=ModelError)
        try:
            mean, scale, scores = (np.asarray(a, dtype=float) for a in (stored.mean, stored.scale, stored.scores))
            layers = tuple((np.array(layer.weights, dtype=float), np.array(layer.bias)) for layer in stored.layers)
        except ValueError as error:  # rows of different lengths
            raise ModelError(f"{place}: {error}") from error
        columns, share, temperature = np.array(stored.columns, dtype=np.int64), stored.network_share, stored.temperature
        head = cls(task, columns, mean, scale, layers, share, temperature, scores, dict(json_object.get("choice", {})))
        head._check()
        return head

    def _check(self) -> None:
        arrays = [self.mean, self.scale, self.scores, *(array for layer in self.layers for array in layer)]
        numbers = np.array([self.network_share, self.temperature])
        sizes = [self.columns.size, *(bias.size for _, bias in self.layers)]
        shapes = [array.shape for array in arrays]
        inner = [shape for a, b in itertools.pairwise(sizes) for shape in ((b, a), (b,))]
        expected = [(sizes[0],), (sizes[0],), (self.scores.size,), *inner]
        outputs = self.task.kind.answer_size(self.task)
        sound = all(np.isfinite(a).all() for a in (*arrays, numbers)) and (self.scale > 0).all() and self.columns.size > 0
        if shapes != expected or sizes[-1] != outputs or len(sizes) < 2 or not sound:
            raise ModelError(
                f"case head of task {self.task.name}: expected finite layers from {sizes[0]} features to {outputs} outputs, "
                f"got shapes {shapes}, network_share {self.network_share}, temperature {self.temperature}"
            )


def describe_head(head: CaseHead | None) -> str:
    """What answers a task, e.g. "network head" (where there is no case head) or "case head (shrinkage LDA on shape)".

    Examples:
        >>> describe_head(None)
        'network head'
    """
    if head is None or head.network_share == 1:
        return "network head"
    model, features = best_model(head)
    own = f"case head ({model} on {features})"
    return own if head.network_share == 0 else f"{own} with {head.network_share:.0%} network head"


def best_model(head: CaseHead) -> tuple[str, str]:
    """The best of the models that a head is the mean of and how many others there are, and the features that the best reads."""
    models = head.choice.get("models") or [{"model": "unknown", "features": "unknown"}]
    others = ("", " and 1 other", f" and {len(models) - 1} others")[min(len(models), 3) - 1]
    return models[0]["model"] + others, models[0]["features"]


def moments(features: Array) -> tuple[Array, Array]:
    """Mean and deviation (F,) over the cases where a feature is defined; 0 and a tiny one where it never is.

    Examples:
        >>> mean, deviation = moments(np.array([[1.0], [np.nan], [3.0]]))
        >>> mean.tolist(), deviation.round(3).tolist()
        ([2.0], [1.0])
    """
    defined = np.where(np.isfinite(features).any(axis=0), features, 0.0)
    return np.nanmean(defined, axis=0), np.nanstd(defined, axis=0) + 1e-6


def standardise(features: Array, mean: Array, scale: Array, limit: float = LARGEST_DEVIATION) -> Array:
    """(N, D) to about zero mean and unit deviation, clipped to ``limit``; an undefined feature counts as the mean.

    Examples:
        >>> standardise(np.array([[5.0], [np.nan], [99.0]]), np.array([3.0]), np.array([2.0])).tolist()
        [[1.0], [0.0], [6.0]]
    """
    return np.asarray(np.clip(np.nan_to_num((features - mean) / scale, nan=0.0), -limit, limit))


def mix(task: Task, own: Array, network: Array | None, share: float) -> Array:
    """(1 - share) * own logits + share * logits of the network's probabilities; for a regression the same mean of values.

    Examples:
        >>> own, network = np.array([[0.0, 2.0]]), np.array([[0.5, 0.5]])
        >>> mix(Task("grade", "binary", ("low", "high")), own, network, 0.0).tolist()
        [[0.0, 2.0]]
        >>> mix(Task("age", "regression"), np.array([[40.0]]), np.array([[44.0]]), 0.25).tolist()
        [[41.0]]
    """
    if share == 0:
        return own
    assert network is not None, f"task {task.name}: the case head needs the network head's answer"
    return np.asarray((1 - share) * own + share * task.kind.logits(network))
