"""Read a trained model folder without trusting it: JSON, weights-only checkpoints, case heads as numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnduet.errors import ModelError
from nnduet.inference.case_features import FeatureLayout
from nnduet.model.case_head import CaseHead
from nnduet.model.heads import JointNetwork
from nnduet.model.network import PLANS_KEY, build_joint_network
from nnduet.model.outliers import OutlierModel
from nnduet.schema import Task, tasks_from_json

__all__ = [
    "CASE_HEAD_FILE",
    "CONFORMAL_FILE",
    "CROSS_VALIDATION_FOLDER",
    "Member",
    "ModelFolder",
    "available_folds",
    "layout_of",
    "load_checkpoint",
    "load_model_folder",
    "read_case_heads",
    "read_conformal_scores",
]

CASE_HEAD_FILE = "case_head.json"
CROSS_VALIDATION_FOLDER = "cross_validation"
CONFORMAL_FILE = "conformal.json"

_SAFE_GLOBALS = [
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
]


@dataclass(frozen=True)
class Member:
    """One fold of a model: its weights, what was fitted on the features of its training cases, and the file it came from."""

    fold: str
    weights: dict[str, torch.Tensor]
    case_heads: dict[str, CaseHead]
    outliers: OutlierModel | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True)
class ModelFolder:
    """Everything prediction needs; the network carries the first member's weights.

    ``conformal`` has {task: nonconformity (N,) of cross-validated cases} where there are several members, all of which took
    part in the cross-validation; see :func:`read_conformal_scores`.
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


def available_folds(folder: Path, checkpoint: str) -> list[str]:
    """Names after ``fold_`` of the folds that hold the checkpoint; numbers only, or "all" where there are none."""
    names = sorted(p.parent.name.removeprefix("fold_") for p in folder.glob(f"fold_*/{checkpoint}"))
    return [n for n in names if n != "all"] or names


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read an nnU-Net checkpoint with ``weights_only=True``; code in it is never run.

    Raises:
        ModelError: the file is missing, truncated, or holds anything but tensors, numbers and plain containers.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a checkpoint, found no file; has the training finished?")
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: not a readable checkpoint of tensors and plain values: {error}") from error
    if not isinstance(checkpoint, dict) or not {"network_weights", "init_args"} <= set(checkpoint):
        raise ModelError(f"{path}: expected a checkpoint of nnU-Net with network_weights and init_args")
    return checkpoint


def load_model_folder(folder: Path, folds: Sequence[str | int] | None, checkpoint: str) -> ModelFolder:
    """Read plans, dataset, checkpoints and case heads.

    Args:
        folds: names after ``fold_``; None takes every fold that has the checkpoint.

    Raises:
        ModelError: something is missing, or was trained without nnDuet.
    """
    plans, dataset_json = (_read_json(folder / name) for name in ("plans.json", "dataset.json"))
    names = [str(f) for f in folds] if folds else available_folds(folder, checkpoint)
    if not names:
        raise ModelError(f"{folder}: expected fold_*/{checkpoint}, found none; has the training finished?")
    checkpoints = [load_checkpoint(folder / f"fold_{name}" / checkpoint) for name in names]
    if PLANS_KEY not in plans:
        raise ModelError(f'{folder / "plans.json"}: expected an object "{PLANS_KEY}"; this model was not trained by nnDuet')
    tasks = tasks_from_json(plans[PLANS_KEY]["tasks"])
    manager = PlansManager(plans)
    name = checkpoints[0]["init_args"]["configuration"]
    configuration = manager.get_configuration(name)
    network = build_joint_network(
        manager,
        configuration,
        determine_num_input_channels(manager, configuration, dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        deep_supervision=False,
    )
    assert isinstance(network, JointNetwork)
    layout = layout_of(network, manager.get_label_manager(dataset_json), dataset_json)
    members = tuple(
        Member(
            fold,
            loaded["network_weights"],
            *read_case_heads(folder / f"fold_{fold}" / CASE_HEAD_FILE, tasks),
            folder / f"fold_{fold}" / checkpoint,
        )
        for fold, loaded in zip(names, checkpoints, strict=True)
    )
    for member in reversed(members):  # the first one stays loaded
        _fit_member(network, layout, member, folder / f"fold_{member.fold}")
    axes = tuple(int(a) for a in checkpoints[0].get("inference_allowed_mirroring_axes") or ())
    conformal = read_conformal_scores(folder / CROSS_VALIDATION_FOLDER / CONFORMAL_FILE, tasks, names)
    return ModelFolder(manager, configuration, name, dataset_json, tasks, network, members, axes, layout, conformal)


def layout_of(network: JointNetwork, label_manager: Any, dataset_json: dict[str, Any]) -> FeatureLayout:
    """Where the features of a case stand, from the network's blocks, the foreground regions and the covariates."""
    regions = label_manager.foreground_regions if label_manager.has_regions else label_manager.foreground_labels
    return FeatureLayout.of(
        network, [str(r) for r in regions], len(dataset_json["channel_names"]), dataset_json.get("covariates", [])
    )


def _fit_member(network: JointNetwork, layout: FeatureLayout, member: Member, source: Path) -> None:
    """Load a fold's weights and compare the columns of its heads, so that what does not fit is known before any case."""
    try:
        network.load_weights(member.weights)
    except RuntimeError as error:
        raise ModelError(f"{source}: the weights do not fit the plans: {str(error)[:300]}") from error
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
    if not path.is_file():
        return {}, None
    stored = _read_json(path)
    if not isinstance(stored, dict) or not isinstance(stored.get("tasks"), dict):
        raise ModelError(f'{path}: expected an object with "tasks"; fit the heads again with `nnduet fit-head`')
    heads = {task.name: CaseHead.from_json(task, stored["tasks"][task.name]) for task in tasks if task.name in stored["tasks"]}
    return heads, OutlierModel.from_json(stored["outliers"]) if stored.get("outliers") else None


def read_conformal_scores(path: Path, tasks: tuple[Task, ...], folds: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """{task: nonconformity (N,) of cross-validated cases} for an ensemble of folds; nothing where there is no file.

    The scores speak for several folds together, of which each took part in the cross-validation. For a single fold, or with a
    fold that took no part, there are none, and the folds' own scores hold.

    Raises:
        ModelError: the file is no object of tasks, or a task lacks folds or finite scores.
    """
    if not path.is_file():
        return {}
    stored = _read_json(path)
    if not isinstance(stored, dict):
        raise ModelError(f"{path}: expected an object of tasks; make it again with `nnduet cross-validate --resume`")
    found = {task.name: _conformal_entry(stored[task.name], f"{path}: {task.name}") for task in tasks if task.name in stored}
    return {name: scores for name, (known, scores) in found.items() if len(folds) > 1 and set(folds) <= known}


def _conformal_entry(entry: Any, place: str) -> tuple[set[str], NDArray[np.float64]]:
    """The folds and the scores (N,) of one task."""
    try:
        known, scores = {str(fold) for fold in entry["folds"]}, np.asarray(entry["scores"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{place}: expected folds and scores, got {error!r}") from error
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ModelError(f"{place}: expected a list of finite scores, got shape {scores.shape}")
    return known, scores


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: expected a file of a trained model, found none") from error
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from error
    return loaded
