"""Models that come with nnDuet are found by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnduet.errors import ModelError
from nnduet.inference.predictor import Predictor
from nnduet.model_store.shipped_models import SHIPPED, find_model, shipped_models


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_a_name_is_the_shipped_model() -> None:
    assert "lidc-nodule" in shipped_models()
    assert find_model("lidc-nodule") == SHIPPED / "lidc-nodule"


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lidc-nodule").mkdir()
    assert find_model("lidc-nodule") == Path("lidc-nodule")


def test_what_is_neither_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no-such-model: expected a model folder, .*lidc-nodule"):
        find_model("no-such-model")


def test_the_shipped_model_finds_a_ball_in_a_lung() -> None:
    z, y, x = np.ogrid[:14, :60, :60]
    ball = ((z - 7) * 2.0) ** 2 + ((y - 30) * 0.7) ** 2 + ((x - 30) * 0.7) ** 2 < 8.0**2
    image = np.random.default_rng(0).normal(-850, 30, ball.shape) + 880.0 * ball  # soft tissue in air, HU
    prediction = Predictor.load("lidc-nodule", device="cpu", fast=True)(image.astype(np.float32), spacing_mm=(2.0, 0.7, 0.7))
    found = prediction.segmentation == 1
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.8
    for name, answer in prediction.tasks.items():
        assert sum(answer.probabilities.values()) == pytest.approx(1), name
        assert answer.prediction_set
    assert prediction.outlier_score is not None


def test_the_shipped_model_is_small_and_has_a_card() -> None:
    files = [path for path in (SHIPPED / "lidc-nodule").rglob("*") if path.is_file() and "converted" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 15_000_000
    card = (SHIPPED / "lidc-nodule" / "MODEL_CARD.md").read_text()
    for wanted in ("Not a medical device", "cc-by-3.0", "Armato", "python benchmarks/build_model.py", "out of fold", "Limits"):
        assert wanted in card
