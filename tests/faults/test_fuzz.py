"""Row 61: whatever bytes come, an answer or a named error. Header bytes are in tests/data/test_images.py."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnduet.data.tables import read_table
from nnduet.errors import NNDuetError
from nnduet.inference.bundles import BundleFiles
from nnduet.inference.model_folder import FolderFiles, load_model, parse_json

SHARED_FOLDER = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
CELLS = st.text(alphabet=st.sampled_from([*"a1,;\t\n\r\"'\ufeff\x00é -."]), max_size=60)


@settings(max_examples=3000, deadline=None, suppress_health_check=SHARED_FOLDER)
@given(content=st.one_of(st.binary(max_size=80), CELLS.map(lambda text: f"case_id,grade\n{text}".encode())))
def test_row_61_any_table_is_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    try:
        rows = read_table(path).rows
    except NNDuetError as error:
        assert str(path) in str(error) or "line" in str(error)
    else:
        assert all(isinstance(case_id, str) and case_id for case_id in rows)


@settings(max_examples=3000, deadline=None)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_row_61_any_json_is_parsed_or_refused_by_name(content: bytes) -> None:
    try:
        parse_json(content, "a file")
    except NNDuetError as error:
        assert str(error).startswith("a file: ")


@settings(max_examples=1500, deadline=None, suppress_health_check=SHARED_FOLDER)
@given(data=st.data())
def test_row_61_a_changed_bundle_is_refused_by_name(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes replaced, cut out or put in, most often in the manifest at the front and the zip's list at the end."""
    near = st.one_of(st.integers(0, len(bundle) - 1), st.integers(0, 2000), st.integers(len(bundle) - 1500, len(bundle) - 1))
    changed = bytearray(bundle)
    for _ in range(data.draw(st.integers(1, 4))):
        place, piece = data.draw(near), data.draw(st.binary(min_size=0, max_size=6))
        changed[place : place + data.draw(st.integers(0, 6))] = piece
    path = tmp_path / "bad.nnduet"
    path.write_bytes(changed)
    try:
        files = BundleFiles(path)
    except NNDuetError as error:
        assert str(path) in str(error)
    else:
        assert {name: files.json(name) for name in ("plans.json", "dataset.json")} == _json_of(bundle, tmp_path)


def _json_of(bundle: bytes, folder: Path) -> dict[str, object]:
    path = folder / "sound.nnduet"
    path.write_bytes(bundle)
    files = BundleFiles(path)
    return {name: files.json(name) for name in ("plans.json", "dataset.json")}


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=SHARED_FOLDER)
@given(data=st.data())
def test_row_61_a_model_whose_json_says_something_else_loads_or_is_refused_by_name(model_2d: Path, data: st.DataObject) -> None:
    """One entry of plans.json or dataset.json, at any depth, is replaced by anything."""
    name = data.draw(st.sampled_from(["plans.json", "dataset.json"]))
    changed = json.loads((model_2d / name).read_text())
    holder, keys = changed, list(changed)
    for _ in range(data.draw(st.integers(0, 5))):
        key = data.draw(st.sampled_from(keys))
        if not isinstance(holder[key], dict) or not holder[key]:
            break
        holder, keys = holder[key], list(holder[key])
    holder[data.draw(st.sampled_from(keys))] = data.draw(VALUES)

    class Changed(FolderFiles):
        def json(self, wanted: str) -> object:
            return changed if wanted == name else super().json(wanted)

    with contextlib.suppress(NNDuetError):
        load_model(Changed(model_2d))
