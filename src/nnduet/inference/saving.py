"""Writes one prediction as the predict command would: a mask alone, or a case among those of a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnduet.errors import SettingsError
from nnduet.inference.case_records import CaseRecords, RunIdentity, digests_of, identity_of, read_earlier_run
from nnduet.inference.output_folder import RUN_FILE, check_mask_file, check_output, check_place, mask_paths, table_paths
from nnduet.inference.prediction import Origin, Prediction
from nnduet.inference.prediction_summary import summarise
from nnduet.inference.predictor import Predictor
from nnduet.inference.result_tables import result_ending, write_tables
from nnduet.inference.task_predictions import CaseAnswers
from nnduet.io.case_inputs import case_name, paths_of
from nnduet.io.files import locked, write_json_atomically
from nnduet.io.formats import is_image_name
from nnduet.io.geometry import Geometry
from nnduet.io.images import write_segmentation

__all__ = ["save_prediction", "write_masks"]


def save_prediction(prediction: Prediction, place: Path, case_id: str | None) -> Path:
    """See :meth:`~nnduet.inference.prediction.Prediction.save`."""
    origin = prediction.origin
    if origin is None:
        raise SettingsError(f"{place}: the prediction does not know its model; predict the case by calling a Predictor")
    if is_image_name(place.name) and not place.is_dir():
        check_mask_file(place, origin.predictor.file_ending, origin.predictor.mask_names)
        write_masks(prediction, [place])
        return place
    name = case_id if case_id is not None else case_name(origin.image)
    if name is None:
        raise SettingsError(f"{place}: the image has no name", remedy='name the case: prediction.save(folder, "case_1")')
    return _save_case(prediction, origin, place, name)


def write_masks(prediction: Prediction, targets: Sequence[Path]) -> None:
    """Each of several masks first, so that the one that stands for the case comes last."""
    geometry = prediction.geometry or Geometry(prediction.segmentation.shape, prediction.spacing_mm)
    arrays = [prediction.segmentation, *prediction.masks.values()]
    for path, array in reversed(list(zip(targets, arrays, strict=True))):
        write_segmentation(path, array, geometry)


def _save_case(prediction: Prediction, origin: Origin, output: Path, case_id: str) -> Path:
    predictor, inputs = origin.predictor, paths_of(origin.image)
    targets = _masks(predictor, output, case_id)
    identity, goes_on = _identity(predictor, output, {case_id: dict(origin.covariates)} if origin.covariates else {})
    check_place(output, inputs[0] if inputs else None, predictor.model.source)
    check_output(output, identity, {case_id: targets}, table_paths(output, predictor.tasks), inputs)
    with locked(output):
        (output / RUN_FILE).unlink(missing_ok=True)  # says that a run is complete
        records = CaseRecords(output, identity, [case_id], predictor.tasks, resume=goes_on)
        kept = {case: found for case in records.cases if (found := records.kept(case, _masks(predictor, output, case)))}
        write_masks(prediction, targets)
        records.add(case_id, round(origin.seconds, 3), prediction.answers, digests_of(inputs), digests_of(targets, output))
        kept[case_id] = prediction.answers, round(origin.seconds, 3)
        _write_rest(predictor, output, dict(sorted(kept.items())), identity.covariates, inputs)
    return targets[0]


def _write_rest(
    predictor: Predictor,
    output: Path,
    cases: Mapping[str, tuple[CaseAnswers, float]],
    covariates: Mapping[str, Mapping[str, float]],
    inputs: list[Path],
) -> None:
    """Tables and run.json of all cases."""
    done = {case_id: answers for case_id, (answers, _) in cases.items()}
    seconds = {case_id: taken for case_id, (_, taken) in cases.items()}
    write_tables(output, predictor.tasks, done, None, result_ending(predictor.model.dataset_json))
    summary = summarise(predictor, str(output), done, {}, seconds, None, covariates, ())
    write_json_atomically(output / RUN_FILE, summary.record(inputs[0].parent if inputs else None))


def _masks(predictor: Predictor, output: Path, case_id: str) -> list[Path]:
    return mask_paths(output, case_id, predictor.file_ending, predictor.mask_names)


def _identity(predictor: Predictor, output: Path, covariates: dict[str, dict[str, float]]) -> tuple[RunIdentity, bool]:
    """That of a run over the case and those of the same settings that are there already, and whether there are such."""
    identity, earlier = identity_of(predictor, covariates), read_earlier_run(output)
    if earlier is None or replace(earlier.run, covariates={}) != replace(identity, covariates={}):
        return identity, False
    return replace(identity, covariates={**earlier.run.covariates, **covariates}), True
