"""From the features of a case to an answer per task: heads, fusion of folds, spread, and what cannot be excluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.calibration import conformal_threshold
from nnduet.cells import format_number
from nnduet.errors import ValuesError
from nnduet.inference.case_features import CaseFeatures
from nnduet.model_store.model_folder import Member
from nnduet.network.heads import JointNetwork, TaskHeads, task_probabilities
from nnduet.schema import Task

__all__ = ["CaseAnswers", "TaskPrediction", "answer", "combine", "member_outputs", "network_outputs", "rows_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TaskPrediction:
    """Answer to one task.

    Attributes:
        label: the likeliest class, of several that hold all of them, joined by ``|``; None for a regression.
        value: of a regression, in the task's unit; else None.
        probabilities: {class: probability}, they sum to one where one class holds; empty for a regression.
        prediction_set: classes that cannot be excluded at the predictor's error rate, likeliest first; empty where there are
            no conformal scores to know it, neither of the case heads nor of a cross-validation.
        interval: the same for a regression: lowest and highest value.
        spread: deviation of the label's probability (or of the value) over folds, or over mirrored passes for a single fold;
            None where there is one answer only.
        labels: of a task of which several classes may hold, those that do; None for other tasks.
    """

    label: str | None
    value: float | None
    probabilities: dict[str, float] = field(default_factory=dict)
    prediction_set: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    spread: float | None = None
    labels: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """The answer and how sure it is, e.g. "high (p 0.93, set high|low, spread 0.02)" or "61.2 (55 to 67)"."""
        certainty = [f"p {self.confidence:.2f}"] if self.label is not None else []
        certainty += [f"set {'|'.join(self.prediction_set)}"] if self.prediction_set else []
        certainty += [f"{self.interval[0]:.6g} to {self.interval[1]:.6g}"] if self.interval else []
        certainty += [f"spread {self.spread:.2g}"] if self.spread is not None else []
        return f"{self.text} ({', '.join(certainty)})" if certainty else self.text

    @property
    def text(self) -> str:
        """The label, or the value with six significant digits."""
        return self.label if self.label is not None else format_number(self.value)

    @property
    def confidence(self) -> float:
        """Probability of the label, of several the least sure of being told right; 1 for a regression."""
        if self.labels is not None:
            return min(p if name in self.labels else 1 - p for name, p in self.probabilities.items())
        return self.probabilities[self.label] if self.label is not None else 1.0


@dataclass(frozen=True)
class CaseAnswers:
    """The answers to one case: {task name: answer}, and how unlike the training cases it is (None where not known)."""

    tasks: dict[str, TaskPrediction]
    outlier_score: float | None


def network_outputs(heads: TaskHeads, pooled: torch.Tensor, tasks: Sequence[Task]) -> dict[str, Array]:
    """{task: class probabilities (M, K), or values (M, 1)} of the network's heads for pooled features (M, F1) on any device."""
    answers = heads(pooled.to(heads.norm.mean.device))
    outputs: dict[str, Array] = {}
    for task in tasks:
        if not task.kind.standardised:
            found = task_probabilities(task, answers[task.name])
        else:
            found = heads.target_scale(task).inverse(answers[task.name])
        outputs[task.name] = found.double().cpu().numpy()
    return outputs


def member_outputs(
    network: JointNetwork, member: Member, pooled: torch.Tensor, values: Array, tasks: Sequence[Task]
) -> dict[str, Array]:
    """One fold's answers to M rows of features: the case head's where there is one, else the network head's.

    Args:
        network: with the member's weights.
        pooled: (M, F1) for the network head; ``values``: (M, F) for the case head.

    Returns:
        {task: class probabilities (M, K), or values (M, 1)}.
    """
    outputs = network_outputs(network.heads, pooled, tasks)
    for name, head in member.case_heads.items():
        outputs[name] = head(values, outputs[name])
    return outputs


def answer(
    task: Task, members: Sequence[Member], rows: Sequence[Array], error_rate: float, scores: Array | None = None
) -> TaskPrediction:
    """Fuse the folds' answers and say how sure they are.

    Args:
        rows: per fold (1 + M, K): the answer to the case, then to each of its mirrored passes.
        error_rate: share of cases, in (0, 1), whose truth may lie outside the prediction set.
        scores: (N,) nonconformity of cross-validated cases; None takes the mean of the case heads' own thresholds.

    ``scores`` are those of single folds, each on cases that it had not seen. As a rule the ensemble of folds is at least as
    accurate as a single fold, so the sets err on the side of covering; there is no exact guarantee. Source: Vovk 2015,
    "Cross-conformal predictors".

    Raises:
        ValuesError: a head answered with NaN or infinity.
    """
    for member, fold in zip(members, rows, strict=True):
        if not np.isfinite(fold).all():
            raise ValuesError(f"task {task.name}: expected finite numbers from the head of fold {member.fold}, got others")
    outputs = task.kind.fuse(np.stack([fold[0] for fold in rows]))
    fused = _told(task, outputs)
    votes = np.stack([fold[0] for fold in rows]) if len(rows) > 1 else rows[0][1:]
    spread = task.kind.spread(votes, float(task.kind.answers(outputs[None])[0])) if len(votes) > 1 else None
    threshold = _threshold(task, members, error_rate, scores)
    if threshold is None:
        return replace(fused, spread=spread)
    if fused.value is not None:
        return replace(fused, interval=(fused.value - threshold, fused.value + threshold), spread=spread)
    kept = task.kind.set_text(task, task.kind.prediction_set(outputs, threshold))
    return replace(fused, prediction_set=kept, spread=spread)


def _threshold(task: Task, members: Sequence[Member], error_rate: float, scores: Array | None) -> float | None:
    """Nonconformity up to which an answer cannot be excluded; None where nothing is known."""
    if scores is not None:
        return conformal_threshold(scores, error_rate)
    heads = [member.case_heads[task.name] for member in members if task.name in member.case_heads]
    return float(np.mean([head.threshold(error_rate) for head in heads])) if len(heads) == len(members) else None


def combine(task: Task, outputs: Sequence[Array]) -> TaskPrediction:
    """Fuse folds, each with class probabilities (K,) or a value (1,), as the task's type does."""
    return _told(task, task.kind.fuse(np.stack(outputs)))


def _told(task: Task, outputs: Array) -> TaskPrediction:
    """The answer of outputs (K or 1,), without what cannot be excluded."""
    answer = task.kind.answers(outputs[None])
    told = task.decode(float(answer[0]))
    if isinstance(told, float):
        return TaskPrediction(None, told)
    held = np.flatnonzero(task.kind.memberships(task, answer)[0])
    labels = None if task.kind.exclusive else tuple(task.classes[k] for k in held)
    return TaskPrediction(told, None, dict(zip(task.classes, outputs.tolist(), strict=True)), labels=labels)


def rows_of(network: JointNetwork, member: Member, features: CaseFeatures, tasks: Sequence[Task]) -> dict[str, Array]:
    """One fold's answers (1 + M, K) to a case: its mean pass, then every mirrored pass."""
    pooled = torch.cat([features.pooled, features.passes])
    values = np.concatenate([features.values(), features.values_of_passes()])
    return member_outputs(network, member, pooled, values, tasks)
