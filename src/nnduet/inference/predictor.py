"""Predict one case: a segmentation in the input's geometry and an answer per task, from one encoder pass per tile."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.head import describe_head
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.errors import ModelError, SettingsError
from nnduet.inference.case_features import CaseFeatures
from nnduet.inference.case_pass import CasePass, Tiling, voxel_scale
from nnduet.inference.labelling import to_labels
from nnduet.inference.memory import choose_accumulator, naming_shortage
from nnduet.inference.prediction import Origin, Prediction
from nnduet.inference.preprocessing import preprocess, preprocessed_shape
from nnduet.inference.task_predictions import TaskPrediction, answer, rows_of
from nnduet.io.case_inputs import ImageInput, open_case
from nnduet.io.images import Geometry
from nnduet.model_store.model_files import FINAL_CHECKPOINT
from nnduet.model_store.model_folder import ModelFolder, load_model
from nnduet.model_store.shipped_models import open_model
from nnduet.network.hardware import select_device
from nnduet.nnunet_types import CaseProperties
from nnduet.schema import Task

__all__ = ["Predictor", "Prepared"]


class Prepared(NamedTuple):
    """A case for the network: image (C, Z, Y, X), nnU-Net's properties, geometry of a file, type that logits add up in."""

    image: NDArray[np.float32]
    properties: CaseProperties
    geometry: Geometry | None = None
    accumulator: torch.dtype = torch.float32


