"""After training: fit the case heads, predict every validation case whole, measure, write ``final_metrics.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION
from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.head import CaseHead
from nnduet.case_head.outliers import OutlierModel
from nnduet.errors import ModelError
from nnduet.evaluation.stored_metrics import Alarm, Metrics
from nnduet.evaluation.training_cases import write_training_cases
from nnduet.inference.prediction import Prediction
from nnduet.inference.predictor import Predictor
from nnduet.inference.result_tables import result_ending, write_tables
from nnduet.inference.task_predictions import network_outputs
from nnduet.io.files import write_json_atomically
from nnduet.io.images import check_image, write_segmentation
from nnduet.model_store.folder_files import read_case_heads
from nnduet.model_store.model_files import CASE_HEAD_FILE
from nnduet.model_store.model_folder import Member, ModelFolder
from nnduet.model_store.model_network import layout_of
from nnduet.network.heads import TaskHeads
from nnduet.nnunet_types import CaseProperties
from nnduet.training.fold_metrics import FINAL_METRICS_FILE, FoldTruth, measure_fold
from nnduet.training.head_fitting import TRAINING_FEATURES, VALIDATION_FEATURES, fit_heads
from nnduet.training.labels import find_label_table, inner_fold
from nnduet.training.trainer_protocol import Trainer

__all__ = ["FINAL_METRICS_FILE", "trained_model", "validate_fold"]


def validate_fold(trainer: Trainer) -> Metrics:
    """Whole-case validation of a trained fold.

    Writes into ``fold_K/``: the names of the training cases, the features of training and validation cases,
    ``case_head.json``, ``validation/`` (masks, tables, per-case CSV) and ``final_metrics.json``.
    With fold "all" the validation cases are the training cases; the metrics say so under "validated_on".

    Args:
        trainer: a trained nnUNetTrainerMultitask.
    """
    folder = Path(trainer.output_folder)
    training, validation = trainer.do_split()
    write_training_cases(folder, training)
    trainer.set_deep_supervision_enabled(False)
    if trainer.tasks:
        _features(trainer, training).save(folder / TRAINING_FEATURES)
        fit_heads(folder, trainer.labels)
    heads = read_case_heads(folder / CASE_HEAD_FILE, trainer.tasks)
    predictor = Predictor(trained_model(trainer, *heads), device=trainer.device.type)
    predictions = _predict(trainer, predictor, validation, folder / "validation")
    if trainer.tasks:
        values = np.stack([prediction.features[str(trainer.fold)] for prediction in predictions.values()])
        network = _network_answers(predictor, values, predictor.network.heads)
        FeatureTable(tuple(predictions), values, predictor.model.layout.blocks, network).save(folder / VALIDATION_FEATURES)
    answers = {case_id: prediction.answers for case_id, prediction in predictions.items()}
    metrics = measure_fold(folder / "validation", trainer.fold, answers, heads[0], _truth(trainer), _alarms(trainer))
    write_json_atomically(folder / FINAL_METRICS_FILE, metrics)
    return metrics


def trained_model(
    trainer: Trainer, case_heads: dict[str, CaseHead], outliers: OutlierModel | None, descriptors: int = DESCRIPTORS_VERSION
) -> ModelFolder:
    """The trainer's network, as it is now, in the form that a Predictor takes, with what a ``case_head.json`` holds."""
    network = trainer.joint_network()
    label_manager = trainer.plans_manager.get_label_manager(trainer.dataset_json)
    return ModelFolder(
        plans=trainer.plans_manager,
        configuration=trainer.configuration_manager,
        configuration_name=trainer.configuration_name,
        dataset_json=trainer.dataset_json,
        tasks=trainer.tasks,
        network=network,
        members=(Member(str(trainer.fold), network.state_dict(), case_heads, outliers, descriptors=descriptors),),
        mirror_axes=tuple(trainer.inference_allowed_mirroring_axes or ()),
        layout=layout_of(network, label_manager, trainer.dataset_json),
    )


