"""Evidence maps: contributions add up to the answer, and lie where the image holds what the answer comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from tiny import ENDINGS, SHAPES, SPACING_MM, TASKS, tiny_case, tiny_network, write_tiny_model
from torch import nn
from torch.nn import functional

from nnduet.errors import ModelError, SettingsError
from nnduet.inference.sliding_window import predict_tiles
from nnduet.io.images import Geometry, read_image, write_image
from nnduet.network.heads import JointNetwork, task_probabilities
from nnduet.network.pooling import PooledSums
from nnduet.report.evidence_maps import EvidenceMaps, class_gradients, contribution_map, region_shares
from nnduet.schema import Task

pytestmark = pytest.mark.usefixtures("one_thread")
GRADE, AGE = TASKS
PATCHES = {2: (16, 16), 3: (8, 8, 8)}
ONE_PASS: dict[str, Any] = {"step_size": 0.5, "mirror_axes": (), "device": torch.device("cpu")}


class _Brightness(nn.Module):
    """Encoder and decoder that see nothing but how bright a voxel is; the second stage is half as fine as the first."""

    output_channels = (1, 1)
    deep_supervision = False

    def forward(self, seen: Any) -> Any:
        if isinstance(seen, list):
            return torch.cat([0.5 - seen[0], seen[0] - 0.5, torch.full_like(seen[0], -10.0)], dim=1)
        bright = seen.clamp(min=0)
        return [bright, (functional.avg_pool3d if seen.ndim == 5 else functional.avg_pool2d)(bright, 2)]


class _BrightnessNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = self.decoder = _Brightness()


def brightness_network(slope: float = 1.0) -> JointNetwork:
    """ "high" is likelier the brighter the image is, where ``slope`` is above 0; the outline does not matter."""
    network = JointNetwork(_BrightnessNetwork(), TASKS, num_image_channels=1, num_regions=2, overlapping=False, hidden=2).eval()
    hidden, output = network.heads.trunk[1], network.heads.outputs["task_grade"]
    assert isinstance(hidden, nn.Linear) and isinstance(output, nn.Linear)
    with torch.no_grad():
        for parameter in (hidden.weight, hidden.bias, output.weight, output.bias):
            parameter.zero_()
        for stage in ("stage 0", "stage 1"):
            hidden.weight[:, network.feature_blocks[stage]] = slope
        output.weight[0] = 1.0
    return network


def write_case(folder: Path, dim: int) -> Path:
    path = folder / f"case_0000{ENDINGS[dim]}"
    write_image(path, tiny_case(1, dim)[0], Geometry(SHAPES[dim], SPACING_MM[dim]))
    return path


def answer_of(network: JointNetwork, sums: PooledSums, factor: float) -> float:
    """Score of "high" where the features of all stages are ``factor`` times what they are; volumes and intensities stay."""
    numerators = (sums.numerators[0], *(factor * numerator for numerator in sums.numerators[1:]))
    features = PooledSums(numerators, sums.volumes).features()
    return GRADE.kind.class_score(network.heads(features)["grade"].double(), 0).item()


def traced_patch(network: JointNetwork, dim: int) -> tuple[PooledSums, float]:
    """The sums of one patch and the sum of its contributions to "high"."""
    patch = torch.randn(1, 1, *PATCHES[dim], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        _, sums = network.forward_joint(patch)
        name, gradients = class_gradients(network, sums, GRADE, "high")
        contributions, _ = contribution_map(network, gradients)(patch, torch.ones_like(patch))
    assert name == "high" and contributions.shape == (1, 1, *PATCHES[dim])
    return sums, float(contributions.double().sum())


@pytest.mark.parametrize("dim", [2, 3])
def test_for_a_linear_head_the_contributions_add_up_to_the_answer_less_that_to_no_features(dim: int) -> None:
    network = tiny_network(dim)
    network.heads.trunk[2] = nn.Identity()  # instead of GELU
    sums, total = traced_patch(network, dim)
    expected = answer_of(network, sums, 1.0) - answer_of(network, sums, 0.0)
    assert abs(expected) > 1e-3
    assert total == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_contributions_add_up_to_the_change_of_the_answer_when_all_features_grow(dim: int) -> None:
    network = tiny_network(dim)
    sums, total = traced_patch(network, dim)
    step = 0.02  # of float32 features
    expected = (answer_of(network, sums, 1 + step) - answer_of(network, sums, 1 - step)) / (2 * step)
    assert abs(expected) > 1e-3
    assert total == pytest.approx(expected, abs=1e-4)


def test_overlapping_tiles_add_up_to_the_same_as_the_whole_case() -> None:
    network, image = brightness_network(), torch.randn(1, 12, 20, 20, generator=torch.Generator().manual_seed(0))
    _, sums = predict_tiles(network.forward_joint, image, PATCHES[3], **ONE_PASS)
    _, gradients = class_gradients(network, sums, GRADE, "high")
    contributions, _ = predict_tiles(contribution_map(network, gradients), image, PATCHES[3], **ONE_PASS)
    expected = sum(float((g * n).sum()) for g, n in zip(gradients, sums.numerators[1:], strict=True))
    assert contributions.shape == (1, 12, 20, 20)
    assert float(contributions.sum()) == pytest.approx(expected, rel=0.02)  # blended by other weights than the sums


@pytest.mark.parametrize("dim", [2, 3])
def test_a_map_has_the_grid_of_the_image_and_its_strongest_place_is_one(dim: int, request: Any, tmp_path: Path) -> None:
    evidence = EvidenceMaps(request.getfixturevalue(f"model_{dim}d"))(write_case(tmp_path, dim), "grade", "high")
    assert evidence.values.shape == SHAPES[dim] and evidence.values.dtype == np.float32
    assert evidence.values.min() == 0 and evidence.values.max() == 1
    assert evidence.class_name == "high"
    assert list(evidence.region_shares) == ["organ", "lesion", "elsewhere"]
    assert sum(evidence.region_shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("orientation", ["LPS", "RPS", "LAI", "PSL", "SLP", "IPR"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
def test_the_evidence_follows_the_anatomy_however_the_axes_are_stored(
    orientation: str, transpose: tuple[int, ...], tmp_path: Path
) -> None:
    """The image has a border of zeros that is cropped, other on each side, and other spacings than the network's grid."""
    shape = np.zeros((15, 28, 34), np.int16)
    shape[4:7, 7:17, 8:28] = shape[4:13, 7:12, 8:14] = 1  # no two of its sides are alike
    grey = 200 * shape
    grey[1:, 2:27, 3:32] += 20
    image = SimpleITK.GetImageFromArray(grey)
    image.SetSpacing((1.5, 1.0, 3.0))
    image.SetOrigin((-7.0, 30.0, 11.0))
    path = tmp_path / "case_0000.nii.gz"
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(path))
    maps = EvidenceMaps(transposed(write_tiny_model(tmp_path / "model", 3), transpose))
    maps.predictor.network = brightness_network()
    evidence, stored = maps(path, "grade"), read_image(path)
    assert evidence.class_name == "high" and evidence.region_shares["organ"] > 0.8
    assert evidence.values.shape == stored.array.shape and evidence.values[stored.array == 0].max() == 0
    expected = middle_mm(shape, Geometry(shape.shape, (3.0, 1.0, 1.5), (-7.0, 30.0, 11.0)))
    np.testing.assert_allclose(middle_mm(evidence.values, stored.geometry), expected, atol=1.0)


