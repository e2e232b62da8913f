"""Predict one case: a segmentation in the input's geometry and an answer per task, from one encoder pass per tile."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from nnduet.data.images import Geometry, ImageHeader, check_same_geometry, inspect_image, read_image, write_image
from nnduet.data.mask_codes import MaskCodes
from nnduet.errors import GeometryError, ModelError, SettingsError
from nnduet.inference.mask_logits import MaskLogits
from nnduet.inference.model_folder import Member, ModelFolder, load_model_folder
from nnduet.inference.sliding_window import predict_tiles
from nnduet.model.hardware import autocast_dtype, select_device
from nnduet.model.heads import JointNetwork, task_probabilities
from nnduet.model.pooling import PooledSums
from nnduet.schema import Task

__all__ = ["Prediction", "Predictor", "TaskPrediction"]

_READERS = ("SimpleITKIO", "NaturalImage2DIO")


@dataclass(frozen=True)
class TaskPrediction:
    """Answer to one task: ``label`` and class probabilities that sum to one, or ``value`` in the task's unit."""

    label: str | None
    value: float | None
    probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The label, or the value with six significant digits."""
        return self.label if self.label is not None else f"{self.value:.6g}"


@dataclass(frozen=True)
class Prediction:
    """What the model says of one case.

    Attributes:
        segmentation: (Z, Y, X) integer labels on the grid of the input; codes of all masks where cases have several.
        tasks: {task name: answer}.
        spacing_mm: (Z, Y, X).
        geometry: of the input file; None for arrays.
        features: {fold: (F,) pooled features of the case}, float32.
        masks: {mask name: (Z, Y, X) integer labels} for models of several masks, else empty.
    """

    segmentation: NDArray[np.integer[Any]]
    tasks: dict[str, TaskPrediction]
    spacing_mm: tuple[float, float, float]
    geometry: Geometry | None
    features: dict[str, NDArray[np.float32]]
    masks: dict[str, NDArray[np.integer[Any]]] = field(default_factory=dict)


class Predictor:
    """A loaded model. ``Predictor.load(folder)`` reads it, ``predictor(image)`` predicts one case.

    All folds are used: segmentation logits are averaged, class probabilities combined by their geometric mean, regression
    values averaged (shared/EVIDENCE.md item 10).
    """

    def __init__(self, model: ModelFolder, *, device: str = "auto", step_size: float = 0.5, tta: bool = True) -> None:
        if not 0 < step_size <= 1:
            raise SettingsError(f"step_size: expected a share of the patch in (0, 1], got {step_size}")
        self.model = model
        self.mask_codes = MaskCodes.from_json(model.dataset_json)
        self.device = select_device(device)
        self.step_size = step_size
        self.mirror_axes = model.mirror_axes if tta else ()
        self.dtype = autocast_dtype(self.device)
        self.network = model.network.to(self.device).eval()

    @classmethod
    def load(
        cls,
        folder: str | Path,
        folds: Sequence[str | int] | None = None,
        *,
        device: str = "auto",
        step_size: float = 0.5,
        tta: bool = True,
        checkpoint: str = "checkpoint_final.pth",
    ) -> Predictor:
        """Read a model folder written by training.

        Args:
            folds: folds to combine, e.g. ``[0, 1]``; None takes all that are finished.
            device: "auto", "cpu", "cuda" or "mps".
            step_size: distance of tiles as a share of the patch, in (0, 1].
            tta: mirror over the axes that training mirrored.

        Raises:
            ModelError: the folder is incomplete or was not trained by nnDuet.
            DatasetError: the masks of its dataset.json contradict the labels.
            SettingsError: impossible device or step size.
        """
        return cls(load_model_folder(Path(folder), folds, checkpoint), device=device, step_size=step_size, tta=tta)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that the model answers."""
        return self.model.tasks

    @property
    def num_channels(self) -> int:
        """Number of image channels the model expects."""
        return len(self.model.dataset_json["channel_names"])

    def __call__(
        self, image: str | Path | Sequence[str | Path] | NDArray[Any], *, spacing_mm: Sequence[float] | None = None
    ) -> Prediction:
        """Predict a file, one file per channel, or an array.

        Args:
            image: path(s) in the order of the channels, or an array (Z, Y, X) or (C, Z, Y, X).
            spacing_mm: (Z, Y, X), needed for arrays.

        Raises:
            ModelError: wrong number of channels.
            GeometryError: channels disagree, or an array without spacing.
            NNDuetError: the file is unreadable, corrupt or too large.
        """
        if isinstance(image, np.ndarray):
            return self._predict_array(image, spacing_mm)
        paths = [Path(image)] if isinstance(image, str | Path) else [Path(p) for p in image]
        self.check_channels(len(paths), paths[0].name if paths else "no file")
        headers = [inspect_image(path) for path in paths]
        for path, header in zip(paths, headers, strict=True):
            check_same_geometry(headers[0].geometry, header.geometry, path.name, "channels")
        with tempfile.TemporaryDirectory(prefix="nnduet_") as folder:
            readable = [
                _canonical(p, h, Path(folder) / f"{i}.nii.gz") for i, (p, h) in enumerate(zip(paths, headers, strict=True))
            ]
            data, properties = self._reader().read_images([str(path) for path in readable])
        return self._predict_raw(data, properties, headers[0].geometry)

    def check_channels(self, count: int, source: str) -> None:
        """Refuse a case with the wrong number of channels.

        Raises:
            ModelError: ``count`` differs from what the model was trained on.
        """
        if count != self.num_channels:
            names = list(self.model.dataset_json["channel_names"].values())
            raise ModelError(f"{source}: expected {self.num_channels} channel(s) {names}, got {count}")

    def _predict_array(self, image: NDArray[Any], spacing_mm: Sequence[float] | None) -> Prediction:
        data = image[None] if image.ndim == 3 else image
        if data.ndim != 4 or 0 in data.shape[1:]:
            raise GeometryError(f"array: expected (Z, Y, X) or (C, Z, Y, X), got shape {image.shape}")
        if spacing_mm is None or len(spacing_mm) != 3 or not all(0 < s < np.inf for s in spacing_mm):
            raise GeometryError(f"array: expected spacing_mm=(z, y, x), all positive, got {spacing_mm}")
        self.check_channels(data.shape[0], "array")
        if not np.isfinite(data).all():
            raise GeometryError("array: expected finite values, got NaN or infinity")
        return self._predict_raw(data, {"spacing": [float(s) for s in spacing_mm]}, None)

    def _reader(self) -> Any:
        name = self.model.plans.plans["image_reader_writer"]
        if name not in _READERS:
            raise ModelError(f"plans: image_reader_writer expected one of {_READERS}, got {name!r}")
        return self.model.plans.image_reader_writer_class()

    def _predict_raw(self, data: NDArray[Any], properties: dict[str, Any], geometry: Geometry | None) -> Prediction:
        model = self.model
        image, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            data, None, properties, model.plans, model.configuration, model.dataset_json
        )
        return self.predict_preprocessed(image, properties, geometry)

    def predict_preprocessed(
        self, image: NDArray[np.float32], properties: dict[str, Any], geometry: Geometry | None = None
    ) -> Prediction:
        """Predict an image (C, Z, Y, X) that nnU-Net's preprocessor wrote, with its properties."""
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        logits, sums = self.run_members(tensor)
        segmentation = self._to_labels(logits, properties)
        z, y, x = (float(s) for s in properties["spacing"])
        pooled = [s.features(self.voxel_scale(properties)) for s in sums]
        features = {m.fold: f[0].cpu().numpy() for m, f in zip(self.model.members, pooled, strict=True)}
        masks = self.mask_codes.decode(segmentation) if self.mask_codes else {}
        return Prediction(segmentation, self._answers(pooled), (z, y, x), geometry, features, masks)

    def voxel_scale(self, properties: dict[str, Any]) -> float:
        """What voxel counts are multiplied by: the slice spacing in mm for slice-wise models of volumes, else 1.

        Slice-wise models do not resample between slices, so that a count of voxels means another volume in every case.
        """
        slices = properties["shape_before_cropping"][0]
        if len(self.model.configuration.patch_size) == 3 or slices == 1:
            return 1.0
        return float(properties["spacing"][self.model.plans.transpose_forward[0]])

    def run_members(self, image: torch.Tensor) -> tuple[torch.Tensor, list[PooledSums]]:
        """Mean logits (K, Z, Y, X) over the folds, and the pooled sums of each fold."""
        logits: torch.Tensor | None = None
        sums = []
        for member in self.model.members:
            self._activate(member)
            result, pooled = predict_tiles(
                self.network,
                image,
                self.model.configuration.patch_size,
                step_size=self.step_size,
                mirror_axes=self.mirror_axes,
                device=self.device,
                dtype=self.dtype,
            )
            logits = result if logits is None else logits + result
            sums.append(pooled)
        assert logits is not None
        return logits / len(sums), sums

    def _activate(self, member: Member) -> None:
        if len(self.model.members) > 1:
            self.network.load_state_dict(member.weights)

    def _to_labels(self, logits: torch.Tensor, properties: dict[str, Any]) -> NDArray[np.integer[Any]]:
        codes, model = self.mask_codes, self.model
        manager = MaskLogits(codes) if codes else model.plans.get_label_manager(model.dataset_json)
        with contextlib.redirect_stdout(None):
            labels: NDArray[np.integer[Any]] = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                model.plans,
                model.configuration,
                manager,
                properties,
                num_threads_torch=torch.get_num_threads(),
            )
        return labels

    @torch.inference_mode()
    def _answers(self, features: list[torch.Tensor]) -> dict[str, TaskPrediction]:
        outputs: dict[str, list[NDArray[np.float64]]] = {task.name: [] for task in self.tasks}
        for member, pooled in zip(self.model.members, features, strict=True):
            self._activate(member)
            for name, output in member_outputs(self.network, member, pooled, self.tasks).items():
                outputs[name].append(output)
        return {task.name: combine(task, outputs[task.name]) for task in self.tasks}

    def head_used(self, task: Task) -> str:
        """Which head answers a task: "case head" where every fold has one, else "network head" or "mixed"."""
        have = [task.name in member.case_heads for member in self.model.members]
        return "case head" if all(have) else "mixed" if any(have) else "network head"


