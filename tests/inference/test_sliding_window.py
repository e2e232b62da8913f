"""Tiles of a case add up to the case, and our logits are nnU-Net's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import CONFIGURATIONS, tiny_dataset_json, tiny_network, tiny_plans
from torch import Tensor, nn

from nnduet.inference import sliding_window
from nnduet.inference.sliding_window import mirror_combinations, predict_coarse_to_fine, predict_tiles
from nnduet.model.heads import JointNetwork
from nnduet.model.pooling import PooledSums
from nnduet.schema import Task

CPU = torch.device("cpu")
PATCHES = {2: (8, 8), 3: (8, 8, 8)}


class PointwiseEncoder(nn.Module):
    """Two stages of 1x1x1 convolutions at full resolution: what a voxel gives does not depend on its tile."""

    output_channels = (3, 5)

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.first, self.second = conv(1, 3, 1), conv(3, 5, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(image))
        return [first, torch.tanh(self.second(first))]


class PointwiseDecoder(nn.Module):
    """Three logits per voxel."""

    deep_supervision = False

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.last = conv(5, 3, 1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        return 3 * self.last(stages[-1])


def pointwise_network(dim: int) -> JointNetwork:
    torch.manual_seed(0)
    conv = nn.Conv2d if dim == 2 else nn.Conv3d
    network = nn.Module()
    network.encoder, network.decoder = PointwiseEncoder(conv), PointwiseDecoder(conv)
    task = Task("grade", "binary", ("a", "b"))
    return JointNetwork(network, (task,), num_image_channels=1, num_regions=2, overlapping=False).eval()


def smooth_image(shape: tuple[int, int, int]) -> Tensor:
    """(1, *shape): waves, so that the soft masks have borders."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in shape), indexing="ij")
    return (torch.sin(z / 2) + torch.cos(y / 3) + torch.sin(x / 4 + 1))[None]


@torch.inference_mode()
def whole(network: JointNetwork, image: Tensor, dim: int) -> tuple[Tensor, PooledSums]:
    """Logits and sums of one patch that is the case: in 2d one per slice."""
    if dim == 3:
        logits, sums = network.forward_joint(image[None])
        return logits[0], sums
    parts = [network.forward_joint(image[None, :, z]) for z in range(image.shape[1])]
    total = parts[0][1]
    for _, sums in parts[1:]:
        total = total + sums
    return torch.stack([logits[0] for logits, _ in parts], dim=1), total


