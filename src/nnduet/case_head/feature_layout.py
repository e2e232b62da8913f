"""Which columns of a row of features hold what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION, descriptor_names

if TYPE_CHECKING:  # no torch here
    from nnduet.network.heads import JointNetwork

__all__ = ["FeatureLayout"]


@dataclass(frozen=True)
class FeatureLayout:
    """Which columns hold what; ``blocks`` are in order and without gaps; ``descriptors`` is the version of the shapes."""

    blocks: Mapping[str, range]
    covariates: tuple[str, ...]
    descriptors: int = DESCRIPTORS_VERSION

    @classmethod
    def of(cls, network: JointNetwork, regions: Sequence[str], num_channels: int, covariates: Sequence[str]) -> FeatureLayout:
        """The network's own blocks, then "shape" unless it pools plain averages, then "covariates" if there are any."""
        blocks = dict(network.feature_blocks)
        end = max((columns.stop for columns in blocks.values()), default=0)
        shapes = len(descriptor_names(regions, num_channels)) if network.pooling.regional else 0
        for name, length in (("shape", shapes), ("covariates", len(covariates))):
            if length:
                blocks[name] = range(end, end + length)
            end += length
        return cls(blocks, tuple(covariates))

    @property
    def size(self) -> int:
        """Number F of features."""
        return max(columns.stop for columns in self.blocks.values())

    def covariate_values(self, given: Mapping[str, float]) -> NDArray[np.float64]:
        """(number of covariates,) in order, NaN where not given."""
        return np.array([given.get(name, np.nan) for name in self.covariates], dtype=float)
