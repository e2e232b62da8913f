"""Metrics of several labels, by hand: four cases, two labels, one case without a prediction."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from nnduet.evaluation.answer_tables import TaskAnswers, collect_answers, read_rows
from nnduet.evaluation.task_scores import score_task
from nnduet.evaluation.uncertainty import nonconformity
from nnduet.schema import Task
from nnduet.training.collapse import whole_case_alarms

FINDINGS = Task("findings", "multilabel", ("mass", "oedema"))
CASES = ("a", "b", "c", "d")


def answers(told: list[str], truth: list[str], probabilities: list[list[float]]) -> TaskAnswers:
    cases = CASES[: len(truth)]
    reference, prediction = (np.array([FINDINGS.encode(cell) for cell in cells]) for cells in (truth, told))
    return TaskAnswers(FINDINGS, cases, cases, reference, prediction, np.array(probabilities).reshape(len(truth), 2))


FOUR = answers(
    ["mass|oedema", "mass", "none", ""],
    ["mass|oedema", "oedema", "none", "mass"],
    [[0.9, 0.8], [0.6, 0.4], [0.2, 0.1], [0.5, 0.5]],
)


def value(answers: TaskAnswers, metric: str) -> float | None:
    return score_task(answers, num_resamples=0, seed=0).metrics[metric].value


def test_an_answer_is_right_where_all_of_its_labels_are() -> None:
    assert value(FOUR, "accuracy") == 0.5


def test_the_macro_f1_is_the_mean_over_labels() -> None:
    # mass: 1 right, 1 too many, 1 not told: 2 / 4; oedema: 1 right, 1 missed: 2 / 3
    assert value(FOUR, "macro_f1") == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_the_area_is_the_mean_over_labels() -> None:
    # mass: 0.9 and 0.5 against 0.6 and 0.2: 3 of 4; oedema: 0.8 and 0.4 against 0.1 and 0.5: 3 of 4
    assert value(FOUR, "auroc") == pytest.approx(0.75)


def test_a_label_is_scored_as_a_question_of_yes_and_no() -> None:
    labels = score_task(FOUR, num_resamples=0, seed=0).per_class
    assert labels is not None and list(labels) == ["mass", "oedema"]
    mass, oedema = (labels[name].estimates for name in labels)
    assert labels["mass"].support == 2 and mass["precision"].value == 0.5
    assert oedema["recall"].value == 0.5 and oedema["specificity"].value == 1


def test_intervals_come_from_resamples_of_patients() -> None:
    for name in ("accuracy", "brier"):
        found = score_task(FOUR, num_resamples=50, seed=0).metrics[name]
        assert found.ci95 is not None and found.value is not None and found.ci95[0] <= found.value <= found.ci95[1]


def test_a_label_of_no_case_has_a_reason() -> None:
    scored = score_task(answers(["none"] * 2, ["mass", "none"], [[0.4, 0.1]] * 2), num_resamples=0, seed=0)
    assert scored.absent_classes == ("oedema",) and scored.metrics["auroc"].value is None
    assert scored.metrics["auroc"].reason == "label_of_all_or_no_cases: oedema" and scored.collapsed


def test_no_cases_are_no_score() -> None:
    scored = score_task(answers([], [], []), num_resamples=0, seed=0).metrics
    assert all(entry.value is None and entry.reason == "no_labelled_cases" for entry in scored.values())


def test_tables_of_truth_and_answers_are_read_by_their_labels(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("case_id,findings\na,oedema|mass\nb,none\nc,\n", encoding="utf-8")
    header = "case_id,findings,findings_p_mass,findings_p_oedema"
    (tmp_path / "classification.csv").write_text(f"{header}\na,mass|oedema,0.9,0.7\nb,mass,0.8,0.3\n", encoding="utf-8")
    truth = read_rows(tmp_path / "cases.csv", ["findings"])
    told = read_rows(tmp_path / "classification.csv", FINDINGS.answer_columns)
    found = collect_answers(FINDINGS, ["a", "b", "c"], truth, told)
    assert found.reference.tolist() == [3, 0] and found.prediction.tolist() == [3, 1]
    assert nonconformity(found).tolist() == pytest.approx([0.3, 0.0])


def test_a_head_that_always_says_the_same_labels_is_alarmed_on_whole_cases() -> None:
    truth = np.array([float(index % 4) for index in range(24)])
    alarms = whole_case_alarms(FINDINGS, truth, [{"mass": 0.6, "oedema": 0.4}] * 24)
    assert [alarm.kind for alarm in alarms] == ["one_class", "uninformed_loss"]
    assert "'mass' was the only answer to 24 labelled samples" in alarms[0].sentence
    assert math.log(2) < -(math.log(0.6) + math.log(0.4)) / 2
