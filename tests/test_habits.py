"""What those who come after rely on: the table of what to touch is true, and `make quick` knows its slow tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_slow_test_that_is_listed_exists_and_is_listed_once() -> None:
    lines = (ROOT / "tests" / "slow_tests.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed and len(listed) == len(set(listed))
    for name in listed:
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), f"{name}: the file was moved; correct tests/slow_tests.txt"
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.M), f"{name}: was renamed; correct tests/slow_tests.txt"
        assert file == name or file not in listed, f"{name}: all of {file} are listed"


def _defined(path: str) -> set[str]:
    """Names that a module defines at its top."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def _rows_of_what_to_touch() -> list[str]:
    page = (ROOT / "docs" / "how-to-extend.md").read_text(encoding="utf-8")
    return [line for line in page.splitlines() if line.startswith("| a")]


def test_every_file_that_the_table_of_what_to_touch_names_exists() -> None:
    rows = _rows_of_what_to_touch()
    assert len(rows) >= 10
    for row in rows:
        for name in re.findall(r"`([\w./]+/[\w./-]+)`", row):
            assert (ROOT / name).exists(), f"{name}: {row}"


def test_every_name_that_the_table_of_what_to_touch_says_is_in_a_file_is_defined_there() -> None:
    found = [pair for row in _rows_of_what_to_touch() for pair in re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", row)]
    assert len(found) >= 10
    for name, path in found:
        assert name in _defined(path), f"{name} in {path}"


def test_every_file_that_the_table_shows_as_an_example_uses_what_it_is_one_of() -> None:
    found = [pair for row in _rows_of_what_to_touch() for pair in re.findall(r"`(\w+)`, as in `([\w/]+\.py)`", row)]
    assert len(found) >= 4
    for name, path in found:
        assert name in (ROOT / path).read_text(encoding="utf-8"), f"{name} in {path}"


def test_a_pooling_is_named_in_two_places_alike() -> None:
    from nnduet.network.pooling import POOLINGS
    from nnduet.training.settings import TrainingSettings

    for name in POOLINGS:
        assert TrainingSettings(pooling=name).pooling == name


def test_contributing_names_targets_and_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`make (\w+)`", text)) <= targets
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / link).is_file(), link
    for name in re.findall(r"`((?:src|tests|examples|benchmarks|\.ci)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name
