"""Two runs compared case by case; four cases are small enough to go through by hand."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnduet.errors import DatasetError, SettingsError, TableError
from nnduet.evaluation.evaluate import METRICS_FILE, PER_CASE_FILE, evaluate
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_segmentation
from nnduet.report.compare import COMPARISON_FILE, COMPARISON_TABLE, compare_runs, find_scores
from nnduet.schema import Task

SUBTYPE, AGE = Task("subtype", "binary", ("a", "b")), Task("age", "regression", unit="y")
TRUTH: dict[str, tuple[str, float | str]] = {"one": ("a", 40), "two": ("b", 50), "three": ("a", 60), "four": ("b", 70)}
WIDTH = 4
Answer = tuple[int | None, float | None, float | None]
# case: columns by which the mask lies beside the reference (Dice 1 - shift / 4, None for no foreground), p(b), age
RUN_A: dict[str, Answer] = {"one": (0, 0.1, 41), "two": (1, 0.4, 50), "three": (2, 0.2, 60), "four": (3, 0.3, 60)}
RUN_B: dict[str, Answer] = {"one": (0, 0.1, 40), "two": (0, 0.8, 50), "three": (2, 0.6, 64), "four": (1, 0.9, 69)}


def write_mask(path: Path, first: int | None) -> None:
    array = np.zeros((1, 8, 16), dtype=np.uint8)
    if first is not None:
        array[:, :, first : first + WIDTH] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_segmentation(path, array, Geometry(array.shape))


def write_run(
    folder: Path,
    answers: Mapping[str, Answer],
    *,
    truth: Mapping[str, tuple[str, float | str]] = TRUTH,
    empty: Sequence[str] = (),
    tasks: tuple[Task, ...] = (SUBTYPE, AGE),
    **options: Any,
) -> Path:
    """Masks, answers and truth as files, scored by ``evaluate``; a case whose p(b) is None has no answer."""
    shutil.rmtree(folder, ignore_errors=True)
    lines = ["case_id,subtype,subtype_p_a,subtype_p_b,age"]
    for case_id, (shift, p_b, age) in answers.items():
        write_mask(folder / "references" / f"{case_id}.png", None if case_id in empty else 2)
        write_mask(folder / "predictions" / f"{case_id}.png", None if shift is None else 2 + shift)
        if p_b is not None:
            lines.append(f"{case_id},{'ab'[p_b > 0.5]},{1 - p_b},{p_b},{age}")
    (folder / "predictions" / "classification.csv").write_text("\n".join(lines) + "\n")
    rows = [f"{case_id},{subtype},{age}" for case_id, (subtype, age) in truth.items() if case_id in answers]
    (folder / "table.csv").write_text("\n".join(["case_id,subtype,age", *rows]) + "\n")
    evaluate(
        folder / "predictions",
        folder / "references",
        labels={"background": 0, "organ": 1},
        tasks=tasks,
        table=folder / "table.csv",
        case_ids=list(answers),
        output=folder / "scores",
        num_bootstrap=0,
        **options,
    )
    return folder / "scores"


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return write_run(tmp_path / "A", RUN_A), write_run(tmp_path / "B", RUN_B)


def values(comparison: Mapping[str, Any], part: tuple[str, str], metric: str) -> tuple[Any, Any, Any]:
    entry = comparison[part[0]][part[1]]["metrics"][metric]
    return entry["a"], entry["b"], entry["difference"]


def test_the_means_of_four_cases_are_those_worked_out_by_hand(runs: tuple[Path, Path]) -> None:
    found = compare_runs(*runs)
    organ, subtype, age = ("segmentation", "organ"), ("tasks", "subtype"), ("tasks", "age")
    assert values(found, organ, "dsc") == (0.625, 0.8125, 0.1875)  # of 1, 3/4, 1/2, 1/4 and of 1, 1, 1/2, 3/4
    assert values(found, subtype, "accuracy") == (0.5, 0.75, 0.25)
    assert values(found, subtype, "macro_f1") == pytest.approx((1 / 3, 11 / 15, 2 / 5))  # (2/3 + 0) / 2, (2/3 + 4/5) / 2
    assert values(found, subtype, "auroc") == (1.0, 1.0, 0.0)
    assert values(found, subtype, "brier") == pytest.approx((0.45, 0.21, -0.24))  # half of .01 + .36 + .04 + .49, ...
    assert values(found, age, "mae") == (2.75, 1.25, -1.5)
    assert found["cases"] == {"num_common": 4, "num_resampling_units": 4}
    assert {metric["better"] for metric in found["tasks"]["subtype"]["metrics"].values()} == {"higher", "lower"}


def test_the_cases_that_changed_are_named(runs: tuple[Path, Path]) -> None:
    found = compare_runs(*runs)
    organ, subtype, age = found["segmentation"]["organ"], found["tasks"]["subtype"], found["tasks"]["age"]
    assert [(entry["case_id"], entry["difference"]) for entry in organ["rose"]] == [("four", 0.5), ("two", 0.25)]
    assert organ["fell"] == []
    assert [entry["case_id"] for entry in subtype["became_right"]] == ["four", "two"]
    assert subtype["became_wrong"] == [{"case_id": "three", "reference": "a", "a": "a", "b": "b"}]
    assert [(entry["case_id"], entry["a"], entry["b"]) for entry in age["closer"]] == [("four", 10.0, 1.0), ("one", 1.0, 0.0)]
    assert [entry["case_id"] for entry in age["farther"]] == ["three"]


def test_interval_and_p_value_are_those_of_all_possible_resamples(runs: tuple[Path, Path]) -> None:
    entry = compare_runs(*runs, num_bootstrap=20_000)["segmentation"]["organ"]["metrics"]["dsc"]
    exact = [sum(drawn) / 4 for drawn in product((0.0, 0.25, 0.0, 0.5), repeat=4)]
    assert entry["ci95"] == list(np.percentile(exact, (2.5, 97.5)))
    assert entry["p_value"] == pytest.approx(2 * exact.count(0.0) / len(exact), abs=0.01)  # one sixteenth on either side


def test_the_smallest_p_value_is_two_by_one_more_than_the_resamples(tmp_path: Path) -> None:
    runs = (write_run(tmp_path / name, dict.fromkeys(TRUTH, (shift, 0.1, 40))) for name, shift in (("A", 2), ("B", 1)))
    entry = compare_runs(*runs, num_bootstrap=199)["segmentation"]["organ"]["metrics"]["dsc"]
    assert (entry["difference"], entry["ci95"], entry["p_value"]) == (0.25, [0.25, 0.25], 2 / 200)


def test_a_run_and_itself_differ_nowhere(runs: tuple[Path, Path]) -> None:
    found = compare_runs(runs[0], runs[0])
    entries = [entry for part in ("segmentation", "tasks") for its in found[part].values() for entry in its["metrics"].values()]
    assert len(entries) == found["num_comparisons"] == 2 * 3 + 4 + 1
    assert {(e["difference"], *e["ci95"], e["p_value"], e["p_holm"]) for e in entries} == {(0.0, 0.0, 0.0, 1.0, 1.0)}
    assert not any(its.get(kind) for its in found["tasks"].values() for kind in ("became_right", "became_wrong", "closer"))


def test_the_exchange_of_the_runs_changes_only_signs(runs: tuple[Path, Path]) -> None:
    forth, back = (compare_runs(*pair)["tasks"]["subtype"] for pair in (runs, runs[::-1]))
    for name, entry in forth["metrics"].items():
        assert entry["difference"] == -back["metrics"][name]["difference"]
        assert entry["ci95"] == pytest.approx([-end for end in reversed(back["metrics"][name]["ci95"])])
        assert entry["p_value"] == back["metrics"][name]["p_value"]


def test_the_order_of_the_cases_changes_nothing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    expected = compare_runs(*runs)
    turned = [write_run(tmp_path / name, dict(reversed(run.items()))) for name, run in (("A", RUN_A), ("B", RUN_B))]
    assert compare_runs(*turned) == expected


def test_the_values_of_both_runs_are_those_of_evaluate_also_where_answers_are_missing(tmp_path: Path) -> None:
    missing = {**RUN_B, "two": (None, None, None)}
    runs = (write_run(tmp_path / "A", RUN_A), write_run(tmp_path / "B", missing))
    found = compare_runs(*runs)
    for run, side in zip(runs, "ab", strict=True):
        told = json.loads((run / METRICS_FILE).read_text())
        for name, part in found["tasks"].items():
            for metric, entry in part["metrics"].items():
                assert entry[side] == pytest.approx(told["tasks"][name]["metrics"][metric]["value"]), (name, metric)
        for metric, entry in found["segmentation"]["organ"]["metrics"].items():
            assert entry[side] == pytest.approx(told["segmentation"]["organ"][metric]["value"])
    assert [entry["case_id"] for entry in found["tasks"]["age"]["closer"]] == ["four", "one"]  # two has no value to compare


def test_more_than_two_classes_are_compared_as_evaluate_scores_them(tmp_path: Path) -> None:
    scored = []
    grade, truth = Task("grade", "ordinal", ("1", "2", "3")), ("1", "2", "3", "3", "1")
    (tmp_path / "table.csv").write_text("case_id,grade\n" + "".join(f"c{i},{label}\n" for i, label in enumerate(truth)))
    for name, seed in (("A", 0), ("B", 1)):
        lines = ["case_id,grade,grade_p_1,grade_p_2,grade_p_3"]
        for index, p in enumerate(np.random.default_rng(seed).dirichlet((1, 1, 1), size=len(truth))):
            lines.append(f"c{index},{p.argmax() + 1},{p[0]},{p[1]},{p[2]}")
        (tmp_path / name).mkdir()
        (tmp_path / name / "classification.csv").write_text("\n".join(lines) + "\n")
        evaluate(tmp_path / name, None, labels={}, tasks=(grade,), table=tmp_path / "table.csv", output=tmp_path / name)
        scored.append(json.loads((tmp_path / name / METRICS_FILE).read_text())["tasks"]["grade"]["metrics"])
    found = compare_runs(tmp_path / "A", tmp_path / "B")
    assert found["segmentation"] == {}
    for metric, entry in found["tasks"]["grade"]["metrics"].items():
        assert (entry["a"], entry["b"]) == pytest.approx(tuple(told[metric]["value"] for told in scored))
    assert found["tasks"]["grade"]["metrics"]["auroc"]["undefined_resamples"] > 0  # a resample may lack a class


def test_the_reason_of_an_undefined_difference_is_that_of_the_run_without_a_value(tmp_path: Path) -> None:
    """Where all are of one age, no error is the worst, so that B's missing answer has no error; A has all its answers."""
    truth: dict[str, tuple[str, float | str]] = {"one": ("a", 50), "two": ("b", 50)}
    whole, part = {case: RUN_A[case] for case in truth}, {"one": RUN_B["one"], "two": (0, None, None)}
    runs = [write_run(tmp_path / name, answers, truth=truth) for name, answers in (("A", whole), ("B", part))]
    entry = compare_runs(*runs)["tasks"]["age"]["metrics"]["mae"]
    assert (entry["a"], entry["b"], entry["difference"]) == (4.5, None, None)  # 9 and 0 years
    assert entry["reason"] == "missing_prediction_in_a_constant_reference"


