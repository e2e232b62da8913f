"""Ctrl-C and the signals of job schedulers, in every command and at any moment: end what was started, say how to go on.

Of the package this imports nothing but the errors, for a signal may come while everything else is being imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn, TextIO

from nnduet.errors import InterruptionError, StoppedError

__all__ = ["Interrupted", "interruptible", "starting_children", "stopped_by"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")  # each where the system has it
_TRAININGS = ("train", "cross-validate")
_HOW_TO_GO_ON = {
    "predict": "the same command with --resume goes on; finished cases are kept",
    "demo": "`nnduet demo --replace` with the same --output begins again",
}
_GRACE_SECONDS = 10.0
"""How long code that was interrupted may clean up. Then the process ends as it would by kill -9, which all files survive."""
_TWICE_SECONDS = 1.0
"""A second signal within this is the same wish, told by the terminal and by a parent process; after it, an impatient user."""


class Interrupted(BaseException):
    """A signal came. No KeyboardInterrupt, so that no library takes it for its own."""


class _Stop:
    """The handler of the signals, for one command line."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.number: int | None = None
        self._since = 0.0
        self._leaving = threading.Lock()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """End the children, give this process some seconds to clean up, and unwind it."""
        if self.number is not None:
            if time.monotonic() - self._since > _TWICE_SECONDS:
                self._leave()
            return
        self.number, self._since = number, time.monotonic()
        _end_children(by_force=False)
        watch = threading.Timer(_GRACE_SECONDS, self._leave)
        watch.daemon = True
        watch.start()
        raise Interrupted(signal.Signals(number).name)

    def leave_children_alone(self, numbers: Sequence[int]) -> None:
        """Give processes made by fork the system's own handlers, before the first signal can reach them.

        ``multiprocessing.Pool`` ends its workers by SIGTERM and waits for them: for ever, where Python took the signal while a
        worker was on its way to sleep in C. It also forks a new one for each that ends; those of a stopped command end at once.
        """
        mask = threading.local()

        def before() -> None:
            mask.old = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

        def in_parent() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask.old)

        def in_child() -> None:
            if self.number is not None:
                os._exit(1)
            for number in numbers:
                signal.signal(number, signal.SIG_DFL)
            in_parent()

        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)

    @property
    def _error(self) -> InterruptionError | StoppedError:
        name = signal.Signals(self.number or signal.SIGINT).name
        command = next((argument for argument in self.arguments if not argument.startswith("-")), "")
        if command in _TRAININGS:
            return StoppedError(f"stopped by {name}; every finished epoch is kept")
        error = InterruptionError(f"stopped by {name}", remedy=_HOW_TO_GO_ON.get(command))
        error.exit_status = 128 + (self.number or signal.SIGINT)  # as shells count it
        return error

    def finish(self) -> NoReturn:
        """Say how to go on, on stderr and with ``--json`` also in one line on stdout, and exit; nothing may hold that up."""
        for number in _numbers():
            signal.signal(number, signal.SIG_IGN)
        self._leave()

    def _leave(self) -> NoReturn:
        self._leaving.acquire()  # never released: who comes second waits for the end
        error = self._error
        told = json.dumps({"error": {"code": error.code, "message": str(error), "remedy": error.remedy}}) + "\n"
        _write(sys.__stderr__, f"{error.code}: {error}\nwhat helps: {error.remedy}\n")
        _write(sys.__stdout__, told if "--json" in self.arguments else "")
        _end_children(by_force=True)
        os._exit(error.exit_status)


@contextlib.contextmanager
def interruptible(arguments: Sequence[str]) -> Iterator[None]:
    """Run the body, the last thing that this process does, so that SIGINT, SIGTERM and SIGUSR1 end it and its children.

    The exit status is 75 for trainings, which ``--resume`` takes up again, else 128 and the signal's number (130, 143). Signals
    that the parent process told this one to ignore stay ignored, e.g. SIGINT of a shell script's background jobs.

    Args:
        arguments: the command line behind ``nnduet``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop(arguments)
    numbers = [n for n in _numbers() if signal.getsignal(n) is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, stop)
    stop.leave_children_alone(numbers)
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if stop.number is not None and status:  # whatever a library made of Interrupted
            _let_go(error)
            stop.finish()
        for number in numbers:  # everything is told: who interrupts now changes neither words nor status
            signal.signal(number, lambda number, frame: os._exit(status if isinstance(status, int) else bool(status)))
        raise


def _let_go(error: BaseException | None) -> None:
    """Empty the frames that an exception holds, so that pools in them release what the system would call leaked."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def stopped_by() -> int | None:
    """The number of the signal that is ending this command; None where there was none."""
    handler = _handler()
    return handler.number if handler else None


def _handler() -> _Stop | None:
    return next((handler for handler in map(signal.getsignal, _numbers()) if isinstance(handler, _Stop)), None)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


def _end_children(*, by_force: bool) -> None:
    """Ask all processes below this one to end, or make them; multiprocessing's tracker ends by itself when it has tidied up."""
    with contextlib.suppress(Exception):  # psutil may be half imported, and processes end at any time
        import psutil

        found: list[Any] = psutil.Process().children(recursive=True)
        children = [child for child in found if not _is_tracker(child)]
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill() if by_force else child.terminate()
        if by_force:
            psutil.wait_procs(children, timeout=1)


def _is_tracker(child: Any) -> bool:
    try:
        return any("resource_tracker" in part for part in child.cmdline())
    except Exception:
        return False


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return
    with contextlib.suppress(OSError, ValueError):  # a closed pipe: the exit status remains
        stream.write(text)
        stream.flush()


@contextlib.contextmanager
def starting_children() -> Iterator[None]:
    """Processes that the body starts do not hear the Ctrl-C of their terminal; this one ends them, without their tracebacks."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
