"""Checkpoints that are whole or not there, the one before the latest, and stopping on a signal without losing them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nnduet.errors import ResumeError, StoppedError
from nnduet.io.checksums import is_whole, sums_of, write_sums
from nnduet.io.files import file_digest, link_atomically, naming_disk_errors
from nnduet.model_store.model_files import FINAL_CHECKPOINT

__all__ = [
    "FINAL",
    "LATEST",
    "PREVIOUS",
    "demote_final",
    "find_checkpoint",
    "remove_passing_checkpoints",
    "replace_checkpoint",
    "stoppable",
]

FINAL, LATEST, PREVIOUS = FINAL_CHECKPOINT, "checkpoint_latest.pth", "checkpoint_previous.pth"


def replace_checkpoint(save: Callable[[str], None], filename: str) -> None:
    """Let ``save`` write beside ``filename``, sync, and rename: the old checkpoint stays whole until then.

    Its SHA-256 is kept beside it. An old latest checkpoint becomes the previous one.

    Raises:
        DiskFullError: no space; the previous checkpoint is untouched.
        StorageError: it could not be written for another reason; likewise.
    """
    path, partial = Path(filename), Path(f"{filename}.partial")
    try:
        with naming_disk_errors(path.parent, f"{filename}: the previous checkpoint is untouched, this one was not written"):
            save(str(partial))
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            if path.name == LATEST and path.is_file():
                _keep_as(path, path.with_name(PREVIOUS))
            write_sums(path, file_digest(partial))
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _keep_as(path: Path, kept: Path) -> None:
    """Give a checkpoint and its checksums a second name."""
    link_atomically(path, kept)
    if sums_of(path).is_file():
        link_atomically(sums_of(path), sums_of(kept))
    else:
        sums_of(kept).unlink(missing_ok=True)


def find_checkpoint(folder: Path) -> Path | None:
    """What a training goes on from: the final, else the latest, else the previous checkpoint; None where there is none.

    One whose bytes have changed since it was written is passed over.

    Raises:
        ResumeError: there are some, and none is whole.
    """
    found = [folder / name for name in (FINAL, LATEST, PREVIOUS) if (folder / name).is_file()]
    whole = next((path for path in found if is_whole(path)), None)
    if found and whole is None:
        damaged = ", ".join(path.name for path in found)
        raise ResumeError(f"{folder}: {damaged} changed on the disk after it was written; move the folder away and train again")
    return whole


def remove_passing_checkpoints(folder: Path) -> None:
    """Remove what only an unfinished training needs: the latest and the previous checkpoint with their sums."""
    for name in (LATEST, PREVIOUS):
        for path in (folder / name, sums_of(folder / name)):
            path.unlink(missing_ok=True)


def demote_final(folder: Path) -> None:
    """Make the final checkpoint the latest one of a training that goes on; a kill in between leaves one of the two names."""
    _keep_as(folder / FINAL, folder / LATEST)
    for path in (folder / FINAL, sums_of(folder / FINAL)):
        path.unlink(missing_ok=True)


class _Signal(KeyboardInterrupt):
    """Passes through handlers of ordinary errors."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGUSR1, which job schedulers send before they kill, into an error that says how to go on.

    Outside the main thread, which alone gets signals, and where the program handles them itself, as the command line does,
    nothing changes.

    Raises:
        StoppedError: one of the signals came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Signal(signal.Signals(number).name)

    names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    before = {number: signal.signal(number, stop) for number in numbers if signal.getsignal(number) is signal.SIG_DFL}
    try:
        yield
    except _Signal as error:
        raise StoppedError(f"stopped by {error}; every finished epoch is kept: go on with --resume") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
