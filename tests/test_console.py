"""What people and scripts see: results, errors, exit codes, progress."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from nnduet.console import progress_bar, reporting, show_record, show_table
from nnduet.errors import GeometryError, NNDuetError, PartialFailureError, StoppedError


def test_the_result_is_one_line_of_json_after_everything_else_went_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(True) as report:
        sys.stdout.write("chatter of a library\n")
        report({"folder": Path("a"), "dice": float("nan"), "n": np.int64(3), "mean": np.float32(0.5), "cases": ("x",)})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"folder": "a", "dice": None, "n": 3, "mean": 0.5, "cases": ["x"]}
    assert out.count("\n") == 1
    assert err == "chatter of a library\n"


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (GeometryError("case_1: spacing\nexpected 1, got 2"), "GEOMETRY", 1),
        (PartialFailureError("1 of 2 failed"), "PARTIAL", 3),
        (OSError(errno.ENOSPC, "No space left on device"), "DISK_FULL", 1),
        (PermissionError(errno.EACCES, "Permission denied", "cases.csv"), "STORAGE", 1),
        (StoppedError("stopped by SIGTERM"), "STOPPED", 75),
        (KeyError("surprise"), "INTERNAL", 1),
    ],
)
def test_errors_become_json_and_exit_codes(
    capsys: pytest.CaptureFixture[str], error: Exception, code: str, exit_code: int
) -> None:
    with pytest.raises(typer.Exit) as caught, reporting(True):
        raise error
    assert caught.value.exit_code == exit_code
    said = json.loads(capsys.readouterr().out)["error"]
    assert said["code"] == code and len(said["remedy"]) > 20


def test_a_foreseen_error_is_a_line_and_what_helps_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(False):
        raise GeometryError("case_1: spacing\nexpected 1, got 2")
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"GEOMETRY: case_1: spacing expected 1, got 2\nwhat helps: {GeometryError.remedy}\n")


def test_every_error_has_a_code_and_a_remedy_of_its_own_in_one_line_and_in_the_docs() -> None:
    table = (Path(__file__).parents[1] / "docs" / "reference-errors.md").read_text(encoding="utf-8")
    errors = NNDuetError.__subclasses__()
    assert len({error.code for error in errors}) == len({error.remedy for error in errors}) == len(errors)
    for error in errors:
        assert f"| `{error.code}` | {error.exit_status} | {error.remedy} |" in table
        assert "\n" not in error.remedy and not error.remedy.endswith(".")


def test_an_unforeseen_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(False):
        raise KeyError("surprise")
    assert "Traceback" in capsys.readouterr().err


def test_a_usage_error_passes_through() -> None:
    with pytest.raises(typer.BadParameter), reporting(True):
        raise typer.BadParameter("no")


def test_a_record_is_shown_a_line_per_entry(capsys: pytest.CaptureFixture[str]) -> None:
    show_record({"a": {"b": 1, "c": None}, "long": list(range(9)), "notes": ["one two", "three"], "short": [1, 2], "none": {}})
    assert capsys.readouterr().out.splitlines() == [
        "a.b    1",
        "a.c    -",
        "long   (9 entries)",
        "notes  one two",
        "notes  three",
        "short  [1, 2]",
        "none   {}",
    ]


def test_a_table_is_shown_with_its_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("", "what"), [("FAIL", "[red]literal[/red]"), ("PASS", "b")], styles={"FAIL": "red"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["FAIL", "[red]literal[/red]"]


def test_without_a_terminal_progress_is_a_line_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("predict") as progress:
        for done in range(1, 101):
            progress(done, 100, f"case_{done}")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11  # the first call, then 10, 20, … 100
    assert lines[-1] == "predict 100/100 case_100"


def test_on_a_terminal_progress_is_a_bar_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("train") as progress:
        progress(1, 4, "epoch 1")
        progress(4, 4)
    assert "4/4" in terminal.getvalue()
    assert "train" in terminal.getvalue()