def _load(trainer: Trainer, case_id: str) -> tuple[NDArray[np.float32], CaseProperties]:
    """Preprocessed image (C, Z, Y, X) and properties of a case."""
    folder = trainer.preprocessed_dataset_folder
    data, _, _, properties = trainer.dataset_class(folder, [case_id]).load_case(case_id)
    return np.ascontiguousarray(data[:], dtype=np.float32), properties


def _features(trainer: Trainer, case_ids: list[str]) -> FeatureTable:
    """Features of the training cases, without mirroring, which would take eight times as long, and what the inner heads that
    did not learn from a case say to it."""
    predictor = Predictor(trained_model(trainer, {}, None), device=trainer.device.type, tta=False)
    rows = []
    for index, case_id in enumerate(case_ids):
        image, properties = _load(trainer, case_id)
        _, features = predictor.run_members(torch.from_numpy(image), properties, _covariates(trainer, case_id))
        rows.append(features[0].values()[0].astype(np.float32))
        trainer.report(index + 1, len(case_ids), f"features of {case_id}")
    values, network = np.stack(rows), predictor.network
    parts = np.array([inner_fold(patient) for patient in trainer.labels.patients(case_ids)])
    inner = [_network_answers(predictor, values, heads) for heads in network.inner_heads]  # type: ignore[arg-type]
    own = {task.name: np.stack([a[task.name] for a in inner])[parts, np.arange(len(parts))] for task in predictor.tasks}
    return FeatureTable(tuple(case_ids), values, predictor.model.layout.blocks, own)


def _network_answers(predictor: Predictor, values: NDArray[np.float32], heads: TaskHeads) -> dict[str, NDArray[np.float32]]:
    pooled = torch.from_numpy(values[:, : heads.norm.mean.numel()])
    if not torch.isfinite(pooled).all():
        remedy = "train again with a lower learning_rate in the plans file; progress.csv shows where the loss left its way"
        raise ModelError("the trained network gives NaN or infinity: the training diverged", remedy=remedy)
    with torch.inference_mode():
        outputs = network_outputs(heads, pooled.to(predictor.device), predictor.tasks)
    return {name: output.astype(np.float32) for name, output in outputs.items()}


def _covariates(trainer: Trainer, case_id: str) -> dict[str, float]:
    return dict(trainer.labels.covariates.get(case_id, {}))


def _predict(trainer: Trainer, predictor: Predictor, case_ids: list[str], output: Path) -> dict[str, Prediction]:
    output.mkdir(parents=True, exist_ok=True)
    references, ending = _references(trainer), trainer.dataset_json["file_ending"]
    predictions = {}
    for index, case_id in enumerate(case_ids):
        prediction = predictor.predict_preprocessed(*_load(trainer, case_id), covariates=_covariates(trainer, case_id))
        geometry = check_image(references / f"{case_id}{ending}")
        write_segmentation(output / f"{case_id}{ending}", prediction.segmentation, geometry)
        predictions[case_id] = replace(prediction, segmentation=prediction.segmentation[:0], masks={})  # they are on disk now
        trainer.report(index + 1, len(case_ids), f"validate {case_id}")
    answers = {case_id: p.answers for case_id, p in predictions.items()}
    write_tables(output, predictor.tasks, answers, ending=result_ending(trainer.dataset_json))
    return predictions


def _references(trainer: Trainer) -> Path:
    return Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations"


def _truth(trainer: Trainer) -> FoldTruth:
    table = find_label_table(trainer.table_folders()) if trainer.tasks else None
    return FoldTruth(_references(trainer), table, trainer.labels, trainer.dataset_json)


def _alarms(trainer: Trainer) -> list[Alarm]:
    """An alarm per task whose head never learned because the class loss had no weight in any epoch."""
    return [
        Alarm(task.name, "never_armed", 0, f"Task {task.name}: {note}.") for note in trainer.notes() for task in trainer.tasks
    ]
