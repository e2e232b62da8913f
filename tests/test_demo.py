"""The demo passes only where every measured value reaches its floor; the road itself is run by benchmarks/demo_seeds.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nnduet.demo import FLOORS, DemoSummary, run_demo
from nnduet.errors import OutputExistsError

SUMMARY = DemoSummary(
    "out", "data", "model", "predictions", "metrics.json", "page", dict(FLOORS), dict.fromkeys(FLOORS), dict(FLOORS)
)


def test_values_at_their_floors_pass() -> None:
    assert SUMMARY.passed
    assert SUMMARY.to_json()["passed"] is True


@pytest.mark.parametrize("name", FLOORS)
def test_one_value_below_its_floor_fails(name: str) -> None:
    assert not replace(SUMMARY, measured={**FLOORS, name: FLOORS[name] - 0.01}).passed


def test_an_earlier_demo_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(OutputExistsError):
        run_demo(tmp_path)
    assert not (tmp_path / "nnduet_data").exists()
