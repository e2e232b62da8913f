"""The order of classes: numbers as numbers wherever they stand, and never a rank that only the alphabet gives."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise

from nnduet.cells import parse_number, same_text_key

__all__ = ["natural_order", "ranks"]

_INNER_NUMBER = re.compile(r"(\d+(?:\.\d+)?)", re.ASCII)
_NUMBER_AND_LETTER = re.compile(r"(\D*)(\d+)([a-z]?)", re.ASCII)
_ROMAN = re.compile(r"(.*?)(x{0,3}(?:ix|iv|v?i{0,3}))([a-c]?)")
_ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10}

_Rank = tuple[float | str, ...]


def natural_order(labels: Collection[str]) -> tuple[str, ...]:
    """Labels by their ranks where they have some, else as text in which digits count as numbers: T2 stands before T10.

    Examples:
        >>> natural_order(["T10", "T2", "T1"])
        ('T1', 'T2', 'T10')
        >>> natural_order(["3", "1", "2"])
        ('1', '2', '3')
    """
    known = ranks(labels)
    if known is not None:
        return tuple(sorted(labels, key=lambda label: (known[label], label)))
    return tuple(sorted(labels, key=lambda label: (_pieces(label), label)))


def ranks(labels: Collection[str]) -> dict[str, _Rank] | None:
    """Rank of each label if the labels themselves tell it; None if only the alphabet would.

    They tell it as numbers (2, 10), as texts that differ in their numbers only (G2, G10; 1-5 cm, 6-9 cm), as a common text
    before a number and at most one letter (T1, T1a, T2), or likewise with Roman numerals up to 39 (I, II, IV; Stage IIa).
    Equal ranks of two labels tell no order.
    """
    for rank in (_as_number, _as_text_with_numbers, _as_number_and_letter, _as_roman):
        found = {label: rank(label) for label in labels}
        known = {label: entry for label, entry in found.items() if entry is not None}
        if len(known) == len(labels) and len({kind for kind, _ in known.values()}) == 1:
            order = {label: value for label, (_, value) in known.items()}
            if all(one != other for one, other in pairwise(sorted(order.values()))):
                return order
    return None


def _as_number(label: str) -> tuple[str, _Rank] | None:
    value = parse_number(label)
    return None if value is None else ("", (value,))


def _as_text_with_numbers(label: str) -> tuple[str, _Rank] | None:
    pieces = _INNER_NUMBER.split(same_text_key(label))
    return ("#".join(pieces[::2]), tuple(map(float, pieces[1::2]))) if len(pieces) > 1 else None


def _as_number_and_letter(label: str) -> tuple[str, _Rank] | None:
    match = _NUMBER_AND_LETTER.fullmatch(same_text_key(label))
    return None if match is None else (match[1], (float(match[2]), match[3]))


def _as_roman(label: str) -> tuple[str, _Rank] | None:
    match = _ROMAN.fullmatch(same_text_key(label))
    if match is None or not match[2] or (match[1] and match[1][-1].isalpha()):
        return None
    digits = [_ROMAN_DIGITS[sign] for sign in match[2]]
    value = sum(-digit if digit < following else digit for digit, following in zip(digits, [*digits[1:], 0], strict=True))
    return match[1], (float(value), match[3])


def _pieces(label: str) -> list[tuple[bool, float, str]]:
    """Text and numbers in turn, so that numbers are compared with numbers and stand before text."""
    split = _INNER_NUMBER.split(same_text_key(label))
    parts = [(index % 2 == 0, part) for index, part in enumerate(split) if part]
    return [(True, 0.0, part) if is_text else (False, float(part), "") for is_text, part in parts]
