"""Rules that leave a case to a person."""

from __future__ import annotations

import pytest

from nnduet.errors import SettingsError
from nnduet.inference.abstention import Abstention
from nnduet.inference.task_predictions import TaskPrediction
from nnduet.schema import Task

GRADE, AGE = Task("grade", "binary", ("a", "b")), Task("age", "regression")
ANSWER = TaskPrediction("a", None, {"a": 0.55, "b": 0.45}, ("a", "b"), spread=0.3)


@pytest.mark.parametrize(
    "rule, reason",
    [
        ("confidence<0.6", "confidence 0.55<0.6"),
        ("confidence < 0.5", ""),
        ("set>1", "set 2>1"),
        ("set>2", ""),
        ("spread>0.2", "spread 0.3>0.2"),
        ("outlier>0.99", "outlier 1>0.99"),
    ],
)
def test_a_rule_names_what_it_saw(rule: str, reason: str) -> None:
    abstention = Abstention.parse([rule])
    assert abstention is not None
    assert abstention.reason(GRADE, ANSWER, 1.0) == reason


def test_any_rule_is_enough_and_all_that_hold_are_named() -> None:
    abstention = Abstention.parse(["confidence<0.6", "set>1", "outlier>0.5"])
    assert abstention is not None
    assert abstention.reason(GRADE, ANSWER, 0.1) == "confidence 0.55<0.6; set 2>1"


def test_a_number_has_no_confidence_and_no_set_and_the_other_unknowns_are_for_a_person() -> None:
    abstention = Abstention.parse(["confidence<0.9", "set>0", "spread>0", "outlier>0"])
    assert abstention is not None
    assert abstention.reason(AGE, TaskPrediction(None, 3.0), None) == "spread unknown; outlier unknown"
    assert abstention.reason(AGE, TaskPrediction(None, 3.0, spread=0.0), 0.0) == ""


def test_no_rules_are_no_abstention() -> None:
    assert Abstention.parse([]) is None


@pytest.mark.parametrize("rule", ["", "confidence", "confidence=0.5", "age<3", "set>x", "set>.", "set>1.2.3"])
def test_anything_else_is_refused_with_an_example(rule: str) -> None:
    with pytest.raises(SettingsError, match=r"e\.g\. confidence<0\.6"):
        Abstention.parse([rule])
