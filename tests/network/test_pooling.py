"""Pooling by hand: sums, means, areas."""

from __future__ import annotations

import math

import pytest
import torch

from nnduet.network.pooling import (
    AveragePooling,
    PooledSums,
    RegionPooling,
    feature_blocks,
    num_features,
    region_sums,
    region_weights,
    sum_channels,
)


def half_mask(length: int = 4) -> torch.Tensor:
    """Weights (1, 2, 1, 1, length): the first half of a row, and everything."""
    weights = torch.ones(1, 2, 1, 1, length)
    weights[:, 0, ..., length // 2 :] = 0
    return weights


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, 1, -1)


def test_a_region_sum_is_the_sum_of_the_features_inside_the_mask() -> None:
    assert region_sums([row(1, 2, 3, 4)], half_mask())[0][0, :, 0].tolist() == [3.0, 10.0]


def test_sums_over_a_coarse_stage_are_in_voxels_of_the_fine_grid() -> None:
    assert region_sums([row(5, 7)], half_mask())[0][0, :, 0].tolist() == [10.0, 24.0]  # two voxels of 5; two of 5 and two of 7


def test_a_coarse_voxel_that_is_half_inside_counts_half() -> None:
    weights = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 1, 1, 4)
    assert region_sums([row(6, 100)], weights)[0].item() == 6.0


def test_a_mask_in_2d_is_pooled_as_in_3d() -> None:
    flat = region_sums([row(5, 7)[:, :, 0]], half_mask()[:, :, 0])[0]
    torch.testing.assert_close(flat, region_sums([row(5, 7)], half_mask())[0])


@pytest.mark.parametrize("lengths", [(8, 4, 2), (2, 8, 4), (7, 4, 2), (12, 6, 4)])
def test_the_sums_of_a_source_do_not_depend_on_those_before(lengths: tuple[int, ...]) -> None:
    weights, sources = torch.rand(2, 3, 1, 2, max(lengths)), [torch.rand(2, 4, 1, 1, length) for length in lengths]
    for found, source in zip(region_sums(sources, weights), sources, strict=True):
        torch.testing.assert_close(found, region_sums([source], weights)[0])


def test_volumes_count_voxels() -> None:
    assert sum_channels(row(1, 2, 3, 4), [], half_mask()).volumes.tolist() == [[2.0, 4.0]]


def test_features_start_with_log_volume_and_image_mean_and_deviation() -> None:
    volume, mean, deviation, *rest = sum_channels(row(1, 3, 5, 7), [], half_mask()).features()[0].tolist()
    assert volume == pytest.approx(math.log1p(2))
    assert mean == pytest.approx((1 + 3 + 4) / 3)  # two voxels and one pseudo-voxel of the global mean 4
    assert deviation == pytest.approx(math.sqrt((1 + 9 + 21) / 3 - (8 / 3) ** 2), abs=1e-5)
    assert rest == pytest.approx([4.0, math.sqrt(5)], abs=1e-5)  # the global mean and deviation


def test_the_voxel_scale_multiplies_volumes_only() -> None:
    sums = sum_channels(row(1, 3, 5, 7), [], half_mask())
    plain, scaled = sums.features()[0], sums.features(2.5)[0]
    assert scaled[0].item() == pytest.approx(math.log1p(5))
    assert scaled[1:].tolist() == plain[1:].tolist()


def test_an_empty_region_gets_the_global_mean_and_no_volume() -> None:
    weights = half_mask()
    weights[:, 0] = 0
    features = sum_channels(row(1, 2, 3, 4), [], weights).features()[0]
    assert features[:2].tolist() == pytest.approx([0.0, 2.5])


@pytest.mark.parametrize("tiles", [(slice(0, 2), slice(2, 4)), (slice(0, 1), slice(1, 4))])
def test_the_sums_of_two_tiles_add_up_to_the_sums_of_the_patch(tiles: tuple[slice, slice]) -> None:
    image, weights = row(1, 2, 3, 4), half_mask()
    first, second = (sum_channels(image[..., t], [image[..., t]], weights[..., t]) for t in tiles)
    expected = sum_channels(image, [image], weights)
    torch.testing.assert_close((first + second).numerators, expected.numerators)
    torch.testing.assert_close((first + second).volumes, expected.volumes)


