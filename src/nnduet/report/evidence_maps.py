"""Where in a case the evidence for a class lies: the network head's answer, traced back to places in the image.

The head reads means of encoder features over soft regions, sum(w * f) / sum(w). The gradient of its answer with respect to a
stage's feature map f, times f, summed over channels, is what each place contributes. Masks, volumes and intensities, which the
head reads as well, are constants in this.

Source: gradient times activation without averaging the gradient, HiResCAM, Draelos and Carin 2020 (arXiv:2011.08891); the
averaged form is Grad-CAM, Selvaraju et al., ICCV 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nnduet.errors import SettingsError
from nnduet.inference.case_features import region_masks
from nnduet.inference.predictor import Predictor
from nnduet.inference.resampling import Resampling
from nnduet.inference.sliding_window import predict_tiles
from nnduet.io.case_names import channel_files
from nnduet.model_store.model_folder import ModelFolder, load_model
from nnduet.model_store.shipped_models import open_model
from nnduet.network.heads import JointNetwork, task_probabilities
from nnduet.network.pooling import PooledSums
from nnduet.nnunet_types import CaseProperties
from nnduet.report.stored_model import region_names
from nnduet.runtimes.joint_pass import JointPass
from nnduet.schema import Task

__all__ = ["ELSEWHERE", "Evidence", "EvidenceMaps", "class_gradients", "contribution_map", "region_shares"]

ELSEWHERE = "elsewhere"
"""In :attr:`Evidence.region_shares`, what lies outside all predicted regions."""


@dataclass(frozen=True)
class Evidence:
    """Where the evidence for one class lies.

    Attributes:
        values: float32 (Z, Y, X) on the grid of the image file, in [0, 1]: what speaks for the class, as a share of its
            strongest place; 0 where nothing does, or what is there speaks against it. All 0 where nothing in the case does.
        class_name: the explained class; for a regression the value that the network head gives, six significant digits: the
            map then shows what raises it.
        region_shares: {region, then "elsewhere": share of the absolute contributions, for and against}, they sum to 1. A voxel
            of several overlapping regions counts for each in equal parts, padding for none. All NaN where nothing contributes.
    """

    values: NDArray[np.float32]
    class_name: str
    region_shares: Mapping[str, float]


class EvidenceMaps:
    """A model, read once, that says where it sees the evidence for a class; on the CPU, computed by torch.

    The map explains the network head of one fold, without mirroring, also where a case head gives the task's answer or the
    folds answer together: it shows what the encoder has to say, and may explain another class than the one predicted unless
    that is named. The whole case is traced, by the tiles of the sliding window, so that places far from any region show too.

    Args:
        model: a model folder, a bundle, or the name of a shipped model.
        fold: which one to explain; None takes the first.

    Raises:
        ModelError: there is no such model or fold, or it was not trained by nnDuet.
        CorruptFileError: the bundle is damaged.
    """

    def __init__(self, model: str | Path, fold: str | None = None) -> None:
        files = open_model(model)
        folds = files.folds()[:1] if fold is None else [fold]
        self.predictor = Predictor(load_model(files, folds), device="cpu", runtime="torch", precision="float32", tta=False)

    def __call__(self, image: str | Path | Sequence[str | Path], task: str, class_name: str | None = None) -> Evidence:
        """Trace one answer.

        Args:
            image: the channels in order, or the first; the others of ``<case>_0000.*`` are then expected beside it.
            task: name of a task of the model.
            class_name: None explains the class that the network head itself finds likeliest. A regression has none.

        Raises:
            SettingsError: unknown task or class; the message lists the known ones.
            ModelError: wrong number of channels.
            TooLargeError: the case needs more memory than is available.
            NNDuetError: a file is unreadable or corrupt, or the channels disagree.
        """
        predictor = self.predictor
        asked, network, model = self._task(task, class_name), predictor.network, predictor.model
        data, properties, _, accumulator = predictor.prepare(_channels(image, predictor.num_channels))
        tensor, patch_size = torch.from_numpy(np.ascontiguousarray(data)), model.configuration.patch_size
        common: dict[str, Any] = {
            "step_size": predictor.step_size,
            "mirror_axes": (),
            "device": predictor.device,
            "num_patches": predictor.passes.num_patches,
        }
        logits, sums = predict_tiles(network.forward_joint, tensor, patch_size, accumulator=accumulator, **common)
        name, gradients = class_gradients(network, sums, asked, class_name, voxel_scale=predictor.voxel_scale(properties))
        contributions, _ = predict_tiles(contribution_map(network, gradients), tensor, patch_size, **common)
        masks = region_masks(logits, overlapping=network.overlapping)
        values = _on_image_grid(contributions, properties, model).clip(min=0)
        values /= values.max() or 1
        return Evidence(
            values=values,
            class_name=name,
            region_shares=region_shares(np.abs(contributions[0].numpy()), masks, region_names(model.dataset_json["labels"])),
        )

    def _task(self, name: str, class_name: str | None) -> Task:
        tasks = {task.name: task for task in self.predictor.tasks}
        if name not in tasks:
            raise SettingsError(f"task: expected one of {sorted(tasks)}, got {name!r}")
        if class_name is not None and class_name not in tasks[name].classes:
            known = f"one of {list(tasks[name].classes)}" if tasks[name].is_classification else f"none of a {tasks[name].type}"
            raise SettingsError(f"class of task {name}: expected {known}, got {class_name!r}")
        return tasks[name]


def class_gradients(
    network: JointNetwork, sums: PooledSums, task: Task, class_name: str | None = None, *, voxel_scale: float = 1.0
) -> tuple[str, tuple[Tensor, ...]]:
    """The explained class, and how :meth:`~nnduet.tasks.base.TaskKind.class_score` depends on the pooled sums of a whole case.

    Args:
        sums: of one case (B = 1), e.g. from :func:`~nnduet.inference.sliding_window.predict_tiles`.
        class_name: one of the task's; None takes the likeliest by the network head.
        voxel_scale: see :meth:`PooledSums.features`.

    Returns:
        The name, of a regression the value, and per pooled stage the gradient (1, W, C_s) with respect to sum(w * f), 0 where
        :class:`~nnduet.network.heads.FeatureNorm` clips the feature.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # clones, because tensors of inference mode take no part in gradients
        image, *stages = (numerator.clone().requires_grad_() for numerator in sums.numerators)
        features = PooledSums((image, *stages), sums.volumes.clone()).features(voxel_scale)
        outputs = network.heads(features)[task.name]
        name = class_name if class_name is not None else _answer(network, task, outputs.detach())
        index = task.classes.index(name) if task.is_classification else 0
        return name, torch.autograd.grad(task.kind.class_score(outputs, index).sum(), stages)


