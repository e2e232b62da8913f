"""Reports of models, folds and answers of every kind: each gets its page, whatever its data set lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scored_run import write_answered_run, write_scored_run

from nnduet.case_head.descriptors import descriptor_names
from nnduet.case_head.feature_table import FeatureTable
from nnduet.errors import DatasetError, NNDuetError, UnreadableFileError
from nnduet.report.facts import facts_of, warnings_of
from nnduet.report.importance import importances
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.report.stored_model import read_progress

CASES = tuple(f"case_{index:02d}" for index in range(1, 12))
SHAPE = descriptor_names(["organ", "lesion"], 1)


def write_model(folder: Path, *, covariates: tuple[str, ...] | None = None, **changes: Any) -> Path:
    """A model folder with one finished fold that answers ``grade`` by a case head on shape; returns the fold."""
    fold = folder / "fold_0"
    scored = write_scored_run(folder / "data")
    fold.mkdir()
    scored.rename(fold / "validation")
    dataset = {
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "channel_names": {"0": "CT"},
        "classification": {"grade": {"type": "binary", "classes": ["low <b>", "high"]}, "age": {"type": "regression"}},
        **({"covariates": list(covariates)} if covariates is not None else {}),
        **changes,
    }
    blocks = {"shape": range(len(SHAPE))}
    if covariates:
        blocks["covariates"] = range(len(SHAPE), len(SHAPE) + len(covariates))
    width = len(SHAPE) + len(covariates or ())
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(CASES), width)).astype(np.float32)
    network = {"grade": np.full((len(CASES), 2), 0.5, np.float32), "age": np.full((len(CASES), 1), 45, np.float32)}
    FeatureTable(CASES, values, blocks, network).save(fold / "features_validation.npz")
    columns = [0, width - 1]
    head = {
        "columns": columns,
        "mean": [0.0, 0.0],
        "scale": [1.0, 1.0],
        "layers": [{"weights": [[-1.0, -1.0], [1.0, 1.0]], "bias": [0.0, 0.0]}],
        "network_share": 0.0,
        "temperature": 1.0,
        "scores": [0.1, 0.2],
    }
    (fold / "case_head.json").write_text(json.dumps({"tasks": {"grade": head}}))
    (fold / "final_metrics.json").write_text(json.dumps({"fold": 0, "heads": {"grade": "case head"}}))
    (fold / "progress.csv").write_text("epoch,train_loss,seconds\n0,1.5,2\n1,1.0,2\n")
    (folder / "plans.json").write_text(json.dumps({"dataset_name": "Dataset001_A", "plans_name": "P", "configurations": {}}))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return fold


@pytest.mark.parametrize("covariates", [None, (), ("sex", "weight")])
@pytest.mark.parametrize("place", ["model", "fold"])
def test_row_63_a_model_or_fold_has_a_page_with_and_without_covariates(
    tmp_path: Path, covariates: tuple[str, ...] | None, place: str
) -> None:
    fold = write_model(tmp_path / "model", covariates=covariates)
    write_report(read_run(fold if place == "fold" else fold.parent), tmp_path / "page")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "Descriptors and covariates behind the answers to grade" in text
    assert "organ log_volume" in text  # the first column that the head reads
    assert ("weight" in text) == bool(covariates)  # the last one


@pytest.mark.parametrize(
    "missing", ["labels", "channel_names", "classification"], ids=["no labels", "no channels", "no tasks of its own"]
)
def test_row_63_a_dataset_json_may_lack_what_a_report_can_do_without(tmp_path: Path, missing: str) -> None:
    fold = write_model(tmp_path / "model", covariates=())
    content = json.loads((fold.parent / "dataset.json").read_text())
    (fold.parent / "dataset.json").write_text(json.dumps({name: part for name, part in content.items() if name != missing}))
    summary = write_report(read_run(fold), tmp_path / "page")
    assert summary.num_cases == 12


def test_row_65_an_alarm_is_shown_as_its_sentence(tmp_path: Path) -> None:
    fold = write_model(tmp_path / "model")
    sentence = "Task grade, whole cases: 'low' was the only answer to 20 labelled samples of 2 classes."
    alarm = {"task": "grade", "kind": "one_class", "num_cases": 20, "sentence": sentence}
    (fold / "final_metrics.json").write_text(json.dumps({"fold": 0, "alarms": [alarm]}))
    assert sentence in warnings_of(read_run(fold))
    assert not [text for text in warnings_of(read_run(fold)) if "{" in text]


def test_a_fold_adds_its_heads_to_what_evaluate_says(tmp_path: Path) -> None:
    facts = dict(facts_of(read_run(write_model(tmp_path / "model"))))
    assert facts["folds"] == "0" and facts["answers to grade"] == "case head" and facts["NSD tolerance"] == "2 mm"
    assert facts["dataset"] == "Dataset001_A" and facts["epochs"] == "2"


WRONG: dict[str, Any] = {
    "metrics.json": [
        {"segmentation": {"organ": {"labels": [1], "dsc": "0.5"}}},
        {"segmentation": []},
        {"tasks": {"grade": {"type": "guess"}}},
        {"tasks": {"grade": {"type": "binary", "classes": "ab"}}},
        {"alarms": [{"text": "no sentence"}]},
        {"settings": {"num_bootstrap": "many"}},
        {"missing_predictions": [{"case_id": 7}]},
        {"sources": {"predictions": 3}},
    ],
    "../final_metrics.json": [{"heads": ["case head"]}, {"fold": 0.5}, {"cross_validation": {"folds": "0"}}],
    "../../plans.json": [{"configurations": 5}, {"dataset_name": None}, {"nnduet": []}],
    "../../dataset.json": [{"labels": [1]}, {"covariates": "sex"}, {"classification": {"grade": "binary"}}],
    "run.json": [{"failed": ["case_01"]}, {"seconds": {"case_01": "1"}}, {"images": 5}, {"versions": "1"}],
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, parts in WRONG.items() for content in parts])
def test_row_139_a_part_of_another_type_is_refused_by_its_file(tmp_path: Path, name: str, content: Any) -> None:
    validation = write_model(tmp_path / "model") / "validation"
    path = (validation / name).resolve()
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **content}))
    with pytest.raises(DatasetError, match=path.name):
        read_run(validation.parent)


@pytest.mark.parametrize("name", ["metrics.json", "../final_metrics.json", "../../plans.json", "../../dataset.json"])
def test_row_139_json_cut_at_ten_places_is_refused_by_its_file(tmp_path: Path, name: str) -> None:
    validation = write_model(tmp_path / "model") / "validation"
    path = (validation / name).resolve()
    content = path.read_bytes().rstrip()
    for cut in range(10):
        path.write_bytes(content[: len(content) * cut // 10])
        with pytest.raises(DatasetError, match=path.name):
            read_run(validation.parent)


@pytest.mark.parametrize("name", ["validation/per_case.csv", "progress.csv", "case_head.json"])
def test_row_139_files_cut_anywhere_are_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    fold = write_model(tmp_path / "model")
    path = fold / name
    content = path.read_bytes()
    for cut in range(10):
        path.write_bytes(content[: len(content) * cut // 10])
        try:
            run = read_run(fold)
            read_progress(fold)
            importances(run, run.tasks[0].task)
        except NNDuetError as error:
            assert path.name in str(error)
    if name == "progress.csv":
        path.write_bytes(b"epoch,loss\n\xff\xfe,1\n")
        with pytest.raises(UnreadableFileError, match=r"progress\.csv"):
            read_progress(fold)


def test_row_139_a_table_cut_in_the_middle_gives_a_page_of_what_is_left(tmp_path: Path) -> None:
    fold = write_model(tmp_path / "model")
    (fold / "progress.csv").write_text("epoch,train_loss,seconds\n0,1.5,2\n1,1.")
    write_report(read_run(fold), tmp_path / "page", viewer_cases=0)
    assert "2 epochs" in (tmp_path / "page" / "index.html").read_text()


def test_row_117_answers_of_a_model_without_tasks_have_volumes_by_the_names_of_its_labels(tmp_path: Path) -> None:
    out = write_answered_run(tmp_path / "run", 8)
    (out / "classification.csv").unlink()
    model = tmp_path / "model"
    model.mkdir()
    (model / "plans.json").write_text("{}")
    (model / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1, "tumour": 2}}')
    run = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**run, "model": str(model)}))
    summary = write_report(read_run(out), tmp_path / "page", viewer_cases=0)
    text = (tmp_path / "page" / "index.html").read_text()
    assert summary.num_cases == 8 and summary.num_pictures >= 6
    assert "liver" in text and "tumour" in text and "label 1" not in text and "1 of 8 masks are empty" in text
