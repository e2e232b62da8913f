"""Fit a case head: features, families and regularisation chosen by inner cross-validation that keeps patients together.

The head is the mean of the best models, for which of a few dozen is the best one is largely chance with some hundred cases; a
mean over what chance decides is the surer answer (Caruana et al., Ensemble selection from libraries of models, ICML 2004).

Everything is decided on the training cases of the fold. The inner out-of-fold answers of what was chosen also set the
temperature, the share of the network head and the conformal scores; they are a little optimistic for having been chosen by,
which is why coverage and calibration are measured on held-out folds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from nnduet.case_head.calibration import fit_temperature
from nnduet.case_head.families import ABSENT, PERCEPTRON, Layers, apply_layers, average_models, families, fit_family
from nnduet.case_head.head import CaseHead, mix, moments, standardise
from nnduet.schema import Task

__all__ = ["feature_sets", "fit_case_head", "out_of_fold"]

Array = NDArray[np.float64]
Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]

NETWORK_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)

AVERAGED = (1, 2, 3, 5, 10, 20)
"""Candidates for the number of models that the head is the mean of."""

MIN_CASES_PER_CLASS = 3
"""Below this many labelled cases in a class there is nothing to cross-validate, and no case head is fitted."""


@dataclass(frozen=True)
class _Candidate:
    """A model that competes, with its out-of-fold logits (N, K), calibrated by its temperature, or values (N, 1)."""

    features: str
    family: str
    strength: float
    temperature: float
    held_out: Array
    loss: float

    @classmethod
    def judged(cls, features: str, family: str, strength: float, held_out: Array, task: Task, y: Array) -> _Candidate:
        temperature = _temperature(task, held_out, y)
        return cls(features, family, strength, temperature, held_out / temperature, _loss(task, held_out / temperature, y))


def fit_case_head(
    task: Task,
    features: Array,
    labels: Array,
    patients: Sequence[str],
    *,
    blocks: Mapping[str, Sequence[int]] | None = None,
    network: Array | None = None,
    models: Sequence[str] | None = None,
    averaged: Sequence[int] = AVERAGED,
    seed: int = 0,
) -> CaseHead | None:
    """Choose features, families and strengths, calibrate, and fit on all labelled cases.

    Args:
        features: (N, F), NaN where undefined.
        labels: (N,) answers, NaN where missing.
        patients: (N,) patient of each case.
        blocks: names to columns, see :func:`feature_sets`; None is one block of all columns.
        network: (N, K) class probabilities or (N, 1) values of network heads that had not seen the case; None leaves the
            network head out.
        models: which of :func:`nnduet.case_head.families.families` compete; None lets all.
        averaged: candidates for how many of the best models the head is the mean of, one of a family for each set of
            features; each at least 1, and all where fewer compete.

    Returns:
        None where fewer than two classes (or five values for a regression) have enough cases, or where the patients are too
        few to be cross-validated.
    """
    known = np.isfinite(labels)
    x, y, groups = features[known], labels[known], np.asarray(patients, dtype=str)[known]
    folds = _inner_folds(task, y, groups, seed) if task.kind.enough(task, y, MIN_CASES_PER_CLASS) else []
    if not folds:
        return None
    mean, scale = moments(x)
    x = standardise(x, mean, scale)
    sets = feature_sets(blocks or {"all": range(x.shape[1])})
    ranked = _search(task, x, y, folds, sets, families(task) if models is None else models, seed)
    best = min((ranked[:count] for count in averaged), key=lambda those: _loss(task, _mean(those), y))
    own_temperature = _temperature(task, _mean(best), y)
    own, other = _mean(best) / own_temperature, None if network is None else network[known]
    share = _network_share(task, own, other, y)
    logits = mix(task, own, other, share)
    temperature = _temperature(task, logits, y)
    fitted = [(sets[c.features], _fit(task, x[:, sets[c.features]], y, c, own_temperature, seed)) for c in best]
    columns, layers = average_models(fitted)
    return CaseHead(
        task=task,
        columns=columns,
        mean=mean[columns],
        scale=scale[columns],
        layers=layers,
        network_share=share,
        temperature=temperature,
        scores=np.sort(task.kind.nonconformity(task, task.kind.outputs(logits, temperature), y)),
        choice=_told(best, ranked, share, own_temperature, _loss(task, own, y), len(y)),
    )


def _told(
    best: Sequence[_Candidate],
    ranked: Sequence[_Candidate],
    share: float,
    own_temperature: float,
    inner_loss: float,
    num_cases: int,
) -> dict[str, Any]:
    """What was chosen from what, for people and for reports; see :attr:`CaseHead.choice`."""
    return {
        "models": [{"model": c.family, "features": c.features, "strength": c.strength} for c in best],
        "network_share": share,
        "own_temperature": own_temperature * float(np.exp(np.mean([np.log(c.temperature) for c in best]))),
        "inner_loss": inner_loss,
        "inner_loss_of_models": {f"{c.family} on {c.features}": round(c.loss, 5) for c in ranked},
        "num_cases": num_cases,
    }


def feature_sets(blocks: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The sets of features that compete.

    Blocks whose names begin with "stage" are encoder stages, the others describe the case by hand (intensity, shape,
    covariates). Candidates: each descriptive block, all of these together, these with each stage, each stage, everything.

    Examples:
        >>> list(feature_sets({"shape": range(0, 2), "intensity": range(2, 5)}))[:2]
        ['shape', 'intensity']
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
    held_out: dict[float, Array] = {}
    for train, test in folds:
        for strength, layers in fit_family(family, task, x[train], y[train], seed).items():
            logits = held_out.setdefault(strength, np.full((len(y), task.kind.answer_size(task)), ABSENT))
            logits[test] = apply_layers(layers, x[test])
    return held_out


def _search(
    task: Task, x: Array, y: Array, folds: Folds, sets: Mapping[str, list[int]], models: Sequence[str], seed: int
) -> list[_Candidate]:
    """Each family with its best strength on each set of features, the best first.

    The perceptron, which is slow, competes only on the set that serves the linear families best.
    """

    def compete(name: str, family: str) -> _Candidate:
        held_out = out_of_fold(task, x[:, sets[name]], y, folds, family, seed)
        judged = [_Candidate.judged(name, family, strength, logits, task, y) for strength, logits in held_out.items()]
        return min(judged, key=attrgetter("loss"))

    found = [compete(name, family) for name in sets for family in models if family != PERCEPTRON]
    if PERCEPTRON in models:
        found.append(compete(min(found, key=attrgetter("loss")).features, PERCEPTRON))
    return sorted(found, key=attrgetter("loss"))


def _mean(candidates: Sequence[_Candidate]) -> Array:
    return np.asarray(np.mean([candidate.held_out for candidate in candidates], axis=0))


def _fit(task: Task, x: Array, y: Array, candidate: _Candidate, temperature: float, seed: int) -> Layers:
    """Its layers on all cases, with logits divided by its own temperature and another one."""
    *hidden, (weights, bias) = fit_family(candidate.family, task, x, y, seed)[candidate.strength]
    divisor = candidate.temperature * temperature
    return (*hidden, (weights / divisor, bias / divisor))


def _inner_folds(task: Task, y: Array, groups: NDArray[Any], seed: int) -> Folds:
    """Up to five folds with whole patients, classes in proportion; none where a part would lack a second class."""
    splits = min(5, len(np.unique(groups)))
    strata = task.kind.strata(task, y)
    if strata is not None:
        splits = min(splits, int(np.bincount(strata.astype(int)).max()))
    if splits < 2:
        return []
    splitter: Any = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    if strata is None:
        splitter = GroupKFold(splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer cases than folds is absent from some; that is allowed for
        folds = [(train, test) for train, test in splitter.split(y, y if strata is None else strata, groups) if len(test)]
    return folds if all(task.kind.varies(task, y[train]) for train, _ in folds) else []


def _loss(task: Task, logits: Array, y: Array) -> float:
    """The type's loss after temperature scaling, so that families compete by what they know and not by their confidence."""
    return task.kind.logit_loss(task, logits / _temperature(task, logits, y), y)


def _temperature(task: Task, logits: Array, y: Array) -> float:
    """Divisor of logits that become probabilities; 1 for values."""
    return fit_temperature(logits, y, partial(task.kind.logit_loss, task)) if task.is_classification else 1.0


def _network_share(task: Task, own: Array, network: Array | None, y: Array) -> float:
    if network is None:
        return 0.0
    return min(NETWORK_SHARES, key=lambda share: _loss(task, mix(task, own, network, share), y))
