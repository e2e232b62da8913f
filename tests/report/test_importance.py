"""Permuting what a head reads costs, permuting what it does not read costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.head import CaseHead
from nnduet.report.importance import NETWORK, block_importances
from nnduet.schema import Task

N = 200
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, N).astype(float)
VALUES = np.stack([2 * TRUTH - 1, RNG.normal(size=N), RNG.normal(size=N)], axis=1)
TABLE = FeatureTable(
    tuple(f"c{i}" for i in range(N)),
    VALUES.astype(np.float32),
    {"told": range(1), "noise": range(1, 2), "unread": range(2, 3)},
    {"grade": np.stack([1 - TRUTH, TRUTH], axis=1).astype(np.float32) * 0.8 + 0.1},
)


def head(share: float) -> CaseHead:
    weights = np.array([[-2.0, 0.0], [2.0, 0.0]])
    layers = ((weights, np.zeros(2)),)
    return CaseHead(Task("grade", "binary", ("a", "b")), np.array([0, 1]), np.zeros(2), np.ones(2), layers, share)


def test_the_block_that_tells_the_class_matters_and_the_others_do_not() -> None:
    found = block_importances(head(0.0), TABLE, TRUTH)
    assert found["told"] == pytest.approx(0.5 * 4, abs=0.25)  # half of the cases get the wrong sign: 4 nats more
    assert found["noise"] == 0.0
    assert set(found) == {"told", "noise"}


def test_single_columns_can_be_asked_for() -> None:
    found = block_importances(head(0.0), TABLE, TRUTH, {"the class": range(1), "not read": range(2, 3)})
    assert set(found) == {"the class"} and found["the class"] > 1


def test_the_network_head_matters_where_it_has_a_share() -> None:
    assert block_importances(head(0.5), TABLE, TRUTH)[NETWORK] > 0.1
    only = block_importances(head(1.0), TABLE, TRUTH)
    assert set(only) == {NETWORK} and only[NETWORK] > 0.5
