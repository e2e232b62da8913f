"""A case that does not fit is refused before the work, or predicted with smaller arrays."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from tiny import SPACING_MM, tiny_case

from nnduet.case_head.descriptors import describe_regions
from nnduet.errors import TooLargeError
from nnduet.inference import memory
from nnduet.inference.memory import choose_accumulator, needed_bytes, peak_bytes
from nnduet.inference.predictor import Predictor

SHAPE = (100, 200, 200)
CASE = {"channels": 1, "outputs": 3, "folds": 1}


def available(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=number))


def test_logits_of_three_classes_are_counted() -> None:
    wide, narrow = (needed_bytes(SHAPE, SHAPE, accumulator=t, **CASE) for t in (torch.float32, torch.float16))
    assert wide - narrow == 4_000_000 * 3 * 2
    assert needed_bytes(SHAPE, SHAPE, accumulator=torch.float32, **{**CASE, "folds": 5}) - wide == 4_000_000 * 3 * 4


@pytest.mark.parametrize(("spare", "expected"), [(1, torch.float32), (-1, torch.float16)])
def test_a_case_that_hardly_fits_is_added_up_in_half_precision(
    spare: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, needed_bytes(SHAPE, SHAPE, accumulator=torch.float32, **CASE) + spare)
    assert choose_accumulator(SHAPE, SHAPE, source="a", **CASE) is expected


def test_a_case_that_does_not_fit_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 2**20)
    with pytest.raises(TooLargeError, match=r"a.nii.gz: \(100, 200, 200\) .* about 0.1 GiB; 0.0 GiB are available"):
        choose_accumulator(SHAPE, SHAPE, source="a.nii.gz", **CASE)


def test_half_precision_gives_nearly_the_same_prediction(model_3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, (image, _) = Predictor.load(model_3d, device="cpu"), tiny_case(0, 3)
    expected = predictor(image, spacing_mm=SPACING_MM[3])
    monkeypatch.setattr(memory, "needed_bytes", lambda *_, accumulator, **__: accumulator.itemsize)
    available(monkeypatch, 2)
    prepared = predictor.prepare(image, spacing_mm=SPACING_MM[3])
    assert prepared.accumulator is torch.float16
    available(monkeypatch, 2**40)
    found = predictor.predict_preprocessed(*prepared, covariates={})
    assert (found.segmentation == expected.segmentation).mean() > 0.99
    assert found.tasks["grade"].probabilities == pytest.approx(expected.tasks["grade"].probabilities, abs=0.02)


def test_a_case_too_large_is_refused_before_it_is_read(model_3d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 0)
    predictor = Predictor.load(model_3d, device="cpu")
    with pytest.raises(TooLargeError, match="array: "):
        predictor(np.ones((4, 8, 8), np.float32), spacing_mm=(2.0, 1.0, 1.0))


def test_the_limit_of_a_container_counts_without_what_it_may_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 2**40)
    for name, content in {
        "memory.max": "1000",
        "memory.current": "800",
        "memory.stat": "anon 500\ninactive_file 300\n",
    }.items():
        (tmp_path / name).write_text(content)
    assert memory.available_bytes(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_bytes(tmp_path) == memory.available_bytes(tmp_path / "no container") > 1000


def test_the_peak_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    held = np.ones(10**9, dtype=np.uint8)
    code = "import numpy; from nnduet.inference.memory import peak_bytes; numpy.ones(10**8); print(peak_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 8e8 < int(child.stdout) < peak_bytes()
    assert peak_bytes() > held.nbytes


def test_without_proc_the_peak_comes_from_getrusage(tmp_path: Path) -> None:
    assert peak_bytes(tmp_path / "none") >= peak_bytes() * 0.99


def test_the_box_of_a_region_counts_with_what_its_distances_take(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.zeros((2, 30, 50, 40), bool)
    masks[0, 3, 4, 5] = masks[1, 10:20, 10:31, 5] = True
    needed = memory.DESCRIBED_BYTES * (9 + 9) * (20 + 9) * (0 + 9)
    available(monkeypatch, needed)
    memory.check_described(masks)
    available(monkeypatch, needed - 1)
    with pytest.raises(TooLargeError, match=r"a region's shape takes about 0.0 GiB to describe; 0.0 GiB are available"):
        memory.check_described(masks)
    memory.check_described(np.zeros((1, 9, 9, 9), bool))


def test_describing_a_region_takes_no_more_than_is_said() -> None:
    shape = (60, 90, 90)
    image, masks = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32), np.ones((1, *shape), bool)
    tracemalloc.start()
    describe_regions(image, masks, (1.0, 1.0, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    box = np.prod([length - 1 + memory._BOX_MARGIN for length in shape])
    assert 0.5 < peak / (memory.DESCRIBED_BYTES * box) < 1


@pytest.mark.parametrize(
    "shortage", [MemoryError("cannot allocate"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_runs_out_on_the_way_is_named(model_3d: Path, shortage: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise shortage

    predictor = Predictor.load(model_3d, ["0"], device="cpu", tta=False)
    monkeypatch.setattr("nnduet.inference.predictor.to_labels", fail)
    with pytest.raises(TooLargeError, match=r"image of \(12, 20, 20\) voxels: the memory ran out: .*allocate"):
        predictor(tiny_case(0, 3)[0], spacing_mm=SPACING_MM[3])
    with pytest.raises(RuntimeError, match="something else"), memory.naming_shortage("a"):
        raise RuntimeError("something else")
