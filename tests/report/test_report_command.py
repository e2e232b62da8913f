"""``nnduet report`` as it is typed: where the page lands, what it says, and that it follows a training to its end."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from scored_run import NUM_CASES, write_scored_run
from typer.testing import CliRunner

from nnduet.cli import app

PROGRESS = "epoch,train_loss,seconds\n0,1.5,2\n"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scored_run(tmp_path_factory.mktemp("run"))


def run(*arguments: object, tmp_path: Path) -> dict[str, object]:
    """The result of the command, which must succeed."""
    command = ["report", *map(str, arguments), "--workspace", str(tmp_path / "none"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_the_page_lands_in_the_run_unless_another_folder_is_named(scored: Path, tmp_path: Path) -> None:
    first = run(scored, "--viewer-cases", 0, tmp_path=tmp_path)
    assert first["page"] == str(scored / "report" / "index.html") and first["num_cases"] == NUM_CASES
    second = run(scored, "-o", tmp_path / "page", "--images", scored.parent / "images", "--viewer-cases", 2, tmp_path=tmp_path)
    assert (tmp_path / "page" / "index.html").is_file() and second["num_viewer_cases"] == 2
    assert not (tmp_path / "none").exists()


def test_a_training_is_followed_until_it_is_measured(tmp_path: Path) -> None:
    fold = tmp_path / "fold_0"
    fold.mkdir()
    (fold / "progress.csv").write_text(PROGRESS)
    page = fold / "report" / "index.html"
    seen: list[str] = []

    def train_on() -> None:
        while not page.is_file():
            time.sleep(0.05)
        (fold / "progress.csv").write_text(PROGRESS + "1,1.0,2\n")
        while "2 epochs" not in page.read_text():
            time.sleep(0.05)
        seen.append(page.read_text())
        (fold / "final_metrics.json").write_text("{}")

    training = threading.Thread(target=train_on)
    training.start()
    run(fold, "--follow", "--every", 2, tmp_path=tmp_path)
    training.join()
    assert 'http-equiv="refresh" content="2"' in seen[0]
    assert "http-equiv" not in page.read_text() and "2 epochs" in page.read_text()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path), "--workspace", str(tmp_path / "none")])
    assert result.exit_code == 1 and "DATASET: " in result.stderr