def test_only_cases_of_both_runs_count_and_the_others_are_listed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    expected = compare_runs(
        *(write_run(tmp_path / n, {c: r[c] for c in ("two", "four")}) for n, r in (("C", RUN_A), ("D", RUN_B)))
    )
    more = write_run(
        tmp_path / "B",
        {case: RUN_B[case] for case in ("two", "four")} | {"five": (0, 0.1, 1)},
        truth={**TRUTH, "five": ("a", 1)},
    )
    found = compare_runs(runs[0], more)
    assert found["only_in_one_run"]["cases"] == {"a": ["one", "three"], "b": ["five"]}
    assert found["cases"]["num_common"] == 2
    assert (found["segmentation"], found["tasks"]) == (expected["segmentation"], expected["tasks"])


def test_runs_without_common_cases_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "B", {"five": (0, 0.1, 1)}, truth={"five": ("a", 1)})
    with pytest.raises(DatasetError, match="expected common cases, got none of 4 and 1"):
        compare_runs(runs[0], other)


def test_tasks_of_one_run_only_are_listed_and_left_out(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare_runs(runs[0], write_run(tmp_path / "B", RUN_B, tasks=(SUBTYPE,)))
    assert found["only_in_one_run"]["tasks"] == {"a": ["age"], "b": []}
    assert list(found["tasks"]) == ["subtype"]


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (("a", 50), r"^two: the truth of subtype expected equal.*got 'b' in .*A.scores.per_case.csv, line 3 and 'a' in .*B.sc"),
        (("b", 51), r"^two: the truth of age expected equal in both runs, got '50.0' in .* and '51.0' in "),
    ],
)
def test_a_case_with_another_truth_is_an_error_that_names_it(
    runs: tuple[Path, Path], tmp_path: Path, truth: tuple[str, float], message: str
) -> None:
    other = write_run(tmp_path / "B", RUN_B, truth={**TRUTH, "two": truth})
    with pytest.raises(DatasetError, match=message):
        compare_runs(runs[0], other)


