"""The figures of README and docs/results/README.md are those of the committed results, and the README stays short."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "render_results", raising=False)
    import render_results

    return render_results


def test_readme_and_page_hold_what_the_script_writes(rendering: ModuleType) -> None:
    for path, text in rendering.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `python benchmarks/render_results.py`"


def test_the_readme_says_dice_auroc_and_how_many_targets_are_met(rendering: ModuleType) -> None:
    entry = {"value": 0.5, "ci95": (0.4, 0.6)}
    accuracy = {
        "set": "lidc",
        "segmentation": {"nodule": entry, "without a target": entry},
        "tasks": {"grade": {"metrics": {"auroc": entry}}},
        "targets": [{"what": "nodule Dice", "met": True}, {"what": "grade ECE", "met": False}],
    }
    row = rendering.render_brief([accuracy], []).splitlines()[-1]
    assert row == "| LIDC nodules, chest CT | nodule 0.500 (0.400 to 0.600) | grade 0.500 (0.400 to 0.600) | 1 of 2 |"


def test_the_readme_says_how_much_faster_with_the_interval(rendering: ModuleType) -> None:
    result = {
        "ratios": {"nnDuet": {"times_faster": 3.0, "ci95": (2.5, 3.5)}},
        "arms": {"nnDuet": {"computed_by": "openvino bfloat16"}},
        "machine": {"torch_threads": 2},
    }
    assert "bfloat16, model loaded, 2 threads: 3.00 times (2.50 to 3.50)" in rendering.render_brief([], [result])


def test_the_readme_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
