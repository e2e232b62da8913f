"""Tiles of a case add up to the case, and our logits are nnU-Net's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tiny import CONFIGURATIONS, tiny_dataset_json, tiny_network, tiny_plans
from torch import Tensor, nn

from nnduet.inference import sliding_window
from nnduet.inference.sliding_window import mirror_combinations, predict_coarse_to_fine, predict_tiles
from nnduet.network.heads import JointNetwork
from nnduet.network.pooling import PooledSums
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
        logits: Tensor = 3 * self.last(stages[-1])
        return logits


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
    inner: Any = (..., *[slice(2, -2)] * dim)  # at the rim the stock Gaussian of 1e-7 has hardly a digit in half precision
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


class Recorder:
    """Answers with the image and its negative as logits and one feature of ones; keeps what it was given."""

    def __init__(self) -> None:
        self.patches: list[Tensor] = []
        self.shares: list[Tensor] = []

    def __call__(self, patches: Tensor, share: Tensor) -> tuple[Tensor, PooledSums]:
        self.patches.append(patches)
        self.shares.append(share)
        sums = share.flatten(1).sum(1)[:, None]
        return torch.cat([patches, -patches], dim=1), PooledSums((sums[..., None],), sums)


RAMP = torch.arange(6 * 4 * 5, dtype=torch.float32).reshape(1, 6, 4, 5)


@pytest.mark.parametrize("number, sizes", [(1, [1] * 6), (4, [4, 2]), (9, [6])])
def test_patches_are_given_in_batches_and_the_last_one_is_what_is_left(number: int, sizes: list[int]) -> None:
    """Three tiles along the first axis, each as it is and mirrored."""
    run = Recorder()
    logits, sums = predict_tiles(run, RAMP, (3, 4, 5), step_size=0.5, mirror_axes=(2,), device=CPU, num_patches=number)
    assert [len(batch) for batch in run.patches] == sizes
    torch.testing.assert_close(logits, torch.cat([RAMP, -RAMP]))
    torch.testing.assert_close(sums.volumes, torch.full((2, 1), 120.0))


def test_a_device_with_little_memory_gets_one_patch_at_a_time() -> None:
    run = Recorder()
    logits, _ = predict_tiles(run, RAMP, (3, 4, 5), step_size=0.5, mirror_axes=(), device=CPU, num_patches=4, frugal=True)
    assert [len(batch) for batch in run.patches] == [1, 1, 1]
    torch.testing.assert_close(logits, torch.cat([RAMP, -RAMP]))


def test_a_mirrored_pass_sees_patch_and_share_mirrored_alike() -> None:
    run = Recorder()
    predict_tiles(run, RAMP, (6, 4, 3), step_size=1.0, mirror_axes=(2,), device=CPU)
    assert len(run.patches) == 4  # two tiles that overlap, two passes each
    for plain, mirrored in ((0, 1), (2, 3)):
        assert torch.equal(run.patches[mirrored], run.patches[plain].flip(4))
        assert torch.equal(run.shares[mirrored], run.shares[plain].flip(4))
    assert not torch.equal(run.shares[0], run.shares[0].flip(4))


def test_logits_are_added_up_in_the_type_that_is_asked_for() -> None:
    common: dict[str, Any] = {"step_size": 0.5, "mirror_axes": (), "device": CPU}
    assert predict_tiles(Recorder(), RAMP, (3, 4, 5), **common)[0].dtype == torch.float32
    half, sums = predict_tiles(Recorder(), RAMP, (3, 4, 5), **common, accumulator=torch.float16)
    assert half.dtype == torch.float16 and sums.volumes.dtype == torch.float32
    torch.testing.assert_close(half.float(), torch.cat([RAMP, -RAMP]), rtol=2e-3, atol=0.2)


def test_the_middle_of_a_tile_weighs_more_than_its_rim() -> None:
    """Of two tiles that overlap by half, each answers by its own constant: near its middle it wins."""

    def numbered(patches: Tensor, share: Tensor) -> tuple[Tensor, PooledSums]:
        sums = share.flatten(1).sum(1)[:, None]
        return patches[:, :, :1, :1, :1].expand_as(patches), PooledSums((sums[..., None],), sums)

    image = torch.zeros(1, 8, 8, 12)
    image[..., 4] = 1.0  # the first voxel of the second tile
    logits, _ = predict_tiles(numbered, image, (8, 8, 8), step_size=0.5, mirror_axes=(), device=CPU)
    line = logits[0, 4, 4]
    assert line[:4].tolist() == [0.0] * 4 and line[8:].tolist() == pytest.approx([1.0] * 4)
    assert 0 < line[4] < line[5] < line[6] < line[7] < 1
    assert line[6].item() == pytest.approx(0.5)  # two voxels from the middle of either
    assert line[5].item() == pytest.approx(1 / (1 + math.exp(4)), rel=1e-3)  # one and three, the deviation is an eighth of 8


def test_the_outermost_layer_of_a_tile_hardly_counts_for_the_sums() -> None:
    inner = sliding_window._inner((3, 4), CPU)
    expected = torch.tensor([[1e-8, 1e-4, 1e-4, 1e-8], [1e-4, 1, 1, 1e-4], [1e-8, 1e-4, 1e-4, 1e-8]])
    torch.testing.assert_close(inner, expected)


def test_a_slice_is_tiled_by_itself_and_a_volume_as_a_whole() -> None:
    assert list(sliding_window._tiles((2, 4, 6), (4, 4), 0.5)) == [
        (z, slice(0, 4), slice(x, x + 4)) for z in range(2) for x in (0, 2)
    ]
    assert list(sliding_window._tiles((4, 4, 6), (4, 4, 4), 1.0)) == [
        (slice(0, 4), slice(0, 4), slice(0, 4)),
        (slice(0, 4), slice(0, 4), slice(2, 6)),
    ]


@pytest.mark.parametrize(
    ("box", "patch", "shape", "expected"),
    [
        ((slice(2, 4), slice(20, 22), slice(0, 40)), (8, 8), (6, 40, 40), (slice(2, 4), slice(17, 25), slice(0, 40))),
        ((slice(5, 6), slice(20, 27), slice(36, 40)), (4, 9, 8), (20, 40, 40), (slice(4, 8), slice(18, 29), slice(32, 40))),
        ((slice(0, 1), slice(0, 1), slice(0, 1)), (8, 8, 8), (3, 8, 9), (slice(0, 3), slice(0, 8), slice(0, 8))),
        ((slice(5, 6), slice(5, 6), slice(5, 6)), (8, 8, 8), (6, 6, 6), (slice(0, 6), slice(0, 6), slice(0, 6))),
        ((slice(3, 4), slice(5, 6), slice(5, 6)), (8, 8), (6, 6, 20), (slice(3, 4), slice(0, 6), slice(2, 10))),
    ],
)
def test_a_box_grows_within_the_image_and_its_slices_not_at_all(
    box: tuple[slice, ...], patch: tuple[int, ...], shape: tuple[int, ...], expected: tuple[slice, ...]
) -> None:
    assert sliding_window._grown(box, patch, shape) == expected


def test_coarse_to_fine_is_the_coarse_pass_where_there_is_no_foreground_or_only_one_tile() -> None:
    coarse = {"step_size": 1.0, "mirror_axes": (), "device": CPU}
    for image, patch in ((RAMP + 1, (3, 4, 5)), (-RAMP - 1, (6, 4, 5)), (-RAMP[:, :, :, :3] - 1, (6, 4, 5))):
        run = Recorder()
        logits, _ = predict_coarse_to_fine(run, image, patch, overlapping=False, device=CPU)
        alone = Recorder()
        expected, _ = predict_tiles(alone, image, patch, **coarse)  # type: ignore[arg-type]
        assert len(run.patches) == len(alone.patches)
        assert torch.equal(logits, expected)


def test_coarse_to_fine_looks_again_at_half_a_patch_around_the_foreground() -> None:
    """Foreground in one voxel of a line of 40: five tiles side by side, then the one patch around it."""
    image = torch.ones(1, 2, 2, 40)
    image[..., 20] = -1.0
    run = Recorder()
    logits, sums = predict_coarse_to_fine(
        run, image, (2, 2, 8), overlapping=False, device=CPU, num_patches=5, accumulator=torch.float16
    )
    assert [len(batch) for batch in run.patches] == [5, 1]
    assert logits.dtype == torch.float16
    torch.testing.assert_close(logits.float(), torch.cat([image, -image]), rtol=1e-2, atol=1e-2)
    assert sums.volumes.tolist() == [[pytest.approx(160.0)]]


def test_coarse_to_fine_reads_regions_that_overlap_by_their_sign() -> None:
    """Both logits below zero: no region is there, though the second is larger than the first."""

    def negative(patches: Tensor, share: Tensor) -> tuple[Tensor, PooledSums]:
        sums = share.flatten(1).sum(1)[:, None]
        calls.append(len(patches))
        return torch.cat([patches - 3, patches - 2], dim=1), PooledSums((sums[..., None],), sums)

    image, calls = torch.ones(1, 2, 2, 16), list[int]()
    predict_coarse_to_fine(negative, image, (2, 2, 8), overlapping=True, device=CPU, frugal=True)
    assert calls == [1, 1]
    predict_coarse_to_fine(negative, image, (2, 2, 8), overlapping=False, device=CPU, frugal=True)
    assert calls == [1, 1] * 2 + [1] * 3
