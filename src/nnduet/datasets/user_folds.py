"""Folds as people write them, brought into nnU-Net's form where their meaning is beyond doubt."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from nnduet.datasets.folds import Folds, parse_folds
from nnduet.errors import DatasetError
from nnduet.io.case_names import split_channel
from nnduet.io.formats import split_ending
from nnduet.names import printable

__all__ = ["read_user_folds"]

_SIDES = {"train": "train", "training": "train", "val": "val", "validation": "val", "valid": "val"}


def read_user_folds(value: object, source: str, case_ids: Collection[str]) -> tuple[Folds, list[str]]:
    """Folds and notes on what was read otherwise than it stands.

    Understood are one fold instead of a list, folds by number, ``training`` and ``validation``, and file names or whole numbers
    that are exactly a case once the ending and the channel are gone.

    Args:
        value: decoded JSON of the file ``source``.
        case_ids: the training cases.

    Raises:
        DatasetError: anything else than nnU-Net's form or these, with the form that is expected.
    """
    notes: list[str] = []
    folds = _as_list(value, source, notes)
    if not isinstance(folds, list) or not all(isinstance(fold, dict) for fold in folds):
        raise DatasetError(
            f'{source}: expected a list of folds, [{{"train": [case ids], "val": [case ids]}}, …], got {_kind(value)}'
        )
    known = frozenset(case_ids)
    named = [_named(fold, index, source, notes) for index, fold in enumerate(folds)]
    read = [
        {side: _cases(part, f"{source}: fold {i} {side}", known, notes) for side, part in fold.items()}
        for i, fold in enumerate(named)
    ]
    return parse_folds(read, source), list(dict.fromkeys(notes))


def _as_list(value: object, source: str, notes: list[str]) -> object:
    if not isinstance(value, dict) or not value:
        return value
    if set(value) & set(_SIDES):
        notes.append(f"{source}: one fold instead of a list of folds, read as fold 0")
        return [value]
    if all(re.fullmatch(r"(fold_?)?\d+", key) for key in value):
        notes.append(f"{source}: folds by number read as a list")
        return [value[key] for key in sorted(value, key=lambda key: int(re.sub(r"\D", "", key)))]
    return value


def _named(fold: Mapping[str, object], index: int, source: str, notes: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, part in fold.items():
        side = _SIDES.get(key)
        if side is None:
            notes.append(f"{source}: {printable(key)!r} of a fold is not used; cases for testing lie in test_images")
        elif side in found:
            raise DatasetError(f"{source}: fold {index} names {side!r} twice, got {sorted(fold)}")
        else:
            found[side] = part
            if key != side:
                notes.append(f"{source}: {key!r} read as {side!r}")
    missing = [side for side in ("train", "val") if side not in found]
    if missing:
        raise DatasetError(f"{source}: fold {index} needs lists of case ids under 'train' and 'val', got {sorted(fold)}")
    return found


def _cases(part: object, place: str, known: frozenset[str], notes: list[str]) -> list[str]:
    """Case ids; what is none stays as it is, for the check of the folds to name it."""
    if not isinstance(part, list):
        raise DatasetError(f"{place}: expected a list of case ids, got {_kind(part)}")
    read = []
    for entry in part:
        case_id = str(entry) if isinstance(entry, int) and not isinstance(entry, bool) else entry
        if not isinstance(case_id, str) or (case_id not in known and case_id != entry):
            example = repr(min(known)) if known else "'case_0'"
            raise DatasetError(f"{place}: expected case ids as text, such as {example}, got {entry!r}")
        if case_id not in known and _without_ending(case_id) in known:
            notes.append(f"{place.split(': ')[0]}: file names read as case ids")
            case_id = _without_ending(case_id)
        read.append(case_id)
    return read


def _without_ending(name: str) -> str:
    stem, ending = split_ending(name)
    return split_channel(stem)[0] if ending else name


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", int: "a number"}.get(type(value), type(value).__name__)
