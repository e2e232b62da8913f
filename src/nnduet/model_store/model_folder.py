"""Read a trained model without trusting it: JSON, weights-only checkpoints, case heads as numbers.

A model is a folder, as training leaves it, or a bundle, one file that ``nnduet export`` wrote; both offer :class:`ModelFiles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zipfile import is_zipfile

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.feature_layout import FeatureLayout
from nnduet.case_head.head import CaseHead
from nnduet.case_head.outliers import OutlierModel
from nnduet.case_head.stored_heads import conformal_scores, parse_case_heads
from nnduet.errors import CorruptFileError, ModelError
from nnduet.io.files import file_digest, sums_of, written_digest
from nnduet.model_store.model_network import layout_of, naming_the_model, network_for, read_configuration
from nnduet.model_store.plans import check_dataset, check_plans
from nnduet.names import printable
from nnduet.network.heads import JointNetwork
from nnduet.network.network import PLANS_KEY
from nnduet.records import read_json
from nnduet.schema import FOLD_NAME, Task, folds_with, tasks_from_json

__all__ = [
    "CARD_FILE",
    "CASE_HEAD_FILE",
    "CONFORMAL_FILE",
    "CROSS_VALIDATION_FOLDER",
    "FINAL_CHECKPOINT",
    "FolderFiles",
    "Member",
    "ModelFiles",
    "ModelFolder",
    "ModelSource",
    "Origin",
    "StoredFold",
    "available_folds",
    "fold_names",
    "load_checkpoint",
    "load_model",
    "read_case_heads",
]

CARD_FILE = "MODEL_CARD.md"
CASE_HEAD_FILE = "case_head.json"
CROSS_VALIDATION_FOLDER = "cross_validation"
CONFORMAL_FILE = "conformal.json"
FINAL_CHECKPOINT = "checkpoint_final.pth"
MOST_NAMES_OF_A_WEIGHT = 8
"""nnU-Net's decoders hold their encoder, and its blocks their convolutions twice, so that a file gives each weight 4 names."""

