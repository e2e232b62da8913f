"""What computes the patches of a model's folds: the runtime that was asked for, or the one that suits the model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch

from nnduet.errors import SettingsError
from nnduet.model_store.model_folder import Member, ModelFolder
from nnduet.network.hardware import select_precision
from nnduet.network.heads import JointNetwork
from nnduet.runtimes.all_runtimes import OPENVINO, TORCH, find_runtime, missing_packages
from nnduet.runtimes.converted import ConvertedNetworks
from nnduet.runtimes.joint_pass import JointPass
from nnduet.runtimes.runtime import PassSpec, Runtime

__all__ = ["MemberPasses", "patches_per_pass"]

BATCH_VOXELS = {"cpu": 2**19, "cuda": 2**22}
"""Patches go through the network together up to this many voxels; small ones alone do not fill the processor."""

WORTH_CONVERTING = 5_000_000
"""Parameters from which on "auto" converts a network by itself: a small one predicts a case sooner than it is converted."""


class MemberPasses:
    """What computes the patches of each fold of a model.

    Converted networks are kept, see :class:`~nnduet.runtimes.converted.ConvertedNetworks`. Where none can be, torch computes,
    with a warning.

    Args:
        wanted: name of a runtime. "auto" is OpenVINO on CPUs if it is installed and the network is large or has been converted
            before, else torch. "torch-compile" is torch with code that it compiles for the network.
        num_mirrored: passes per tile.
        precision: number format, see :func:`~nnduet.network.hardware.select_precision`; for "auto" float32, where the runtime
            does not compute in the format that suits the device.

    Raises:
        SettingsError: an unknown name, a package that is not installed, another runtime than torch on a device that is no CPU,
            or for a model that is not on disk.
    """

    def __init__(
        self, model: ModelFolder, device: torch.device, wanted: str, num_mirrored: int, precision: str = "auto"
    ) -> None:
        named = find_runtime(wanted)
        if named is not None:
            _check(named, device, model.members)
        self.network, self.device = model.network, device
        patch = tuple(model.configuration.patch_size)
        batch = patches_per_pass(patch, num_mirrored, device)
        self.shape = (batch, len(model.dataset_json["channel_names"]), *patch)
        self.precision = _precision(named, precision, device)
        self.runtime = named or self._choose(model.members)
        if self.precision not in self.runtime.precisions:
            raise SettingsError(f"precision: runtime {self.name} on CPUs does not compute in {self.precision}")
        self._streams = self.runtime.num_streams(self.precision, num_mirrored // batch)
        self._converted = self._networks_for(self.runtime) if self.runtime.conversion else None
        self._opened: dict[str, JointPass] = {}
        self._of_network: JointPass | None = None
        self._alone = len(model.members) == 1

    @property
    def name(self) -> str:
        """The runtime that computes, as a user names it."""
        return self.runtime.name

    @property
    def num_patches(self) -> int:
        """How many patches a pass is given at most."""
        return int(self.shape[0] * self._streams)

    def of(self, member: Member) -> JointPass:
        """What computes patches for a fold whose weights are in the network; it holds until another fold's are."""
        if self._converted is not None and member.fold not in self._opened:
            self._open(member, self._converted)
        if self._converted is not None:
            return self._opened[member.fold]
        self._of_network = self._of_network or self.runtime.joint_pass(self._spec(), None)
        return self._of_network

    def _open(self, member: Member, networks: ConvertedNetworks) -> None:
        """Open the converted network of a fold; where it can be kept nowhere, torch computes from now on."""
        path = networks.path_of(member)
        if path is None:
            text = f"runtime {self.name}: no folder takes the converted network, torch computes; set TMPDIR to one with room"
            warnings.warn(text, stacklevel=2)
            self.runtime, self._streams, self._converted = TORCH, 1, None
            return
        self._opened[member.fold] = self.runtime.joint_pass(self._spec(), path)
        if self._alone:
            _release(self.network)

    def _spec(self) -> PassSpec:
        return PassSpec(self.network, self.device, self.shape, self.precision, self._streams)

    def _networks_for(self, runtime: Runtime) -> ConvertedNetworks:
        return ConvertedNetworks(self.network, runtime, self.shape, self.precision)

    def _choose(self, members: Sequence[Member]) -> Runtime:
        """What "auto" is."""
        if self.device.type != "cpu" or missing_packages(OPENVINO) or any(member.origin is None for member in members):
            return TORCH
        large = sum(p.numel() for p in self.network.parameters()) >= WORTH_CONVERTING
        kept = self._networks_for(OPENVINO)
        return OPENVINO if large or all(kept.seems_kept(member) for member in members) else TORCH


def _precision(runtime: Runtime | None, wanted: str, device: torch.device) -> str:
    selected = select_precision(wanted, device)
    suits = runtime is None or wanted != "auto" or selected in runtime.precisions
    return selected if suits else "float32"


def _check(runtime: Runtime, device: torch.device, members: Sequence[Member]) -> None:
    """Refuse a runtime that converts where nothing can be converted."""
    if runtime.conversion is None:
        return
    if device.type != "cpu":
        raise SettingsError(f"runtime {runtime.name}: computes on CPUs, got device {device.type}; use torch")
    if any(member.origin is None for member in members):
        raise SettingsError(
            f"runtime {runtime.name}: converts models that are on disk; use torch for one that is being trained"
        )


def _release(network: JointNetwork) -> None:
    """Free the weights of encoder and decoder, which the converted network holds a copy of; the heads stay."""
    for module in (network.encoder, network.decoder):
        for parameter in module.parameters():
            parameter.data = parameter.data.new_empty(0)


def patches_per_pass(patch_size: Sequence[int], num_mirrored: int, device: torch.device) -> int:
    """How many patches go through the network together: a power of two, on CPUs no more than the mirrored versions of one."""
    limit = BATCH_VOXELS.get(device.type, BATCH_VOXELS["cpu"]) // math.prod(patch_size)
    if device.type == "cpu":
        limit = min(limit, num_mirrored)
    return 1 << max(limit, 1).bit_length() - 1
