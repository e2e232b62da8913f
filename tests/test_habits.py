"""What those who come after rely on: `make quick` knows its slow tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_slow_test_that_is_listed_exists_and_is_listed_once() -> None:
    lines = (ROOT / "tests" / "slow_tests.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed and len(listed) == len(set(listed))
    for name in listed:
        file, _, test = name.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.M), name
        assert file == name or file not in listed, f"{name}: all of {file} are listed"
