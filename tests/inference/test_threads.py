"""Threads that share a predictor get the answers that they would get one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny import SPACING_MM, tiny_case, write_tiny_model

from nnduet.inference.prediction import Prediction
from nnduet.inference.predictor import Predictor

pytestmark = pytest.mark.usefixtures("one_thread", "eager_switches")

NUM_THREADS, NUM_CASES = 8, 4
WAYS = [(1, "torch"), (5, "torch"), (1, "openvino"), (2, "openvino"), (1, "onnx"), (2, "onnx")]
"""Folds and runtime; converting a network takes seconds, and one more than one is enough to be swapped."""


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Python changes threads a thousand times as often, so that what may go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five folds, beside which converted networks may be written."""
    return write_tiny_model(tmp_path_factory.mktemp("model") / "3d", 3, num_folds=5)


def assert_same(found: Prediction, expected: Prediction) -> None:
    np.testing.assert_array_equal(found.segmentation, expected.segmentation)
    assert found.tasks == expected.tasks
    assert list(found.features) == list(expected.features)
    for fold, features in expected.features.items():
        np.testing.assert_array_equal(found.features[fold], features)


@pytest.mark.parametrize(("num_folds", "runtime"), WAYS)
def test_row_70_eight_threads_with_one_predictor_get_the_serial_answers(num_folds: int, runtime: str, model: Path) -> None:
    predictor = Predictor.load(
        model, [str(fold) for fold in range(num_folds)], device="cpu", runtime=runtime, precision="float32", tta=False
    )
    images = [tiny_case(index, 3)[0][:, :12, :12] for index in range(NUM_CASES)]
    serial = [predictor(image, spacing_mm=SPACING_MM[3]) for image in images]
    assert len({prediction.segmentation.tobytes() for prediction in serial}) == NUM_CASES
    turns = [index % NUM_CASES for index in range(NUM_THREADS)]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        found = list(pool.map(lambda index: predictor(images[index], spacing_mm=SPACING_MM[3]), turns))
    for index, prediction in zip(turns, found, strict=True):
        assert_same(prediction, serial[index])
