"""The one codec of JSON: records are written by one rule; files that anybody may have cut, edited or planted are read strictly.

What nnDuet writes is a frozen dataclass, whose fields are the keys of the file in their order; :func:`to_plain` makes the plain
values that are written. ``.ci/schemas.py`` makes a JSON schema from each class. On reading,
what is wrong is refused by name.

Refused are: what is no regular file, more than :data:`MAX_BYTES`, other bytes than UTF-8, escaped halves of unicode signs,
syntax errors, a key that stands twice in one object, nesting deeper than :data:`MAX_DEPTH`, whole numbers of more than
:data:`MAX_DIGITS` digits, and numbers that are not finite. ``kind`` then says what the content must be: anything that msgspec
converts to, from ``dict[str, Any]`` to a frozen dataclass, whose wrong fields are named by their place.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from nnduet.errors import DatasetError, NNDuetError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "check_regular_file",
    "convert_json",
    "is_left_out",
    "left_out_when",
    "parse_json",
    "read_json",
    "record_object",
    "to_plain",
]

MAX_BYTES = 2**28
"""The largest file that nnDuet writes, the case heads of ten thousand cases, has a tenth of this."""
MAX_DEPTH = 60
MAX_DIGITS = 40

T = TypeVar("T")
_LEFT_OUT = "left_out_when"


def left_out_when(default: T) -> T:
    """A dataclass field that is not written while it has its default, as ``reason`` where nothing is undefined."""
    return field(default=default, metadata={_LEFT_OUT: True})


def is_left_out(field_of_record: Any) -> bool:
    """Whether a field (of ``dataclasses.fields``) is one of :func:`left_out_when`, so that files may lack its key."""
    return bool(field_of_record.metadata.get(_LEFT_OUT))


def to_plain(record: Any) -> Any:
    """Plain JSON values of a record: dataclasses and mappings become objects, sequences lists; others stay as they are.

    Keys of mappings become text, as ``json.dumps`` has it.
    """
    if is_dataclass(record) and not isinstance(record, type):
        found = {entry.name: (getattr(record, entry.name), entry) for entry in fields(record)}
        return {
            name: to_plain(value)
            for name, (value, entry) in found.items()
            if not (is_left_out(entry) and value == entry.default)
        }
    if isinstance(record, Mapping):
        return {key if isinstance(key, str) else str(key): to_plain(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_plain(value) for value in record]
    return record


def record_object(record: object) -> dict[str, object]:
    """The plain JSON object of one dataclass, see :func:`to_plain`."""
    return cast(dict[str, object], to_plain(record))


def read_json(path: Path, kind: type[T] | Any = Any, *, error: type[NNDuetError] = DatasetError) -> T:
    """The content of a JSON file as ``kind``; an ``error`` for everything that :func:`parse_json` refuses.

    Raises:
        error: the file is missing or unreadable, or its content is refused; the message begins with the path.
    """
    check_regular_file(path, "a JSON file", MAX_BYTES, error=error)
    try:
        content = path.read_bytes()
    except OSError as reason:
        raise error(f"{path}: no readable JSON: {reason}") from reason
    return cast(T, parse_json(content, str(path), kind, error=error))


def check_regular_file(path: Path, what: str, most_bytes: int | None = None, *, error: type[NNDuetError]) -> None:
    """Refuse, before it is opened, what could be read for ever or never: pipes, devices, folders, files that are too long.

    Args:
        what: what is expected, e.g. ``"a table"``.
        most_bytes: None where the reader itself bounds what it reads.

    Raises:
        error: the message begins with the path.
    """
    try:
        found = path.stat()
    except FileNotFoundError as reason:
        raise error(f"{path}: no such file; expected {what}") from reason
    except (OSError, ValueError) as reason:  # ValueError: a NUL in the path
        raise error(f"{path}: expected {what}: {reason}") from reason
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path}: expected {what}, got a folder, a pipe or a device")
    if most_bytes is not None and found.st_size > most_bytes:
        raise error(f"{path}: expected {what} of at most {most_bytes} bytes, got {found.st_size}")


def parse_json(content: bytes, place: str, kind: type[T] | Any = Any, *, error: type[NNDuetError] = DatasetError) -> T:
    """JSON from UTF-8 bytes, with or without BOM, as ``kind``.

    Args:
        place: what messages begin with, as a rule the path.
        kind: what the content must be, for ``msgspec.convert``; keys that a dataclass does not know are passed over.
        error: what is raised.

    Raises:
        error: the content is no such JSON.
    """
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
        _check_depth(value)
        if "\\ud" in text.lower():  # an escaped half of a sign cannot be written to any file
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as reason:
        raise error(f"{place}: no readable JSON: {_shortened(reason)}") from reason
    return cast(T, value if kind is Any else convert_json(value, kind, place, error=error))


def convert_json(value: object, kind: type[T], place: str, *, error: type[NNDuetError] = DatasetError) -> T:
    """What :func:`parse_json` read, or a part of it, as ``kind``.

    Raises:
        error: a wrong type or range, named by its place.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as reason:
        raise error(f"{place}: {_shortened(reason)}") from reason


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits)} digits, {digits[:12]}…")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _check_depth(value: object) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]


def _shortened(reason: BaseException) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 300 else f"{text[:300]}…"
