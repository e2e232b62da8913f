"""The smallest things that behave like the real ones: a dataset, plans, a network, a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.io.images import Geometry, write_image, write_segmentation
from nnduet.schema import Task, Workspace
from nnduet.task_list import tasks_to_json

SHAPES = {2: (1, 32, 32), 3: (12, 20, 20)}
SPACING_MM = {2: (1.0, 1.0, 1.0), 3: (2.0, 1.0, 1.0)}
ENDINGS = {2: ".png", 3: ".nii.gz"}
CONFIGURATIONS = {2: "2d", 3: "3d_fullres"}
TASK_SPECS = ("grade:binary", "age:regression")
TASKS = (Task("grade", "binary", ("high", "low")), Task("age", "regression"))
DATASET_ID = 1
DATASET = "Dataset001_Tiny"


def tiny_case(index: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask (Z, Y, X), uint8: an organ (1) with a lesion (2) that is bright in odd cases and dark in even ones."""
    rng = np.random.default_rng(index)
    shape = SHAPES[dim]
    image = rng.normal(60, 8, shape)
    mask = np.zeros(shape, np.uint8)
    middle = slice(None) if dim == 2 else slice(3, 9)
    y = 6 + index % 3
    mask[middle, y : y + 10, 5:15] = 1
    mask[middle, y + 3 : y + 7, 8:12] = 2
    image[mask == 1] += 50
    image[mask == 2] += 120 if index % 2 else 20
    return image.clip(0, 255).astype(np.uint8), mask


def write_tiny_dataset(folder: Path, dim: int, num_cases: int) -> Path:
    """``images/``, ``labels/`` and ``cases.csv`` for ``read_folder(folder, task_specs=TASK_SPECS)``; returns ``folder``.

    Cases case_00 … with one channel: NIfTI (12, 20, 20) of 2 x 1 x 1 mm for ``dim`` 3, PNG 32 x 32 for 2. ``grade`` is high
    where the lesion is bright, ``age`` grows with the case number; the last case has no grade.
    """
    ending, geometry = ENDINGS[dim], Geometry(SHAPES[dim], SPACING_MM[dim])
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    lines = ["case_id,grade,age"]
    for index in range(num_cases):
        case_id = f"case_{index:02d}"
        image, mask = tiny_case(index, dim)
        write_image(folder / "images" / f"{case_id}_0000{ending}", image, geometry)
        write_segmentation(folder / "labels" / f"{case_id}{ending}", mask, geometry)
        grade = "" if index == num_cases - 1 else ("low", "high")[index % 2]
        lines.append(f"{case_id},{grade},{40 + 2.5 * index}")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tiny_workspace(folder: Path, dim: int, num_cases: int, num_folds: int = 2) -> Workspace:
    """A workspace in ``folder`` with the tiny dataset converted as ``DATASET``; nothing planned."""
    source = read_folder(write_tiny_dataset(folder / "user", dim, num_cases), task_specs=TASK_SPECS)
    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    convert(source, workspace=workspace, dataset_id=DATASET_ID, name="Tiny", num_folds=num_folds)
    return workspace


def tiny_dataset_json(dim: int, num_channels: int = 1) -> dict[str, Any]:
    """A ``dataset.json`` with background, organ, lesion and TASKS."""
    return {
        "channel_names": {str(i): f"channel {i}" for i in range(num_channels)},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": 4,
        "file_ending": ENDINGS[dim],
        "classification": tasks_to_json(TASKS),
    }


def tiny_plans(dim: int, num_channels: int = 1) -> dict[str, Any]:
    """Plans as nnU-Net writes them, for a residual U-Net of three stages (4, 8, 8 features) on patches of 8 or 16 voxels."""
    resample = "resample_data_or_seg_to_shape"
    arguments = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    intensities = {"mean": 110, "median": 110, "std": 20, "min": 60, "max": 255, "percentile_99_5": 250, "percentile_00_5": 70}
    configuration = {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16] if dim == 2 else [8, 8, 8],
        "spacing": list(SPACING_MM[dim])[-dim:],
        "normalization_schemes": ["ZScoreNormalization"] * num_channels,
        "use_mask_for_norm": [False] * num_channels,
        **{f"resampling_fn_{name}": resample for name in ("data", "seg", "probabilities")},
        **{f"resampling_fn_{name}_kwargs": arguments for name in ("data", "probabilities")},
        "resampling_fn_seg_kwargs": {**arguments, "is_seg": True, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 8, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": [[3] * dim] * 3,
                "strides": [[1] * dim, [2] * dim, [2] * dim],
                "n_blocks_per_stage": [1, 1, 1],
                "n_conv_per_stage_decoder": [1, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "tinyPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "NaturalImage2DIO" if dim == 2 else "SimpleITKIO",
        "experiment_planner_used": "none",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): intensities for i in range(num_channels)},
        "configurations": {CONFIGURATIONS[dim]: configuration},
        "nnduet": {"training": {}, "tasks": tasks_to_json(TASKS), "head": {"hidden": 8, "dropout": 0.1}, "overlapping": False},
    }


