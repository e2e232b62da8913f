"""``report``, ``compare`` and ``preview`` replace what they wrote before and nothing else; a reader never sees half a page."""

from __future__ import annotations

import itertools
import os
import re
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scored_run import NUM_CASES, write_scored_run

from nnduet.errors import DatasetError, DiskFullError, OutputExistsError
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_image, write_segmentation
from nnduet.report.compare import COMPARISON_FILE, COMPARISON_TABLE, compare_runs
from nnduet.report.page import write_report
from nnduet.report.preview import preview_files
from nnduet.report.runs import Run, read_run


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scored_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def small(scored: Path) -> Run:
    """The run with one region and without tasks, which is drawn sooner."""
    run = read_run(scored, images=scored.parent / "images")
    assert run.metrics is not None
    metrics = replace(run.metrics, tasks={}, segmentation={"organ": run.metrics.segmentation["organ"]})
    return replace(run, tasks=(), metrics=metrics)


def missing_parts(page: Path) -> list[str]:
    """What a page asks for and does not find, viewers included."""
    text = (page / "index.html").read_text()
    places = [p for p in re.findall(r'(?:src|href)="([^"]+)"', text) if not p.startswith(("#", "data:"))]
    places += [f"volumes/{key}.js" for key in re.findall(r'data-volume="([^"]+)"', text)]
    return [place for place in places if not (page / place).is_file()]


@pytest.mark.parametrize("part", ["pictures", "volumes", "static", "vendor"])
def test_row_133_a_report_does_not_follow_a_link_in_its_folder(small: Run, tmp_path: Path, part: str) -> None:
    write_report(small, tmp_path / "report", viewer_cases=1)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("holiday.png", "0.png", "app.js", "00112233-0.png"):
        (photos / name).write_text("mine")
    shutil.rmtree(tmp_path / "report" / part)
    (tmp_path / "report" / part).symlink_to(photos)
    with pytest.raises(OutputExistsError, match="got a link or a file; nothing was changed"):
        write_report(small, tmp_path / "report", viewer_cases=1)
    assert {path.name: path.read_text() for path in photos.iterdir()} == dict.fromkeys(
        ("holiday.png", "0.png", "app.js", "00112233-0.png"), "mine"
    )


