"""What the command line shows a person, and what it tells a script: progress, results, errors, exit codes."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import typer

from nnduet.errors import DISK_FULL_NUMBERS, DiskFullError, NNDuetError, StorageError
from nnduet.interrupts import stopped_by
from nnduet.names import printable
from nnduet.progress import Progress

__all__ = ["Report", "progress_bar", "reporting", "say", "show", "show_record", "show_table", "volume", "warn"]

_UNFORESEEN = "nnDuet did not foresee this: please report it, with the lines above and the output of `nnduet doctor`"
_WIDTH_OF_A_FILE = 160
_LINE_SECONDS = 30.0


@dataclass(frozen=True)
class _Volume:
    """How much is said beside results and errors."""

    verbose: bool = False
    quiet: bool = False
    command: str = "COMMAND"


_volume = _Volume()


class Report(Protocol):
    """Takes the result of a command; without ``--json`` it is printed by ``show``, or as a record if None."""

    def __call__(self, result: Mapping[str, object], show: Callable[[], None] | None = None) -> None: ...


@contextlib.contextmanager
def volume(*, verbose: bool = False, quiet: bool = False, command: str = "COMMAND") -> Iterator[None]:
    """Inside the block, ``verbose`` shows every step of the progress and the traceback of every error; ``quiet`` shows neither
    progress nor notes, so that only results, warnings and errors remain. ``command`` is what remedies call it."""
    global _volume
    before, _volume = _volume, _Volume(verbose or _volume.verbose, quiet or _volume.quiet, command)
    try:
        yield
    finally:
        _volume = before


def say(text: str) -> None:
    """Print a note for a person, on stderr; nothing with ``--quiet``."""
    if not _volume.quiet:
        warn(text)


def warn(text: str) -> None:
    """Print a line that a person has to see, on stderr."""
    typer.echo(printable(text), err=True)


def show(text: str = "") -> None:
    """Print a line of the result, on stdout."""
    typer.echo(printable(text))


@contextlib.contextmanager
def reporting(as_json: bool) -> Iterator[Report]:
    """Run the body of a command: its result goes to stdout at the end, everything else to stderr.

    With ``as_json`` stdout gets one line, the result or ``{"error": {"code", "message", "remedy"}}``. An error's exit status
    becomes that of the command, 1 where nnDuet did not foresee the error; then, and with ``--verbose``, there is a traceback,
    above the message.
    """
    results: list[tuple[Mapping[str, object], Callable[[], None] | None]] = []

    def report(result: Mapping[str, object], show: Callable[[], None] | None = None) -> None:
        results.append((result, show))

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield report
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if stopped_by():  # what a library made of the signal, or that a child was ended
            raise
        raise typer.Exit(_tell(error, as_json)) from error
    for result, show in results:
        if as_json:
            typer.echo(json.dumps(_jsonable(result)))
        elif show:
            show()
        else:
            show_record(result)


def _tell(error: Exception, as_json: bool) -> int:
    """Show an error and what helps; the exit status of the command."""
    code, status, message, remedy = "INTERNAL", NNDuetError.exit_status, f"{type(error).__name__}: {error}", _UNFORESEEN
    if isinstance(error, NNDuetError):
        code, status, message, remedy = error.code, error.exit_status, str(error), error.remedy
        remedy = remedy.replace("COMMAND", _volume.command)
    elif isinstance(error, OSError) and error.errno:
        named = DiskFullError if error.errno in DISK_FULL_NUMBERS else StorageError
        code, remedy = named.code, named.remedy
    if _volume.verbose or code == "INTERNAL":
        warn("".join(traceback.format_exception(error)))
    head, *faults = _parts(message)
    if as_json:
        one_line = " ".join([head, "; ".join(faults)]).strip()
        typer.echo(json.dumps({"error": {"code": code, "message": one_line, "remedy": remedy}}))
    else:
        _warn_in_red(f"{code}: {head}")
        for fault in faults:
            warn(f"  {fault}")
        warn(f"what helps: {remedy}")
    return status


def _parts(message: str) -> list[str]:
    """A message in one line, and each line that is set in below it, as :func:`nnduet.errors.listed` does."""
    parts: list[str] = [""]
    for line in message.split("\n"):
        if line.startswith("  "):
            parts.append("")
        parts[-1] = " ".join([*parts[-1].split(), *line.split()])
    return parts


def _warn_in_red(text: str) -> None:
    from rich.console import Console  # it knows NO_COLOR, FORCE_COLOR and what the terminal can do
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(printable(text), style="red"))


def _jsonable(value: object) -> object:
    """The same value with NaN and infinity as null, paths and other objects as text."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):  # a NumPy scalar
        return _jsonable(value.item())
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def show_record(record: Mapping[str, object]) -> None:
    """Print a line per entry: dotted key, then value. A list of sentences gets a line each, another long list its length."""
    rows = list(_flatten(record))
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        show(f"{key:<{width}}  {_one_line(value)}")


