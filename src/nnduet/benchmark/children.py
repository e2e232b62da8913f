"""Processes that run a module of nnDuet: none of them imports what happens to lie in the current folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

__all__ = ["child_environment", "module_command"]

_RUN_MODULE = (
    "import sys; sys.path.pop(0); del sys.argv[0]; import runpy; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""What ``-P -m`` does, for Python 3.10, which knows no ``-P``: ``sys`` is built in, all else is imported without the folder."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python, e.g. of ``nnduet.cli``."""
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module, *arguments]
    return [sys.executable, "-c", _RUN_MODULE, module, *arguments]


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process with changes, in which Python leaves the current folder out, in grandchildren too."""
    return {**os.environ, "PYTHONSAFEPATH": "1", **(changes or {})}
