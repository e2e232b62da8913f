"""Row 61 of the list of faults: whatever bytes come, an answer or a named error. Over 30,000 examples in a minute or two.

The same examples in every run, so that a failure is one of the change; benchmarks/fuzz.py looks for new ones for as long as one
likes. What was found so far stands in test_fuzz_records.py and in the tests of what reads it.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import itertools
import json
import time
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from data_builders import raw_nifti
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from targets import read_bundle, read_cases, read_json, read_png, read_volume

from nnduet.errors import NNDuetError
from nnduet.model_store.folder_files import FolderFiles
from nnduet.model_store.model_folder import load_model

pytestmark = pytest.mark.no_cover  # counting lines would take half of the time

BYTES, MODELS = 5_000, 1_000
"""Examples of each target that is fed with bytes, and of models, which take ten times as long to load."""
MOST_SECONDS = 25.0
"""For each target; twice what a free core needs."""
CELLS = st.text(alphabet=st.sampled_from([*"a1,;\t\n\r\"'\ufeff\x00é -."]), max_size=60)
FIELDS = [name for name in nib.Nifti1Header.template_dtype.names if name not in ("data_type", "db_name", "descrip", "aux_file")]
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 4, 7, 8, 127, 255, 32767, -32768, 1e-30, 1e30, float("nan"), float("inf"), 348, 352]),
    st.integers(-(2**15), 2**15),
    st.floats(width=32),
)


class TimeIsUp(BaseException):
    """No Exception, so that hypothesis does not take it for a failure and stops."""


@pytest.fixture
def in_time() -> Callable[[], None]:
    """Ends the test when there is no time for another example; to be asked when the example is drawn."""
    start, number = time.monotonic(), itertools.count()

    def ask() -> None:
        done = next(number)
        if time.monotonic() - start > MOST_SECONDS:
            raise TimeIsUp(f"{done} examples in {MOST_SECONDS:.0f} s")

    return ask


def fuzzed(num_examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many examples, or those for which there is time: fewer are told as a warning."""
    checks = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
    chosen = settings(max_examples=num_examples, derandomize=True, deadline=None, suppress_health_check=checks)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        examples = chosen(test)

        @functools.wraps(examples)
        def run(*arguments: object, **fixtures: object) -> None:
            try:
                examples(*arguments, **fixtures)
            except TimeIsUp as note:
                warnings.warn(f"of {num_examples}: {note}", stacklevel=1)

        return run

    return decorate


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return raw_nifti(tmp_path_factory.mktemp("fuzz") / "sound.nii").read_bytes()


def changed_bytes(data: st.DataObject, sound: bytes, *places: st.SearchStrategy[int]) -> bytes:
    """A few bytes replaced, cut out or put in, anywhere or near the given places."""
    content = bytearray(sound)
    near = st.one_of(st.integers(0, len(sound) - 1), *places)
    for _ in range(data.draw(st.integers(1, 4))):
        place, piece = data.draw(near), data.draw(st.binary(max_size=6))
        content[place : place + data.draw(st.integers(0, 6))] = piece
    return bytes(content)


@fuzzed(BYTES)
@given(data=st.data())
def test_row_61_any_header_is_read_or_refused_by_name(
    volume: bytes, tmp_path: Path, in_time: Callable[[], None], data: st.DataObject
) -> None:
    """Fields with odd values, or bytes changed anywhere; as .nii, or compressed."""
    content = bytearray(volume)
    header = np.ndarray((), nib.Nifti1Header.template_dtype, content)  # the fields of these very bytes
    for name in data.draw(st.lists(st.sampled_from(FIELDS), max_size=3)):
        field, value = header[name], data.draw(NUMBERS)
        with contextlib.suppress(ValueError, OverflowError, TypeError), np.errstate(all="ignore"):  # too large for the field
            field[data.draw(st.integers(0, field.size - 1)) if field.ndim else ...] = value
    written = bytes(content)
    written = changed_bytes(data, written, st.integers(0, 352)) if data.draw(st.booleans()) else written
    compressed = data.draw(st.booleans())
    in_time()
    read_volume(gzip.compress(written, 1, mtime=0) if compressed else written, tmp_path / ("a.nii" + ".gz" * compressed))


@fuzzed(BYTES)
@given(data=st.data())
def test_row_61_any_compressed_volume_is_read_or_refused_by_name(
    volume: bytes, tmp_path: Path, in_time: Callable[[], None], data: st.DataObject
) -> None:
    content = changed_bytes(data, gzip.compress(volume, mtime=0))
    in_time()
    read_volume(content, tmp_path / "a.nii.gz")


@fuzzed(BYTES)
@given(data=st.data())
def test_row_61_any_png_is_read_or_refused_by_name(tmp_path: Path, in_time: Callable[[], None], data: st.DataObject) -> None:
    sound = BytesIO()
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).save(sound, "png")
    content = changed_bytes(data, sound.getvalue())
    in_time()
    read_png(content, tmp_path / "a.png")


@fuzzed(BYTES)
@given(content=st.one_of(st.binary(max_size=80), CELLS.map(lambda text: f"case_id,grade\n{text}".encode())))
def test_row_61_any_table_is_read_or_refused_by_name(tmp_path: Path, in_time: Callable[[], None], content: bytes) -> None:
    in_time()
    read_cases(content, tmp_path / "cases.csv")


@fuzzed(BYTES)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_row_61_any_json_is_parsed_or_refused_by_name(tmp_path: Path, in_time: Callable[[], None], content: bytes) -> None:
    in_time()
    read_json(content, tmp_path / "a.json")


@fuzzed(BYTES)
@given(data=st.data())
def test_row_61_any_bundle_is_read_or_refused_by_name(
    bundle: Path, tmp_path: Path, in_time: Callable[[], None], data: st.DataObject
) -> None:
    """Most often changed in the manifest at the front and the zip's list at the end."""
    sound = bundle.read_bytes()
    content = changed_bytes(data, sound, st.integers(0, 2000), st.integers(len(sound) - 1500, len(sound) - 1))
    in_time()
    read_bundle(content, tmp_path / "a.nnduet")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@fuzzed(MODELS)
@given(data=st.data())
def test_row_61_a_model_whose_json_says_something_else_loads_or_is_refused_by_name(
    model_2d: Path, in_time: Callable[[], None], data: st.DataObject
) -> None:
    """One entry of plans.json or dataset.json, at any depth, is replaced by anything."""
    name = data.draw(st.sampled_from(["plans.json", "dataset.json"]))
    changed: dict[str, Any] = json.loads((model_2d / name).read_text())
    holder, keys = changed, list(changed)
    for _ in range(data.draw(st.integers(0, 5))):
        key = data.draw(st.sampled_from(keys))
        if not isinstance(holder[key], dict) or not holder[key]:
            break
        holder, keys = holder[key], list(holder[key])
    holder[data.draw(st.sampled_from(keys))] = data.draw(VALUES)

    class Changed(FolderFiles):
        def json(self, wanted: str) -> dict[str, Any] | None:
            return changed if wanted == name else super().json(wanted)

    in_time()
    with contextlib.suppress(NNDuetError):
        load_model(Changed(model_2d))
