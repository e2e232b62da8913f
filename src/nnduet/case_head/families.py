"""The families of statistical models behind the case head, all as plain layers of numbers.

With a few hundred cases, shrinkage LDA, ridge logistic regression and a 16-unit perceptron on frozen features are best or near
best (docs/explanation-evidence.md, 5). scikit-learn fits them, and is imported only then; only their weights are kept, so
prediction needs numpy alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnduet.schema import Task

__all__ = ["ABSENT", "PERCEPTRON", "Layers", "apply_layers", "average_models", "families", "fit_family", "linear_families"]

Array = NDArray[np.float64]
Layers = tuple[tuple[Array, Array], ...]
"""(weights (outputs, inputs), bias (outputs,)) of each layer, with max(0, x) between two layers."""

INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for the inverse ridge penalty C of the logistic regression (and 1 / alpha of the ridge regression)."""

PERCEPTRON_PENALTIES = (1.0, 10.0)
"""Candidates for the weight decay alpha of the perceptron."""

PERCEPTRON_UNITS = 16
PERCEPTRON = "perceptron"

SMALLEST_VARIANCE = 1e-9
"""Of a feature within every class, against features that are constant there."""

ABSENT = -30.0
"""Logit of a class that no training case had: a probability of about nothing."""


def families(task: Task) -> tuple[str, ...]:
    """Names of the linear families, then the perceptron."""
    return (*linear_families(task), PERCEPTRON)


def linear_families(task: Task) -> tuple[str, ...]:
    """Names of the families that draw a plane through feature space."""
    return task.kind.linear_families


def fit_family(family: str, task: Task, x: Array, y: Array, seed: int = 0) -> dict[float, Layers]:
    """Fit one family with every strength of its regularisation.

    Args:
        family: one of :func:`families`.
        x: (N, D) standardised features, finite.
        y: (N,) answers that are enough, see :meth:`~nnduet.tasks.base.TaskKind.enough`.

    Returns:
        {strength: layers that give the logits of a case (K,), or the value (1,)}. The strength is C or alpha; 0 where there is
        none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few iterations or collinear features still give a model, and it is validated
        return dict(task.kind.fit(task, partial(_FITS[family], seed), x, y))


def apply_layers(layers: Layers, x: Array) -> Array:
    """(N, D) to (N, outputs)."""
    for index, (weights, bias) in enumerate(layers):
        x = (np.maximum(x, 0) if index else x) @ weights.T + bias
    return x


def average_models(models: Sequence[tuple[Sequence[int], Layers]]) -> tuple[NDArray[np.int64], Layers]:
    """One model that answers with the mean of several.

    Args:
        models: the columns that each reads, and its layers: one, or two with hidden units between; at least one model.

    Returns:
        The columns (D,), ascending, that any of them reads, and layers on these: one where all models have one. Else two, whose
        hidden units are those of all models, and the linear models' sum and its negative, for x = max(0, x) - max(0, -x).
    """
    columns = np.unique(np.concatenate([np.asarray(read, dtype=np.int64) for read, _ in models]))
    spread = [_spread(columns, read, layers) for read, layers in models]
    deep = [layers for layers in spread if len(layers) > 1]
    if len(deep) < len(models):
        plane, offset = (
            np.sum(part, axis=0) for part in zip(*(layers[0] for layers in spread if len(layers) == 1), strict=True)
        )
        if not deep:
            return columns, ((plane / len(models), offset / len(models)),)
        one = np.eye(len(offset))
        both = np.concatenate([plane, -plane]), np.concatenate([offset, -offset])
        deep.append((both, (np.concatenate([one, -one], axis=1), np.zeros(len(one)))))
    hidden, last = ([layers[index] for layers in deep] for index in range(2))
    joined = np.concatenate([weights for weights, _ in hidden]), np.concatenate([bias for _, bias in hidden])
    answer = np.concatenate([weights for weights, _ in last], axis=1), np.sum([bias for _, bias in last], axis=0)
    return columns, (joined, (answer[0] / len(models), answer[1] / len(models)))


def _spread(columns: NDArray[np.int64], read: Sequence[int], layers: Layers) -> Layers:
    """The layers on all columns instead of those that the model reads; it reads nothing of the others."""
    (weights, bias), *rest = layers
    wide = np.zeros((len(weights), len(columns)))
    wide[:, np.searchsorted(columns, read)] = weights
    return ((wide, bias), *rest)


def _fit_lda(seed: int, x: Array, y: Array, num_classes: int) -> dict[float, Layers]:
    """What scikit-learn's LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto") fits: the covariance within the classes,
    each class's shrunk by its Ledoit-Wolf coefficient on standardised features.

    scikit-learn solves a D x D system, which takes long for thousands of features. This covariance is a diagonal plus one rank
    for each case, so that by Woodbury's identity an N x N system gives the same plane.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage
    from sklearn.preprocessing import StandardScaler

    classes, index, counts = np.unique(y.astype(int), return_inverse=True, return_counts=True)
    means, factor, diagonal = np.zeros((len(classes), x.shape[1])), np.empty_like(x), np.full(x.shape[1], SMALLEST_VARIANCE)
    for k, share in enumerate(counts / len(y)):
        scaler = StandardScaler().fit(x[index == k])
        z = scaler.transform(x[index == k])
        shrinkage = ledoit_wolf_shrinkage(z)
        means[k] = scaler.mean_
        factor[index == k] = np.sqrt(share * (1 - shrinkage) / len(z)) * z * scaler.scale_
        diagonal += share * shrinkage * z.var(axis=0).mean() * scaler.scale_**2
    scaled = factor / diagonal
    inner = np.linalg.solve(np.eye(len(x)) + scaled @ factor.T, scaled @ means.T)
    weights, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, ABSENT)
    weights[classes] = means / diagonal - inner.T @ scaled
    bias[classes] = np.log(counts / len(y)) - 0.5 * (means * weights[classes]).sum(axis=1)
    return {0.0: ((weights, bias),)}