def _answer(network: JointNetwork, task: Task, outputs: Tensor) -> str:
    if task.is_classification:
        return task.classes[int(task_probabilities(task, outputs)[0].argmax())]
    return f"{float(network.heads.target_scale(task).inverse(outputs)):.6g}"


def contribution_map(network: JointNetwork, gradients: Sequence[Tensor]) -> JointPass:
    """A pass for the sliding window whose "logits" are the contributions (B, 1, *patch) of each voxel, all stages added.

    The contribution of a cell of a stage is the sum over channels of its features times the gradient of the score with respect
    to them. Cells are spread trilinearly over the voxels that they cover, their sum kept; overlapping tiles are blended.
    Over one tile the contributions add up to the sum over stages of <gradient, sum(w * f)>, which for a linear head without
    clipped features is the score minus the score that it gives if all features of the stages are 0. Where a case has several
    tiles that holds up to the blending, and where it is smaller than the patch up to what falls into the padding.

    Args:
        gradients: per pooled stage (1, W, C_s), from :func:`class_gradients`.
    """

    def run(patches: Tensor, shares: Tensor) -> tuple[Tensor, PooledSums]:
        with torch.inference_mode(False):
            image = patches.clone()
            with torch.no_grad():
                skips = network.encoder(image)
                masks = network.masks(image, network.decoder(skips))
            with torch.enable_grad():
                stages = [skips[stage].detach().requires_grad_() for stage in network.stages]
                sums = network.pooled_sums(image, stages, masks)
                score = sum((g * n).sum() for g, n in zip(gradients, sums.numerators[1:], strict=True))
                slopes = torch.autograd.grad(score, stages)  # type: ignore[arg-type]
            maps = [(f.detach() * g).sum(dim=1, keepdim=True) for f, g in zip(stages, slopes, strict=True)]
            return torch.stack([_spread(cells, image.shape[2:]) for cells in maps]).sum(dim=0), sums

    return run


def _spread(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Contributions (B, 1, *coarse) to (B, 1, *shape); the sum is kept where the coarse shape divides the fine one."""
    mode = "trilinear" if len(shape) == 3 else "bilinear"
    covered = np.prod(shape) / np.prod(cells.shape[2:])
    return functional.interpolate(cells, tuple(shape), mode=mode) / float(covered)


def _on_image_grid(contributions: Tensor, properties: CaseProperties, model: ModelFolder) -> NDArray[np.float32]:
    """(1, Z, Y, X) on the preprocessed grid to (Z, Y, X) on that of the image file, 0 where its border was cropped."""
    old, new, unread = contributions.shape[1:], properties["shape_after_cropping_and_before_resampling"], (1.0, 1.0, 1.0)
    back = Resampling.of(old, new, unread, unread, order=1, order_z=1, force_separate_z=False)
    whole = np.zeros(properties["shape_before_cropping"], dtype=np.float32)
    whole[tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])] = back(contributions)[0].numpy()
    return np.ascontiguousarray(whole.transpose(model.plans.transpose_backward))


def region_shares(strength: NDArray[np.floating[Any]], masks: NDArray[np.bool_], names: Sequence[str]) -> dict[str, float]:
    """Shares of ``strength`` (Z, Y, X), from 0, within each of ``masks`` (R, Z, Y, X), then outside all of them.

    A voxel of n masks counts for each with 1 / n, so that the shares sum to 1. All NaN where the strength is 0 everywhere.
    """
    split = strength / np.maximum(masks.sum(axis=0), 1)
    sums = [float(split[mask].sum(dtype=np.float64)) for mask in (*masks, ~masks.any(axis=0))]
    total = sum(sums)
    return {name: part / total if total else float("nan") for name, part in zip((*names, ELSEWHERE), sums, strict=True)}


def _channels(image: str | Path | Sequence[str | Path], number: int) -> list[Path]:
    """All channels of a case; of a single path to ``<case>_0000.*`` those that should lie beside it."""
    if not isinstance(image, str | Path):
        return [Path(path) for path in image]
    return channel_files(Path(image), number)
