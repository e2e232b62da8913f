"""All runtimes: what can be named, what is missing for one, and the entry that a new one adds."""

from __future__ import annotations

import importlib.util

from nnduet.errors import SettingsError
from nnduet.runtimes.onnx_runtime import OnnxRuntime
from nnduet.runtimes.openvino.openvino_runtime import OpenVinoRuntime
from nnduet.runtimes.runtime import Runtime
from nnduet.runtimes.torch_runtime import CompiledTorchRuntime, TorchRuntime

__all__ = ["AUTO", "OPENVINO", "RUNTIMES", "TORCH", "find_runtime", "missing_packages", "require_packages", "runtime_names"]

TORCH, OPENVINO = TorchRuntime(), OpenVinoRuntime()

RUNTIMES: tuple[Runtime, ...] = (TORCH, CompiledTorchRuntime(), OPENVINO, OnnxRuntime())
"""In the order in which they are listed."""

AUTO = "auto"
"""Names no runtime, but the choice of one for a model, see :class:`~nnduet.runtimes.member_passes.MemberPasses`."""


def runtime_names() -> tuple[str, ...]:
    """What a user may name: "auto", then every runtime."""
    return (AUTO, *(runtime.name for runtime in RUNTIMES))


def find_runtime(name: str) -> Runtime | None:
    """The runtime of that name; None for "auto".

    Raises:
        SettingsError: there is none, or its packages are not installed.
    """
    if name not in runtime_names():
        raise SettingsError(f"runtime: expected one of {runtime_names()}, got {name!r}")
    found = next((runtime for runtime in RUNTIMES if runtime.name == name), None)
    if found is not None:
        require_packages(found)
    return found


def missing_packages(runtime: Runtime) -> list[str]:
    """Which of a runtime's packages are not installed; none is imported."""
    return [name for name in runtime.packages if importlib.util.find_spec(name) is None]


def require_packages(runtime: Runtime) -> None:
    """Refuse a runtime whose packages are not installed.

    Raises:
        SettingsError: with what to install.
    """
    missing = missing_packages(runtime)
    if missing:
        raise SettingsError(f"runtime {runtime.name}: needs {', '.join(missing)}; run `pip install nnduet[{runtime.name}]`")
