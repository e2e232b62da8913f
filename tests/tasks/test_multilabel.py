"""Several labels may hold: codes, tables, sets and losses that can be checked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nnduet.case_head.families import apply_layers, families, fit_family
from nnduet.case_head.fit import fit_case_head
from nnduet.case_head.head import CaseHead
from nnduet.datasets.case_tables import read_table
from nnduet.datasets.folds import choose_strata
from nnduet.datasets.task_specs import parse_task_specs
from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.inference.task_predictions import TaskPrediction, combine
from nnduet.network.heads import task_probabilities
from nnduet.network.losses import class_loss
from nnduet.schema import Task
from nnduet.tasks.multilabel import MOST_LABELS

FINDINGS = Task("findings", "multilabel", ("oedema", "effusion", "mass"))
KIND = FINDINGS.kind
NAN = float("nan")


@pytest.mark.parametrize(
    ("cell", "code", "spelled"),
    [
        ("oedema", 1, "oedema"),
        ("effusion|oedema", 3, "oedema|effusion"),
        (" Mass | OEDEMA", 5, "oedema|mass"),
        ("none", 0, "none"),
    ],
)
def test_a_cell_is_a_sum_of_powers_of_two_and_is_spelled_in_the_order_of_the_labels(cell: str, code: int, spelled: str) -> None:
    assert FINDINGS.encode(cell) == code
    assert FINDINGS.spelling(cell) == FINDINGS.decode(code) == spelled


def test_an_empty_cell_is_not_known_and_is_not_a_case_without_labels() -> None:
    assert math.isnan(FINDINGS.encode("")) and FINDINGS.encode("none") == 0


@pytest.mark.parametrize("cell", ["fracture", "oedema|fracture", "oedema|", "none|mass"])
def test_a_cell_that_names_no_label_is_refused(cell: str) -> None:
    with pytest.raises(DatasetError, match="task findings: expected"):
        FINDINGS.encode(cell)


def test_fifty_two_labels_are_told_apart_and_more_are_refused() -> None:
    many = Task("many", "multilabel", tuple(f"l{k}" for k in range(MOST_LABELS)))
    assert many.decode(many.encode("l0|l51")) == "l0|l51"
    with pytest.raises(SettingsError, match="expected 1 to 52 labels, got 53"):
        Task("many", "multilabel", tuple(f"l{k}" for k in range(MOST_LABELS + 1)))


@pytest.mark.parametrize("label", ["a|b", "None"])
def test_a_label_that_a_cell_could_not_name_is_refused(label: str) -> None:
    with pytest.raises(SettingsError, match="a label must hold no"):
        Task("x", "multilabel", ("y", label))


def table(folder: Path, cells: list[str]) -> Path:
    lines = ["case_id,findings", *(f"c{index},{cell}" for index, cell in enumerate(cells))]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "cases.csv"


def test_labels_are_found_in_the_cells_of_the_table(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, ["oedema|effusion", "none", "", "Effusion", "effusion"]))
    (task,) = parse_task_specs(["findings:multilabel"], read)
    assert task.classes == ("effusion", "oedema")
    assert list(read.answers(task).values()) == ["effusion|oedema", "none", "", "effusion", "effusion"]


def test_labels_that_are_stated_are_separated_by_commas_and_keep_their_order(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, ["oedema|effusion", "none"]))
    (task,) = parse_task_specs(["findings:multilabel=oedema,mass,effusion"], read)
    assert task.classes == ("oedema", "mass", "effusion")
    with pytest.raises(TableError, match=r"line 2: .*expected one of"):
        parse_task_specs(["findings:multilabel=oedema,mass"], read)


def test_none_beside_a_marker_of_missing_cells_in_other_letters_is_refused(tmp_path: Path) -> None:
    read = read_table(table(tmp_path, ["oedema", "none", "None"]))
    with pytest.raises(TableError, match="holds 'none', and in line 4 'None', which means missing"):
        parse_task_specs(["findings:multilabel"], read)


def test_the_rarest_label_that_holds_is_spread_over_the_folds() -> None:
    cells = ["oedema", "oedema|mass", "none", "", "oedema"]
    rows = {f"c{index}": {"findings": cell} for index, cell in enumerate(cells)}
    assert list(choose_strata([FINDINGS], rows, 2).values()) == ["oedema", "mass", "no class", "", "oedema"]


def test_the_loss_is_the_mean_over_labels_and_leaves_out_a_missing_case() -> None:
    targets = KIND.targets(FINDINGS, np.array([5.0, NAN]))
    assert targets[0].tolist() == [1, 0, 1] and np.isnan(targets[1]).all()
    outputs = torch.tensor([[0.0, 0.0, 100.0], [3.0, 3.0, 3.0]], requires_grad=True)
    loss, values = class_loss((FINDINGS,), {"findings": outputs}, {"findings": torch.tensor(targets)}, torch.ones(2))
    assert values["findings"] == pytest.approx(2 * math.log(2) / 3)
    loss.backward()
    assert outputs.grad is not None and not outputs.grad[1].any()


def test_each_label_has_a_probability_of_its_own() -> None:
    logits = torch.tensor([[0.0, math.log(3), -math.log(3)]])
    assert task_probabilities(FINDINGS, logits)[0].tolist() == pytest.approx([0.5, 0.75, 0.25])


def test_labels_likelier_than_not_are_the_answer_and_the_least_sure_one_is_its_confidence() -> None:
    answer = combine(FINDINGS, [np.array([0.9, 0.2, 0.6])])
    assert (answer.label, answer.labels) == ("oedema|mass", ("oedema", "mass"))
    assert answer.confidence == pytest.approx(0.6)
    assert combine(FINDINGS, [np.full(3, 0.1)]).label == "none"


def test_folds_are_fused_by_their_mean_log_odds() -> None:
    fused = combine(FINDINGS, [np.array([0.8, 0.5, 0.5]), np.array([0.5, 0.5, 0.5])]).probabilities
    assert fused["oedema"] == pytest.approx(2 / 3)  # odds of 4 and 1, whose geometric mean is 2
    assert fused["mass"] == pytest.approx(0.5)


def test_the_least_likely_true_label_says_how_large_the_set_must_be() -> None:
    outputs = np.array([[0.9, 0.2, 0.6], [0.9, 0.2, 0.6]])
    scores = KIND.nonconformity(FINDINGS, outputs, np.array([3.0, 0.0]))
    assert scores.tolist() == pytest.approx([0.8, 0.0])
    assert KIND.prediction_set(outputs[0], float(scores[0])) == [0, 2, 1]
    assert KIND.prediction_set(outputs[0], 0.5) == [0, 2]
    assert KIND.set_text(FINDINGS, []) == ("none",)


def test_conformal_sets_leave_out_no_true_label_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.uniform(size=(4000, 3))
    truth = (rng.uniform(size=outputs.shape) < outputs) @ np.array([1.0, 2.0, 4.0])
    scores = np.sort(KIND.nonconformity(FINDINGS, outputs[:2000], truth[:2000]))
    threshold = float(scores[math.ceil(2001 * 0.9) - 1])
    held = KIND.memberships(FINDINGS, truth)
    covered = [set(np.flatnonzero(held[i])) <= set(KIND.prediction_set(outputs[i], threshold)) for i in range(2000, 4000)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def cases(number: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 4) of which the first two tell oedema and effusion; mass is in no case."""
    rng = np.random.default_rng(1)
    held = rng.uniform(size=(number, 2)) < 0.5
    x = rng.normal(size=(number, 4))
    x[:, :2] += 4 * held
    return x - x.mean(axis=0), held @ np.array([1.0, 2.0])