def test_the_evidence_of_a_picture_lies_where_it_is_bright(model_2d: Path, tmp_path: Path) -> None:
    picture = np.full((1, 40, 60), 20, np.uint8)
    picture[0, 4:14, 40:56] = 220
    write_image(tmp_path / "case_0000.png", picture, Geometry(picture.shape))
    maps = EvidenceMaps(model_2d)
    maps.predictor.network = brightness_network()
    values = maps(tmp_path / "case_0000.png", "grade").values
    np.testing.assert_allclose(np.average(np.argwhere(values), axis=0, weights=values[values > 0]), (0, 8.5, 47.5), atol=0.5)
    assert values[picture > 100].sum() > 0.8 * values.sum()


def test_what_speaks_for_a_class_is_not_in_the_map_of_its_opposite(model_3d: Path, tmp_path: Path) -> None:
    maps = EvidenceMaps(model_3d)
    maps.predictor.network = brightness_network()
    evidence = maps(write_case(tmp_path, 3), "grade", "low")
    assert evidence.values.max() == 0
    assert sum(evidence.region_shares.values()) == pytest.approx(1)  # shares count what speaks against it, too


def test_where_nothing_contributes_the_map_is_empty_and_the_shares_are_undefined(model_3d: Path, tmp_path: Path) -> None:
    maps = EvidenceMaps(model_3d)
    maps.predictor.network = brightness_network(slope=0.0)
    evidence = maps(write_case(tmp_path, 3), "grade")
    assert evidence.values.max() == 0
    assert np.isnan(list(evidence.region_shares.values())).all()