def test_a_case_with_another_reference_mask_is_an_error_that_names_it(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "B"
    larger = np.zeros((1, 8, 16), dtype=np.uint8)
    larger[:, :, 2:8] = 1
    write_segmentation(folder / "references" / "four.png", larger, Geometry(larger.shape))
    write_mask(folder / "predictions" / "four.png", 2)
    smaller = {**RUN_A, "four": (None, 0.1, 40)}
    scores = write_run(tmp_path / "A", smaller)
    evaluate(folder / "predictions", folder / "references", labels={"background": 0, "organ": 1}, output=folder / "scores")
    with pytest.raises(
        DatasetError, match=r"^four: the reference of organ expected equal.*got 0\.032 ml in .* and 0\.048 ml in "
    ):
        compare_runs(scores, folder / "scores")


def test_tasks_with_other_classes_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "B" / "scores" / METRICS_FILE
    metrics = json.loads(other.read_text())
    metrics["tasks"]["subtype"]["classes"] = ["b", "a"]
    other.write_text(json.dumps(metrics))
    with pytest.raises(DatasetError, match=r"task subtype: classes expected \['a', 'b'\].*got \['b', 'a'\]"):
        compare_runs(*runs)


def test_an_unlabelled_case_is_left_out_of_that_task_only(tmp_path: Path) -> None:
    truth = {**TRUTH, "two": ("", 50)}
    runs = [write_run(tmp_path / name, run, truth=truth) for name, run in (("A", RUN_A), ("B", RUN_B))]
    found = compare_runs(*runs)["tasks"]
    assert (found["subtype"]["num_cases"], found["age"]["num_cases"]) == (3, 4)


def test_a_task_without_labelled_cases_is_undefined_with_the_reason(tmp_path: Path) -> None:
    truth = dict[str, tuple[str, float | str]].fromkeys(TRUTH, ("", ""))
    runs = [write_run(tmp_path / name, run, truth=truth) for name, run in (("A", RUN_A), ("B", RUN_B))]
    found = compare_runs(*runs)
    entries = [entry for its in found["tasks"].values() for entry in its["metrics"].values()]
    assert {(e["a"], e["b"], e["difference"], e["p_value"], e["reason"]) for e in entries} == {
        (None, None, None, None, "no_labelled_cases")
    }
    assert found["num_comparisons"] == 6  # of the masks: two regions, three scores


def test_cases_that_define_a_score_in_one_run_only_are_counted_and_left_out(tmp_path: Path) -> None:
    cases = {"one": (0, 0.1, 40), "two": (1, 0.1, 40)}
    a = write_run(tmp_path / "A", cases, empty=("one",))
    b = write_run(tmp_path / "B", {**cases, "one": (None, 0.1, 40)}, empty=("one",))
    dice = compare_runs(a, b)["segmentation"]["organ"]["metrics"]["dsc"]
    assert (dice["n_only_a"], dice["n_only_b"], dice["n_defined"]) == (1, 0, 1)
    assert (dice["a"], dice["b"], dice["ci95"], dice["p_value"], dice["p_holm"]) == (0.75, 0.75, None, None, None)
    assert dice["ci95_reason"] == "fewer_than_2_cases_or_patients"


def test_different_tolerances_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"tolerance_mm expected 2\.0 as in .*, got 1\.0; evaluate both with one"):
        compare_runs(runs[0], write_run(tmp_path / "B", RUN_B, tolerance_mm=1.0))


