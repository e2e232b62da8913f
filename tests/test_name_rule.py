"""The rule for names that become paths (row 84), and what a terminal is spared."""

from __future__ import annotations

import pytest

from nnduet.errors import DatasetError, SettingsError
from nnduet.names import MAX_NAME_BYTES, check_distinct_names, check_name, name_problem, printable


@pytest.mark.parametrize(
    "name", ["grade", "lésion 2", "病変", "משקל", "a.b", "T1-w (late)", "x" * MAX_NAME_BYTES, "console", "com"]
)
def test_names_of_any_script_are_fine(name: str) -> None:
    assert check_name(name, "task") == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        (" a", "begins or ends with a space"),
        ("../x", "begins or ends with a dot"),
        ("a/b", "path separator"),
        ("a\\b", "path separator"),
        ("/etc", "path separator"),
        ("HER2+/-", "path separator"),
        ("a.", "begins or ends with a dot"),
        ("a:b", "holds :"),
        ("a?", "holds ?"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\x1b[31m", "control character"),
        ("a\u202eb", "control character"),
        ("a\udcffb", "broken unicode"),
        ("CON", "device"),
        ("nul.txt", "device"),
        ("Com1", "device"),
        ("x" * (MAX_NAME_BYTES + 1), "longer"),
        ("é" * (MAX_NAME_BYTES // 2 + 1), "longer"),
    ],
)
def test_row_84_names_that_are_no_file_names_everywhere_are_refused(name: str, problem: str) -> None:
    assert problem in (name_problem(name) or "")
    with pytest.raises(SettingsError, match=r"^task "):
        check_name(name, "task")


@pytest.mark.parametrize("pair", [("Grade", "grade"), ("straße", "STRASSE"), ("e\u0301", "é")])
def test_two_names_that_are_one_file_somewhere_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(DatasetError, match="the same file on some systems"):
        check_distinct_names(pair, "case", DatasetError)


def test_different_names_pass() -> None:
    check_distinct_names(["a", "b", "a b"], "case")


def test_a_terminal_gets_no_orders() -> None:
    assert printable("ok\t\n\x1b[31m\x07\u202e\udcff ü") == "ok\t\n\\x1b[31m\\x07\\u202e\\udcff ü"