def tiny_network(
    dim: int,
    *,
    num_channels: int = 1,
    num_outputs: int = 3,
    seed: int = 0,
    plans: dict[str, Any] | None = None,
    pooling: Any = None,
) -> Any:
    """The joint network of :func:`tiny_plans` with random weights, in evaluation mode, without deep supervision."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnduet.network.network import build_joint_network

    torch.manual_seed(seed)
    manager = PlansManager(plans or tiny_plans(dim, num_channels))
    configuration = manager.get_configuration(CONFIGURATIONS[dim])
    return build_joint_network(
        manager, configuration, num_channels, num_outputs, deep_supervision=False, pooling=pooling
    ).eval()


def tiny_head(bias: list[float], *, columns: int = 1) -> dict[str, Any]:
    """The JSON of a case head that reads the first columns and answers by its bias alone."""
    return {
        "choice": {"models": [{"model": "constant", "features": "nothing"}]},
        "columns": list(range(columns)),
        "mean": [0.0] * columns,
        "scale": [1.0] * columns,
        "layers": [{"weights": [[0.0] * columns] * len(bias), "bias": bias}],
        "network_share": 0.0,
        "temperature": 1.0,
        "scores": [0.1, 0.2, 0.3],
    }


def write_tiny_model(
    folder: Path,
    dim: int,
    *,
    num_folds: int = 1,
    num_channels: int = 1,
    masks: tuple[str, ...] = (),
    tasks: tuple[Task, ...] = TASKS,
) -> Path:
    """A model folder as training leaves it, with random weights in checkpoints of nnU-Net's keys; returns ``folder``.

    With ``masks`` it segments organ and lesion once per name.
    """
    import torch

    plans, dataset_json = tiny_plans(dim, num_channels), tiny_dataset_json(dim, num_channels)
    plans["nnduet"]["tasks"] = dataset_json["classification"] = tasks_to_json(tasks)
    if masks:
        dataset_json |= MaskCodes.of(masks, dataset_json["labels"]).to_json()
        plans["nnduet"]["overlapping"] = True
    network: dict[str, Any] = {"num_channels": num_channels, "num_outputs": 2 * len(masks) or 3, "plans": plans}
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
    for fold in range(num_folds):
        init_args = {"plans": plans, "configuration": CONFIGURATIONS[dim], "fold": fold, "dataset_json": dataset_json}
        checkpoint = {
            "network_weights": tiny_network(dim, seed=fold, **network).state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1,
            "init_args": {**init_args, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainerMultitask",
            "inference_allowed_mirroring_axes": tuple(range(dim)),
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def write_stock_model(model: Path, folder: Path) -> Path:
    """A model of :func:`write_tiny_model` as nnU-Net's own trainer would have left it; returns ``folder``."""
    shutil.copytree(model, folder)
    plans = json.loads((folder / "plans.json").read_text())
    del plans["nnduet"]
    (folder / "plans.json").write_text(json.dumps(plans))
    for path in folder.glob("fold_*/checkpoint_final.pth"):
        change_weights(path, lambda weights: {n: t for n, t in weights.items() if not n.startswith(("heads.", "inner_heads."))})
    return folder


def change_weights(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the weights of a checkpoint, which from then on is one of nnU-Net's own trainer."""
    import torch

    from nnduet.model_store.folder_files import load_checkpoint

    checkpoint = load_checkpoint(path)
    checkpoint["network_weights"] = change(checkpoint["network_weights"])
    checkpoint["trainer_name"] = "nnUNetTrainer"
    torch.save(checkpoint, path)


class Canary:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "code of the model was run")