def _fit_logistic(seed: int, x: Array, y: Array, num_classes: int) -> dict[float, Layers]:
    """From the strongest penalty to the weakest, each starting where the last one ended.

    The ridge penalty keeps the plane within the span of the cases, so where features outnumber cases it is sought there.
    """
    from sklearn.linear_model import LogisticRegression

    span = np.linalg.svd(x, full_matrices=False)[2] if x.shape[1] > len(x) else np.eye(x.shape[1])
    model = LogisticRegression(max_iter=200, warm_start=True)
    fitted: dict[float, Layers] = {}
    for c in INVERSE_PENALTIES:
        model.set_params(C=c).fit(x @ span.T, y.astype(int))
        fitted[c] = (_all_classes(num_classes, model, model.coef_ @ span, model.intercept_),)
    return fitted


def _fit_ridge(seed: int, x: Array, y: Array, num_classes: int) -> dict[float, Layers]:
    from sklearn.linear_model import Ridge

    models = {c: Ridge(alpha=1 / c).fit(x, y) for c in INVERSE_PENALTIES}
    return {c: ((model.coef_[None], np.array([model.intercept_])),) for c, model in models.items()}


def _fit_perceptron(seed: int, x: Array, y: Array, num_classes: int) -> dict[float, Layers]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if num_classes else MLPRegressor
    centre, scale = (0.0, 1.0) if num_classes else (y.mean(), y.std() + 1e-9)
    fitted: dict[float, Layers] = {}
    for alpha in PERCEPTRON_PENALTIES:
        model = kind(hidden_layer_sizes=(PERCEPTRON_UNITS,), solver="lbfgs", alpha=alpha, max_iter=200, random_state=seed)
        model.fit(x, y.astype(int) if num_classes else (y - centre) / scale)
        hidden = (model.coefs_[0].T, model.intercepts_[0])
        weights, bias = model.coefs_[1].T, model.intercepts_[1]
        plane = (weights * scale, bias * scale + centre)
        last = _all_classes(num_classes, model, weights, bias) if num_classes else plane
        fitted[alpha] = (hidden, last)
    return fitted


_FITS: dict[str, Callable[[int, Array, Array, int], dict[float, Layers]]] = {
    "shrinkage LDA": _fit_lda,
    "ridge logistic regression": _fit_logistic,
    "ridge regression": _fit_ridge,
    PERCEPTRON: _fit_perceptron,
}


def _all_classes(num_classes: int, model: Any, coefficients: Array, intercepts: Array) -> tuple[Array, Array]:
    """Weights (K, D) and bias (K,) for all classes from those of the classes that were seen."""
    weights, bias = np.zeros((num_classes, coefficients.shape[1])), np.full(num_classes, ABSENT)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes: the log odds of the second
        coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
    weights[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weights, bias