def tiled(network: Any, image: Tensor, dim: int, *, step_size: float = 0.5, mirror: bool = False) -> tuple[Tensor, PooledSums]:
    axes = range(dim) if mirror else ()
    return predict_tiles(network.forward_joint, image, PATCHES[dim], step_size=step_size, mirror_axes=axes, device=CPU)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_pooled_sums_of_all_tiles_are_those_of_the_whole_case(dim: int, mirror: bool) -> None:
    network, image = pointwise_network(dim), smooth_image((12, 20, 18))
    _, expected = whole(network, image, dim)
    _, sums = tiled(network, image, dim, mirror=mirror)
    torch.testing.assert_close(sums.volumes, expected.volumes.expand_as(sums.volumes), rtol=1e-4, atol=0)
    for ours, one_patch in zip(sums.numerators, expected.numerators, strict=True):
        torch.testing.assert_close(ours, one_patch.expand_as(ours), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_case_head_sees_the_same_features_tiled_and_whole(dim: int) -> None:
    network, image = pointwise_network(dim), smooth_image((12, 20, 18))
    features = tiled(network, image, dim)[1].features()
    torch.testing.assert_close(features, whole(network, image, dim)[1].features(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_logits_of_a_pointwise_network_do_not_depend_on_the_tiles(dim: int, mirror: bool) -> None:
    network, image = pointwise_network(dim), smooth_image((12, 20, 18))
    logits, _ = tiled(network, image, dim, mirror=mirror)
    torch.testing.assert_close(logits, whole(network, image, dim)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("step_size", [0.5, 0.3, 1.0])
def test_the_shares_of_all_tiles_sum_to_one_in_every_voxel(dim: int, step_size: float) -> None:
    shares: list[Tensor] = []
    network = pointwise_network(dim)

    def spy(patches: Tensor, share: Tensor) -> tuple[Tensor, PooledSums]:
        shares.extend(share[:, 0])
        return network.forward_joint(patches, share)

    shape = (12, 20, 18)
    predict_tiles(spy, smooth_image(shape), PATCHES[dim], step_size=step_size, mirror_axes=(), device=CPU)
    total = torch.zeros(shape)
    for tile, share in zip(sliding_window._tiles(shape, PATCHES[dim], step_size), shares, strict=True):
        total[tile] += share
    torch.testing.assert_close(total, torch.ones(shape), rtol=0, atol=1e-5)


def test_a_case_smaller_than_the_patch_is_padded_and_its_logits_are_cropped_back() -> None:
    logits, sums = tiled(pointwise_network(3), smooth_image((5, 20, 6)), 3)
    assert logits.shape == (3, 5, 20, 6)
    assert float(sums.volumes[0, -1]) == pytest.approx(8 * 20 * 8, rel=1e-5)  # the padding counts as global context


def test_three_axes_mirror_eight_ways_and_no_axis_one_way() -> None:
    assert len(mirror_combinations((0, 1, 2))) == 8
    assert mirror_combinations(()) == [()]
    assert mirror_combinations((0, 1)) == [(), (0,), (1,), (0, 1)]


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_logits_equal_those_of_the_stock_predictor(dim: int, mirror: bool) -> None:
    network, plans = tiny_network(dim), PlansManager(tiny_plans(dim))
    configuration = plans.get_configuration(CONFIGURATIONS[dim])
    image = smooth_image((10, 20, 18))
    axes = tuple(range(dim)) if mirror else None
    stock = nnUNetPredictor(use_mirroring=mirror, perform_everything_on_device=False, device=CPU, allow_tqdm=False)
    stock.manual_initialization(network, plans, configuration, None, tiny_dataset_json(dim), "", axes)
    expected = stock.predict_sliding_window_return_logits(image).float()
    ours, _ = predict_tiles(
        network.forward_joint, image, configuration.patch_size, step_size=0.5, mirror_axes=axes or (), device=CPU
    )
    inner = (..., *[slice(2, -2)] * dim)  # at the rim the stock Gaussian of 1e-7 has hardly a digit in half precision
    torch.testing.assert_close(ours[inner], expected[inner], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_coarse_to_fine_finds_the_foreground_with_fewer_passes(dim: int) -> None:
    network, shape = pointwise_network(dim), (12, 40, 36)
    calls: list[int] = []

    def counting(patches: Tensor, share: Tensor) -> tuple[Tensor, PooledSums]:
        calls.append(len(patches))
        logits, sums = network.forward_joint(patches, share)
        background = torch.zeros_like(logits)
        background[:, 0] = 20 * (patches[:, 0] < 5)
        return logits + background, sums  # foreground is possible only where the image is bright

    image = torch.zeros(1, *shape)
    image[:, 4:7, 10:14, 20:25] = 10.0
    expected, _ = predict_tiles(counting, image, PATCHES[dim], step_size=0.5, mirror_axes=(), device=CPU)
    thorough = sum(calls)
    calls.clear()
    logits, sums = predict_coarse_to_fine(counting, image, PATCHES[dim], overlapping=False, device=CPU)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert sum(calls) < thorough / 2
    assert float(sums.volumes[0, -1]) == pytest.approx(12 * 40 * 36, rel=1e-4)  # every voxel of the case once


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((slice(4, 6), slice(0, 5), slice(30, 36)), (slice(1, 9), slice(0, 8), slice(28, 36))),
        ((slice(0, 12), slice(10, 30), slice(8, 16)), (slice(0, 12), slice(8, 32), slice(6, 18))),
    ],
)
def test_a_box_grows_by_a_quarter_and_to_the_patch(box: tuple[slice, ...], expected: tuple[slice, ...]) -> None:
    assert sliding_window._grown(box, (8, 8, 8), (12, 40, 36)) == expected
