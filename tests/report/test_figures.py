"""Figures that follow the page's ink, are named for screen readers, and say what scikit-learn says."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from nnduet.report import answer_figures, figures
from nnduet.report.drawing import Drawing

RNG = np.random.default_rng(0)
CONFIDENCE, CORRECT = RNG.uniform(0.3, 1, 60), RNG.random(60) < 0.7
DRAWN: dict[str, Callable[[], Drawing]] = {
    "distributions": lambda: figures.score_distributions({"organ": RNG.random(20), "lesion": np.full(20, np.nan)}, "Dice <b>"),
    "volumes": lambda: figures.bland_altman(RNG.random(20), RNG.random(20), "<b>organ"),
    "roc": lambda: answer_figures.roc_curves(CORRECT[:, None], CONFIDENCE[:, None], ["<b>high"], "ROC <b>"),
    "reliability": lambda: answer_figures.reliability_diagram(CONFIDENCE, CORRECT, "Reliability <b>"),
    "histogram": lambda: answer_figures.confidence_histogram(CONFIDENCE, CORRECT, "Histogram <b>"),
    "risk": lambda: answer_figures.risk_coverage(CONFIDENCE, CORRECT, "Risk <b>"),
    "importance": lambda: figures.importance_bars([("<b>shape", 0.3, 0.1), ("stage 2", 0.0, 0.0)], "Importance <b>", "rise"),
    "training": lambda: figures.training_curves({"loss": np.array([2, np.nan, 1.0])}, "loss <b>"),
}
SEEDED = ("roc", "reliability", "histogram", "risk", "importance", "training")
"""Those that are drawn from the same values each time."""


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_sound_xml_with_a_title_and_the_ink_of_the_page(name: str) -> None:
    text = DRAWN[name]().svg
    root = ElementTree.fromstring(text)
    title = next(element for element in root.iter() if element.tag.endswith("title"))
    assert root.get("role") == "img" and title.text
    assert "currentColor" in text and "#010203" not in text
    assert "<b>" not in text and root.get("width") is None and root.get("viewBox")


def test_the_same_values_give_the_same_figure() -> None:
    first, second = (answer_figures.risk_coverage(CONFIDENCE, CORRECT, "Risk") for _ in range(2))
    assert first == second


def test_the_curve_is_that_of_scikit_learn_with_ties() -> None:
    score = np.round(CONFIDENCE, 1)
    grid = np.linspace(0, 1, 101)
    false_alarms, hits, _ = roc_curve(CORRECT, score, drop_intermediate=False)
    drawn = answer_figures._roc(CORRECT, score, grid)
    at = [np.interp(x, false_alarms, hits) for x in grid if x not in false_alarms]
    np.testing.assert_allclose([d for d, x in zip(drawn, grid, strict=True) if x not in false_alarms], at)


def test_a_class_that_all_cases_are_of_has_no_curve() -> None:
    text = answer_figures.roc_curves(np.ones((5, 1), bool), np.ones((5, 1)), ["only"], "ROC").svg
    assert "only" not in text


def test_row_64_figures_are_the_same_after_another_library_has_set_its_style() -> None:
    import matplotlib as mpl

    before = {name: draw() for name, draw in DRAWN.items() if name in SEEDED}
    with mpl.rc_context():
        mpl.rcParams.update({"font.size": 24, "axes.labelsize": 30, "xtick.labelsize": 28, "legend.fontsize": 30})
        mpl.rcParams.update({"axes.grid": True, "lines.linewidth": 9, "axes.facecolor": "#eaeaf2", "font.family": "monospace"})
        after = {name: DRAWN[name]() for name in SEEDED}
        assert mpl.rcParams["font.size"] == 24  # what the process has set stays set
    assert after == before
    assert mpl.rcParams["axes.labelsize"] == "medium"
