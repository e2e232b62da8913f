"""What made a result: versions, commit, processor."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from nnduet.network.hardware import processor_name

__all__ = ["provenance"]

_PACKAGES = ("nnduet", "nnunetv2", "torch", "numpy")


def provenance() -> dict[str, str]:
    """Versions of the packages that compute, Python and processor; ``commit`` too where nnDuet runs from a checkout."""
    found = {name: version(name) for name in _PACKAGES} | {"python": platform.python_version(), "processor": processor_name()}
    commit = _commit(Path(__file__).parents[3])
    return found | ({"commit": commit} if commit else {})


def _commit(source: Path) -> str:
    """Short name of the checked-out commit, "-dirty" behind it where files differ; empty where this is no checkout."""
    if not (source / ".git").exists():
        return ""
    command = ["git", "-C", os.fspath(source), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
