"""The joint network that a plans file describes, and the plans files that are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import CONFIGURATIONS, tiny_network, tiny_plans

from nnduet.errors import ModelError
from nnduet.model.heads import JointNetwork


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
    assert network(torch.rand(1, 1, 8, 8))[-1] == {}


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
