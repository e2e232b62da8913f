"""What a runtime is: a name, what it needs, and how it computes patches, from the network itself or from a converted copy.

A runtime takes patches and gives logits and pooled sums from one pass of the encoder; everything else of a prediction is the
same for all of them. Nothing here or in the file of a runtime imports torch before something is computed, so that the command
line can list them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from nnduet.network.heads import JointNetwork
    from nnduet.runtimes.joint_pass import JointPass

__all__ = ["Conversion", "PassSpec", "Runtime", "Save"]

Save = Callable[[Path], None]
"""Writes a converted network to a path with the last of its endings; the other files go beside it."""


@dataclass(frozen=True)
class Conversion:
    """How a runtime's copy of a network is made.

    Attributes:
        endings: of the files that a copy is kept in, e.g. ``(".bin", ".xml")``; it is named by the last one. No two runtimes
            share one.
        convert: network with its weights, which are only read, shape (B, C, *patch) of a full batch and precision, one of the
            runtime's, to what saves the copy: the network without its heads.
    """

    endings: tuple[str, ...]
    convert: Callable[[JointNetwork, Sequence[int], str], Save]


@dataclass(frozen=True)
class PassSpec:
    """What a pass is asked to compute.

    Attributes:
        network: in evaluation mode; its weights may be exchanged between passes, by those of another fold.
        device: where it computes.
        shape: (B, C, *patch) of a full batch.
        precision: number format, one of the runtime's.
        streams: batches that are computed side by side; a pass takes at most so many.
    """

    network: JointNetwork
    device: torch.device
    shape: tuple[int, ...]
    precision: str
    streams: int = 1


class Runtime(Protocol):
    """One way to compute a network: a file of this folder, and an entry of :data:`~nnduet.runtimes.all_runtimes.RUNTIMES`."""

    @property
    def name(self) -> str:
        """What the user calls it; also the extra of the package that installs what it needs."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What must be installed beside torch, by the names that are imported."""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Number formats that it computes in, of :data:`~nnduet.network.hardware.PRECISIONS` without "auto"."""

    @property
    def conversion(self) -> Conversion | None:
        """How its copies of networks are made, which it computes on CPUs; None where it computes the network itself."""

    def num_streams(self, precision: str, num_batches: int) -> int:
        """How many of a tile's batches are computed side by side, each with its share of the threads."""

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        """What computes patches.

        Args:
            converted: the copy of the network that :attr:`conversion` made; None where there is no conversion. Without one the
                pass holds for whatever weights are in the network when it is called.
        """
