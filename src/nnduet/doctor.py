"""Look at this machine and say what would stop nnDuet, before a long run does."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from nnduet.records import to_plain
from nnduet.schema import Workspace

__all__ = ["Check", "Diagnosis", "diagnose"]

Status = Literal["PASS", "WARN", "FAIL"]

_PACKAGES = ("nnduet", "nnunetv2", "torch", "SimpleITK", "scikit-learn")
_NNUNET_RELEASES = "2.8."  # 2.8.1 or later, before 2.9; the trainer's seams move between minor releases
_GIB = 2**30
_MIN_DISK_GIB, _GOOD_DISK_GIB = 1.0, 20.0
_MIN_MEMORY_GIB, _GOOD_MEMORY_GIB = 1.0, 4.0


@dataclass(frozen=True)
class Check:
    """One row: what was looked at, how it stands, and the detail a person needs."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Diagnosis:
    """All rows, in the order in which they were looked at."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no row failed; warnings pass."""
        return all(check.status != "FAIL" for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """``{"passed": …, "checks": [{"name", "status", "detail"}]}``."""
        return {"passed": self.passed, "checks": to_plain(self.checks)}


def diagnose(environment: Mapping[str, str], default: Path) -> Diagnosis:
    """Run every check; takes a few seconds, most of them to import torch.

    Args:
        environment: where the nnU-Net variables are looked up, usually ``os.environ``.
        default: the folder that stands in for unset variables.
    """
    workspace = Workspace.from_environment(environment, default)
    checks = [_python(), *map(_package, _PACKAGES)]
    checks += [_cpu(), *_guarded("accelerators", _accelerators), _guarded("torchvision", _torchvision)[0]]
    checks += [_disk(workspace.results), _memory(), *_folders(workspace, environment)]
    checks += [*_guarded("temporary files", _temporary), *_guarded("converted networks", _cache)]
    checks += _guarded("self-test: network", _network_test) + _guarded("self-test: NIfTI", _nifti_test)
    return Diagnosis(tuple(checks))


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """The rows of ``look``; one FAIL row if it raises, for a broken installation can raise anything."""
    try:
        return list(look())
    except Exception as error:
        return [Check(name, "FAIL", f"{type(error).__name__}: {error}")]


def _python() -> Check:
    return Check(
        "python", "PASS" if sys.version_info >= (3, 10) else "FAIL", f"{platform.python_version()}, {platform.platform()}"
    )


def _package(name: str) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "FAIL", f"not installed; `pip install {name}`")
    if name == "nnunetv2" and (not found.startswith(_NNUNET_RELEASES) or found == "2.8.0"):
        return Check(name, "FAIL", f"expected >=2.8.1,<2.9, got {found}")
    return Check(name, "PASS", found)


def _cpu() -> Check:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("cpu", "PASS", f"{affinity} cores usable, {platform.machine()}")


def _accelerators() -> Iterator[Check]:
    import torch

    from nnduet.network.hardware import autocast_dtype, cpu_has_bf16, select_device

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Check(f"cuda:{index}", "PASS", f"{properties.name}, {properties.total_memory / _GIB:.1f} GiB")
    if not torch.cuda.is_available():
        yield Check("cuda", "WARN", "no CUDA device: training takes the `cpu` preset; the ResEnc presets need a GPU")
    if torch.backends.mps.is_available():
        yield Check("mps", "WARN", "available, never taken by `--device auto`; untested")
    yield Check("bf16 on the CPU", "PASS", "in hardware" if cpu_has_bf16() else "not in hardware: the CPU computes in float32")
    device = select_device("auto")
    yield Check("device auto", "PASS", f"{device}, computes in {autocast_dtype(device) or torch.float32}")


def _torchvision() -> Iterator[Check]:
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        advice = (
            "nnDuet's own commands do not need it; stock `nnUNetv2_train -tr …` does (trainer look-up imports timm). "
            "Install the torchvision build that belongs to this torch"
        )
        yield Check("torchvision", "WARN", f"does not import ({type(error).__name__}: {error}). {advice}")
    else:
        yield Check("torchvision", "PASS", "imports")


def _disk(folder: Path) -> Check:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free / _GIB
    return Check("free disk", _level(free, _MIN_DISK_GIB, _GOOD_DISK_GIB), f"{free:.1f} GiB at {existing}")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / _GIB
    return Check("free memory", _level(free, _MIN_MEMORY_GIB, _GOOD_MEMORY_GIB), f"{free:.1f} GiB")


def _level(value: float, minimum: float, good: float) -> Status:
    if value < minimum:
        return "FAIL"
    return "PASS" if value >= good else "WARN"


def _folders(workspace: Workspace, environment: Mapping[str, str]) -> Iterator[Check]:
    for name, folder in workspace.environment().items():
        path = Path(folder)
        if path.exists() and not (path.is_dir() and os.access(path, os.W_OK)):
            yield Check(name, "FAIL", f"{path}: expected a folder that can be written to")
        elif not environment.get(name):
            yield Check(name, "WARN", f"not set: nnDuet uses {path}; stock nnU-Net commands need the variable")
        else:
            yield Check(name, "PASS", f"{path}" if path.exists() else f"{path} (will be made)")


def _temporary() -> Iterator[Check]:
    try:
        yield Check("temporary files", "PASS", tempfile.gettempdir())
    except FileNotFoundError as error:
        yield Check("temporary files", "FAIL", f"{error.strerror}; set TMPDIR to a folder that can be written to")


def _cache() -> Iterator[Check]:
    """Where networks are kept that were converted for OpenVINO or ONNX Runtime and cannot lie beside their model."""
    from nnduet.runtimes.cache_folder import cache_folder

    try:
        folder, lack = cache_folder(), ""
    except FileNotFoundError as error:
        folder, lack = Path(), str(error)
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    if not lack and not (existing.is_dir() and os.access(existing, os.W_OK)):
        lack = f"{folder} cannot be written to"
    detail = f"{lack}: where the model's folder is read-only, too, each run converts again; set HOME or XDG_CACHE_HOME"
    yield Check("converted networks", "WARN" if lack else "PASS", detail if lack else f"beside their model, else in {folder}")


def _network_test() -> Iterator[Check]:
    """One training step of a tiny convolution net on the device that ``auto`` picks."""
    import torch

    from nnduet.network.hardware import select_device

    device = select_device("auto")
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.InstanceNorm3d(4), torch.nn.Conv3d(4, 2, 1)).to(
        device
    )
    loss = net(torch.linspace(-1, 1, 16**3, device=device).reshape(1, 1, 16, 16, 16)).square().mean()
    loss.backward()
    gradients = [parameter.grad for parameter in net.parameters()]
    finite = bool(loss.isfinite()) and all(g is not None and bool(g.isfinite().all()) for g in gradients)
    detail = f"forward and backward on {device} " + ("are finite" if finite else "gave NaN or infinity")
    yield Check("self-test: network", "PASS" if finite else "FAIL", detail)


def _nifti_test() -> Iterator[Check]:
    """Write a small volume as .nii.gz and read it back."""
    import numpy as np
    import SimpleITK

    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "case_0000.nii.gz")
        SimpleITK.WriteImage(image, path)
        back = SimpleITK.ReadImage(path)
    same = np.array_equal(SimpleITK.GetArrayFromImage(back), array) and np.allclose(back.GetSpacing(), image.GetSpacing())
    yield Check(
        "self-test: NIfTI", "PASS" if same else "FAIL", f"voxels and spacing {'survive' if same else 'change in'} a round trip"
    )
