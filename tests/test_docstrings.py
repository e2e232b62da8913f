"""The examples of docstrings are true; they are hand-checkable and cheap, for `make quick` runs them."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import nnduet

SOURCE = Path(nnduet.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_of_a_module_are_true(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert tried and not failed


def test_many_functions_have_an_example() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in WITH_EXAMPLES for test in finder.find(importlib.import_module(module)) if test.examples]
    assert len(found) >= 60
