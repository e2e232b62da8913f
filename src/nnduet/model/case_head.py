"""The case head: a small statistical model on the pooled features of whole cases, stored as plain numbers.

With a few hundred cases a linear model on frozen features is at or near the best (shared/EVIDENCE.md item 5). It is fitted on
the training cases of the fold after the network has been trained; the regularisation is chosen by inner cross-validation
that keeps the cases of a patient together. numpy and scikit-learn only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from nnduet.errors import ModelError
from nnduet.schema import Task

__all__ = ["CaseHead", "fit_case_head"]

Array = NDArray[np.float64]

INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Candidates for the inverse ridge penalty C of the logistic regression (and 1 / alpha of the ridge regression)."""

MIN_CASES_PER_CLASS = 3
"""Below this many labelled cases in a class there is nothing to cross-validate, and no case head is fitted."""


@dataclass(frozen=True)
class CaseHead:
    """A standardising linear model: logits = ((x - mean) / scale) @ weights.T + bias.

    Attributes:
        task: the task it answers.
        mean, scale: (F,) of the training features; features are clipped to 6 scales.
        weights: (K, F); one row for a regression.
        bias: (K,).
        choice: what inner cross-validation chose, with its scores.
    """

    task: Task
    mean: Array
    scale: Array
    weights: Array
    bias: Array
    choice: dict[str, Any]

    def __call__(self, features: Array) -> Array:
        """Features (N, F) to class probabilities (N, K), or to values (N, 1) for a regression."""
        logits = standardise(features, self.mean, self.scale) @ self.weights.T + self.bias
        if self.task.type == "regression":
            return logits
        return np.asarray(softmax(logits, axis=1))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; the task itself is in dataset.json."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "weights", "bias")}
        return {"choice": self.choice, **arrays}

    @classmethod
    def from_json(cls, task: Task, json_object: Mapping[str, Any]) -> CaseHead:
        """Inverse of :meth:`to_json`.

        Raises:
            ModelError: an array is missing, not finite, or of the wrong shape.
        """
        try:
            mean, scale, weights, bias = (np.asarray(json_object[n], dtype=float) for n in ("mean", "scale", "weights", "bias"))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"case head of task {task.name}: {error}") from error
        rows = 1 if task.type == "regression" else len(task.classes)
        arrays = (mean, scale, weights, bias)
        shapes = [a.shape for a in arrays]
        size = mean.size
        if shapes != [(size,), (size,), (rows, size), (rows,)] or not all(np.isfinite(a).all() for a in arrays):
            raise ModelError(f"case head of task {task.name}: expected finite (F,), (F,), ({rows}, F), ({rows},), got {shapes}")
        return cls(task, mean, scale, weights, bias, dict(json_object.get("choice", {})))


def standardise(features: Array, mean: Array, scale: Array) -> Array:
    """(N, F) to about zero mean and unit deviation, clipped to [-6, 6]."""
    return np.asarray(np.clip((features - mean) / scale, -6, 6))


def fit_case_head(
    task: Task,
    features: Array,
    labels: Array,
    groups: Sequence[str],
    *,
    blocks: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> CaseHead | None:
    """Fit a ridge-penalised linear model; features and penalty are chosen by inner grouped cross-validation.

    Args:
        features: (N, F) finite.
        labels: (N,) class indices or values, NaN where missing.
        groups: (N,) patient of each case.
        blocks: names to columns. The candidates are the first block, the first with each other one, and all columns; None
            takes all columns.

    Returns:
        None where fewer than two classes (or five values for a regression) have enough cases, or where the patients are too
        few to be cross-validated.
    """
    known = np.isfinite(labels)
    x, y, patients = features[known], labels[known], np.asarray(groups, dtype=str)[known]
    if not _enough(task, y) or len(np.unique(patients)) < 2:
        return None
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = standardise(x, mean, scale)
    candidates = _candidates(blocks or {}, x.shape[1])
    scores = {
        (name, c): _inner_score(task, c, x[:, columns], y, patients, seed)
        for name, columns in candidates.items()
        for c in INVERSE_PENALTIES
    }
    name, c = best = min(scores, key=lambda key: scores[key])
    if not np.isfinite(scores[best]):
        return None
    chosen, bias = _linear(task, c, x[:, candidates[name]], y)
    weights = np.zeros((len(bias), x.shape[1]))
    weights[:, candidates[name]] = chosen
    choice = {
        "model": "ridge regression" if task.type == "regression" else "ridge logistic regression",
        "features": name,
        "inverse_penalty": c,
        "inner_loss": {n: round(min(s for (m, _), s in scores.items() if m == n), 5) for n in candidates},
        "num_cases": len(y),
    }
    return CaseHead(task, mean, scale, weights, bias, choice)


def _candidates(blocks: Mapping[str, Sequence[int]], size: int) -> dict[str, list[int]]:
    """Names to columns: the first block, the first with each other one, everything."""
    first, *others = blocks or [""]
    out = {first: list(blocks[first])} if blocks else {}
    out |= {f"{first} and {other}": [*blocks[first], *blocks[other]] for other in others}
    return {**out, "all": list(range(size))}


def _enough(task: Task, y: Array) -> bool:
    if task.type == "regression":
        return len(y) >= 5 and float(np.ptp(y)) > 0
    counts = np.bincount(y.astype(int), minlength=len(task.classes))
    return int((counts >= MIN_CASES_PER_CLASS).sum()) >= 2


def _inner_score(task: Task, c: float, x: Array, y: Array, patients: Any, seed: int) -> float:
    """Mean loss over inner validation folds: log loss, or mean squared error over the variance; infinite where none counts."""
    splits = min(5, len(np.unique(patients)))
    splitter: Any = GroupKFold(splits)
    if task.type != "regression":
        splits = min(splits, int(np.bincount(y.astype(int)).max()))
        splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for train, test in splitter.split(x, y, patients):
            if len(test) == 0 or (task.type != "regression" and len(np.unique(y[train])) < 2):
                continue
            weights, bias = _linear(task, c, x[train], y[train])
            losses.append(_loss(task, x[test] @ weights.T + bias, y[test], float(np.var(y))))
    return float(np.mean(losses)) if losses else float("inf")


def _loss(task: Task, logits: Array, y: Array, variance: float) -> float:
    if task.type == "regression":
        return float(np.mean((logits[:, 0] - y) ** 2) / variance)
    return float(log_loss(y.astype(int), softmax(logits, axis=1), labels=list(range(len(task.classes)))))


def _linear(task: Task, c: float, x: Array, y: Array) -> tuple[Array, Array]:
    """Weights (K, F) and bias (K,); classes absent from ``y`` get zero weights and a bias of -30 (probability about 0)."""
    if task.type == "regression":
        ridge = Ridge(alpha=1 / c).fit(x, y)
        return ridge.coef_[None], np.array([ridge.intercept_])
    model = LogisticRegression(C=c, max_iter=500).fit(x, y.astype(int))
    weights, bias = np.zeros((len(task.classes), x.shape[1])), np.full(len(task.classes), -30.0)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes: the log odds of the second
        coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
    weights[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weights, bias
