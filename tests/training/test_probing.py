"""Probes: the block that carries a task stands out on held-out cases, and a constant answer is the level to beat."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trained import BLOCKS, CASES, age_of, held_out, is_low, write_labels, write_trained_folder

from nnduet.case_head.feature_table import FeatureTable
from nnduet.errors import SettingsError
from nnduet.schema import Workspace
from nnduet.training.probe_figure import Panel, write_figure
from nnduet.training.probing import ProbeSummary, probe_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Workspace]:
    return write_trained_folder(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def probed(trained: tuple[Path, Workspace]) -> ProbeSummary:
    return probe_model(trained[0], workspace=trained[1])


def test_every_task_fold_and_block_is_probed_and_all_blocks_together(probed: ProbeSummary) -> None:
    expected = [(f, t, b) for f in ("0", "1") for t in ("grade", "age") for b in (*BLOCKS, "all")]
    assert [(row.fold, row.task, row.block) for row in probed.rows] == expected
    assert {(row.num_training, row.num_held_out) for row in probed.rows} == {(36, 12)}
    assert {row.block: row.num_features for row in probed.rows} == {**{b: len(c) for b, c in BLOCKS.items()}, "all": 10}


def test_the_block_that_carries_a_class_names_every_held_out_case(probed: ProbeSummary) -> None:
    for row in (row for row in probed.rows if row.task == "grade"):
        assert row.macro_f1 is not None and row.auroc is not None and row.inner_loss is not None
        assert row.model in ("shrinkage LDA", "ridge logistic regression")
        if row.block == "stage 1":
            assert (row.macro_f1, row.auroc) == (1.0, 1.0)
            assert row.inner_loss < 0.2
        elif row.block != "all":
            assert row.macro_f1 < 0.9
            assert row.inner_loss > 0.4
        assert (row.mae, row.spearman) == (None, None)


def test_the_block_that_carries_a_number_is_nearest_to_it(probed: ProbeSummary) -> None:
    found = {row.block: row for row in probed.rows if row.task == "age" and row.fold == "0"}
    assert {row.model for row in found.values()} == {"ridge regression"}
    errors = {block: row.mae for block, row in found.items() if row.mae is not None}
    assert errors["shape"] < 2
    assert min(errors[block] for block in ("intensity", "stage 0", "stage 1")) > 5
    assert found["shape"].spearman == pytest.approx(1)


def test_the_constant_answer_is_the_commonest_class_or_the_median(probed: ProbeSummary) -> None:
    cases = [CASES.index(case_id) for case_id in held_out(0)]
    num_high = sum(not is_low(index) for index in cases)
    precision = num_high / len(cases)
    grade = next(row for row in probed.rows if row.task == "grade")
    assert grade.constant == pytest.approx(2 * precision / (1 + precision) / 2)  # the other class has an F1 of 0
    training = [age_of(index) for index in range(len(CASES)) if index not in cases]
    age = next(row for row in probed.rows if row.task == "age")
    assert age.constant == pytest.approx(np.mean([abs(age_of(index) - np.median(training)) for index in cases]))


def test_means_are_over_folds(probed: ProbeSummary) -> None:
    mean = next(row for row in probed.means if (row.task, row.block) == ("age", "stage 0"))
    values = [row.mae for row in probed.rows if (row.task, row.block) == ("age", "stage 0") and row.mae is not None]
    assert len(values) == 2
    assert mean.mae == pytest.approx(sum(values) / 2)
    assert mean.macro_f1 is None


def test_a_probe_leaves_json_csv_and_a_figure(probed: ProbeSummary) -> None:
    output = Path(probed.output)
    assert output == Path(probed.model) / "probe"
    stored = json.loads((output / "probe.json").read_text())
    assert stored["means"] == [asdict(means) for means in probed.means]
    assert len(stored["rows"]) == len(probed.rows) == 20
    with (output / "probe.csv").open(newline="") as handle:
        lines = list(csv.DictReader(handle))
    assert [(line["task"], line["fold"], line["block"]) for line in lines] == [(r.task, r.fold, r.block) for r in probed.rows]
    assert float(lines[0]["inner_loss"]) == probed.rows[0].inner_loss
    assert lines[0]["mae"] == ""
    with Image.open(output / "probe.png") as image:
        assert image.size[1] > 1000  # two panels of 3.6 inches


def test_too_few_labels_give_a_row_without_a_model(trained: tuple[Path, Workspace], tmp_path: Path) -> None:
    table = write_labels(tmp_path / "few.csv", labelled=4)
    seen: list[tuple[int, int, str]] = []
    options: dict[str, Any] = {"workspace": trained[1], "folds": [0], "table": table, "output": tmp_path / "probe"}
    summary = probe_model(trained[0], **options, progress=lambda *step: seen.append(step))
    assert {(row.model, row.inner_loss, row.macro_f1, row.mae) for row in summary.rows} == {("", None, None, None)}
    assert {row.num_training for row in summary.rows} == {3}
    assert (tmp_path / "probe" / "probe.png").is_file()
    assert seen == [(1, 2, "grade in fold 0"), (2, 2, "age in fold 0")]


def test_a_single_block_is_not_repeated_as_all(tmp_path: Path) -> None:
    model, workspace = write_trained_folder(tmp_path, num_folds=1)
    for name in ("features_training.npz", "features_validation.npz"):
        table = FeatureTable.load(model / "fold_0" / name)
        FeatureTable(table.case_ids, table.values[:, :2], {"intensity": range(2)}, table.network).save(model / "fold_0" / name)
    summary = probe_model(model, workspace=workspace)
    assert [row.block for row in summary.rows] == ["intensity", "intensity"]


@pytest.mark.parametrize("folds", [None, ["all"]])
def test_a_fold_that_holds_no_case_out_is_refused(tmp_path: Path, folds: list[str] | None) -> None:
    model, workspace = write_trained_folder(tmp_path, num_folds=1)
    (model / "fold_0").rename(model / "fold_all")
    with pytest.raises(SettingsError, match=r"folds that hold cases out, got \['all'\]"):
        probe_model(model, workspace=workspace, folds=folds)


def test_a_figure_shows_the_constant_answer_and_the_folds(tmp_path: Path) -> None:
    def pixels(name: str, values: list[float], constant: float | None) -> np.ndarray:
        write_figure(tmp_path / name, [Panel("grade", "macro-F1", {"stage 0": values, "stage 1": []}, constant)])
        with Image.open(tmp_path / name) as image:
            return np.asarray(image.convert("RGB")).reshape(-1, 3)

    orange, blue = np.array([217, 72, 1]), np.array([8, 81, 156])
    with_line, without = pixels("a.png", [0.5, 0.9], 0.3), pixels("b.png", [0.5, 0.9], None)
    assert (with_line == orange).all(axis=1).any() and not (without == orange).all(axis=1).any()
    assert (without == blue).all(axis=1).any() and not (pixels("c.png", [], None) == blue).all(axis=1).any()