def test_with_a_table_whole_patients_are_resampled(runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("ID;patient_id\none;p\ntwo;p\nthree;q\nfour;q\nnine;r\n")
    found = compare_runs(*runs, table=tmp_path / "cases.csv", num_bootstrap=20_000)
    assert found["settings"]["resampling_unit"] == "patient"
    assert found["cases"]["num_resampling_units"] == 2
    # p gains 0.125 and q 0.25: twice p, both (in half of the resamples), twice q
    assert found["segmentation"]["organ"]["metrics"]["dsc"]["ci95"] == [0.125, 0.25]
    assert found["tasks"]["age"]["metrics"]["mae"]["ci95"] == [-2.5, -0.5]
    assert compare_runs(*runs)["settings"]["resampling_unit"] == "case"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("case_id,age\none,1\n", "no column 'patient_id'"),
        ("case_id,patient_id\nnine,p\n", "expected a patient_id for the common"),
    ],
)
def test_a_table_without_patients_of_these_cases_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "cases.csv").write_text(content)
    with pytest.raises(TableError, match=message):
        compare_runs(*runs, table=tmp_path / "cases.csv")


def test_holm_multiplies_each_p_value_by_the_number_of_those_not_below_it_and_never_falls(tmp_path: Path) -> None:
    cases = {f"c{index:02}": (2, 0.4, 50) for index in range(10)}
    truth = {case: ("ab"[index % 2], 40) for index, case in enumerate(cases)}
    # of ten cases one outline is worse and nine better, two values are worse and eight better, and no answer changes
    b = {case: (3 if i < 1 else 1, 0.4, 60 if i < 2 else 40) for i, case in enumerate(cases)}
    runs = (write_run(tmp_path / name, run, truth=truth) for name, run in (("A", cases), ("B", b)))
    found = compare_runs(*runs, num_bootstrap=999)
    entries = [entry for part in ("segmentation", "tasks") for its in found[part].values() for entry in its["metrics"].values()]
    entries.sort(key=lambda entry: entry["p_value"])
    p_values = [entry["p_value"] for entry in entries]
    assert len({p for p in p_values if p < 0.1}) == 2  # Dice of both regions, and the error of the value
    expected = [max(min(1.0, (11 - j) * p_values[j]) for j in range(i + 1)) for i in range(11)]
    assert [entry["p_holm"] for entry in entries] == pytest.approx(expected)
    assert expected[0] < expected[-1] == 1.0


