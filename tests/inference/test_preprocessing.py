"""The network's input is the one that nnU-Net's DefaultPreprocessor makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import CONFIGURATIONS, tiny_plans

from nnduet.inference.preprocessing import preprocess

DATASET = {"labels": {"background": 0, "organ": 1, "lesion": 2}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def body(shape: tuple[int, ...]) -> np.ndarray:
    """(1, *shape) of air around a body with a hole, in int16."""
    image = np.zeros((1, *shape), np.int16)
    noise = np.random.default_rng(0).integers(20, 200, [n if n == 1 else n - 4 for n in shape])
    image[(0, *(slice(None) if n == 1 else slice(1, n - 3) for n in shape))] = noise
    image[0, shape[0] // 2, shape[1] // 2, shape[2] // 2] = 0
    return image


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization"])
@pytest.mark.parametrize("spacing", [[2.0, 1.0, 1.0], [5.0, 0.7, 0.7], [1.0, 1.5, 1.2]])
def test_it_is_the_input_that_nnunet_makes(dim: int, masked: bool, scheme: str, spacing: list[float]) -> None:
    document = tiny_plans(dim)
    document["configurations"][CONFIGURATIONS[dim]] |= {"use_mask_for_norm": [masked], "normalization_schemes": [scheme]}
    plans = PlansManager(document)
    configuration = plans.get_configuration(CONFIGURATIONS[dim])
    image, before = body((10, 24, 20)), {"spacing": list(spacing)}
    untouched = image.copy()
    expected, _, stock = DefaultPreprocessor(verbose=False).run_case_npy(
        image, None, {"spacing": list(spacing)}, plans, configuration, DATASET
    )
    found, properties = preprocess(image, before, plans, configuration)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert plain(properties) == plain(stock)
    np.testing.assert_array_equal(image, untouched)
    assert before == {"spacing": list(spacing)}


def plain(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in properties.items()}


def test_an_empty_image_is_not_cropped() -> None:
    plans = PlansManager(tiny_plans(3))
    configuration = plans.get_configuration(CONFIGURATIONS[3])
    nothing = np.zeros((1, 6, 8, 8), np.float32)
    expected, _, _ = DefaultPreprocessor(verbose=False).run_case_npy(
        nothing, None, {"spacing": [2.0, 1.0, 1.0]}, plans, configuration, DATASET
    )
    found, _ = preprocess(nothing, {"spacing": [2.0, 1.0, 1.0]}, plans, configuration)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
