"""When to leave a case to a person: rules on confidence, prediction set, spread and outlier score."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnduet.errors import SettingsError
from nnduet.inference.answers import TaskPrediction

__all__ = ["Abstention", "Rule"]

_RULE = re.compile(r"(confidence|set|spread|outlier)\s*(<|>)\s*([0-9.]+)")


@dataclass(frozen=True)
class Rule:
    """One comparison, e.g. ``confidence<0.6``; it holds where the quantity is known and lies beyond the threshold."""

    quantity: str
    comparison: str
    threshold: float

    def __str__(self) -> str:
        return f"{self.quantity}{self.comparison}{self.threshold:g}"

    def holds(self, value: float | None) -> bool:
        """Whether a value is beyond the threshold; an unknown one is not."""
        if value is None:
            return False
        return value < self.threshold if self.comparison == "<" else value > self.threshold


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

    def reason(self, answer: TaskPrediction, outlier_score: float | None) -> str:
        """Why to abstain from an answer, e.g. ``confidence 0.52<0.6``; empty where no rule holds."""
        known = {
            "confidence": answer.confidence if answer.probabilities else None,
            "set": float(len(answer.prediction_set)) if answer.prediction_set else None,
            "spread": answer.spread,
            "outlier": outlier_score,
        }
        found = [rule for rule in self.rules if rule.holds(known[rule.quantity])]
        return "; ".join(f"{r.quantity} {known[r.quantity]:.3g}{r.comparison}{r.threshold:g}" for r in found)
