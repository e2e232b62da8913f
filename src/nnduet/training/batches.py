"""The next training batch is drawn and augmented while the network learns from the last one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["BatchesAhead"]


class BatchesAhead:
    """Batches of another iterator, each begun in a thread when the one before it is taken; none across the end of an epoch.

    So the batches of an epoch depend on nothing but the generators' state when its first one is taken, as without the thread,
    if nobody else draws from them meanwhile.

    Args:
        batches: endless; what it raises is raised where the batch is taken.
        per_epoch: batches of an epoch.
    """

    def __init__(self, batches: Iterator[dict[str, Any]], per_epoch: int) -> None:
        self.batches, self._per_epoch = batches, per_epoch
        self._pool = ThreadPoolExecutor(1, "batches")
        self._waiting: Future[dict[str, Any]] | None = None
        self._taken = 0

    def __iter__(self) -> BatchesAhead:
        return self

    def __next__(self) -> dict[str, Any]:
        waiting = self._waiting or self._draw()
        self._taken += 1
        self._waiting = None
        batch = waiting.result()
        self._waiting = self._draw() if self._taken % self._per_epoch else None
        return batch

    def _draw(self) -> Future[dict[str, Any]]:
        return self._pool.submit(next, self.batches)
