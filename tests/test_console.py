"""What people and scripts see: results, errors, exit codes, progress."""

from __future__ import annotations

import errno
import io
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer

from nnduet import console
from nnduet.console import progress_bar, reporting, say, show, show_record, show_table, volume, warn
from nnduet.errors import GeometryError, NNDuetError, PartialFailureError, StoppedError, TableError, listed


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


def test_row_111_a_list_of_faults_is_a_line_each_and_one_line_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = TableError("cases.csv: 2 faults" + listed(["line 3: unknown case\nb", "line 7: case a again"]))
    with pytest.raises(typer.Exit), reporting(False):
        raise error
    assert capsys.readouterr().err.splitlines()[:3] == [
        "TABLE: cases.csv: 2 faults",
        "  line 3: unknown case b",
        "  line 7: case a again",
    ]
    with pytest.raises(typer.Exit), reporting(True):
        raise error
    said = json.loads(capsys.readouterr().out)["error"]["message"]
    assert said == "cases.csv: 2 faults line 3: unknown case b; line 7: case a again"


def test_row_111_of_many_faults_twenty_are_told_and_the_others_counted() -> None:
    assert listed([f"case {n}" for n in range(25)]).split("\n")[1:] == [*(f"  case {n}" for n in range(20)), "  and 5 more"]
    assert (listed(["one"]), listed([])) == (" one", "")


def test_row_112_an_error_may_carry_the_remedy_of_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reporting(True):
        raise TableError("line 3", remedy="give --id-column")
    assert json.loads(capsys.readouterr().out)["error"]["remedy"] == "give --id-column"
    assert TableError("line 3").remedy == TableError.remedy


def test_row_112_no_rule_of_thumb_names_a_command_or_an_option_that_others_lack() -> None:
    of_one_command = {
        "LEAK",
        "RESUME",
        "STOPPED",
        "DIVERGED",
        "WORKER",
        "PARTIAL",
    }  # raised by convert, training, plan, predict
    for error in NNDuetError.__subclasses__():
        if error.code not in of_one_command:
            assert not re.search(r"--(?!help)|nnduet (?!COMMAND)", error.remedy), error.code


def test_row_113_quiet_leaves_warnings_results_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), volume(quiet=True), reporting(False):
        with progress_bar("predict") as progress:
            progress(1, 2, "a")
        say("a note")
        warn("a warning")
        raise GeometryError("bad")
    assert capsys.readouterr().err == f"a warning\nGEOMETRY: bad\nwhat helps: {GeometryError.remedy}\n"
    say("a note")
    assert capsys.readouterr().err == "a note\n"


def test_row_113_verbose_shows_every_step_and_where_a_named_error_came_up(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), volume(verbose=True), reporting(False):
        with progress_bar("predict") as progress:
            for done in range(1, 41):
                progress(done, 40, "")
        raise GeometryError("bad")
    err = capsys.readouterr().err
    assert sum(line.startswith("predict ") for line in err.splitlines()) == 40
    assert "Traceback" in err and err.endswith(f"GEOMETRY: bad\nwhat helps: {GeometryError.remedy}\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "stream", "coloured"),
    [
        ({}, _Terminal(), True),
        ({}, io.StringIO(), False),
        ({"NO_COLOR": "1"}, _Terminal(), False),
        ({"FORCE_COLOR": "1"}, io.StringIO(), True),
        ({"TERM": "dumb"}, _Terminal(), False),
    ],
)
def test_row_113_colour_follows_no_color_force_color_and_the_terminal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], stream: io.StringIO, coloured: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(typer.Exit), reporting(False):
        raise GeometryError("bad")
    assert ("\x1b[31m" in stream.getvalue()) is coloured
    assert "GEOMETRY: bad" in stream.getvalue()


EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\u202ed\re"


def test_row_136_control_codes_never_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    show(EVIL)
    show_record({"name": EVIL, "list": [EVIL]})
    show_table(("name",), [(EVIL + "\nf",)])
    with progress_bar("predict") as progress:
        progress(1, 1, EVIL)
    for error in (GeometryError(EVIL), KeyError(EVIL)):
        with pytest.raises(typer.Exit), reporting(False):
            raise error
    for text in capsys.readouterr():
        assert not set(text) & set("\x1b\x07\r\u202e")
        assert "\\x1b]0;owned" in text


def test_row_136_a_name_with_a_line_feed_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show_record({"name": "a\nGEOMETRY: forged"})
    with progress_bar("predict") as progress:
        progress(1, 1, "a\nGEOMETRY: forged")
    for text in capsys.readouterr():
        assert not any(line.startswith("GEOMETRY") for line in text.splitlines())


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


class _Clock:
    """Stands in for the time: it stands still unless it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_row_114_without_a_terminal_a_line_with_the_time_left_comes_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = _Clock()
    monkeypatch.setattr(console, "time", clock)
    with progress_bar("train") as progress:
        for done in range(61):  # 12 s each, of 1000
            progress(done, 1000, "epoch")
            clock.now += 12
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["train 0/1000 epoch", "train 3/1000 epoch, 3 h 19 min left", "train 6/1000 epoch, 3 h 19 min left"]
    assert len(lines) == 21


def test_row_114_a_line_comes_also_while_nothing_is_finished(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_LINE_SECONDS", 0.05)
    with progress_bar("predict") as progress:
        time.sleep(0.1)
        progress(1, 20, "case_01")
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "predict, 0 s so far"
    assert len([line for line in lines if line == "predict 1/20 case_01, 0 s so far"]) >= 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (100, "2 min"), (3600, "60 min"), (6000, "1 h 40 min"), (90000, "25 h 0 min")]
)
def test_durations_are_told_in_the_unit_that_a_person_would_take(seconds: float, text: str) -> None:
    assert console._duration(seconds) == text


def test_on_a_terminal_progress_is_a_bar_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("train") as progress:
        progress(1, 4, "epoch 1")
        progress(4, 4, "")
    assert "4/4" in terminal.getvalue()
    assert "train" in terminal.getvalue()
