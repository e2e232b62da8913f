"""When to leave a case to a person: rules on confidence, prediction set, spread and outlier score.

A rule never fails open. One whose quantity the model cannot tell for any case is refused before the run; where it is not known
for one case, the case is left to a person. Only a rule that does not speak of a task says nothing about it: a number has no
confidence and no set of classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nnduet.errors import SettingsError
from nnduet.inference.task_predictions import TaskPrediction
from nnduet.schema import Task

__all__ = ["OF_CLASSES", "Abstention", "Rule"]

OF_CLASSES = ("confidence", "set")
"""Quantities of classifications only."""

_RULE = re.compile(r"(confidence|set|spread|outlier)\s*(<|>)\s*([0-9.]+)")

_NEEDS = {
    "confidence": "a task with classes",
    "set": "a task with classes, and a case head (`nnduet fit-head`) or a cross-validation",
    "spread": "several folds, or one with mirroring (without --no-tta and --fast)",
    "outlier": "a model with outlier statistics (`nnduet fit-head` on 20 training cases of five patients)",
}


@dataclass(frozen=True)
class Rule:
    """One comparison, e.g. ``confidence<0.6``."""

    quantity: str
    comparison: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.quantity}{self.comparison}{self.threshold:g}"

    def reason(self, value: float | None) -> str:
        """What to say where the value is beyond the threshold or is not known; else nothing."""
        if value is None or not math.isfinite(value):
            return f"{self.quantity} unknown"
        beyond = value < self.threshold if self.comparison == "<" else value > self.threshold
        return f"{self.quantity} {value:.3g}{self.comparison}{self.threshold:g}" if beyond else ""


@dataclass(frozen=True)
class Abstention:
    """Rules of which any one is enough."""

    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Abstention | None:
        """Rules from texts like ``confidence<0.6``, ``set>1`` (classes in the set), ``spread>0.2``, ``outlier>0.99``.

        No texts give None.

        Raises:
            SettingsError: a text is no such rule.

        Examples:
            >>> Abstention.parse([]) is None
            True
            >>> [rule.quantity for rule in Abstention.parse(["confidence<0.6", "outlier>0.99"]).rules]
            ['confidence', 'outlier']
        """
        rules = []
        for text in texts:
            match = _RULE.fullmatch(text.strip())
            if match is None or match[3].count(".") > 1 or match[3] == ".":
                raise SettingsError(
                    f"abstain: expected confidence, set, spread or outlier, then < or >, then a number, e.g. confidence<0.6; "
                    f"got {text!r}"
                )
            rules.append(Rule(match[1], match[2], float(match[3])))
        return cls(tuple(rules)) if rules else None

    def check_known(self, known: Collection[str]) -> None:
        """Refuse a rule on what will not be known for any case.

        Args:
            known: the quantities that the model, as it is used, can tell.

        Raises:
            SettingsError: with what the quantity needs.
        """
        for rule in self.rules:
            if rule.quantity not in known:
                raise SettingsError(f"abstain {rule}: {rule.quantity} is not known here; it needs {_NEEDS[rule.quantity]}")

    def reason(self, task: Task, answer: TaskPrediction, outlier_score: float | None) -> str:
        """Why to leave an answer to a person, e.g. ``confidence 0.52<0.6`` or ``outlier unknown``; else empty."""
        known = {
            "confidence": answer.confidence if answer.probabilities else None,
            "set": float(len(answer.prediction_set)) if answer.prediction_set else None,
            "spread": answer.spread,
            "outlier": outlier_score,
        }
        rules = [rule for rule in self.rules if task.is_classification or rule.quantity not in OF_CLASSES]
        return "; ".join(filter(None, (rule.reason(known[rule.quantity]) for rule in rules)))