_SAFE_GLOBALS = [
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


class Origin:
    """The files that a fold was read from, and where a network that is converted from them may be kept.

    Args:
        known: SHA-256 of some of the files, which are then not read again for it.
    """

    def __init__(self, files: tuple[Path, ...], converted: Path, known: Mapping[Path, str] | None = None) -> None:
        self.files, self.converted, self._known = files, converted, known or {}

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of the files, read once, when first asked for."""
        return tuple(self._known.get(path) or file_digest(path) for path in self.files)


@dataclass(frozen=True)
class ModelSource:
    """Where a model was read from: its place, and by their names there the files that its answers come from."""

    place: Path
    files: Mapping[str, Path]

    def digests(self, known: Mapping[Path, str]) -> dict[str, str]:
        """SHA-256 by name; ``known`` has those of files that need not be read for it."""
        return {name: known.get(path) or file_digest(path) for name, path in self.files.items()}


class StoredFold(NamedTuple):
    """What the files of a fold hold."""

    weights: dict[str, torch.Tensor]
    configuration: str
    mirror_axes: tuple[int, ...]
    origin: Origin


class ModelFiles(Protocol):
    """The files of a model, wherever they are."""

    place: Path

    def folds(self) -> list[str]:
        """Names of the finished folds; numbers only, or "all" where there are none."""

    def fold(self, name: str) -> StoredFold:
        """Weights of a fold; ModelError where there are none."""

    def source(self, folds: Sequence[str]) -> ModelSource:
        """The files that the answers of these folds come from."""

    def card(self) -> bytes | None:
        """Text of the model card, if there is one."""

    def json(self, name: str) -> dict[str, Any] | None:
        """The object of a JSON file by its path in the model, e.g. "fold_0/case_head.json"; None where there is no file."""


@dataclass(frozen=True)
class Member:
    """One fold of a model: its weights, what was fitted on the features of its training cases, and the files it came from."""

    fold: str
    weights: dict[str, torch.Tensor]
    case_heads: dict[str, CaseHead]
    outliers: OutlierModel | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class ModelFolder:
    """Everything prediction needs; the network carries the first member's weights.

    ``conformal`` has {task: nonconformity (N,) of cross-validated cases} where there are several members, all of which took
    part in the cross-validation; see :func:`conformal_scores`. ``source`` is None for a model that is being trained.
    """

    plans: Any
    configuration: Any
    configuration_name: str
    dataset_json: dict[str, Any]
    tasks: tuple[Task, ...]
    network: JointNetwork
    members: tuple[Member, ...]
    mirror_axes: tuple[int, ...]
    layout: FeatureLayout
    conformal: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    source: ModelSource | None = None

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file that the answers come from, by its name in the model; nothing for a model in training."""
        if self.source is None:
            return {}
        origins = [member.origin for member in self.members if member.origin]
        known = {path: digest for origin in origins for path, digest in zip(origin.files, origin.digests, strict=True)}
        return self.source.digests(known)


def available_folds(folder: Path, checkpoint: str) -> list[str]:
    """Names after ``fold_`` of the folds that hold the checkpoint; numbers only, or "all" where there are none."""
    known = folds_with(folder, checkpoint)
    return [name for name in known if name != "all"] or known


def fold_names(folds: Sequence[str | int]) -> list[str]:
    """Folds as they stand in the names of folders, e.g. ``["0", "all"]``.

    Raises:
        ModelError: one is neither a number nor "all", or stands twice.

    Examples:
        >>> fold_names([0, "all"])
        ['0', 'all']
    """
    names = [str(fold) for fold in folds]
    wrong = [name for name in names if not FOLD_NAME.fullmatch(name)]
    if wrong or len(set(names)) < len(names):
        raise ModelError(f'folds: expected different numbers, or "all", got {printable(repr(names)[:200])}')
    return names


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
        checkpoint["network_weights"] = {key: tensor.clone() for key, tensor in checkpoint["network_weights"].items()}
    return checkpoint


def _check_checkpoint(checkpoint: Any, path: Path) -> None:
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


def load_model(files: ModelFiles, folds: Sequence[str | int] | None = None) -> ModelFolder:
    """Read plans, dataset, weights and case heads.

    Args:
        folds: names of folds; None takes every one that is finished.

    Raises:
        ModelError: something is missing, or was trained without nnDuet.
    """
    place = files.place
    dataset_json = check_dataset(_required(files, "dataset.json"), str(place / "dataset.json"))
    num_channels = len(dataset_json["channel_names"])
    plans = check_plans(_required(files, "plans.json"), num_channels, str(place / "plans.json"))
    names = fold_names(folds) if folds else files.folds()
    if not names:
        raise ModelError(f"{place}: expected fold_*/{FINAL_CHECKPOINT}, found none; has the training finished?")
    stored = {name: files.fold(name) for name in names}
    first = stored[names[0]]
    if not isinstance(plans.get(PLANS_KEY), dict):  # null where somebody emptied it
        raise ModelError(
            f'{place / "plans.json"}: expected an object "{PLANS_KEY}"; this model was not trained by nnDuet; `nnduet import` '
            "makes a model of it that segments"
        )
    tasks = tasks_from_json(plans[PLANS_KEY]["tasks"], f"{place / 'plans.json'}: {PLANS_KEY}.tasks", error=ModelError)
    manager, configuration = read_configuration(plans, first.configuration, dataset_json, place)
    with naming_the_model(place):
        network = network_for(manager, configuration, dataset_json, first.weights, place / f"fold_{names[0]}")
        layout = layout_of(network, manager.get_label_manager(dataset_json), dataset_json)
    members = []
    for name, fold in stored.items():
        head = f"fold_{name}/{CASE_HEAD_FILE}"
        heads, outliers = parse_case_heads(files.json(head), tasks, str(place / head))
        members.append(Member(name, fold.weights, heads, outliers, fold.origin))
    for member in reversed(members):  # the first one stays loaded
        _fit_member(network, layout, member, place / f"fold_{member.fold}")
    scores = f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}"
    conformal = conformal_scores(files.json(scores), tasks, names, str(place / scores))
    return ModelFolder(
        manager,
        configuration,
        first.configuration,
        dataset_json,
        tasks,
        network,
        tuple(members),
        first.mirror_axes,
        layout,
        conformal,
        files.source(names),
    )


def _required(files: ModelFiles, name: str) -> dict[str, Any]:
    found = files.json(name)
    if found is None:
        raise ModelError(f"{files.place / name}: expected a file of a trained model, found none")
    return found


def _fit_member(network: JointNetwork, layout: FeatureLayout, member: Member, source: Path) -> None:
    """Load a fold's weights and compare the columns of its heads, so that what does not fit is known before any case."""
    try:
        network.load_weights(member.weights)
    except RuntimeError as error:
        raise ModelError(f"{source}: the weights do not fit the plans: {str(error)[:300]}") from error
    for name, tensor in network.state_dict().items():  # as the network has them: float64 may lie beyond float32
        if not (torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all()):  # the sum is cheap, but may overflow by itself
            raise ModelError(f"{source}: weight {name}: expected finite numbers, got NaN or infinity")
    for name, head in member.case_heads.items():
        if head.columns.max() >= layout.size:
            raise ModelError(
                f"{source}: case head of task {name}: expected {layout.size} features, got column {head.columns.max()}"
            )
    if member.outliers and member.outliers.mean.size != layout.size:
        raise ModelError(f"{source}: outlier model: expected {layout.size} features, got {member.outliers.mean.size}")


def read_case_heads(path: Path, tasks: tuple[Task, ...]) -> tuple[dict[str, CaseHead], OutlierModel | None]:
    """{task: case head} and the outlier model of a ``case_head.json``; nothing where there is no file.

    Raises:
        ModelError: a head does not fit its task.
    """
    return parse_case_heads(_object_of(path), tasks, str(path))
