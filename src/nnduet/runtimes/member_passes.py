"""What computes the network: torch, OpenVINO, or ONNX Runtime, behind one call.

A runtime takes patches and gives logits and pooled sums from one pass of the encoder; everything else of a prediction is the
same for all of them. The graph that is converted has both outputs, so that the class costs no second pass.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import mmap
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnduet.errors import SettingsError
from nnduet.model_store.model_folder import Member, ModelFolder
from nnduet.network.hardware import select_precision
from nnduet.network.heads import JointNetwork
from nnduet.network.pooling import PooledSums
from nnduet.process import import_quietly
from nnduet.runtimes.converted import ConvertedNetworks
from nnduet.runtimes.graphs import PACKAGES
from nnduet.runtimes.joint_pass import JointPass

__all__ = [
    "RUNTIMES",
    "MemberPasses",
    "compiled_pass",
    "num_streams",
    "onnx_pass",
    "openvino_pass",
    "patches_per_pass",
    "require_packages",
    "torch_pass",
]

RUNTIMES = ("auto", "torch", "torch-compile", "openvino", "onnx")

BATCH_VOXELS = {"cpu": 2**19, "cuda": 2**22}
"""Patches go through the network together up to this many voxels; small ones alone do not fill the processor."""

WORTH_CONVERTING = 5_000_000
"""Parameters from which on "auto" converts a network by itself: a small one predicts a case sooner than it is converted."""


class MemberPasses:
    """What computes the patches of each fold of a model.

    Converted networks are kept, see :class:`~nnduet.runtimes.converted.ConvertedNetworks`. Where none can be, torch computes,
    with a warning.

    Args:
        wanted: one of :data:`RUNTIMES`. "auto" is OpenVINO on CPUs if it is installed and the network is large or has been
            converted before, else torch. "torch-compile" is torch with code that it compiles for the network.
        num_mirrored: passes per tile.
        precision: number format, see :func:`~nnduet.network.hardware.select_precision`; ONNX Runtime has float32 only.

    Raises:
        SettingsError: an unknown name, a package that is not installed, another runtime than torch on a device that is no CPU,
            or for a model that is not on disk.
    """

    def __init__(
        self, model: ModelFolder, device: torch.device, wanted: str, num_mirrored: int, precision: str = "auto"
    ) -> None:
        self.network, self.device, self.name = model.network, device, _check(wanted, device, model.members)
        patch = tuple(model.configuration.patch_size)
        batch = patches_per_pass(patch, num_mirrored, device)
        self.shape = (batch, len(model.dataset_json["channel_names"]), *patch)
        self._opened: dict[str, JointPass] = {}
        self._compiled: JointPass | None = None
        self._alone = len(model.members) == 1
        self.precision = "float32" if self.name == "onnx" and precision == "auto" else select_precision(precision, device)
        runtime = self.name if self.name in PACKAGES else "openvino"
        self._converted = ConvertedNetworks(self.network, runtime, self.shape, self.precision)
        if self.name == "auto":
            self.name = _choose(self.network, device, model.members, self._converted)
        if (self.name == "onnx" and self.precision != "float32") or (self.name == "openvino" and self.precision == "float16"):
            raise SettingsError(f"precision: runtime {self.name} on CPUs does not compute in {self.precision}")
        self._streams = num_streams(self.name, self.precision, num_mirrored // batch)

    @property
    def num_patches(self) -> int:
        """How many patches a pass is given at most."""
        return int(self.shape[0] * self._streams)

    def of(self, member: Member) -> JointPass:
        """What computes patches for a fold whose weights are in the network; it holds until another fold's are."""
        if self.name in PACKAGES and member.fold not in self._opened:
            self._open(member)
        if self.name == "torch":
            return torch_pass(self.network.forward_joint, self.device, self.precision)
        if self.name == "torch-compile":
            self._compiled = self._compiled or compiled_pass(self.network)
            return torch_pass(self._compiled, self.device, self.precision)
        return self._opened[member.fold]

    def _open(self, member: Member) -> None:
        """Open the converted network of a fold; where it can be kept nowhere, torch computes from now on."""
        path = self._converted.path_of(member)
        if path is None:
            text = f"runtime {self.name}: no folder takes the converted network, torch computes; set TMPDIR to one with room"
            warnings.warn(text, stacklevel=2)
            self.name, self._streams = "torch", 1
            return
        if self.name == "openvino":
            self._opened[member.fold] = openvino_pass(path, self.shape, self.precision, self._streams)
        else:
            self._opened[member.fold] = onnx_pass(path, self.shape)
        if self._alone:
            _release(self.network)


def _choose(network: JointNetwork, device: torch.device, members: Sequence[Member], kept: ConvertedNetworks) -> str:
    """What "auto" is; ``kept`` are networks that OpenVINO could compute."""
    if device.type != "cpu" or importlib.util.find_spec("openvino") is None:
        return "torch"
    if any(member.origin is None for member in members):
        return "torch"
    large = sum(p.numel() for p in network.parameters()) >= WORTH_CONVERTING
    return "openvino" if large or all(kept.seems_kept(member) for member in members) else "torch"


def _release(network: JointNetwork) -> None:
    """Free the weights of encoder and decoder, which the converted network holds a copy of; the heads stay."""
    for module in (network.encoder, network.decoder):
        for parameter in module.parameters():
            parameter.data = parameter.data.new_empty(0)