def _flatten(record: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(entry, str) and " " in entry for entry in value):
            yield from ((f"{prefix}{key}", str(entry)) for entry in value)
        elif isinstance(value, list | tuple) and len(value) > 8:
            yield f"{prefix}{key}", f"({len(value)} entries)"
        else:
            yield f"{prefix}{key}", "-" if value is None else str(value)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, styles: Mapping[str, str] | None = None) -> None:
    """Print a table on stdout; ``styles`` colours a row by its first matching cell, e.g. ``{"FAIL": "red"}``."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        style = next((styles[cell] for cell in row if cell in styles), "") if styles else ""
        table.add_row(*(Text(_one_line(printable(cell))) for cell in row), style=style)
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """Show progress on stderr: a bar with counts and time left on a terminal; else a line at every tenth of the way and every
    30 s, also where nothing was finished since."""
    if _volume.quiet:
        yield lambda done, total, text: None
    elif _volume.verbose or not sys.stderr.isatty():
        with _Lines(description) as update:
            yield update
    else:
        with _bar(description) as update:
            yield update


@contextlib.contextmanager
def _bar(description: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=None)

        def update(done: int, total: int, text: str) -> None:
            if done < bar.tasks[0].completed or total != bar.tasks[0].total:
                bar.reset(task, total=total)  # another stage begins: its time left must not follow the last one's speed
            bar.update(task, completed=done, total=total, description=_described(description, text))

        yield update


def _described(*parts: str) -> str:
    return _one_line(printable(" ".join(part for part in parts if part)))


class _Lines:
    """Progress as lines: at every tenth of the way, or every step if verbose, and whenever 30 s have passed since the last."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._begun = self._told = time.monotonic()
        self._stage = (0, 0, self._begun)  # the first and all steps, and when it began
        self._now = (0, 0, "")
        self._tenth: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Progress:
        threading.Thread(target=self._beat, daemon=True).start()
        return self._update

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _update(self, done: int, total: int, text: str) -> None:
        with self._lock:
            if total != self._stage[1] or done < self._now[0]:
                self._stage = (done, total, time.monotonic())
            self._now = (done, total, text)
            tenth = (total, done * 10 // max(total, 1))
            if tenth != self._tenth or _volume.verbose or self._is_due():
                self._tenth = tenth
                self._tell()

    def _beat(self) -> None:
        while not self._over.wait(max(0.05, self._told + _LINE_SECONDS - time.monotonic())):
            with self._lock:
                if self._is_due():
                    self._tell()

    def _is_due(self) -> bool:
        return time.monotonic() - self._told >= _LINE_SECONDS

    def _tell(self) -> None:
        self._told = time.monotonic()
        done, total, text = self._now
        first, _, since = self._stage
        left = ""
        if first < done < total:
            left = f", {_duration((self._told - since) / (done - first) * (total - done))} left"
        elif done <= first and self._told - since >= _LINE_SECONDS:
            left = f", {_duration(self._told - since)} so far"
        warn(_described(self._description, f"{done}/{total}" if total else "", text) + left)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
