"""Fit a case head: features, family and regularisation chosen by inner cross-validation that keeps patients together.

Everything is decided on the training cases of the fold. The inner out-of-fold answers of what was chosen also set the
temperature, the share of the network head and the conformal scores; they are a little optimistic for having been chosen by,
which is why coverage and calibration are measured on held-out folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from nnduet.model.calibration import cross_entropy, fit_temperature, nonconformity
from nnduet.model.case_head import CaseHead, answers, mix, moments, standardise
from nnduet.model.case_models import ABSENT, PERCEPTRON, apply_layers, families, fit_family
from nnduet.schema import Task

__all__ = ["feature_sets", "fit_case_head", "out_of_fold"]

Array = NDArray[np.float64]
Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

NETWORK_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

MIN_CASES_PER_CLASS = 3
"""Below this many labelled cases in a class there is nothing to cross-validate, and no case head is fitted."""


@dataclass(frozen=True)
class _Candidate:
    features: str
    family: str
    strength: float


def fit_case_head(
    task: Task,
    features: Array,
    labels: Array,
    patients: Sequence[str],
    *,
    blocks: Mapping[str, Sequence[int]] | None = None,
    network: Array | None = None,
    models: Sequence[str] | None = None,
    seed: int = 0,
) -> CaseHead | None:
    """Choose features, family and strength, calibrate, and fit on all labelled cases.

    Args:
        features: (N, F), NaN where undefined.
        labels: (N,) class indices or values, NaN where missing.
        patients: (N,) patient of each case.
        blocks: names to columns, see :func:`feature_sets`; None is one block of all columns.
        network: (N, K) class probabilities or (N, 1) values of network heads that had not seen the case; None leaves the
            network head out.
        models: which of :func:`nnduet.model.case_models.families` compete; None lets all.

    Returns:
        None where fewer than two classes (or five values for a regression) have enough cases, or where the patients are too
        few to be cross-validated.
    """
    known = np.isfinite(labels)
    x, y, groups = features[known], labels[known], np.asarray(patients, dtype=str)[known]
    folds = _inner_folds(task, y, groups, seed) if _enough(task, y) else []
    if not folds:
        return None
    mean, scale = moments(x)
    x = standardise(x, mean, scale)
    sets = feature_sets(blocks or {"all": range(x.shape[1])})
    held_out, losses = _search(task, x, y, folds, sets, families(task) if models is None else models, seed)
    best = min(losses, key=lambda candidate: losses[candidate])
    own_temperature = _temperature(task, held_out[best], y)
    own, other = held_out[best] / own_temperature, None if network is None else network[known]
    share = _network_share(task, own, other, y)
    logits = mix(task, own, other, share)
    temperature = _temperature(task, logits, y)
    columns = np.asarray(sets[best.features], dtype=np.int64)
    *hidden, (weights, bias) = fit_family(best.family, task, x[:, columns], y, seed)[best.strength]
    return CaseHead(
        task=task,
        columns=columns,
        mean=mean[columns],
        scale=scale[columns],
        layers=(*hidden, (weights / own_temperature, bias / own_temperature)),
        network_share=share,
        temperature=temperature,
        scores=np.sort(nonconformity(task, answers(task, logits, temperature), y)),
        choice={**_describe(best, losses, len(y), share), "own_temperature": own_temperature},
    )


def feature_sets(blocks: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The sets of features that compete.

    Blocks whose names begin with "stage" are encoder stages, the others describe the case by hand (intensity, shape,
    covariates). Candidates: each descriptive block, all of these together, these with each stage, each stage, everything.
    """
    stages = [name for name in blocks if name.startswith("stage")]
    described = [name for name in blocks if name not in stages]
    together = " + ".join(described)
    names: dict[str, list[str]] = {name: [name] for name in blocks}
    if described:
        names[together] = described
        names |= {f"{together} + {stage}": [*described, stage] for stage in stages}
    if list(blocks) not in names.values():
        names["all"] = list(blocks)
    return {label: [column for name in members for column in blocks[name]] for label, members in names.items()}


