"""After training: fit the case heads, predict every validation case whole, measure, write ``final_metrics.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from numpy.typing import NDArray

from nnduet.data.files import write_json_atomically
from nnduet.data.images import check_image, write_segmentation
from nnduet.errors import ModelError
from nnduet.evaluation.evaluate import evaluate
from nnduet.inference.folder import write_tables
from nnduet.inference.model_folder import CASE_HEAD_FILE, Member, ModelFolder, read_case_heads
from nnduet.inference.predictor import Prediction, Predictor
from nnduet.model.case_head import fit_case_head
from nnduet.schema import LABELS_FILE
from nnduet.training.collapse import whole_case_alarms

__all__ = ["FINAL_METRICS_FILE", "trained_model", "validate_fold"]

FINAL_METRICS_FILE = "final_metrics.json"


def validate_fold(trainer: Any) -> dict[str, Any]:
    """Whole-case validation of a trained fold.

    Writes into ``fold_K/``: ``case_head.json``, ``validation/`` (masks, tables, per-case CSV) and ``final_metrics.json``.
    With fold "all" the validation cases are the training cases; the metrics say so under "validated_on".

    Args:
        trainer: a trained nnUNetTrainerMultitask.
    """
    folder = Path(trainer.output_folder)
    training, validation = trainer.do_split()
    trainer.set_deep_supervision_enabled(False)
    predictor = Predictor(trained_model(trainer, {}), device=trainer.device.type, tta=False)
    _fit_case_heads(trainer, predictor, training, folder)
    predictor = Predictor(
        trained_model(trainer, read_case_heads(folder / CASE_HEAD_FILE, trainer.tasks)), device=trainer.device.type
    )
    predictions = _predict(trainer, predictor, validation, folder / "validation")
    metrics = _measure(trainer, validation, folder / "validation")
    summary = {
        **metrics,
        "fold": trainer.fold,
        "validated_on": "training cases" if trainer.fold == "all" else "validation cases of the fold",
        "num_validation_cases": len(predictions),
        "alarms": _alarms(trainer, predictions),
        "heads": {task.name: predictor.head_used(task) for task in trainer.tasks},
    }
    write_json_atomically(folder / FINAL_METRICS_FILE, summary)
    return summary


def trained_model(trainer: Any, case_heads: dict[str, Any]) -> ModelFolder:
    """The trainer's network, as it is now, in the form that a Predictor takes."""
    network = trainer._joint_network()
    return ModelFolder(
        plans=trainer.plans_manager,
        configuration=trainer.configuration_manager,
        configuration_name=trainer.configuration_name,
        dataset_json=trainer.dataset_json,
        tasks=trainer.tasks,
        network=network,
        members=(Member(str(trainer.fold), network.state_dict(), case_heads),),
        mirror_axes=tuple(trainer.inference_allowed_mirroring_axes or ()),
    )


def _load(trainer: Any, case_id: str) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Preprocessed image (C, Z, Y, X) and properties of a case."""
    folder = trainer.preprocessed_dataset_folder
    data, _, _, _ = trainer.dataset_class(folder, [case_id]).load_case(case_id)
    return np.ascontiguousarray(data[:], dtype=np.float32), load_pickle(os.path.join(folder, f"{case_id}.pkl"))


def _fit_case_heads(trainer: Any, predictor: Predictor, case_ids: list[str], folder: Path) -> None:
    if not trainer.tasks:
        return
    rows = []
    for index, case_id in enumerate(case_ids):
        image, properties = _load(trainer, case_id)
        _, sums = predictor.run_members(torch.from_numpy(image))
        rows.append(sums[0].features(predictor.voxel_scale(properties))[0].cpu().numpy())
        trainer.report(index + 1, len(case_ids), f"features of {case_id}")
    features = np.stack(rows).astype(float)
    if not np.isfinite(features).all():
        raise ModelError(f"{folder}: the trained network gives NaN or infinity; the training diverged, see progress.csv")
    patients = trainer.labels.patients(case_ids)
    blocks = predictor.network.feature_blocks
    heads = {
        task.name: fit_case_head(task, features, trainer.labels.column(task, case_ids), patients, blocks=blocks)
        for task in trainer.tasks
    }
    write_json_atomically(folder / CASE_HEAD_FILE, {name: head.to_json() for name, head in heads.items() if head})


def _predict(trainer: Any, predictor: Predictor, case_ids: list[str], output: Path) -> dict[str, Prediction]:
    output.mkdir(parents=True, exist_ok=True)
    references, ending = _references(trainer), trainer.dataset_json["file_ending"]
    predictions = {}
    for index, case_id in enumerate(case_ids):
        prediction = predictor.predict_preprocessed(*_load(trainer, case_id))
        geometry = check_image(references / f"{case_id}{ending}")
        write_segmentation(output / f"{case_id}{ending}", prediction.segmentation, geometry)
        predictions[case_id] = prediction
        trainer.report(index + 1, len(case_ids), f"validate {case_id}")
    write_tables(output, predictor.tasks, predictions)
    return predictions


def _alarms(trainer: Any, predictions: dict[str, Prediction]) -> list[dict[str, Any]]:
    out = []
    for task in trainer.tasks:
        probabilities = [prediction.tasks[task.name].probabilities for prediction in predictions.values()]
        out += whole_case_alarms(task, trainer.labels.column(task, list(predictions)), probabilities)
    return out


def _references(trainer: Any) -> Path:
    return Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"


def _measure(trainer: Any, case_ids: list[str], output: Path) -> dict[str, Any]:
    table = Path(trainer.preprocessed_dataset_folder_base) / LABELS_FILE
    metrics: dict[str, Any] = evaluate(
        output,
        _references(trainer),
        labels=trainer.dataset_json["labels"],
        tasks=trainer.tasks,
        table=table if table.is_file() else None,
        case_ids=case_ids,
        output=output,
    )
    loaded: dict[str, Any] = json.loads(json.dumps(metrics))
    return loaded
