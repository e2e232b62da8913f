"""The benchmark's own sanity check: a constant or a random predictor must not pass for one that has learned something."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nnduet.evaluation.answer_tables import TaskAnswers
from nnduet.evaluation.task_scores import score_task
from nnduet.records import record_object
from nnduet.schema import Task

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SUBTYPE = Task("subtype", "multiclass", ("0", "1", "2"))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("accuracy", "road"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import accuracy

    return accuracy


def scores(probabilities: np.ndarray) -> dict[str, object]:
    """What 120 cases, a third of each class, score with the given probabilities (120, 3)."""
    reference = np.arange(120) % 3
    cases = tuple(f"case_{i:03d}" for i in range(120))
    answers = TaskAnswers(SUBTYPE, cases, cases, reference.astype(float), probabilities.argmax(1).astype(float), probabilities)
    return record_object(score_task(answers, num_resamples=200, seed=0))


def test_a_constant_predictor_fails(benchmark: object) -> None:
    found = benchmark.failures(scores(np.tile([0.5, 0.3, 0.2], (120, 1))))  # type: ignore[attr-defined]
    assert "one class was predicted for all cases" in found
    assert "AUROC is not above that of chance" in found


def test_a_random_predictor_fails(benchmark: object) -> None:
    found = benchmark.failures(scores(np.random.default_rng(0).dirichlet(np.ones(3), 120)))  # type: ignore[attr-defined]
    assert found


def test_a_predictor_that_has_learned_something_passes(benchmark: object) -> None:
    noise = np.random.default_rng(0).dirichlet(np.ones(3), 120)
    found = benchmark.failures(scores((np.eye(3)[np.arange(120) % 3] + 2 * noise) / 3))  # type: ignore[attr-defined]
    assert found == []
