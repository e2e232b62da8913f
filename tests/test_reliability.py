"""docs/reliability.md says what the tests do: every row has its tests, every test its row."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = {*range(1, 49), *range(60, 121), *range(131, 141)}


def test_every_row_of_the_table_has_tests_where_it_says_and_the_other_way_round() -> None:
    table = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
    said = {int(row): set(re.findall(r"`(test_\w+\.py)`", line)) for row, line in re.findall(r"^\| (\d+) (.*)$", table, re.M)}
    found: dict[int, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for row in re.findall(r"def test_row_(\d+)_", path.read_text(encoding="utf-8")):
            found.setdefault(int(row), set()).add(path.name)
    assert set(said) == ROWS
    assert {row: said[row] for row in ROWS} == {row: found.get(row) for row in ROWS}
