"""JSON as somebody may have cut, edited or planted it: what every reader of JSON is fed with in test_fuzz_records.py."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

__all__ = ["changed_json", "cut_json", "hostile_json"]

RAW = {
    "digits": "9" * 5000,
    "huge": "1e999",
    "nan": "NaN",
    "deep": "[" * 5000 + "]" * 5000,
    "twice": '{"a": 1, "a": 2}',
    "half": '"\\ud800"',
    "nul": '"\\u0000"',
    "up": '"../../outside"',
    "long": json.dumps("x" * 300),
    "float": "1.5",
    "large": "1e30",
    "billion": "1000000000",
    "negative": "-1",
    "zero": "0",
    "null": "null",
    "empty list": "[]",
    "empty object": "{}",
    "list": "[null, {}]",
}
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
_HOLE = "@ the hole @"


def cut_json(sound: bytes) -> Iterator[bytes]:
    """The content cut at ten places, the first of them leaving nothing."""
    yield from (sound[: len(sound) * tenth // 10] for tenth in range(10))


def hostile_json(sound: bytes) -> Iterator[bytes]:
    """The content as a whole replaced by each value of RAW, and each key that stands on top given twice."""
    yield from (raw.encode() for raw in RAW.values())
    value = json.loads(sound)
    for key in list(value)[:3] if isinstance(value, dict) else []:
        yield json.dumps(value)[:-1].encode() + f", {json.dumps(key)}: 1}}".encode()


def changed_json(data: st.DataObject, sound: bytes) -> bytes:
    """One entry at any depth is removed, retyped, or replaced by a value of RAW."""
    value = copy.deepcopy(json.loads(sound))
    holder, key = _an_entry(data, value)
    if data.draw(st.sampled_from(["raw", "raw", "any", "gone"])) == "gone":
        del holder[key]
        return json.dumps(value).encode()
    if data.draw(st.booleans()):
        holder[key] = data.draw(_VALUES)
        return json.dumps(value).encode()
    holder[key] = _HOLE
    return json.dumps(value).replace(json.dumps(_HOLE), RAW[data.draw(st.sampled_from(sorted(RAW)))]).encode()


def _an_entry(data: st.DataObject, value: Any) -> tuple[Any, Any]:
    """A list or an object somewhere in the value, and one of its keys; each level goes deeper three times in four."""
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 3)) == 0:
            return holder, key
        holder = inner