def test_the_regions_of_several_masks_each_have_a_share(tmp_path: Path) -> None:
    maps = EvidenceMaps(write_tiny_model(tmp_path / "model", 3, masks=("early", "late")))
    shares = maps(write_case(tmp_path, 3), "grade").region_shares
    assert len(shares) == 5 and list(shares)[-1] == "elsewhere"
    assert sum(shares.values()) == pytest.approx(1)


def test_a_voxel_of_two_regions_counts_for_each_by_half() -> None:
    strength = np.array([[[1.0, 2.0, 4.0, 1.0]]])
    masks = np.array([[[[True, True, False, False]]], [[[False, True, True, False]]]])
    assert region_shares(strength, masks, ["a", "b"]) == {"a": 2 / 8, "b": 5 / 8, "elsewhere": 1 / 8}


def test_without_a_class_the_answer_of_the_network_head_is_explained(model_3d: Path, tmp_path: Path) -> None:
    maps, path = EvidenceMaps(model_3d, "1"), write_case(tmp_path, 3)
    expected = maps.predictor(path)  # the model has no case heads
    assert maps(path, "grade").class_name == expected.tasks["grade"].label
    assert maps(path, "age").class_name == expected.tasks["age"].text
    np.testing.assert_array_equal(maps(path, "grade").values, maps(path, "grade", expected.tasks["grade"].label).values)


def test_the_other_channels_are_found_beside_the_first(tmp_path: Path) -> None:
    maps = EvidenceMaps(write_tiny_model(tmp_path / "model", 3, num_channels=2))
    first, second = tmp_path / "case_0000.nii.gz", tmp_path / "case_0001.nii.gz"
    for index, path in enumerate((first, second)):
        write_image(path, tiny_case(index, 3)[0], Geometry(SHAPES[3], SPACING_MM[3]))
    np.testing.assert_array_equal(maps(first, "grade").values, maps([first, second], "grade").values)
    with pytest.raises(ModelError, match="expected 2 channel"):
        maps([first], "grade")


def test_an_unknown_task_or_class_is_refused_with_the_known_ones(model_3d: Path, tmp_path: Path) -> None:
    maps = EvidenceMaps(model_3d)
    with pytest.raises(SettingsError, match=r"expected one of \['age', 'grade'\], got 'stage'"):
        maps(tmp_path / "case_0000.nii.gz", "stage")
    with pytest.raises(SettingsError, match=r"task grade: expected one of \['high', 'low'\], got 'middle'"):
        maps(tmp_path / "case_0000.nii.gz", "grade", "middle")
    with pytest.raises(SettingsError, match=r"task age: expected none of a regression, got 'high'"):
        maps(tmp_path / "case_0000.nii.gz", "age", "high")


def test_an_unknown_fold_is_a_model_error(model_3d: Path) -> None:
    with pytest.raises(ModelError, match="fold_7"):
        EvidenceMaps(model_3d, "7")


def test_the_score_of_a_class_is_its_log_odds() -> None:
    task, outputs = Task("stage", "multiclass", ("a", "b", "c")), torch.tensor([[0.5, -1.0, 2.0]])
    odds = torch.special.logit(task_probabilities(task, outputs))[0]
    for index in range(3):
        torch.testing.assert_close(task.kind.class_score(outputs, index), odds[index : index + 1])


def test_the_score_of_an_ordinal_class_is_being_above_the_one_threshold_and_not_the_next() -> None:
    task, outputs = Task("stage", "ordinal", ("1", "2", "3")), torch.tensor([[1.5, -0.5]])
    assert [float(task.kind.class_score(outputs, index)) for index in range(3)] == [-1.5, 2.0, -0.5]


def transposed(model: Path, axes: Sequence[int]) -> Path:
    """The model folder, changed to transpose images before the network."""
    plans = json.loads((model / "plans.json").read_text(encoding="utf-8"))
    plans |= {"transpose_forward": list(axes), "transpose_backward": np.argsort(axes).tolist()}
    (model / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    return model


def middle_mm(weights: NDArray[Any], geometry: Geometry) -> NDArray[np.float64]:
    """Weighted middle (x, y, z) in LPS of weights (Z, Y, X)."""
    voxel = np.average(np.argwhere(weights), axis=0, weights=weights[weights != 0])
    return np.asarray(geometry.origin_mm) + np.reshape(geometry.direction, (3, 3)) @ (voxel * geometry.spacing_mm)[::-1]
