"""The joint network that a plans file describes, and the plans files that are refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import CONFIGURATIONS, tiny_network, tiny_plans

from nnduet.errors import ModelError, SettingsError
from nnduet.network.heads import JointNetwork
from nnduet.network.network import use_cpu_layers, use_instance_norms
from nnduet.network.pooling import POOLINGS
from nnduet.training.settings import TrainingSettings


def architecture(plans: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plans["configurations"][CONFIGURATIONS[2]]["architecture"]
    return found


@pytest.mark.parametrize("dim", [2, 3])
def test_plans_give_a_joint_network(dim: int) -> None:
    network = tiny_network(dim)
    assert isinstance(network, JointNetwork)
    assert network(torch.rand(1, 1, *[8] * dim)).shape == (1, 3, *[8] * dim)
    assert set(network.heads.names) == {"grade", "age"}


def test_overlapping_regions_need_no_background_channel() -> None:
    plans = tiny_plans(2)
    without = tiny_network(2, plans=plans).heads.norm.mean.numel()
    plans["nnduet"]["overlapping"] = True
    assert tiny_network(2, plans=plans).heads.norm.mean.numel() > without  # three regions instead of two


def test_plans_without_tasks_give_a_network_without_outputs() -> None:
    plans = tiny_plans(2)
    plans["nnduet"]["tasks"] = {}
    network = tiny_network(2, plans=plans)
    network.decoder.deep_supervision = True
    assert network(torch.rand(1, 1, 8, 8))[-1] == [{}] * 4


def test_an_architecture_outside_the_list_is_refused() -> None:
    plans = tiny_plans(2)
    architecture(plans)["network_class_name"] = "os.system"
    with pytest.raises(ModelError, match=r"architecture expected one of .* got 'os.system'"):
        tiny_network(2, plans=plans)


@pytest.mark.parametrize("name", ["os.system", "torch.nn.modules.module.functools.partial", "torch.nn.Nothing"])
def test_a_building_block_that_is_no_torch_module_is_refused(name: str) -> None:
    plans = tiny_plans(2)
    architecture(plans)["arch_kwargs"]["nonlin"] = name
    with pytest.raises(ModelError, match="nonlin"):
        tiny_network(2, plans=plans)


def test_plans_that_nnduet_never_trained_with_are_refused() -> None:
    plans = tiny_plans(2)
    del plans["nnduet"]
    with pytest.raises(ModelError, match="nnduet"):
        tiny_network(2, plans=plans)


def with_head(**settings: Any) -> dict[str, Any]:
    plans = tiny_plans(2)
    plans["nnduet"]["head"].update(settings)
    return plans


def test_settings_that_are_absent_from_older_plans_mean_all_stages_and_regions() -> None:
    older, newer = tiny_network(2), tiny_network(2, plans=with_head(stages=None, pooling="regions"))
    image = torch.rand(1, 1, 16, 16)
    assert older.stages == (0, 1, 2)
    assert older.state_dict().keys() == newer.state_dict().keys()
    assert older.feature_blocks == newer.feature_blocks
    torch.testing.assert_close(older.forward_joint(image)[1].features(), newer.forward_joint(image)[1].features())


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"stages": [-1]}, {"intensity": 14, "stage 2": 5 * 8}),
        ({"stages": [0, -2]}, {"intensity": 14, "stage 0": 5 * 4, "stage 1": 5 * 8}),
        ({"pooling": "average"}, {"stage 0": 4, "stage 1": 8, "stage 2": 8}),
        ({"pooling": "average", "stages": [-1]}, {"stage 2": 8}),
    ],
)
def test_the_plans_choose_stages_and_pooling(settings: dict[str, Any], blocks: dict[str, int]) -> None:
    network = tiny_network(2, plans=with_head(**settings))
    assert {name: len(columns) for name, columns in network.feature_blocks.items()} == blocks
    features = network.forward_joint(torch.rand(2, 1, 16, 16))[1].features()
    assert features.shape == (2, sum(blocks.values())) == (2, network.heads.norm.mean.numel())
    assert torch.isfinite(features).all()


class BrightPooling:
    """The bright half of the image, and everything."""

    regional = True

    def num_masks(self, num_regions: int) -> int:
        return 2

    def masks(self, image: torch.Tensor, logits: torch.Tensor, *, overlapping: bool) -> torch.Tensor:
        return torch.cat([(image > 0).float(), torch.ones_like(image)], dim=1)


def test_a_pooling_that_is_passed_in_is_pooled_by_from_the_features_to_the_heads() -> None:
    """Volume, then mean and deviation of two masks, then 4, 8 and 8 channels of each. Half of 256 pixels is 3 or 5."""
    image = torch.tensor([[-1.0, 3], [5, -7]]).repeat(8, 8)[None, None]
    network = tiny_network(2, pooling=BrightPooling())
    features = network.forward_joint(image)[1].features()
    assert features.shape == (1, 1 + 2 * (2 + 4 + 8 + 8)) == (1, network.heads.norm.mean.numel())
    bright = (128 * 4 + 0) / (128 + 1)  # with one pseudo-voxel of the mean of everything
    deviation = math.sqrt((128 * 17 + 21) / (128 + 1) - bright**2)
    expected = torch.tensor([math.log1p(128), bright, deviation, 0, math.sqrt(21)])
    torch.testing.assert_close(features[0, :5], expected)
    network.decoder.deep_supervision = True
    assert network(image)[-1][0]["age"].shape == (1, 1)


def test_a_pooling_that_is_passed_in_goes_before_the_one_of_the_plans() -> None:
    pooling = BrightPooling()
    assert tiny_network(2, plans=with_head(pooling="average"), pooling=pooling).pooling is pooling


def test_a_training_can_be_told_to_use_each_named_pooling() -> None:
    for name in POOLINGS:
        TrainingSettings(pooling=name)
        assert tiny_network(2, plans=with_head(pooling=name)).pooling is POOLINGS[name]


def test_averages_of_the_bottleneck_are_those_of_the_encoder() -> None:
    network = tiny_network(2, plans=with_head(pooling="average", stages=[-1]))
    image = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(network.forward_joint(image)[1].features(), network.encoder(image)[-1].mean((2, 3)))


@pytest.mark.parametrize("stages", [[3], [-4], [0, 0], [2, -1], [], ["0"]])
def test_stages_that_the_encoder_does_not_have_are_refused(stages: list[Any]) -> None:
    with pytest.raises(SettingsError, match="stages: expected different ones of -3 to 2"):
        tiny_network(2, plans=with_head(stages=stages))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"pooling: expected one of .* got 'max'"):
        tiny_network(2, plans=with_head(pooling="max"))


@pytest.mark.parametrize("name", ["num_regions", "tasks", "hiden"])
def test_a_head_setting_outside_the_list_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=name):
        tiny_network(2, plans=with_head(**{name: 1}))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dim", [2, 3])
def test_layers_for_cpus_compute_the_same_with_the_same_parameters(dim: int, batch: int) -> None:
    network = tiny_network(dim).train()
    image, parameters = torch.rand(batch, 1, *[8] * dim), dict(network.named_parameters())
    expected = network.encoder(image)
    expected_gradients = torch.autograd.grad(expected[-1].square().sum(), list(network.encoder.parameters()))
    use_cpu_layers(network)
    kinds = {type(m).__name__ for m in network.modules()}
    assert ("_ChannelsLastConv3d" in kinds) == (dim == 3)
    norms = [type(m) for m in network.modules() if "Norm" in type(m).__name__ and not isinstance(m, torch.nn.LayerNorm)]
    assert torch.nn.GroupNorm in norms and not {torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d} & set(norms)
    computed = network.encoder(image)
    gradients = torch.autograd.grad(computed[-1].square().sum(), list(network.encoder.parameters()))
    for after, before in zip([*computed, *gradients], [*expected, *expected_gradients], strict=True):
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    assert all(parameters[name] is p for name, p in network.named_parameters())
    assert list(network.state_dict()) == list(tiny_network(dim).state_dict())
    use_instance_norms(network, dim)
    norms = [type(m) for m in network.modules() if "InstanceNorm" in type(m).__name__]
    assert norms == [type(m) for m in tiny_network(dim).modules() if "InstanceNorm" in type(m).__name__]
    torch.testing.assert_close(network.encoder(image)[-1], expected[-1], atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_one_small_patch_alone_is_not_left_to_the_slow_kernel() -> None:
    def kernels(network: torch.nn.Module) -> set[str]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            network(torch.rand(1, 8, 4, 8, 8))
        return {event.key for event in profile.key_averages()}

    network = torch.nn.Sequential(torch.nn.Conv3d(8, 8, 3, padding=1))
    assert "aten::slow_conv3d" in kernels(network)  # where this fails, torch has mended it and our own call can go
    use_cpu_layers(network)
    assert "aten::mkldnn_convolution" in kernels(network)
    assert "aten::slow_conv3d" not in kernels(network)