def test_without_resamples_there_are_differences_but_neither_intervals_nor_p_values(runs: tuple[Path, Path]) -> None:
    found = compare_runs(*runs, num_bootstrap=0)
    entry = found["segmentation"]["organ"]["metrics"]["dsc"]
    assert (entry["difference"], entry["ci95"], entry["p_value"]) == (0.1875, None, None)
    assert found["num_comparisons"] == 0


def test_at_most_ten_cases_are_named_in_each_direction(tmp_path: Path) -> None:
    cases = {f"c{index:02}": (index % 4, 0.1, 40) for index in range(48)}
    better = {case: (0 if shift else 3, p, age) for case, (shift, p, age) in cases.items()}
    truth = dict.fromkeys(cases, ("a", 40))
    found = compare_runs(*(write_run(tmp_path / name, run, truth=truth) for name, run in (("A", cases), ("B", better))))
    organ = found["segmentation"]["organ"]
    assert [entry["case_id"] for entry in organ["rose"]] == [f"c{index:02}" for index in range(3, 40, 4)]
    assert {entry["difference"] for entry in organ["fell"]} == {-0.75}
    assert len(organ["fell"]) == 10


def test_the_written_files_are_strict_json_and_a_row_per_case(runs: tuple[Path, Path], tmp_path: Path) -> None:
    found = compare_runs(*runs, output=tmp_path / "new" / "out")
    text = (tmp_path / "new" / "out" / COMPARISON_FILE).read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == found
    with (tmp_path / "new" / "out" / COMPARISON_TABLE).open(newline="") as file:
        rows = {row["case_id"]: row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(TRUTH)
    four = rows["four"]
    assert [four[f"{run}_organ_dsc"] for run in ("a", "b", "difference")] == ["0.25", "0.75", "0.5"]
    assert [four[name] for name in ("subtype_reference", "a_subtype", "b_subtype", "difference_subtype")] == [
        "b",
        "a",
        "b",
        "1.0",
    ]
    assert [four[name] for name in ("age_reference", "a_age", "b_age", "difference_age")] == ["70.0", "60.0", "69.0", "-9.0"]


def test_scores_are_found_in_a_folder_a_fold_and_a_model(runs: tuple[Path, Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    for folder in (model / "cross_validation", model / "fold_0" / "validation"):
        shutil.copytree(runs[0], folder)
    assert find_scores(runs[0]) == runs[0]
    assert find_scores(model) == model / "cross_validation"
    assert find_scores(model / "fold_0") == model / "fold_0" / "validation"


def test_a_model_without_cross_validation_is_refused_with_the_folds_that_have_scores(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(runs[0], model / "fold_3" / "validation")
    shutil.copytree(runs[0], model / "cross_validation")
    (model / "cross_validation" / METRICS_FILE).unlink()  # as after another training of a fold
    with pytest.raises(
        DatasetError, match=rf"expected {METRICS_FILE} and {PER_CASE_FILE}.*cross_validation.*\(fold_3\), or run"
    ):
        find_scores(model)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (METRICS_FILE, "{", DatasetError, r"metrics.json: no readable JSON"),
        (METRICS_FILE, "[]", DatasetError, r"metrics.json: Expected `object`, got `array`"),
        (METRICS_FILE, "{}", DatasetError, r"metrics.json: expected settings, segmentation and tasks"),
        (PER_CASE_FILE, "name\none\n", TableError, r"per_case.csv: expected columns case_id or .*, got \['name'\]"),
        (PER_CASE_FILE, "case_id,organ_dsc\none,high\n", TableError, r"line 2: organ_dsc expected a number, got 'high'"),
    ],
)
def test_damaged_scores_are_refused_by_name(
    runs: tuple[Path, Path], name: str, content: str, error: type[Exception], message: str
) -> None:
    (runs[1] / name).write_text(content)
    with pytest.raises(error, match=message):
        compare_runs(*runs)
