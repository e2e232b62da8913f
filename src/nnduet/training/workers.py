"""Processes that work for this one: they leave Ctrl-C to it, end when it does, and never outlive it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.connection import wait

from nnduet.errors import WorkerError
from nnduet.interrupts import starting_children

__all__ = ["CaseRunner", "case_runner", "refuse_in_a_starting_worker", "settle_worker"]

CaseRunner = Callable[[Callable[..., None], Mapping[str, object]], Iterator[str]]
"""(work, {case id: entry}) -> case ids as they finish; ``work(case_id, entry)`` runs here or in a worker."""

_MAIN_GUARD = (
    'in a script of your own, call plan() below `if __name__ == "__main__":`, for every worker reads the script again, '
    "or with num_processes=1"
)


def settle_worker() -> None:
    """At the start of a process that works for another: signals from the keyboard are the other's, and it ends with it.

    A process that was killed cannot end its workers, hence the thread that waits for its end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def refuse_in_a_starting_worker() -> None:
    """Refuse to work where a worker only reads the script that started it: it would do everything a second time.

    Raises:
        WorkerError: this process is being started by multiprocessing, whose mark this is.
    """
    if getattr(current_process(), "_inheriting", False):
        raise WorkerError(f"a worker that starts reads this script again: {_MAIN_GUARD}")


@contextmanager
def case_runner(workers: int, first_cases: list[str]) -> Iterator[CaseRunner]:
    """How to work on many cases: in this process for one worker, else in a pool, whose first process starts at once.

    Whatever ends the block, no process is left.

    Args:
        first_cases: what a message names if no worker lives long enough to begin.

    Raises:
        WorkerError: a worker died; the message names the cases that may have killed it.
    """
    if workers == 1:
        yield _one_by_one
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=settle_worker)
    try:
        try:
            with starting_children():
                started = pool.submit(_nothing)
            started.result()
        except (BrokenProcessPool, OSError) as error:
            raise WorkerError(f"{_death(first_cases[:workers])}; {_MAIN_GUARD}") from error
        yield lambda work, entries: _by_pool(pool, workers, work, entries)
    except BaseException:
        _terminate(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _nothing() -> None:
    """What shows that a worker can start."""


def _death(cases: list[str]) -> str:
    return f"a preprocessing worker died, perhaps out of memory, near cases {cases}"


def _one_by_one(work: Callable[..., None], entries: Mapping[str, object]) -> Iterator[str]:
    for case_id, entry in entries.items():
        work(case_id, entry)
        yield case_id


def _by_pool(
    pool: ProcessPoolExecutor, workers: int, work: Callable[..., None], entries: Mapping[str, object]
) -> Iterator[str]:
    finished: set[str] = set()
    try:
        with starting_children():
            futures = {pool.submit(work, case_id, entry): case_id for case_id, entry in entries.items()}
        for future in as_completed(futures):
            future.result()
            finished.add(futures[future])
            yield futures[future]
    except (BrokenProcessPool, OSError) as error:  # OSError: it died while cases were being handed out
        pending = [str(case_id) for case_id in entries if case_id not in finished][:workers]
        raise WorkerError(_death(pending)) from error


def _terminate(pool: ProcessPoolExecutor) -> None:
    """End the workers of a pool now; it waits for ever for one that it started while it broke."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