def test_row_133_a_page_that_only_looks_like_a_report_is_refused(scored: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_text("mine")
    (tmp_path / "index.html").write_text('<meta name="generator" content="nnDuet">')
    with pytest.raises(OutputExistsError, match="did not mark as its own"):
        write_report(read_run(scored), tmp_path)
    assert (tmp_path / "pictures" / "holiday.png").read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    with pytest.raises(OutputExistsError, match="got a link"):
        write_report(read_run(scored), tmp_path / "link")


def test_row_133_what_a_user_put_beside_the_pictures_of_a_report_stays(small: Run, tmp_path: Path) -> None:
    write_report(small, tmp_path, viewer_cases=1)
    (tmp_path / "pictures" / "holiday.png").write_text("mine")
    before = {path.name for path in (tmp_path / "pictures").iterdir()} - {"holiday.png"}
    write_report(small, tmp_path, viewer_cases=1)
    after = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert "holiday.png" in after and not before & after


def write_and_kill(run: Run, page: Path, at: int) -> bool:
    """Write a report in a child that is killed before its ``at``-th rename; whether it was, or finished before."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == signal.SIGKILL
    rename, count = os.replace, itertools.count(1)

    def replace(source: Path, target: Path) -> None:
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replace  # type: ignore[assignment]
    try:
        write_report(run, page, viewer_cases=2)
    finally:
        os._exit(0)


def test_row_140_a_reader_of_a_report_that_is_killed_anywhere_sees_the_earlier_page_whole(small: Run, tmp_path: Path) -> None:
    page = tmp_path / "report"
    write_report(small, page, viewer_cases=2)
    text, killed = (page / "index.html").read_text(), 0
    for at in range(1, 200, 5):
        if not write_and_kill(small, page, at):
            break
        killed += 1
        assert (page / "index.html").read_text() == text and missing_parts(page) == []
    assert killed >= 3
    assert (page / "index.html").read_text() != text and missing_parts(page) == []
    assert len(list((page / "volumes").iterdir())) == 2
    assert not [path for path in page.rglob("*") if "tmp" in path.name]


def test_row_140_a_full_disk_is_named_and_leaves_the_earlier_page(small: Run, tmp_path: Path) -> None:
    write_report(small, tmp_path, viewer_cases=1)
    text, files = (tmp_path / "index.html").read_text(), set(tmp_path.rglob("*"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(DiskFullError):
            write_report(small, tmp_path, viewer_cases=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "index.html").read_text() == text and missing_parts(tmp_path) == []
    assert set(tmp_path.rglob("*")) == files
    assert write_report(small, tmp_path, viewer_cases=1).num_cases == NUM_CASES and missing_parts(tmp_path) == []


def test_a_case_whose_labels_no_viewer_can_show_is_told_and_the_page_is_written(scored: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.parent, tmp_path / "run"))
    path = folder / "predictions" / "case_01.nii.gz"
    mask = np.zeros((10, 24, 26), np.uint16)
    mask[2:5, 6:9, 6:9] = 300
    write_segmentation(path, mask, Geometry((10, 24, 26), (2.0, 1.0, 1.0), (-5.0, 3.0, 11.0)))
    run = read_run(folder / "evaluation", images=folder / "images")
    run = Run(**{**vars(run), "predictions": folder / "predictions"})
    summary = write_report(run, tmp_path / "page", viewer_cases=NUM_CASES)
    assert list(summary.not_drawn) == ["case_01"] and summary.not_drawn["case_01"].startswith("LABEL: ")
    assert "case_01 (LABEL: " in (tmp_path / "page" / "index.html").read_text()


@pytest.mark.parametrize("name", [COMPARISON_FILE, COMPARISON_TABLE])
def test_row_133_compare_replaces_its_own_files_and_no_others(scored: Path, tmp_path: Path, name: str) -> None:
    compare_runs(scored, scored, output=tmp_path, num_bootstrap=10)
    compare_runs(scored, scored, output=tmp_path, num_bootstrap=10)
    mine = '{"a": 1}' if name.endswith("json") else "case_id,weight\na,7\n"
    (tmp_path / name).write_text(mine)
    with pytest.raises(OutputExistsError, match=name.replace(".", r"\.")):
        compare_runs(scored, scored, output=tmp_path, num_bootstrap=10)
    assert (tmp_path / name).read_text() == mine


@pytest.mark.parametrize("cut", range(10))
def test_row_139_metrics_cut_anywhere_are_refused_by_compare(scored: Path, tmp_path: Path, cut: int) -> None:
    copy = Path(shutil.copytree(scored, tmp_path / "scored"))
    content = (copy / "metrics.json").read_bytes().rstrip()
    (copy / "metrics.json").write_bytes(content[: len(content) * cut // 10])
    with pytest.raises(DatasetError, match=r"metrics\.json"):
        compare_runs(scored, copy, num_bootstrap=0)


def test_row_133_preview_draws_over_its_own_pictures_and_no_others(tmp_path: Path) -> None:
    grid = Geometry((1, 20, 30))
    write_image(tmp_path / "x_0000.png", np.arange(600, dtype=np.uint8).reshape(1, 20, 30), grid)
    write_segmentation(tmp_path / "x.png", np.ones((1, 20, 30), np.uint8), grid)
    Image.new("RGB", (8, 8)).save(tmp_path / "holiday.png")
    (tmp_path / "notes.png").write_text("mine")
    for _ in range(2):
        preview_files(tmp_path / "x_0000.png", tmp_path / "x.png", tmp_path / "new.png")
    for name in ("x_0000.png", "x.png", "holiday.png", "notes.png"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(OutputExistsError, match="`nnduet preview` did not draw this"):
            preview_files(tmp_path / "x_0000.png", tmp_path / "x.png", tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    os.symlink(tmp_path / "holiday.png", tmp_path / "link.png")
    with pytest.raises(OutputExistsError):
        preview_files(tmp_path / "x_0000.png", tmp_path / "x.png", tmp_path / "link.png")
