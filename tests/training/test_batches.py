"""The next batch is made while the last one is learnt from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnduet.training.batches import BatchesAhead


def _numbers(begun: list[int], name: str = "number") -> Iterator[dict[str, Any]]:
    for index in range(100):
        begun.append(index)
        yield {name: index, "drawn": float(np.random.rand())}


def test_batches_come_in_their_order() -> None:
    batches = BatchesAhead(_numbers([]), per_epoch=3)
    assert [next(batches)["number"] for _ in range(7)] == list(range(7))


def test_the_next_batch_of_an_epoch_is_begun_when_one_is_taken() -> None:
    wanted, may_go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[dict[str, Any]]:
        yield {}
        wanted.set()
        may_go_on.wait(10)
        yield {"second": True}

    batches = BatchesAhead(slow(), per_epoch=2)
    next(batches)
    assert wanted.wait(10)
    may_go_on.set()
    assert next(batches) == {"second": True}


def test_nothing_is_drawn_across_the_end_of_an_epoch() -> None:
    begun: list[int] = []
    batches = BatchesAhead(_numbers(begun), per_epoch=2)
    for _ in range(4):
        next(batches)
    assert begun == [0, 1, 2, 3]


def test_an_epoch_depends_on_the_seed_at_its_beginning() -> None:
    batches, drawn = BatchesAhead(_numbers([]), per_epoch=2), []
    for _ in range(2):
        np.random.seed(0)
        drawn.append([next(batches)["drawn"] for _ in range(2)])
    assert drawn[0] == drawn[1]


def test_an_error_is_raised_where_its_batch_is_taken() -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield {}
        raise OSError("unreadable")

    batches = BatchesAhead(failing(), per_epoch=3)
    next(batches)
    with pytest.raises(OSError, match="unreadable"):
        next(batches)
