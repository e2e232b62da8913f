"""The network over all tiles of a case, fold by fold: mean logits and the features that each fold has of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nnduet.errors import TooLargeError, ValuesError
from nnduet.inference.case_features import CaseFeatures, extract, grid_spacing_mm, slice_thickness_mm
from nnduet.inference.sliding_window import predict_coarse_to_fine, predict_tiles
from nnduet.model_store.model_folder import Member, ModelFolder
from nnduet.model_store.model_network import network_for
from nnduet.network.heads import JointNetwork
from nnduet.network.network import use_cpu_layers
from nnduet.network.pooling import PooledSums
from nnduet.nnunet_types import CaseProperties
from nnduet.runtimes.member_passes import MemberPasses

__all__ = ["CasePass", "Tiling", "voxel_scale"]


@dataclass(frozen=True)
class Tiling:
    """How a case is cut into patches: their distance as a share of them, axes to mirror over, or few tiles that skip both."""

    step_size: float
    mirror_axes: tuple[int, ...]
    fast: bool


class CasePass:
    """A model's network on a device. Threads may share it: they take turns in the network.

    Args:
        runtime, precision: see :class:`~nnduet.runtimes.member_passes.MemberPasses`.

    Raises:
        SettingsError: impossible runtime or precision.
    """

    def __init__(self, model: ModelFolder, device: torch.device, tiling: Tiling, *, runtime: str, precision: str) -> None:
        self.model, self.device, self.tiling = model, device, tiling
        self.network = model.network.to(device).eval()
        self._turn = threading.Lock()
        if len(model.members) == 1:
            model.members[0].weights.clear()  # the network has them and is never given others
        self.passes = MemberPasses(model, device, runtime, 2 ** len(tiling.mirror_axes), precision)
        if device.type == "cpu" and self.passes.name == "torch":
            use_cpu_layers(self.network)

    def run(
        self,
        image: torch.Tensor,
        properties: CaseProperties,
        covariates: Mapping[str, float],
        accumulator: torch.dtype = torch.float32,
    ) -> tuple[torch.Tensor, list[CaseFeatures]]:
        """Mean logits (K, Z, Y, X) over the folds, and the features that each fold has of the case."""
        model = self.model
        total: torch.Tensor | None = None
        features = []
        for member in model.members:
            with self.network_of(member):
                logits, sums = self._predict_tiles(member, image, accumulator)
            _check_finite(member, logits, sums)
            features.append(
                extract(
                    image,
                    logits,
                    sums,
                    layout=replace(model.layout, descriptors=member.descriptors),
                    overlapping=self.network.overlapping,
                    spacing_mm=grid_spacing_mm(properties, model.configuration, model.plans),
                    voxel_scale=voxel_scale(model, properties),
                    covariates=covariates,
                )
            )
            total = logits if total is None else total + logits
        assert total is not None
        return total / len(features), features

    def _predict_tiles(self, member: Member, image: torch.Tensor, accumulator: torch.dtype) -> tuple[torch.Tensor, PooledSums]:
        """All tiles; where the device runs out of memory, one patch at a time, and if that is too much, on the CPU."""
        for frugal in (False, True):
            try:
                return self._tiles(member, image, accumulator, frugal)
            except (torch.OutOfMemoryError, MemoryError) as error:
                shortage = str(error)  # not the error itself, which holds what the failed pass had on the device
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        if self.device.type == "cpu":
            raise TooLargeError(f"a patch of {self.model.configuration.patch_size} voxels does not fit: {shortage}")
        return self._on_cpu()._tiles(member, image, accumulator, frugal=True)

    def _tiles(
        self, member: Member, image: torch.Tensor, accumulator: torch.dtype, frugal: bool
    ) -> tuple[torch.Tensor, PooledSums]:
        run, patch_size = self.passes.of(member), self.model.configuration.patch_size
        common: dict[str, Any] = {
            "device": self.device,
            "num_patches": self.passes.num_patches,
            "accumulator": accumulator,
            "frugal": frugal,
        }
        if self.tiling.fast:
            return predict_coarse_to_fine(run, image, patch_size, overlapping=self.network.overlapping, **common)
        step_size, mirror_axes = self.tiling.step_size, self.tiling.mirror_axes
        return predict_tiles(run, image, patch_size, step_size=step_size, mirror_axes=mirror_axes, **common)

    def _on_cpu(self) -> CasePass:
        """The same with the present weights, on the CPU; a copy of the network would need the device's memory."""
        model, weights = self.model, {name: weight.cpu() for name, weight in self.network.state_dict().items()}
        network = network_for(model.plans, model.configuration, model.dataset_json, weights, Path("the device"))
        network.load_weights(weights)
        precision = self.passes.precision if self.passes.precision == "float32" else "auto"
        device = torch.device("cpu")
        return CasePass(replace(model, network=network), device, self.tiling, runtime="torch", precision=precision)

    @contextmanager
    def network_of(self, member: Member) -> Iterator[JointNetwork]:
        """The network with a fold's weights, for one thread at a time.

        All folds share one network, and a converted one writes every thread's outputs to the same memory. What leaves the
        block must be the caller's own: :func:`predict_tiles` adds the outputs up in arrays that it makes.
        """
        with self._turn:
            if len(self.model.members) > 1:
                self.network.load_weights(member.weights)
            yield self.network


def voxel_scale(model: ModelFolder, properties: CaseProperties) -> float:
    """What voxel counts are multiplied by: the slice spacing in mm for slice-wise models of volumes, else 1.

    Slice-wise models do not resample between slices, so that a count of voxels means another volume in every case.
    """
    if len(model.configuration.patch_size) == 3 or properties["shape_before_cropping"][0] == 1:
        return 1.0
    return slice_thickness_mm(properties, model.plans)


def _check_finite(member: Member, logits: torch.Tensor, sums: PooledSums) -> None:
    """Refuse what is no number before anything is decided by it: comparisons with NaN are false, which looks like an answer."""
    lowest, highest = torch.aminmax(logits)  # NaN wins over every number
    if not all(torch.isfinite(values).all() for values in (lowest, highest, sums.volumes, *sums.numerators)):
        raise ValuesError(f"fold {member.fold}: expected finite numbers from the network, got NaN or infinity")