def _canonical(path: Path, header: ImageHeader, target: Path) -> Path:
    """``path``, or a rewritten copy at ``target`` where readers would disagree on the file, as ``nnduet convert`` does."""
    if header.is_canonical:
        return path
    write_image(target, read_image(path).array, header.geometry)
    return target


def member_outputs(
    network: JointNetwork, member: Member, features: torch.Tensor, tasks: tuple[Task, ...]
) -> dict[str, NDArray[np.float64]]:
    """One fold's answers for one case from its features (1, F); the case head speaks where there is one.

    Returns:
        {task: class probabilities (K,), or the value (1,) of a regression}.
    """
    heads = network.heads(features)
    out: dict[str, NDArray[np.float64]] = {}
    for task in tasks:
        if task.name in member.case_heads:
            out[task.name] = member.case_heads[task.name](features.double().cpu().numpy())[0]
        elif task.is_classification:
            out[task.name] = task_probabilities(task, heads[task.name])[0].double().cpu().numpy()
        else:
            out[task.name] = network.heads.target_scale(task).inverse(heads[task.name])[0].double().cpu().numpy()
    return out


def combine(task: Task, outputs: list[NDArray[np.float64]]) -> TaskPrediction:
    """Fuse folds: geometric mean of class probabilities (renormalised), mean of regression values."""
    stacked = np.stack(outputs)
    if not task.is_classification:
        return TaskPrediction(None, float(stacked.mean()))
    geometric = np.exp(np.log(np.clip(stacked, 1e-12, 1)).mean(axis=0))
    probabilities = geometric / geometric.sum()
    label = task.classes[int(probabilities.argmax())]
    return TaskPrediction(label, None, dict(zip(task.classes, probabilities.tolist(), strict=True)))