@pytest.mark.parametrize("family", families(FINDINGS))
def test_every_family_answers_each_label_as_a_model_of_this_label_alone_would(family: str) -> None:
    x, codes = cases()
    fitted = fit_family(family, FINDINGS, x, codes)
    alone = fit_family(family, Task("oedema", "binary", ("no", "yes")), x, (codes.astype(int) & 1).astype(float))
    assert list(fitted) == list(alone)
    for strength, layers in fitted.items():
        logits, odds = apply_layers(layers, x), np.diff(apply_layers(alone[strength], x), axis=1)
        np.testing.assert_allclose(logits[:, 0], odds[:, 0], rtol=1e-9, atol=1e-9)
        assert (logits[:, 2] == -30).all()  # never seen


def test_a_case_head_finds_both_labels_and_is_read_again_from_its_json() -> None:
    x, codes = cases()
    head = fit_case_head(FINDINGS, x, np.where(np.arange(60) == 3, NAN, codes), [f"p{i // 2}" for i in range(60)])
    assert head is not None and len(head.scores) == 59
    again = CaseHead.from_json(FINDINGS, head.to_json())(x)
    right = KIND.answers(again) == codes
    assert again.shape == (60, 3) and right.mean() > 0.9 and (again[:, 2] < 0.01).all()


def test_no_case_head_where_no_label_is_both_there_and_not() -> None:
    x, _ = cases(20)
    assert fit_case_head(FINDINGS, x, np.full(20, 2.0), [f"p{i}" for i in range(20)]) is None


def test_an_answer_says_its_labels_and_their_set() -> None:
    answer = TaskPrediction("oedema|mass", None, {"oedema": 0.9, "effusion": 0.2, "mass": 0.75}, labels=("oedema", "mass"))
    assert str(answer) == "oedema|mass (p 0.75)"
