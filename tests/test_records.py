"""The strict reader of JSON: what is refused, and that the file is named."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nnduet.errors import DatasetError, ModelError
from nnduet.records import MAX_BYTES, MAX_DEPTH, MAX_DIGITS, left_out_when, parse_json, read_json, to_plain


@dataclass(frozen=True)
class Fold:
    train: tuple[str, ...]
    val: tuple[str, ...] = ()


@dataclass(frozen=True)
class Value:
    number: float | None
    folds: dict[int, Fold]
    reason: str = left_out_when("")
    limit: float | None = left_out_when(None)


def test_a_record_is_written_with_its_fields_as_keys_in_their_order() -> None:
    written: Any = to_plain({"a": [Value(None, {3: Fold(("x",))}, "no cases")]})
    assert written == {"a": [{"number": None, "folds": {"3": {"train": ["x"], "val": []}}, "reason": "no cases"}]}
    assert list(written["a"][0]) == ["number", "folds", "reason"]


def test_a_field_that_is_left_out_at_its_default_is_read_as_its_default() -> None:
    value = Value(0.5, {}, limit=0.0)
    assert to_plain(value) == {"number": 0.5, "folds": {}, "limit": 0.0}
    assert parse_json(b'{"number": 0.5, "folds": {}, "limit": 0}', "x", Value) == value


def test_an_object_is_read_as_the_dataclass_that_is_asked_for() -> None:
    found: list[Fold] = parse_json(b'[{"train": ["a"], "val": ["b"], "more": 1}]', "splits", list[Fold])
    assert found == [Fold(("a",), ("b",))]


def test_a_field_of_another_type_is_named_by_its_place() -> None:
    with pytest.raises(DatasetError, match=r"splits: Expected `str`, got `int` - at `\$\[0\]\.train\[0\]`"):
        parse_json(b'[{"train": [1]}]', "splits", list[Fold])


def test_without_a_kind_any_json_is_given_back() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, 2.5, null, true, "x"]}', "x") == {"a": [1, 2.5, None, True, "x"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"\xff\xfe", "utf-8"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b'{"b": {"a": 1, "a": 1}}', "the key 'a' stands twice"),
        (b'["\\ud800"]', "surrogates"),
        (b"[NaN]", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"9" * (MAX_DIGITS + 1), "digits"),
        (b"9" * 6000, "6000 digits"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a":' * 100_000, "no readable JSON"),
    ],
)
def test_what_is_not_strict_json_is_refused_in_one_line(content: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        parse_json(content, "heads.json", error=ModelError)
    assert str(caught.value).startswith("heads.json: ") and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_the_deepest_and_the_longest_that_are_allowed() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "x")
    assert parse_json(b"9" * MAX_DIGITS, "x") == 10**MAX_DIGITS - 1


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": "ü"}', encoding="utf-8")
    assert read_json(tmp_path / "a.json", dict[str, str]) == {"a": "ü"}


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        read_json(path, **options)
    assert str(path).replace("\0", "") in str(caught.value).replace("\0", "")
    return str(caught.value)


def test_row_139_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no such file" in refused(tmp_path / "missing.json")
    assert "a folder, a pipe or a device" in refused(tmp_path)
    assert "a folder, a pipe or a device" in refused(tmp_path / "pipe")
    assert "a folder, a pipe or a device" in refused(Path("/dev/zero"))
    assert "a folder, a pipe or a device" in refused(linked_device(tmp_path / "link.json"))
    refused(tmp_path / "a\0b")


def linked_device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    assert f"at most {MAX_BYTES}" in refused(tmp_path / "large.json")