def test_a_tile_weight_of_one_half_halves_every_sum() -> None:
    image, weights = row(1, 2, 3, 4), half_mask()
    half = sum_channels(image, [image], weights, torch.full((1, 1, 4), 0.5))
    full = sum_channels(image, [image], weights)
    torch.testing.assert_close(half.volumes, full.volumes / 2)
    for ours, expected in zip(half.numerators, full.numerators, strict=True):
        torch.testing.assert_close(ours, expected / 2)


def test_scattered_sums_have_a_row_per_pass_and_their_mean_is_one_row() -> None:
    first, second = (sum_channels(image, [image], half_mask()) for image in (row(1, 2, 3, 4), row(3, 4, 5, 6)))
    both = first.scatter([0], 2) + second.scatter([1], 2)
    assert both.volumes.shape[0] == 2
    torch.testing.assert_close(both.mean().numerators[1], (first.numerators[1] + second.numerators[1]) / 2)


def test_scattered_rows_of_one_target_are_added() -> None:
    sums = sum_channels(row(1, 2, 3, 4), [row(1, 2, 3, 4)], half_mask())
    torch.testing.assert_close((sums + sums).volumes, sums.scatter([0], 1).volumes + sums.scatter([0], 1).volumes)
    pair = PooledSums(tuple(torch.cat([n, n]) for n in sums.numerators), torch.cat([sums.volumes, sums.volumes]))
    torch.testing.assert_close(pair.scatter([0, 0], 1).volumes, 2 * sums.volumes)


def test_softmax_weights_are_the_foreground_classes_their_rims_and_the_context() -> None:
    weights = region_weights(torch.zeros(1, 4, 2, 2), overlapping=False)
    assert weights.shape == (1, 7, 2, 2)
    assert weights[0, :, 0, 0].tolist() == [0.25, 0.25, 0.25, 0, 0, 0, 1]  # an even map has no boundary


def test_overlapping_weights_are_sigmoids_of_every_channel_their_rims_and_the_context() -> None:
    weights = region_weights(torch.zeros(1, 2, 2, 2), overlapping=True)
    assert weights[0, :, 0, 0].tolist() == [0.5, 0.5, 0, 0, 1]


def test_the_rim_of_a_row_of_four_is_its_two_ends() -> None:
    logits = torch.full((1, 1, 1, 6), -30.0)
    logits[..., 1:5] = 30.0
    rim = region_weights(logits.expand(1, 1, 3, 6), overlapping=True)[0, 1]
    torch.testing.assert_close(rim, torch.tensor([0.0, 1, 0, 0, 1, 0]).expand(3, 6), rtol=0, atol=1e-6)


def test_a_region_that_ends_at_the_patch_border_has_no_rim_there() -> None:
    logits = torch.tensor([30.0, 30, 30, -30]).expand(1, 1, 4, 4)
    rim = region_weights(logits, overlapping=True)[0, 1]
    torch.testing.assert_close(rim, torch.tensor([0.0, 0, 1, 0]).expand(4, 4), rtol=0, atol=1e-6)


def test_no_gradient_flows_into_the_segmentation_through_the_weights() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    assert not region_weights(logits, overlapping=False).requires_grad


def test_half_precision_features_are_summed_in_float32() -> None:
    features = torch.full((1, 1, 1, 1, 4096), 1.0, dtype=torch.bfloat16)
    assert region_sums([features], torch.ones(1, 1, 1, 1, 4096))[0].item() == 4096.0


def test_the_number_of_features_is_that_of_real_sums() -> None:
    image, weights = torch.rand(2, 3, 4, 4, 4), torch.rand(2, 5, 4, 4, 4)
    stages = [torch.rand(2, 5, 4, 4, 4), torch.rand(2, 7, 2, 2, 2)]
    assert sum_channels(image, stages, weights).features().shape == (2, num_features(5, 3, [5, 7]))