class Predictor:
    """A loaded model. ``Predictor.load(folder)`` reads it, ``predictor(image)`` predicts one case.

    All folds are used: segmentation logits are averaged, class probabilities combined by their geometric mean, regression
    values averaged (docs/explanation-evidence.md, 9).

    Threads may share a predictor, and get the answers that they would get one after the other: they read, preprocess, describe
    and label side by side, and take turns in the network.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        step_size: distance of tiles as a share of the patch, in (0, 1].
        tta: mirror over the axes that training mirrored.
        error_rate: share of cases, in (0, 1), whose true class may lie outside the prediction set.
        runtime, precision: what computes the network, and in which number format, see
            :class:`~nnduet.runtimes.member_passes.MemberPasses`.
        fast: fewer tiles and no mirroring, see :func:`~nnduet.inference.sliding_window.predict_coarse_to_fine`; it goes
            before ``step_size`` and ``tta``, and costs accuracy.

    Raises:
        DatasetError: the masks of the model's dataset.json contradict the labels.
        SettingsError: impossible device, runtime, precision, step size or error rate.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        device: str = "auto",
        step_size: float = 0.5,
        tta: bool = True,
        error_rate: float = 0.1,
        runtime: str = "auto",
        precision: str = "auto",
        fast: bool = False,
    ) -> None:
        if not 0 < step_size <= 1:
            raise SettingsError(f"step_size: expected a share of the patch in (0, 1], got {step_size}")
        if not 0 < error_rate < 1:
            raise SettingsError(f"error_rate: expected a share of the cases in (0, 1), got {error_rate}")
        self.error_rate = error_rate
        self.model = model
        self.mask_codes = MaskCodes.from_json(model.dataset_json)
        self.label_manager = model.plans.get_label_manager(model.dataset_json)
        self.device = select_device(device)
        self.step_size = step_size
        self.fast = fast
        self.mirror_axes = model.mirror_axes if tta and not fast else ()
        tiling = Tiling(step_size, self.mirror_axes, fast)
        self.case_pass = CasePass(model, self.device, tiling, runtime=runtime, precision=precision)
        self.network, self.passes = self.case_pass.network, self.case_pass.passes

    def __repr__(self) -> str:
        model = self.model
        place = model.source.place if model.source else "a model in training"
        folds = ", ".join(member.fold for member in model.members)
        tasks = ", ".join(f"{task.name} ({task.type})" for task in self.tasks) or "none"
        labels = ", ".join(model.dataset_json["labels"])
        return (
            f"Predictor: {place}, {model.configuration_name}, folds {folds}\n"
            f"  {self.num_channels} channel(s), labels {labels}\n"
            f"  tasks {tasks}\n"
            f"  {self.passes.name} in {self.passes.precision} on {self.device}"
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        folds: Sequence[str | int] | None = None,
        *,
        checkpoint: str = FINAL_CHECKPOINT,
        **options: Any,
    ) -> Predictor:
        """Read a model folder written by training, a bundle, or a model that comes with nnDuet.

        Args:
            model: the folder, the file, or a name such as ``"lidc-nodule"``.
            folds: folds to combine, e.g. ``[0, 1]``; None takes all that are finished.
            checkpoint: of folders: name of the weights' file of each fold.
            options: those of the constructor.

        Raises:
            ModelError: there is no such model, it is incomplete, or it was not trained by nnDuet.
            CorruptFileError: the bundle is damaged.
            DatasetError: the masks of its dataset.json contradict the labels.
            SettingsError: impossible device, runtime, precision, step size or error rate.
        """
        return cls(load_model(open_model(model, checkpoint), folds), **options)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model answers."""
        return self.model.tasks

    @property
    def quantities(self) -> frozenset[str]:
        """Which of the quantities of :class:`~nnduet.inference.abstention.Abstention` this predictor can tell of some case."""
        members, classes = self.model.members, [task.name for task in self.tasks if task.is_classification]
        has_scores = any(name in self.model.conformal or all(name in m.case_heads for m in members) for name in classes)
        known = {
            "confidence": bool(classes),
            "set": has_scores,
            "spread": bool(self.tasks) and (len(members) > 1 or bool(self.mirror_axes)),
            "outlier": any(member.outliers for member in members),
        }
        return frozenset(name for name, is_known in known.items() if is_known)

    @property
    def file_ending(self) -> str:
        """Of the images and masks of the model's dataset."""
        return str(self.model.dataset_json["file_ending"])

    @property
    def mask_names(self) -> tuple[str, ...]:
        """The masks of a case, where it has several; else none."""
        return self.mask_codes.names if self.mask_codes else ()

    @property
    def num_channels(self) -> int:
        """Number of image channels the model expects."""
        return len(self.model.dataset_json["channel_names"])

    def __call__(
        self,
        image: ImageInput,
        *,
        spacing_mm: Sequence[float] | None = None,
        covariates: Mapping[str, float] | None = None,
    ) -> Prediction:
        """Predict a file, an image in memory, or a list of either by channel.

        An image of SimpleITK or nibabel gets the answer that its file on the disk would get, on the same grid.

        Args:
            image: a path, an array (Z, Y, X) or (C, Z, Y, X), a ``SimpleITK.Image``, an image of nibabel, or a list of paths
                or of such images in the order of the channels.
            spacing_mm: (Z, Y, X), needed for arrays.
            covariates: values of the model's covariates; one that is not given counts as usual.

        Raises:
            ModelError: wrong number of channels.
            GeometryError: channels disagree, or an array without spacing.
            SettingsError: another kind of image, or a spacing for one that says its own.
            ValuesError: float32 cannot hold the image's contrast, or something on the way to the answers is not finite.
            TooLargeError: the case needs more memory than is available.
            NNDuetError: the file is unreadable, corrupt or too large.
        """
        started, known = time.perf_counter(), dict(covariates or {})
        prediction = self.predict_preprocessed(*self.prepare(image, spacing_mm=spacing_mm), covariates=known)
        return replace(prediction, origin=Origin(self, image, spacing_mm, known, time.perf_counter() - started))

    def prepare(self, image: ImageInput, *, spacing_mm: Sequence[float] | None = None) -> Prepared:
        """Read and preprocess a case; arguments and errors as in a call. May run beside a prediction, in another thread."""
        case = open_case(image, spacing_mm, self.model.plans)
        self.check_channels(case.num_channels, case.name)
        accumulator = self._accumulator(case.shape, case.spacing_mm, case.name)
        with naming_shortage(case.name):
            data = case.read()
        with naming_shortage(f"image of {data.shape[1:]} voxels"):
            tensor, properties = preprocess(data, {"spacing": case.spacing_mm}, self.model.plans, self.model.configuration)
        return Prepared(tensor.numpy(), properties, case.geometry, accumulator)

    def _accumulator(self, shape: Sequence[int], spacing_mm: Sequence[float], source: str) -> torch.dtype:
        model = self.model
        return choose_accumulator(
            shape,
            preprocessed_shape(shape, spacing_mm, model.plans, model.configuration),
            channels=self.num_channels,
            outputs=self.label_manager.num_segmentation_heads,
            folds=len(model.members),
            source=source,
        )

    def check_channels(self, count: int, source: str) -> None:
        """Refuse a case with the wrong number of channels.

        Raises:
            ModelError: ``count`` differs from what the model was trained on.
        """
        if count != self.num_channels:
            names = list(self.model.dataset_json["channel_names"].values())
            raise ModelError(f"{source}: expected {self.num_channels} channel(s) {names}, got {count}")

    def predict_preprocessed(
        self,
        image: NDArray[np.float32],
        properties: CaseProperties,
        geometry: Geometry | None = None,
        accumulator: torch.dtype = torch.float32,
        *,
        covariates: Mapping[str, float],
    ) -> Prediction:
        """Predict an image (C, Z, Y, X) that nnU-Net's preprocessor wrote, with its properties."""
        z, y, x = (float(s) for s in properties["spacing"])
        with naming_shortage(f"image of {image.shape[1:]} voxels"):
            tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            logits, features = self.run_members(tensor, properties, covariates, accumulator)
            segmentation = to_labels(
                logits, properties, self.model.plans, self.model.configuration, self.label_manager, self.mask_codes
            )
        return Prediction(
            segmentation=segmentation,
            tasks=self._answers(features),
            spacing_mm=(z, y, x),
            geometry=geometry,
            features={m.fold: f.values()[0].astype(np.float32) for m, f in zip(self.model.members, features, strict=True)},
            outlier_score=self._outlier_score(features),
            masks=self.mask_codes.decode(segmentation) if self.mask_codes else {},
        )

    def run_members(
        self,
        image: torch.Tensor,
        properties: CaseProperties,
        covariates: Mapping[str, float],
        accumulator: torch.dtype = torch.float32,
    ) -> tuple[torch.Tensor, list[CaseFeatures]]:
        """Mean logits (K, Z, Y, X) over the folds, and the features that each fold has of the case."""
        return self.case_pass.run(image, properties, covariates, accumulator)

    def voxel_scale(self, properties: CaseProperties) -> float:
        """See :func:`~nnduet.inference.case_pass.voxel_scale`."""
        return voxel_scale(self.model, properties)

    @torch.inference_mode()
    def _answers(self, features: list[CaseFeatures]) -> dict[str, TaskPrediction]:
        rows = []
        for member, known in zip(self.model.members, features, strict=True):
            with self.case_pass.network_of(member) as network:
                rows.append(rows_of(network, member, known, self.tasks))
        members, scores = self.model.members, self.model.conformal
        return {
            task.name: answer(task, members, [fold[task.name] for fold in rows], self.error_rate, scores.get(task.name))
            for task in self.tasks
        }

    def _outlier_score(self, features: list[CaseFeatures]) -> float | None:
        pairs = zip(self.model.members, features, strict=True)
        scores = [member.outliers.score(known.values())[0] for member, known in pairs if member.outliers]
        return float(np.mean(scores)) if scores else None

    def head_used(self, task: Task) -> str:
        """What answers a task, e.g. "network head" or "case head (shrinkage LDA on shape) with 25 % network head"; folds that
        differ are joined by "; "."""
        return "; ".join(dict.fromkeys(describe_head(member.case_heads.get(task.name)) for member in self.model.members))
