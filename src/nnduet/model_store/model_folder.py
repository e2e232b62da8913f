"""Read a trained model without trusting it: JSON, weights-only checkpoints, case heads as numbers.

A model is a folder, as training leaves it, or a bundle, one file that ``nnduet export`` wrote; both offer :class:`ModelFiles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION
from nnduet.case_head.feature_layout import FeatureLayout
from nnduet.case_head.head import CaseHead
from nnduet.case_head.outliers import OutlierModel
from nnduet.case_head.stored_heads import conformal_scores, parse_case_heads
from nnduet.errors import ModelError
from nnduet.model_store.model_files import (
    CASE_HEAD_FILE,
    CONFORMAL_FILE,
    CROSS_VALIDATION_FOLDER,
    FINAL_CHECKPOINT,
    ModelFiles,
    ModelSource,
    Origin,
    StoredFold,
    fold_names,
)
from nnduet.model_store.model_network import layout_of, naming_the_model, network_for, read_configuration
from nnduet.model_store.plans import check_dataset, check_plans
from nnduet.network.heads import JointNetwork
from nnduet.network.network import PLANS_KEY
from nnduet.nnunet_types import Plans
from nnduet.schema import Task
from nnduet.task_list import tasks_from_json

__all__ = ["Member", "ModelFolder", "load_model"]


@dataclass(frozen=True)
class Member:
    """One fold of a model: its weights, what was fitted on the features of its training cases, and the files it came from.

    ``descriptors`` is the version of the descriptors that it was fitted on.
    """

    fold: str
    weights: dict[str, torch.Tensor]
    case_heads: dict[str, CaseHead]
    outliers: OutlierModel | None = None
    origin: Origin | None = None
    descriptors: int = DESCRIPTORS_VERSION


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
    tasks = _tasks_of(plans, place)
    manager, configuration = read_configuration(plans, first.configuration, dataset_json, place)
    with naming_the_model(place):
        network = network_for(manager, configuration, dataset_json, first.weights, place / f"fold_{names[0]}")
        layout = layout_of(network, manager.get_label_manager(dataset_json), dataset_json)
    members = _members(files, stored, tasks)
    for member in reversed(members):  # the first one stays loaded
        _fit_member(network, layout, member, place / f"fold_{member.fold}")
    scores = f"{CROSS_VALIDATION_FOLDER}/{CONFORMAL_FILE}"
    return ModelFolder(
        plans=manager,
        configuration=configuration,
        configuration_name=first.configuration,
        dataset_json=dataset_json,
        tasks=tasks,
        network=network,
        members=members,
        mirror_axes=first.mirror_axes,
        layout=layout,
        conformal=conformal_scores(files.json(scores), tasks, names, str(place / scores)),
        source=files.source(names),
    )


def _tasks_of(plans: Plans, place: Path) -> tuple[Task, ...]:
    """The tasks that the plans name; ModelError for plans of stock nnU-Net."""
    if not isinstance(plans.get(PLANS_KEY), dict):  # null where somebody emptied it
        raise ModelError(
            f'{place / "plans.json"}: expected an object "{PLANS_KEY}"; this model was not trained by nnDuet; `nnduet import` '
            "makes a model of it that segments"
        )
    return tasks_from_json(plans[PLANS_KEY]["tasks"], f"{place / 'plans.json'}: {PLANS_KEY}.tasks", error=ModelError)


def _members(files: ModelFiles, stored: Mapping[str, StoredFold], tasks: tuple[Task, ...]) -> tuple[Member, ...]:
    members = []
    for name, fold in stored.items():
        head = f"fold_{name}/{CASE_HEAD_FILE}"
        heads, outliers, descriptors = parse_case_heads(files.json(head), tasks, str(files.place / head))
        members.append(Member(name, fold.weights, heads, outliers, fold.origin, descriptors))
    return tuple(members)


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