def test_blocks_are_intensities_then_stages_one_after_the_other() -> None:
    blocks = feature_blocks(5, 1, {0: 4, 1: 8})
    assert blocks == {"intensity": range(14), "stage 0": range(14, 34), "stage 1": range(34, 74)}
    assert blocks["stage 1"].stop == num_features(5, 1, [4, 8])


def test_a_block_has_the_number_of_its_stage_in_the_encoder() -> None:
    assert list(feature_blocks(3, 1, {3: 8})) == ["intensity", "stage 3"]


def average(image: torch.Tensor, stages: list[torch.Tensor], tile_weight: torch.Tensor | None = None) -> PooledSums:
    """What the network pools by :class:`AveragePooling`: the stages, without the image."""
    masks = AveragePooling().masks(image, torch.empty(0), overlapping=False)
    return sum_channels(image[:, :0], stages, masks, tile_weight)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("pooling", [RegionPooling(), AveragePooling()])
def test_a_pooling_has_as_many_masks_as_it_says_the_last_of_them_everything(
    pooling: RegionPooling | AveragePooling, overlapping: bool
) -> None:
    masks = pooling.masks(torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4), overlapping=overlapping)
    assert masks.shape == (2, pooling.num_masks(3 if overlapping else 2), 4, 4)
    assert bool((masks[:, -1] == 1).all())


def test_the_average_of_a_stage_is_its_plain_mean_and_nothing_else() -> None:
    image, stages = torch.rand(2, 1, 4, 4, 4), [torch.rand(2, 3, 4, 4, 4), torch.rand(2, 5, 2, 2, 2)]
    features = average(image, stages).features()
    torch.testing.assert_close(features, torch.cat([stage.mean((2, 3, 4)) for stage in stages], dim=1))
    assert features.shape[1] == num_features(1, 0, [3, 5])


def test_the_average_has_no_intensities_among_its_blocks() -> None:
    assert feature_blocks(1, 0, {2: 3, 3: 5}) == {"stage 2": range(3), "stage 3": range(3, 8)}


def test_the_averages_of_two_tiles_add_up_to_that_of_the_patch() -> None:
    image = row(1, 2, 3, 6)
    halves = [torch.tensor([1.0, 1, 0.5, 0]).reshape(1, 1, 4), torch.tensor([0.0, 0, 0.5, 1]).reshape(1, 1, 4)]
    first, second = (average(image, [image], half) for half in halves)
    assert (first + second).features().tolist() == [[3.0]]
    assert first.volumes.tolist() == [[2.5]] and first.features().item() == pytest.approx(4.5 / 2.5)


def test_the_voxel_scale_does_not_touch_an_average() -> None:
    assert average(row(1, 3), [row(1, 3)]).features(2.5).tolist() == [[2.0]]


def test_the_sums_of_a_patch_that_strides_do_not_divide_are_means_over_parts_that_overlap() -> None:
    """Three voxels of 1, 0, 0 over two of the source: the middle one counts in both, in 3D as in 2D."""
    weights = torch.tensor([1.0, 0, 0]).reshape(1, 1, 1, 1, 3)
    assert region_sums([row(4, 100)], weights)[0].item() == pytest.approx(3 / 2 * 0.5 * 4)
    assert region_sums([row(4, 100)[:, :, 0]], weights[:, :, 0])[0].item() == pytest.approx(3 / 2 * 0.5 * 4)


def test_each_axis_has_a_stride_of_its_own() -> None:
    weights = torch.arange(16.0).reshape(1, 1, 2, 4, 2)
    source = torch.tensor([1.0, 10.0]).reshape(1, 1, 1, 2, 1)
    first, second = weights[:, :, :, :2].sum().item(), weights[:, :, :, 2:].sum().item()
    assert region_sums([source], weights)[0].item() == pytest.approx(first + 10 * second)


def test_a_patch_without_any_weight_has_features_of_zero() -> None:
    sums = sum_channels(row(4), [row(4)], torch.full((1, 1, 1, 1, 1), 0.0))
    assert sums.volumes.item() == 0.0
    assert sums.features().tolist() == [[0.0, 0.0, 0.0]]


