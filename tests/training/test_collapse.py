"""When the alarm of a collapsed head rings, once, and when it is silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nnduet.schema import Task
from nnduet.training.collapse import CollapseWatch, collapse_signs, whole_case_alarms

GRADE = Task("grade", "binary", ("low", "high"))
STAGE = Task("stage", "ordinal", ("I", "II", "III"))
AGE = Task("age", "regression")
HEALTHY = [0, 1] * 10
LOSS = {"task_grade_loss": 0.5}


def epoch_of(
    watch: CollapseWatch, answered: list[int], number: int = 5, loss: float = 0.5, armed: bool = True
) -> tuple[Any, Any]:
    """Feed an epoch in which true classes alternate; its column and its log lines."""
    watch.add("grade", [float(i % 2) for i in range(len(answered))], answered)
    columns, lines = watch.close_epoch(number, {"task_grade_loss": loss}, armed=armed)
    return columns["task_grade_collapsed"], lines


@pytest.mark.parametrize(
    ("task", "expected"), [(GRADE, math.log(2)), (STAGE, math.log(2)), (Task("t", "multiclass", tuple("abcd")), math.log(4))]
)
def test_a_head_that_knows_nothing_has_the_loss_of_equal_odds(task: Task, expected: float) -> None:
    assert task.kind.uninformed_loss(task) == expected


@pytest.mark.parametrize(
    ("pairs", "loss", "kinds"),
    [
        ({(0, 0): 10, (1, 1): 10}, 0.5, []),
        ({(0, 0): 10, (1, 0): 10}, 0.5, ["one_class"]),
        ({(0, 0): 20}, 0.5, []),  # only one class was there to answer
        ({(0, 0): 10, (1, 0): 9}, 0.9, []),  # too few samples
        ({(0, 0): 10, (1, 1): 10}, 0.979 * math.log(2), []),
        ({(0, 0): 10, (1, 1): 10}, 0.981 * math.log(2), ["uninformed_loss"]),
        ({(0, 1): 10, (1, 1): 10}, 0.7, ["one_class", "uninformed_loss"]),
        ({(0, 0): 10, (1, 1): 10}, math.nan, []),
    ],
)
def test_the_signs_are_one_answer_or_an_uninformed_loss(
    pairs: dict[tuple[int, int], int], loss: float, kinds: list[str]
) -> None:
    assert list(collapse_signs(GRADE, pairs, loss, math.log(2))) == kinds


def test_an_epoch_of_one_answer_warns_with_task_epoch_what_was_seen_and_what_to_try() -> None:
    collapsed, (line,) = epoch_of(CollapseWatch((GRADE, AGE)), [1] * 20, number=7)
    assert collapsed == 1
    assert "task grade has collapsed in epoch 7: 'high' was the only answer to 20 labelled samples of 2 classes" in line
    assert "head_learning_rate" in line


def test_a_healthy_epoch_is_quiet() -> None:
    assert epoch_of(CollapseWatch((GRADE,)), HEALTHY) == (0, [])


def test_the_warning_comes_once_until_the_task_recovers() -> None:
    watch = CollapseWatch((GRADE,))
    seen = [epoch_of(watch, answers, number) for number, answers in enumerate([[0] * 20, [0] * 20, HEALTHY, [1] * 20])]
    assert [collapsed for collapsed, _ in seen] == [1, 1, 0, 1]
    assert [len(lines) for _, lines in seen] == [1, 0, 1, 1]
    assert seen[2][1] == ["Task grade has recovered in epoch 2"]


def test_nothing_is_judged_before_the_full_class_weight() -> None:
    collapsed, lines = epoch_of(CollapseWatch((GRADE,)), [0] * 20, armed=False)
    assert math.isnan(collapsed)
    assert lines == []


def test_too_few_samples_are_not_judged_and_do_not_count_as_recovery() -> None:
    watch = CollapseWatch((GRADE,))
    epoch_of(watch, [0] * 20)
    collapsed, lines = epoch_of(watch, [0, 1] * 5)
    assert math.isnan(collapsed)
    assert lines == []
    assert epoch_of(watch, [0] * 20)[1] == []


def test_every_epoch_counts_for_itself() -> None:
    watch = CollapseWatch((GRADE,))
    epoch_of(watch, HEALTHY)
    assert epoch_of(watch, [0] * 20)[0] == 1


def answers(*second: float) -> list[dict[str, float]]:
    return [{"low": 1 - p, "high": p} for p in second]


def test_whole_cases_with_one_answer_are_an_alarm_in_a_sentence() -> None:
    reference = np.array([0.0] * 18 + [1.0, 1.0, np.nan])
    (alarm,) = whole_case_alarms(GRADE, reference, answers(*[0.1] * 21))
    assert (alarm.task, alarm.kind, alarm.num_cases) == ("grade", "one_class", 20)
    expected = "Task grade, whole cases: 'low' was the only answer to 20 labelled samples of 2 classes."
    assert alarm.sentence == expected


def test_whole_cases_with_equal_odds_are_an_alarm_although_both_classes_are_answered() -> None:
    reference = np.array([0.0, 1.0] * 10)
    (alarm,) = whole_case_alarms(GRADE, reference, answers(*[0.499, 0.501] * 10))
    assert alarm.kind == "uninformed_loss"
    assert "0.691" in alarm.sentence


def test_an_ordinal_task_is_measured_against_all_its_classes() -> None:
    sure = [{"I": 0.1, "II": 0.1, "III": 0.1, name: 0.5} for name in ("I", "II") * 10]
    reference = np.array([0.0, 1.0] * 10)  # cross-entropy ln 2: no sign among three classes
    assert whole_case_alarms(STAGE, reference, sure) == []


def test_good_answers_a_regression_and_few_cases_raise_no_alarm() -> None:
    reference = np.array([0.0, 1.0] * 10)
    assert whole_case_alarms(GRADE, reference, answers(*[0.1, 0.9] * 10)) == []
    assert whole_case_alarms(GRADE, reference[:18], answers(*[0.1] * 18)) == []
    assert whole_case_alarms(GRADE, reference * np.nan, answers(*[0.1] * 20)) == []
    assert whole_case_alarms(AGE, reference, [{}] * 20) == []


def test_a_probability_of_zero_for_the_truth_stays_finite() -> None:
    (alarm,) = whole_case_alarms(GRADE, np.array([0.0, 1.0] * 10), answers(*[1.0, 0.0] * 10))
    assert f"{-math.log(1e-6):.3f}" in alarm.sentence
