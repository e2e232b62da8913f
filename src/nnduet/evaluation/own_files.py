"""Is a file one that the same command wrote before? Only such files may be replaced; what else has their name is the user's."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnduet.errors import DatasetError, OutputExistsError, TableError, UnreadableFileError
from nnduet.evaluation.metrics.table import REGION_METRICS
from nnduet.evaluation.stored_metrics import METRICS_FILE, PER_CASE_FILE
from nnduet.io.delimited import read_lines
from nnduet.records import read_json
from nnduet.schema import CASE_COLUMN, GROUP_COLUMN

__all__ = ["check_own_json", "check_own_metrics", "check_own_table"]

_METRIC_PARTS = tuple(f"_{part}" for part in (*(m.key for m in REGION_METRICS), "reason", "reference", "prediction"))


def check_own_metrics(folder: Path) -> None:
    """Refuse a folder whose ``metrics.json`` or ``per_case.csv`` were not written by ``nnduet evaluate``.

    Raises:
        OutputExistsError: naming the file.
    """
    check_own_json(folder / METRICS_FILE, ("definitions", "segmentation", "tasks"), "nnduet evaluate")
    check_own_table(
        folder / PER_CASE_FILE, "nnduet evaluate", endings=(*_METRIC_PARTS, "_reference_ml", "_prediction_ml"), within=("_p_",)
    )


def check_own_json(path: Path, keys: Collection[str], maker: str) -> None:
    """Refuse to replace a JSON file that is no object with these keys; one that is missing or empty is fine.

    Raises:
        OutputExistsError: naming the file.
    """
    if not _is_there(path, maker):
        return
    try:
        content: dict[str, Any] = read_json(path, dict[str, Any])
    except DatasetError as error:
        raise _foreign(path, maker) from error
    if not set(keys) <= set(content):
        raise _foreign(path, maker)


def check_own_table(
    path: Path, maker: str, *, endings: Collection[str] = (), starts: Collection[str] = (), within: Collection[str] = ()
) -> None:
    """Refuse to replace a CSV whose columns, the case and its patient apart, are not named as ``maker`` names them.

    Raises:
        OutputExistsError: naming the file.
    """
    if not _is_there(path, maker):
        return
    first, *others = _header(path, maker)
    known = [
        name == GROUP_COLUMN
        or name.endswith(tuple(endings))
        or name.startswith(tuple(starts))
        or any(part in name for part in within)
        for name in others
    ]
    if first != CASE_COLUMN or not all(known):
        raise _foreign(path, maker)


def _header(path: Path, maker: str) -> list[str]:
    try:
        lines = read_lines(path)
    except (TableError, UnreadableFileError) as error:
        raise _foreign(path, maker) from error
    return lines[0][1] if lines else [""]


def _is_there(path: Path, maker: str) -> bool:
    if path.exists() and not path.is_file():
        raise _foreign(path, maker)
    return path.is_file()


def _foreign(path: Path, maker: str) -> OutputExistsError:
    return OutputExistsError(f"{path}: `{maker}` did not write this and does not replace it; choose another folder with -o")
