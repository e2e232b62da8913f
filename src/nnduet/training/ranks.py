"""Several processes that train one network: joining them, and waiting for the first one for as long as it takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from nnduet.errors import SettingsError

if TYPE_CHECKING:  # some builds of torch have no distributed part
    from torch.distributed import ProcessGroup

__all__ = ["PATIENCE", "patient_group", "process_group", "wait_for_first"]

PATIENCE = timedelta(days=30)
"""How long the others wait while the first process checks data, scores or validates whole cases. The group that exchanges
gradients gives up after ten minutes, which tells a lost process from a slow one, but whole-case work takes hours. If a process
dies, torchrun stops the others."""


@contextlib.contextmanager
def process_group() -> Iterator[int]:
    """Under torchrun: join the NCCL group and yield the rank; else yield 0.

    Raises:
        SettingsError: there is no CUDA.
    """
    if not torch.distributed.is_torchelastic_launched():
        yield 0
        return
    if not torch.cuda.is_available():
        raise SettingsError("torchrun: nnU-Net trains on several devices only with CUDA; start without torchrun")
    torch.distributed.init_process_group("nccl")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        yield torch.distributed.get_rank()
    finally:
        torch.distributed.destroy_process_group()


def patient_group() -> ProcessGroup | None:
    """A second group of all processes, for waiting alone; None outside of any group. Every process must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    group: ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return group


def wait_for_first(group: ProcessGroup | None) -> None:
    """Return when every process of :func:`patient_group` has come here; at once for None."""
    if group is not None:
        torch.distributed.barrier(group=group)
