"""A model folder as training leaves it: checkpoints of tensors and plain values, read without running what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch

from nnduet.case_head.stored_heads import StoredHeads, parse_case_heads
from nnduet.errors import CorruptFileError, ModelError
from nnduet.io.checksums import sums_of, written_digest
from nnduet.model_store.model_files import (
    CARD_FILE,
    CASE_HEAD_FILE,
    CONFORMAL_FILE,
    CROSS_VALIDATION_FOLDER,
    FINAL_CHECKPOINT,
    ModelSource,
    Origin,
    StoredFold,
)
from nnduet.records import read_json
from nnduet.schema import Task, folds_with

__all__ = ["FolderFiles", "available_folds", "load_checkpoint", "read_case_heads"]

MOST_NAMES_OF_A_WEIGHT = 8
"""nnU-Net's decoders hold their encoder, and its blocks their convolutions twice, so that a file gives each weight 4 names."""

_SAFE_GLOBALS = [
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


def available_folds(folder: Path, checkpoint: str) -> list[str]:
    """Names after ``fold_`` of the folds that hold the checkpoint; numbers only, or "all" where there are none."""
    known = folds_with(folder, checkpoint)
    return [name for name in known if name != "all"] or known


class FolderFiles:
    """A model folder as training leaves it.

    Args:
        checkpoint: name of the weights' file of each fold.
    """

    def __init__(self, place: Path, checkpoint: str = FINAL_CHECKPOINT) -> None:
        self.place, self._checkpoint = place, checkpoint

    def folds(self) -> list[str]:
        return available_folds(self.place, self._checkpoint)

    def fold(self, name: str) -> StoredFold:
        path = self.place / f"fold_{name}" / self._checkpoint
        digest = _verified_digest(path)
        loaded = _read_checkpoint(path, mapped=is_zipfile(path))  # the optimiser's numbers, two thirds of it, stay unread
        axes = tuple(loaded.get("inference_allowed_mirroring_axes") or ())
        origin = Origin((path, self.place / "plans.json"), self.place / "converted", {path: digest} if digest else None)
        return StoredFold(loaded["network_weights"], loaded["init_args"]["configuration"], axes, origin)

    def source(self, folds: Sequence[str]) -> ModelSource:
        names = ["plans.json", "dataset.json", f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}"]
        names += [f"fold_{fold}/{name}" for fold in folds for name in (self._checkpoint, CASE_HEAD_FILE)]
        return ModelSource(self.place, {name: self.place / name for name in names if (self.place / name).is_file()})

    def card(self) -> bytes | None:
        path = self.place / CARD_FILE
        return path.read_bytes() if path.is_file() else None

    def json(self, name: str) -> dict[str, Any] | None:
        return _object_of(self.place / name)


def _object_of(path: Path) -> dict[str, Any] | None:
    return read_json(path, dict[str, Any], error=ModelError) if path.exists() else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read an nnU-Net checkpoint with ``weights_only=True``; code in it is never run.

    Raises:
        ModelError: the file is missing, truncated, or holds anything but tensors, numbers and plain containers.
        CorruptFileError: it is not what the checksum beside it says.
    """
    _verified_digest(path)
    return _read_checkpoint(path)


def _verified_digest(path: Path) -> str | None:
    """SHA-256 of a checkpoint, None for one without checksums; errors as :func:`load_checkpoint`."""
    if not path.is_file():
        raise ModelError(f"{path}: expected a checkpoint, found no file; has the training finished?")
    digest = written_digest(path)
    if digest is None and sums_of(path).is_file():
        raise CorruptFileError(f"{path}: its bytes changed after it was written: {sums_of(path).name} has another checksum")
    return digest


def _read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """A checkpoint whose checksum is right; with ``mapped`` only the weights are read now, the rest when asked for."""
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise ModelError(f"{path}: not a readable checkpoint of tensors and plain values: {error}") from error
    _check_checkpoint(checkpoint, path)
    if mapped:  # a copy, for the file may change
        checkpoint["network_weights"] = _copied(checkpoint["network_weights"])
    return checkpoint


def _copied(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of weights; one that has several names is copied once, and keeps them."""
    different = {_storage_of(tensor): tensor for tensor in weights.values()}
    copies = {storage: tensor.clone() for storage, tensor in different.items()}
    return {name: copies[_storage_of(tensor)] for name, tensor in weights.items()}


def _storage_of(tensor: torch.Tensor) -> tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _check_checkpoint(checkpoint: object, path: Path) -> None:
    """Refuse what is no checkpoint of nnU-Net, and tensors that claim more bytes than the file can have given them."""
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args"} <= set(checkpoint):
        raise ModelError(f"{path}: expected a checkpoint of nnU-Net with network_weights and init_args")
    weights, arguments = checkpoint["network_weights"], checkpoint["init_args"]
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ModelError(f"{path}: expected network_weights to be tensors by name")
    if not isinstance(arguments, dict) or not isinstance(arguments.get("configuration"), str):
        raise ModelError(f"{path}: expected init_args to name the configuration")
    axes = checkpoint.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(axes, list | tuple) or not all(type(axis) is int and 0 <= axis < 3 for axis in axes):
        raise ModelError(f"{path}: inference_allowed_mirroring_axes expected axes from 0 to 2, got {axes!r:.80}")
    promised, real = sum(tensor.nbytes for tensor in weights.values()), path.stat().st_size
    if promised > MOST_NAMES_OF_A_WEIGHT * real:
        raise CorruptFileError(f"{path}: its weights promise {promised} bytes, the file has {real}")


def read_case_heads(path: Path, tasks: tuple[Task, ...]) -> StoredHeads:
    """The content of a ``case_head.json``; no heads where there is no file.

    Raises:
        ModelError: a head does not fit its task.
    """
    return parse_case_heads(_object_of(path), tasks, str(path))