def out_of_fold(task: Task, x: Array, y: Array, folds: Folds, family: str, seed: int = 0) -> dict[float, Array]:
    """{strength: logits (N, K) or values (N, 1)} of standardised cases (N, D), each from a model that had not seen its fold."""
    outputs = 1 if task.type == "regression" else len(task.classes)
    held_out: dict[float, Array] = {}
    for train, test in folds:
        for strength, layers in fit_family(family, task, x[train], y[train], seed).items():
            logits = held_out.setdefault(strength, np.full((len(y), outputs), ABSENT))
            logits[test] = apply_layers(layers, x[test])
    return held_out


def _search(
    task: Task, x: Array, y: Array, folds: Folds, sets: Mapping[str, list[int]], models: Sequence[str], seed: int
) -> tuple[dict[_Candidate, Array], dict[_Candidate, float]]:
    """Out-of-fold logits and losses of the linear families on every set of features, then of the perceptron, which is slow, on
    the best set of these."""
    held_out: dict[_Candidate, Array] = {}
    losses: dict[_Candidate, float] = {}

    def compete(name: str, family: str) -> None:
        for strength, logits in out_of_fold(task, x[:, sets[name]], y, folds, family, seed).items():
            candidate = _Candidate(name, family, strength)
            held_out[candidate], losses[candidate] = logits, _loss(task, logits, y)

    for name in sets:
        for family in models:
            if family != PERCEPTRON:
                compete(name, family)
    if PERCEPTRON in models:
        compete(min(losses, key=lambda candidate: losses[candidate]).features, PERCEPTRON)
    return held_out, losses


def _inner_folds(task: Task, y: Array, groups: NDArray[Any], seed: int) -> Folds:
    """Up to five folds with whole patients, classes in proportion; none where a part would lack a second class."""
    splits = min(5, len(np.unique(groups)))
    if task.type != "regression":
        splits = min(splits, int(np.bincount(y.astype(int)).max()))
    if splits < 2:
        return []
    splitter: Any = GroupKFold(splits)
    if task.type != "regression":
        splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer cases than folds is absent from some; that is allowed for
        folds = [(train, test) for train, test in splitter.split(y, y, groups) if len(test)]
    if task.type != "regression" and any(len(np.unique(y[train])) < 2 for train, _ in folds):
        return []
    return folds


def _enough(task: Task, y: Array) -> bool:
    if task.type == "regression":
        return len(y) >= 5 and float(np.ptp(y)) > 0
    counts = np.bincount(y.astype(int), minlength=len(task.classes))
    return int((counts >= MIN_CASES_PER_CLASS).sum()) >= 2


def _loss(task: Task, logits: Array, y: Array) -> float:
    """Cross-entropy after temperature scaling, so that families compete by what they know and not by their confidence;
    mean squared error over the variance for a regression."""
    if task.type == "regression":
        return float(np.mean((logits[:, 0] - y) ** 2) / y.var())
    return cross_entropy(logits / _temperature(task, logits, y), y)


def _temperature(task: Task, logits: Array, y: Array) -> float:
    return 1.0 if task.type == "regression" else fit_temperature(logits, y)


def _network_share(task: Task, own: Array, network: Array | None, y: Array) -> float:
    if network is None:
        return 0.0
    return min(NETWORK_SHARES, key=lambda share: _loss(task, mix(task, own, network, share), y))


def _describe(best: _Candidate, losses: Mapping[_Candidate, float], num_cases: int, share: float) -> dict[str, Any]:
    names = dict.fromkeys(candidate.features for candidate in losses)
    return {
        "model": best.family,
        "features": best.features,
        "strength": best.strength,
        "network_share": share,
        "inner_loss": {n: round(min(v for c, v in losses.items() if c.features == n), 5) for n in names},
        "inner_loss_of_models": {
            f: round(min(v for c, v in losses.items() if c.family == f and c.features == best.features), 5)
            for f in dict.fromkeys(c.family for c in losses)
        },
        "num_cases": num_cases,
    }
