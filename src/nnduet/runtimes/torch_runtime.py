"""The network computed by torch: as it is, or as code that torch compiles for it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nnduet.errors import SettingsError
from nnduet.runtimes.runtime import Conversion, PassSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nnduet.network.heads import JointNetwork
    from nnduet.network.pooling import PooledSums
    from nnduet.runtimes.joint_pass import JointPass

__all__ = ["CompiledTorchRuntime", "TorchRuntime", "compiled_pass", "torch_pass"]

_PRECISIONS = ("float32", "float16", "bfloat16")


class TorchRuntime:
    """Torch, on every device."""

    name = "torch"
    packages: tuple[str, ...] = ()
    precisions = _PRECISIONS
    conversion: Conversion | None = None

    def num_streams(self, precision: str, num_batches: int) -> int:
        """One: torch gives each batch all threads."""
        return 1

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        """See :func:`torch_pass`."""
        return torch_pass(spec.network.forward_joint, spec.device, spec.precision)


class CompiledTorchRuntime:
    """Torch, with code that it compiles for the network."""

    name = "torch-compile"
    packages: tuple[str, ...] = ()
    precisions = _PRECISIONS
    conversion: Conversion | None = None

    def num_streams(self, precision: str, num_batches: int) -> int:
        """One: torch gives each batch all threads."""
        return 1

    def joint_pass(self, spec: PassSpec, converted: Path | None) -> JointPass:
        """See :func:`compiled_pass`."""
        return torch_pass(compiled_pass(spec.network), spec.device, spec.precision)


def torch_pass(compute: JointPass, device: torch.device, precision: str = "float32") -> JointPass:
    """``compute``, which is ``network.forward_joint`` or :func:`compiled_pass` of it, in one of torch's number formats."""
    import torch

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        plain = precision == "float32"
        with nullcontext() if plain else torch.autocast(device.type, dtype=getattr(torch, precision)):
            return compute(patches, shares)

    return run


def compiled_pass(network: JointNetwork) -> JointPass:
    """``network.forward_joint`` as code that torch compiles when the first patches come, which takes from seconds to minutes.

    It holds for other weights too, once they are in the network. A pass raises SettingsError where torch cannot compile, as
    on a machine without a C++ compiler.
    """
    import torch
    from torch._dynamo.exc import TorchDynamoException  # imports torch's compiler, which takes a second

    compiled = torch.compile(network.forward_joint, dynamic=False)

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        try:
            return compiled(patches, shares)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise SettingsError(f"runtime torch-compile: torch could not compile the network: {reason}; use torch") from error

    return run
