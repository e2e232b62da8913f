"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nnduet.errors import DiskFullError

__all__ = ["replace_checkpoint"]


def replace_checkpoint(save: Callable[[str], None], filename: str) -> None:
    """Let ``save`` write beside ``filename``, sync, and rename: the old checkpoint stays whole until then.

    Raises:
        DiskFullError: no space; the previous checkpoint is untouched.
    """
    partial = f"{filename}.partial"
    try:
        save(partial)
        with open(partial, "rb") as handle:
            os.fsync(handle.fileno())
    except (OSError, RuntimeError) as error:
        Path(partial).unlink(missing_ok=True)
        if shutil.disk_usage(Path(filename).parent).free < 2**20 or getattr(error, "errno", None) == 28:
            raise DiskFullError(f"{filename}: no space left; the previous checkpoint is untouched") from error
        raise
    os.replace(partial, filename)
