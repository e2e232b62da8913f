"""One or two optimisers behind the interface of one."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from nnduet.training.optimizer import PolynomialDecay, build_optimizer
from nnduet.training.settings import TrainingSettings

SETTINGS = TrainingSettings(learning_rate=0.1, head_learning_rate=0.01)


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "heads": nn.Linear(2, 1)})


def bias_of_heads(net: nn.ModuleDict) -> torch.Tensor:
    heads = net["heads"]
    assert isinstance(heads, nn.Linear)
    return heads.bias


def backward(net: nn.ModuleDict) -> None:
    net["heads"](net["encoder"](torch.ones(1, 2))).sum().backward()


def test_heads_have_adamw_and_the_rest_has_nesterov_sgd() -> None:
    parts = build_optimizer(network(), SETTINGS).parts
    assert type(parts["heads"]) is torch.optim.AdamW
    assert type(parts["segmentation"]) is torch.optim.SGD
    assert parts["segmentation"].param_groups[0]["nesterov"]


def test_a_step_is_one_kernel_on_cpus() -> None:
    assert all(group["fused"] for group in build_optimizer(network(), SETTINGS).param_groups)


def test_adamw_may_be_chosen_for_the_segmentation() -> None:
    parts = build_optimizer(network(), replace(SETTINGS, optimizer="adamw")).parts
    assert type(parts["segmentation"]) is torch.optim.AdamW


def test_every_parameter_is_in_exactly_one_group() -> None:
    net = network()
    held = [id(p) for group in build_optimizer(net, SETTINGS).param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())


def test_a_compiled_network_keeps_its_heads_apart() -> None:
    wrapped = nn.ModuleDict({"_orig_mod": network()})
    parts = build_optimizer(wrapped, SETTINGS).parts
    assert sum(p.numel() for p in parts["heads"].param_groups[0]["params"]) == 3


def test_one_step_moves_both() -> None:
    net = network()
    before = [p.clone() for p in net.parameters()]
    optimizer = build_optimizer(net, SETTINGS)
    backward(net)
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_zero_grad_clears_both() -> None:
    net = network()
    backward(net)
    build_optimizer(net, SETTINGS).zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_restored_optimizer_takes_the_same_next_step() -> None:
    net, twin = network(), network()
    first, second = build_optimizer(net, SETTINGS), build_optimizer(twin, SETTINGS)
    backward(net)
    first.step()
    twin.load_state_dict(net.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch would share the momentum
    for one, optimizer in ((net, first), (twin, second)):
        optimizer.zero_grad()
        backward(one)
        optimizer.step()
    torch.testing.assert_close(net.state_dict(), twin.state_dict(), rtol=0, atol=0)


def test_every_rate_decays_from_its_own_start() -> None:
    optimizer = build_optimizer(network(), SETTINGS)
    decay = PolynomialDecay(optimizer, num_epochs=10)
    decay.step(5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1 * 0.5**0.9, 0.01 * 0.5**0.9])
    decay.step(0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.01])


def test_the_gradient_scaler_of_mixed_precision_drives_both_optimisers() -> None:
    net = network()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer, scaler = build_optimizer(net, SETTINGS), torch.amp.GradScaler("cpu")
    scaler.scale(net["heads"](net["encoder"](torch.ones(1, 2))).sum()).backward()
    scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it asks for no more than a joint optimiser has
    gradient = bias_of_heads(net).grad
    assert gradient is not None and float(gradient) == pytest.approx(1.0)
    scaler.step(optimizer)  # type: ignore[arg-type]
    scaler.update()
    assert not any(torch.equal(p, before[name]) for name, p in net.named_parameters() if name != "encoder.weight")


def test_shared_heads_are_in_the_group_of_the_segmentation() -> None:
    net = network()
    optimizer = build_optimizer(net, replace(SETTINGS, head_optimizer="shared"))
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in net.parameters()]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.99, SETTINGS.weight_decay)
    assert list(optimizer.state_dict()) == ["segmentation"]


def test_one_step_of_the_shared_optimiser_moves_the_heads_by_the_segmentations_rate() -> None:
    net = network()
    before = bias_of_heads(net).item()
    optimizer = build_optimizer(net, replace(SETTINGS, head_optimizer="shared", weight_decay=0.0))
    backward(net)  # the gradient of the heads' bias is 1; the first Nesterov step is rate * (1 + momentum) * gradient
    optimizer.step()
    assert bias_of_heads(net).item() == pytest.approx(before - 0.1 * 1.99)


@pytest.mark.parametrize(("heads", "expected"), [("own", [12.0, 1.0]), ("shared", [12.0])])
def test_each_part_is_clipped_to_its_own_norm(heads: str, expected: list[float]) -> None:
    net = network()
    optimizer = build_optimizer(net, replace(SETTINGS, head_optimizer=heads))
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.clip_gradients()
    parts = [[p.grad.flatten() for p in part.param_groups[0]["params"]] for part in optimizer.parts.values()]
    assert [torch.cat(gradients).norm().item() for gradients in parts] == pytest.approx(expected, rel=1e-4)
