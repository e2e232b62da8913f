"""From the files of a run to the page: what is found, what is said, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from scored_run import NASTY, NASTY_CASE, NUM_CASES, write_scored_run

from nnduet.errors import DatasetError, OutputExistsError
from nnduet.report.facts import facts_of, warnings_of
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.report.stored_model import is_finished


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scored_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report."""
    output = tmp_path_factory.mktemp("report")
    write_report(read_run(scored, images=scored.parent / "images"), output, viewer_cases=5)
    return output


def test_a_run_finds_what_was_scored(scored: Path) -> None:
    run = read_run(scored)
    assert (run.references, run.predictions) == (scored.parent / "references", scored.parent / "predictions")
    assert run.regions == ("organ", NASTY, "foreground")
    assert run.labels == {"organ": 1, NASTY: 2}
    assert len(run.cases) == NUM_CASES and NASTY_CASE in run.cases
    assert [task.task.name for task in run.tasks] == ["grade", "age"]
    wrong = run.tasks[0].reference != run.tasks[0].prediction
    assert wrong.sum() == NUM_CASES // 4
    assert run.scores("organ", "reference_ml")[0] == pytest.approx(10 * 10 * 10 * 2 / 1000 - 9 * 2 / 1000)


def test_predictions_alone_are_reported_without_scores(scored: Path, tmp_path: Path) -> None:
    run = read_run(scored.parent / "predictions", images=scored.parent / "images")
    assert run.metrics is None and len(run.cases) == NUM_CASES
    assert any("Predictions without references" in text for text in warnings_of(run))
    write_report(run, tmp_path, viewer_cases=2)
    text = (tmp_path / "index.html").read_text()
    assert 'id="cases"' in text and 'id="segmentation"' not in text and "grade answer" in text


def test_a_training_that_is_not_finished_shows_its_curves(tmp_path: Path) -> None:
    fold = tmp_path / "fold_0"
    fold.mkdir()
    (fold / "progress.csv").write_text("epoch,train_loss,seconds,task_grade_loss\n0,1.5,2,0.7\n1,1.0,2,\n")
    assert not is_finished(fold)
    summary = write_report(read_run(fold), tmp_path / "report", refresh=7)
    text = (tmp_path / "report" / "index.html").read_text()
    assert '<meta http-equiv="refresh" content="7">' in text and "2 epochs" in text and "not finished" in text
    assert summary.num_cases == 0 and 'id="case-table"' not in text
    (fold / "final_metrics.json").write_text("{}")
    assert is_finished(fold)


def test_a_folder_without_results_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected metrics\.json with per_case\.csv, classification\.csv or progress\.csv"):
        read_run(tmp_path)


def test_names_that_want_to_be_markup_stay_text(page: Path) -> None:
    text = (page / "index.html").read_text()
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;script&gt;alert(2)&lt;img src=x onerror=alert(3)&gt;" in text
    assert not [path for path in (page / "volumes").iterdir() if "<script" in path.read_text()]


def test_the_page_asks_for_nothing_outside_its_folder(page: Path) -> None:
    text = (page / "index.html").read_text()
    places = [p for p in re.findall(r'(?:src|href)="([^"]+)"', text) if not p.startswith(("#", "data:"))]
    assert places and [place for place in places if not (page / place).is_file()] == []


def test_every_case_has_a_row_and_as_many_as_wanted_a_viewer(page: Path) -> None:
    text = (page / "index.html").read_text()
    body = text[text.index('id="case-table"') :]
    assert body.count("<tr") == NUM_CASES + 1
    assert body.count('class="view"') == len(list((page / "volumes").iterdir())) == 5
    assert text.count("(wrong)") == NUM_CASES // 4


def test_the_headline_is_the_metric_with_its_interval(scored: Path, page: Path) -> None:
    metrics = json.loads((scored / "metrics.json").read_text())
    entry = metrics["segmentation"]["organ"]["dsc"]
    text = (page / "index.html").read_text()
    assert f">{entry['value']:.3f}<" in text and f"{entry['ci95'][0]:.3f} to {entry['ci95'][1]:.3f}" in text


def test_a_case_that_cannot_be_read_is_listed_and_the_others_are_drawn(scored: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(scored.parent / "images", tmp_path / "images"))
    broken = images / "case_05_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    summary = write_report(read_run(scored, images=images), tmp_path / "report", viewer_cases=NUM_CASES)
    assert list(summary.not_drawn) == ["case_05"] and summary.not_drawn["case_05"].startswith("CORRUPT: ")
    assert summary.num_viewer_cases == NUM_CASES - 1


def test_a_second_report_replaces_the_first(scored: Path, tmp_path: Path) -> None:
    run = read_run(scored, images=scored.parent / "images")
    write_report(run, tmp_path, viewer_cases=9)
    write_report(run, tmp_path, viewer_cases=1)
    assert len(list((tmp_path / "volumes").iterdir())) == 1


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_text("mine")
    with pytest.raises(OutputExistsError, match="did not write; nothing was changed there"):
        write_report(read_run(scored), tmp_path)
    assert (tmp_path / "pictures" / "holiday.png").read_text() == "mine"


def test_warnings_name_small_samples_and_what_is_undefined(scored: Path) -> None:
    texts = warnings_of(read_run(scored))
    assert any(text.startswith(f"Only {NUM_CASES} cases") for text in texts)
    assert any("No images were found" in text for text in texts)
    assert ("cases", str(NUM_CASES)) in facts_of(read_run(scored))


def test_slices_are_reported_as_pictures(tmp_path: Path) -> None:
    scored = write_scored_run(tmp_path / "run", ending=".png")
    summary = write_report(read_run(scored, images=tmp_path / "run" / "images"), tmp_path / "report")
    assert summary.num_viewer_cases == 0  # one slice is shown as it is
    assert summary.num_pictures == len(list((tmp_path / "report" / "pictures").iterdir())) == NUM_CASES
    assert not (tmp_path / "report" / "vendor").exists()
