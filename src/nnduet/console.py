"""What the command line shows a person, and what it tells a script: progress, results, errors, exit codes."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import typer

from nnduet.errors import DISK_FULL_NUMBERS, DiskFullError, NNDuetError, StorageError

__all__ = ["Progress", "Report", "progress_bar", "reporting", "say", "show_record", "show_table"]

_UNFORESEEN = "nnDuet did not foresee this: please report it, with the lines above and the output of `nnduet doctor`"
_WIDTH_OF_A_FILE = 160


class Progress(Protocol):
    """Called with the number of finished steps, of all steps, and what is being done."""

    def __call__(self, done: int, total: int, text: str = "", /) -> None: ...


class Report(Protocol):
    """Takes the result of a command; without ``--json`` it is printed by ``show``, or as a record if None."""

    def __call__(self, result: Mapping[str, Any], show: Callable[[], None] | None = None) -> None: ...


def say(text: str) -> None:
    """Print a line for a person, on stderr."""
    typer.echo(text, err=True)


@contextlib.contextmanager
def reporting(as_json: bool) -> Iterator[Report]:
    """Run the body of a command: its result goes to stdout at the end, everything else to stderr.

    With ``as_json`` stdout gets one line, the result or ``{"error": {"code", "message", "remedy"}}``. An error's exit status
    becomes that of the command, 1 where nnDuet did not foresee the error; only then there is a traceback, above the message.
    """
    results: list[tuple[Mapping[str, Any], Callable[[], None] | None]] = []

    def report(result: Mapping[str, Any], show: Callable[[], None] | None = None) -> None:
        results.append((result, show))

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield report
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except NNDuetError as error:
        _show_error(error.code, str(error), error.remedy, as_json)
        raise typer.Exit(error.exit_status) from error
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and error.errno:
            named = DiskFullError if error.errno in DISK_FULL_NUMBERS else StorageError
            _show_error(named.code, message, named.remedy, as_json)
        else:
            say(traceback.format_exc())
            _show_error("INTERNAL", message, _UNFORESEEN, as_json)
        raise typer.Exit(NNDuetError.exit_status) from error
    for result, show in results:
        if as_json:
            typer.echo(json.dumps(_jsonable(result)))
        elif show:
            show()
        else:
            show_record(result)


def _show_error(code: str, message: str, remedy: str, as_json: bool) -> None:
    one_line = " ".join(message.split())
    if as_json:
        typer.echo(json.dumps({"error": {"code": code, "message": one_line, "remedy": remedy}}))
    else:
        typer.secho(f"{code}: {one_line}", fg="red", err=True)
        say(f"what helps: {remedy}")


def _jsonable(value: Any) -> Any:
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


def show_record(record: Mapping[str, Any]) -> None:
    """Print a line per entry: dotted key, then value. A list of sentences gets a line each, another long list its length."""
    rows = list(_flatten(record))
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        typer.echo(f"{key:<{width}}  {value}")


def _flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
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
        table.add_row(*(Text(cell) for cell in row), style=style)
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[Progress]:
    """Show progress on stderr: a bar with counts and time left on a terminal, else a line about every tenth of the way."""
    if not sys.stderr.isatty():
        yield _sparse_lines(description)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=None)

        def update(done: int, total: int, text: str = "", /) -> None:
            if done < bar.tasks[0].completed or total != bar.tasks[0].total:
                bar.reset(task, total=total)  # another stage begins: its time left must not follow the last one's speed
            bar.update(task, completed=done, total=total, description=f"{description} {text}".strip())

        yield update


def _sparse_lines(description: str) -> Progress:
    last: tuple[int, int] | None = None

    def update(done: int, total: int, text: str = "", /) -> None:
        nonlocal last
        tenth = (total, done * 10 // max(total, 1))
        if tenth != last:
            say(f"{description} {done}/{total} {text}".rstrip())
            last = tenth

    return update