def require_packages(runtime: str) -> None:
    """Refuse a runtime whose packages are not installed.

    Raises:
        SettingsError: with what to install.
    """
    missing = [name for name in PACKAGES.get(runtime, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(f"runtime {runtime}: needs {', '.join(missing)}; run `pip install nnduet[{runtime}]`")


def _check(wanted: str, device: torch.device, members: Sequence[Member]) -> str:
    if wanted not in RUNTIMES:
        raise SettingsError(f"runtime: expected one of {RUNTIMES}, got {wanted!r}")
    require_packages(wanted)
    if wanted in PACKAGES and device.type != "cpu":
        raise SettingsError(f"runtime {wanted}: computes on CPUs, got device {device.type}; use torch")
    if wanted in PACKAGES and any(member.origin is None for member in members):
        raise SettingsError(f"runtime {wanted}: converts models that are on disk; use torch for one that is being trained")
    return wanted


def patches_per_pass(patch_size: Sequence[int], num_mirrored: int, device: torch.device) -> int:
    """How many patches go through the network together: a power of two, on CPUs no more than the mirrored versions of one."""
    limit = BATCH_VOXELS.get(device.type, BATCH_VOXELS["cpu"]) // math.prod(patch_size)
    if device.type == "cpu":
        limit = min(limit, num_mirrored)
    return 1 << max(limit, 1).bit_length() - 1


def num_streams(runtime: str, precision: str, num_batches: int) -> int:
    """How many of a tile's batches are computed side by side, each with its share of the threads: 1 or 2.

    Two where OpenVINO computes in bfloat16: while one's norms wait for memory, the other's convolutions multiply. In float32,
    where products take most of the time, two take as long as one after the other, and twice the memory.
    """
    return 2 if runtime == "openvino" and precision == "bfloat16" and num_batches > 1 and torch.get_num_threads() > 1 else 1


def torch_pass(compute: JointPass, device: torch.device, precision: str = "float32") -> JointPass:
    """``compute``, which is ``network.forward_joint`` or :func:`compiled_pass` of it, in one of torch's number formats."""

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
    from torch._dynamo.exc import TorchDynamoException  # imports torch's compiler, which takes a second

    compiled = torch.compile(network.forward_joint, dynamic=False)

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        try:
            return compiled(patches, shares)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise SettingsError(f"runtime torch-compile: torch could not compile the network: {reason}; use torch") from error

    return run


def openvino_pass(path: Path, shape: Sequence[int], precision: str = "float32", streams: int = 1) -> JointPass:
    """A converted network compiled by OpenVINO.

    Args:
        path: ``.xml`` of the converted network, beside its ``.bin``.
        shape: (B, C, *patch) of a full batch.
        precision: "float32" or "bfloat16".
        streams: batches that are computed side by side; the pass takes at most so many.
    """
    ov = import_quietly("openvino")
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": streams,
    }
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    _let_go_of_files(path.parent.resolve())
    requests = [compiled.create_infer_request() for _ in range(streams)]
    joined = [np.empty((streams * output.shape[0], *output.shape[1:]), np.float32) for output in compiled.outputs]
    for index, request in enumerate(requests):  # each writes its rows, so that nothing is copied afterwards
        for output, rows in zip(compiled.outputs, joined, strict=True):
            own = rows[index * shape[0] : (index + 1) * shape[0]]
            request.set_tensor(output, ov.Tensor(own, shared_memory=True))

    def compute(batches: list[list[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        used = requests[: len(batches)]
        for request, batch in zip(used, batches, strict=True):
            request.start_async(batch)
        for request in used:
            request.wait()
        return joined

    return _from_arrays(compute, shape[0])


def _let_go_of_files(folder: Path) -> None:
    """Free the memory of files of the folder that are mapped for reading: OpenVINO keeps the weights so, beside its own copies
    in the layout that it computes with. What is needed again is read again. On Linux; elsewhere, and where a sandbox does not
    tell what is mapped, nothing happens."""
    if sys.platform != "linux" or not hasattr(psutil.Process, "memory_maps"):
        return
    libc = ctypes.CDLL(None)
    for part in psutil.Process().memory_maps(grouped=False):
        if Path(part.path).parent == folder and "w" not in part.perms:
            start, end = (int(address, 16) for address in part.addr.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def onnx_pass(path: Path, shape: Sequence[int]) -> JointPass:
    """A converted network computed by ONNX Runtime in float32; as :func:`openvino_pass`, but ``path`` ends in .onnx."""
    onnxruntime = import_quietly("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [output.name for output in session.get_outputs() if not output.name.startswith("task_")]

    def compute(batches: list[list[NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
        outputs = [session.run(wanted, {"image": patches, "share": shares}) for patches, shares in batches]
        return [np.concatenate(same) for same in zip(*outputs, strict=True)]

    return _from_arrays(compute, shape[0])


def _from_arrays(compute: Any, batch: int) -> JointPass:
    """A pass over batches of exactly ``batch`` patches, as arrays, as one over tensors of any number of patches."""

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        parts = [
            [_filled(part, batch).numpy() for part in pair]
            for pair in zip(torch.split(patches, batch), torch.split(shares, batch), strict=True)
        ]
        logits, volumes, *numerators = (torch.from_numpy(rows)[: len(patches)] for rows in compute(parts))
        return logits, PooledSums(tuple(numerators), volumes)

    return run


def _filled(patches: Tensor, batch: int) -> Tensor:
    missing = batch - len(patches)
    return torch.cat([patches, patches[:1].expand(missing, *patches.shape[1:])]) if missing else patches