def test_half_a_voxel_of_context_is_divided_by_one() -> None:
    """A tile's share of half a voxel: sum 2, mean over at least one voxel 2, one pseudo-voxel of it: (2 + 2) / 1.5."""
    sums = sum_channels(row(4), [row(4)], torch.full((1, 1, 1, 1, 1), 0.5))
    assert sums.features()[0, -1].item() == pytest.approx(4 / 1.5)


def test_a_faint_probability_is_sharpened_before_it_becomes_a_mask() -> None:
    """Logits differ by one quarter: sharpened by 8, e² : 1."""
    two = torch.tensor([0.25, 0.0]).reshape(1, 2, 1, 1)
    assert region_weights(two, overlapping=False)[0, 0].item() == pytest.approx(1 / (1 + math.exp(2)))
    assert region_weights(two, overlapping=True)[0, 0].item() == pytest.approx(math.exp(2) / (1 + math.exp(2)))


def test_the_rim_of_a_box_is_its_faces_in_3d() -> None:
    logits = torch.full((1, 1, 5, 5, 5), -30.0)
    logits[..., 1:4, 1:4, 1:4] = 30.0
    rim = region_weights(logits, overlapping=True)[0, 1]
    assert rim.sum().item() == pytest.approx(26)
    assert rim[2, 2, 2].item() == pytest.approx(0, abs=1e-6)


def test_a_rim_of_grey_is_what_is_lost_to_the_darkest_neighbour() -> None:
    logits = torch.logit(torch.tensor([0.5, 0.75, 0.5, 0.25, 0.5])).reshape(1, 1, 1, 5) / 8
    rim = region_weights(logits, overlapping=True)[0, 1, 0]
    torch.testing.assert_close(rim, torch.tensor([0.0, 0.25, 0.25, 0.0, 0.25]))


def test_numbers_of_features_add_up_over_masks_channels_and_stages() -> None:
    """2 regions and their rims have 4 volumes; each of 5 masks a mean and a deviation of 3 channels, and 5 + 7 means."""
    assert num_features(5, 3, [5, 7]) == 4 + 5 * (6 + 12)
    assert num_features(1, 0, [3, 5]) == 8


def test_the_first_block_is_as_long_as_volumes_means_and_deviations() -> None:
    assert feature_blocks(5, 3, {1: 5})["intensity"] == range(4 + 5 * 6)


def test_the_mean_of_several_passes_keeps_a_row() -> None:
    sums = PooledSums((torch.tensor([[[1.0]], [[3.0]]]),), torch.tensor([[2.0], [6.0]]))
    assert sums.mean().volumes.tolist() == [[4.0]] and sums.mean().numerators[0].tolist() == [[[2.0]]]
    assert sums.scatter([2, 0], 3).volumes.tolist() == [[6.0], [0.0], [2.0]]


def test_sums_of_other_sources_cannot_be_added() -> None:
    one, two = (PooledSums((torch.zeros(1, 1, 1),) * number, torch.zeros(1, 1)) for number in (1, 2))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        one + two


def test_a_deviation_that_rounding_makes_negative_is_zero() -> None:
    sums = sum_channels(row(0.1, 0.1, 0.1), [], torch.ones(1, 1, 1, 1, 3))
    assert sums.features()[0, 1].item() == pytest.approx(0.0, abs=1e-3)
    narrow = PooledSums((torch.tensor([[[3.0, 9.0 - 1e-5]]]),), torch.tensor([[1.0]]))
    assert narrow.features()[0, 1].item() == 0.0


def test_regions_and_cases_do_not_wear_each_other_away() -> None:
    """A full region beside an empty one, in two cases the other way round, in one slice: no rim anywhere."""
    logits = torch.full((2, 2, 1, 3, 3), -30.0)
    logits[0, 0] = logits[1, 1] = 30.0
    weights = region_weights(logits, overlapping=True)
    torch.testing.assert_close(weights[:, 2:4], torch.zeros(2, 2, 1, 3, 3), rtol=0, atol=1e-6)
    assert weights[:, :2].sum().item() == pytest.approx(18)
