"""Build the joint network that a plans file describes. Imports nnunetv2."""

from __future__ import annotations

import pydoc
from collections.abc import Callable, Mapping

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from nnduet.errors import ModelError, SettingsError
from nnduet.network.heads import JointNetwork
from nnduet.network.pooling import POOLINGS, Pooling
from nnduet.nnunet_types import ConfigurationManager, PlansManager
from nnduet.task_list import tasks_from_json

__all__ = [
    "ALLOWED_ARCHITECTURES",
    "HEAD_SETTINGS",
    "PLANS_KEY",
    "build_joint_network",
    "has_regions",
    "replace_layers",
    "use_cpu_layers",
    "use_instance_norms",
]

PLANS_KEY = "nnduet"
"""The key in plans.json under which nnDuet's own object rides."""

ALLOWED_ARCHITECTURES = (
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
    "dynamic_network_architectures.architectures.unet.PlainConvUNet",
)
"""Class names that may stand in a plans file; nnU-Net itself would import whatever the file names."""

HEAD_SETTINGS = ("hidden", "dropout", "class_gradient", "stages", "pooling")
"""Training settings that shape the network and ride in ``plans["nnduet"]["head"]``; absent ones have their defaults."""


def build_joint_network(
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    num_input_channels: int,
    num_output_channels: int,
    deep_supervision: bool,
    initialize: bool = True,
    pooling: Pooling | None = None,
) -> nn.Module:
    """The plans' segmentation network with the heads that ``plans["nnduet"]`` asks for.

    Args:
        plans_manager: nnU-Net's PlansManager; ``plans["nnduet"]`` holds tasks, overlapping and head.
        configuration_manager: nnU-Net's ConfigurationManager.
        num_output_channels: segmentation heads, background included unless the labels are regions.
        initialize: draw the first weights of a training; a network that is given weights does without.
        pooling: another than the one that the plans name.

    Raises:
        ModelError: the plans lack the "nnduet" object or name an architecture outside the allow-list, a building block that is
            no torch.nn module, or an unknown setting of the heads.
        SettingsError: a setting of the heads has an impossible value.
    """
    name = configuration_manager.network_arch_class_name
    if name not in ALLOWED_ARCHITECTURES:
        raise ModelError(f"plans: architecture expected one of {ALLOWED_ARCHITECTURES}, got {name!r}")
    if PLANS_KEY not in plans_manager.plans:
        raise ModelError(f'plans: expected an object "{PLANS_KEY}" (written at training time), found none')
    _check_building_blocks(configuration_manager)
    spec = plans_manager.plans[PLANS_KEY]
    unknown = set(spec["head"]) - set(HEAD_SETTINGS)
    if unknown:
        raise ModelError(f'plans["{PLANS_KEY}"]["head"]: expected some of {HEAD_SETTINGS}, got {sorted(unknown)}')
    network = get_network_from_plans(
        name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        num_input_channels,
        num_output_channels,
        allow_init=initialize,
        deep_supervision=deep_supervision,
    )
    return JointNetwork(
        network,
        tasks_from_json(spec["tasks"]),
        num_image_channels=num_input_channels,
        num_regions=num_output_channels - (0 if spec["overlapping"] else 1),
        overlapping=spec["overlapping"],
        **spec["head"] | {"pooling": pooling or _named_pooling(spec["head"].get("pooling", "regions"))},
    )


def _named_pooling(name: object) -> Pooling:
    if not isinstance(name, str) or name not in POOLINGS:
        raise SettingsError(f"pooling: expected one of {tuple(POOLINGS)}, got {name!r}")
    return POOLINGS[name]


def has_regions(labels: Mapping[str, object]) -> bool:
    """Whether the labels of a dataset.json are regions, which may overlap."""
    return any(isinstance(value, list) for value in labels.values())


def _check_building_blocks(configuration_manager: ConfigurationManager) -> None:
    """Convolutions, norms and activations come from torch.nn; nnU-Net itself would import and call whatever the file names."""
    for key in configuration_manager.network_arch_init_kwargs_req_import:
        name = configuration_manager.network_arch_init_kwargs[key]
        found = pydoc.locate(name) if str(name).startswith("torch.nn.") else None
        if name is not None and not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise ModelError(f"plans: {key} expected a module of torch.nn, got {name!r}")


class _ChannelsLastConv3d(nn.Conv3d):
    """A convolution that computes with channels last; what comes in and goes out has channels first.

    One small patch alone goes to oneDNN directly: torch itself (``use_mkldnn`` in aten/src/ATen/native/Convolution.cpp) takes a
    kernel for it that is several times slower.
    """

    def forward(self, input: Tensor) -> Tensor:
        laid_out = input.contiguous(memory_format=torch.channels_last_3d)
        padding = self.padding
        if isinstance(padding, str) or not self._can_be_called_directly(input):
            return super().forward(laid_out).contiguous()
        weight, bias = self.weight, self.bias
        return torch.mkldnn_convolution(laid_out, weight, bias, padding, self.stride, self.dilation, self.groups).contiguous()

    def _can_be_called_directly(self, input: Tensor) -> bool:
        """Whether it is one patch, oneDNN is there, and nobody converts the network or computes in another number format."""
        recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        if recorded or len(input) != 1 or torch.is_autocast_enabled("cpu"):
            return False
        as_it_is = self.padding_mode == "zeros" and input.is_cpu and input.dtype == self.weight.dtype == torch.float32
        available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return available and as_it_is


def use_cpu_layers(network: nn.Module) -> None:
    """Replace layers, in place, by others that compute the same function faster on CPUs, with the same parameters under the
    same names: instance norms by group norms with one group per channel (instance norms are batch norms of copies), and 3D
    convolutions by ones with channels last. Norms, and 2D convolutions, are faster with channels first.
    """

    def faster(module: nn.Module) -> nn.Module | None:
        if isinstance(module, nn.InstanceNorm2d | nn.InstanceNorm3d) and module.affine and not module.track_running_stats:
            return _with_parameters_of(
                module, nn.GroupNorm(module.num_features, module.num_features, module.eps, device="meta")
            )
        if type(module) is nn.Conv3d and module.kernel_size != (1, 1, 1):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
            return _with_channels_last(module)
        return None

    replace_layers(network, faster)


def _with_channels_last(module: nn.Conv3d) -> nn.Module:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    layer = _ChannelsLastConv3d(**{n: getattr(module, n) for n in names}, bias=module.bias is not None, device="meta")
    return _with_parameters_of(module, layer)


def use_instance_norms(network: nn.Module, dim: int) -> None:
    """Undo what :func:`use_cpu_layers` did to the norms, in place, for a network of two or three spatial axes."""
    kind = nn.InstanceNorm2d if dim == 2 else nn.InstanceNorm3d

    def instance_norm(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, nn.GroupNorm) or module.num_groups != module.num_channels:
            return None
        return _with_parameters_of(module, kind(module.num_channels, module.eps, affine=True, device="meta"))

    replace_layers(network, instance_norm)


def replace_layers(network: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what ``make`` returns in every place where a layer stands, in place; None keeps the layer."""
    made: dict[nn.Module, nn.Module] = {}
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            layer = made.get(child) or make(child)
            if layer is not None:
                made[child] = layer.train(child.training)
                setattr(parent, name, layer)


def _with_parameters_of(old: nn.Module, layer: nn.Module) -> nn.Module:
    layer.weight, layer.bias = old.weight, old.bias
    return layer
