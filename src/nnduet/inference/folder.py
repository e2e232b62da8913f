"""Predict every case of a folder; one bad case does not stop the others."""

from __future__ import annotations

import csv
import io
import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnduet.data.files import write_json_atomically, write_text_atomically
from nnduet.data.images import write_segmentation
from nnduet.errors import DatasetError, NNDuetError, PartialFailureError
from nnduet.inference.predictor import Prediction, Predictor
from nnduet.schema import CASE_COLUMN, Task

__all__ = ["CLASSIFICATION_FILE", "PredictionSummary", "find_cases", "predict_folder", "write_tables"]

Progress = Callable[[int, int, str], None]
CLASSIFICATION_FILE = "classification.csv"


@dataclass(frozen=True)
class PredictionSummary:
    """What a folder run wrote: finished cases, failed cases with their reasons, seconds per case."""

    output: str
    cases: list[str]
    failed: dict[str, str]
    seconds: dict[str, float]
    folds: list[str]
    heads: dict[str, str]
    step_size: float
    mirror_axes: list[int]
    device: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field and the versions that made the outputs."""
        return {**asdict(self), "versions": {p: version(p) for p in ("nnduet", "nnunetv2", "torch", "numpy", "SimpleITK")}}


def find_cases(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """{case id: channel files in order} of ``<case>_<0000><ending>`` files, sorted.

    Raises:
        DatasetError: the folder is missing or holds no such file.
    """
    pattern = re.compile(r"(.+)_(\d{4})" + re.escape(file_ending))
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.glob(f"*{file_ending}")) if folder.is_dir() else []:
        match = pattern.fullmatch(path.name)
        if match:
            found[match[1]][int(match[2])] = path
    if not found:
        raise DatasetError(f"{folder}: expected images named <case>_0000{file_ending}, found none")
    for case_id, channels in found.items():
        if sorted(channels) != list(range(len(channels))):
            raise DatasetError(f"{case_id}: expected channels 0000 to {max(channels):04d}, got {sorted(channels)}")
    return {case_id: [channels[i] for i in sorted(channels)] for case_id, channels in sorted(found.items())}


def predict_folder(predictor: Predictor, images: Path, output: Path, *, progress: Progress | None = None) -> PredictionSummary:
    """Predict all cases and write ``<case>`` masks, ``<task>_results.csv``, ``classification.csv`` and ``run.json``.

    Models of several masks also write each one as ``<mask>/<case>``; ``<case>`` then holds their codes, see ``mask_codes``.
    Channels of every case are counted before any work. Each mask is written as soon as it is there, the tables at the end;
    nothing stands half-written under its final name.

    Raises:
        ModelError: a case has the wrong number of channels.
        DatasetError: no images.
        PartialFailureError: some cases failed; the others are complete and ``run.json`` lists the failed ones.
    """
    ending = str(predictor.model.dataset_json["file_ending"])
    cases = find_cases(images, ending)
    for case_id, paths in cases.items():
        predictor.check_channels(len(paths), case_id)
    output.mkdir(parents=True, exist_ok=True)
    done: dict[str, Prediction] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for index, (case_id, paths) in enumerate(cases.items()):
        started = time.perf_counter()
        try:
            done[case_id] = _predict_case(predictor, paths, output, f"{case_id}{ending}")
        except Exception as error:  # whatever one case does to the host must not stop the others
            failed[case_id] = f"{error.code}: {error}" if isinstance(error, NNDuetError) else f"FAILED: {error!r}"
        seconds[case_id] = round(time.perf_counter() - started, 3)
        if progress:
            progress(index + 1, len(cases), f"predict {case_id}")
    write_tables(output, predictor.tasks, done)
    summary = _summary(predictor, output, done, failed, seconds)
    write_json_atomically(output / "run.json", {**summary.to_json(), "images": str(images)})
    if failed:
        listed = "; ".join(f"{case_id} ({reason})" for case_id, reason in failed.items())
        raise PartialFailureError(f"{len(failed)} of {len(cases)} cases failed, the others are in {output}: {listed}")
    return summary


def _predict_case(predictor: Predictor, paths: list[Path], output: Path, name: str) -> Prediction:
    prediction = predictor(paths)
    assert prediction.geometry is not None
    for mask, array in prediction.masks.items():
        write_segmentation(output / mask / name, array, prediction.geometry)
    write_segmentation(output / name, prediction.segmentation, prediction.geometry)
    return prediction


def _summary(
    predictor: Predictor, output: Path, done: Mapping[str, Any], failed: dict[str, str], seconds: dict[str, float]
) -> PredictionSummary:
    return PredictionSummary(
        output=str(output),
        cases=list(done),
        failed=failed,
        seconds=seconds,
        folds=[member.fold for member in predictor.model.members],
        heads={task.name: predictor.head_used(task) for task in predictor.tasks},
        step_size=predictor.step_size,
        mirror_axes=list(predictor.mirror_axes),
        device=str(predictor.device),
    )


def write_tables(output: Path, tasks: tuple[Task, ...], predictions: Mapping[str, Prediction]) -> None:
    """Write ``classification.csv`` and per task ``<task>_results.csv`` (columns ``Names,<Task>``)."""
    if not tasks:
        return
    header = [CASE_COLUMN, *(column for task in tasks for column in _columns(task))]
    rows = [[case_id, *(v for t in tasks for v in _values(t, p))] for case_id, p in predictions.items()]
    write_text_atomically(output / CLASSIFICATION_FILE, _csv([header, *rows]))
    for task in tasks:
        answers = [[case_id, p.tasks[task.name].text] for case_id, p in predictions.items()]
        title = task.name[:1].upper() + task.name[1:]
        write_text_atomically(output / f"{task.name}_results.csv", _csv([["Names", title], *answers]))


def _columns(task: Task) -> list[str]:
    return [task.name, *(f"{task.name}_p_{label}" for label in task.classes)]


def _values(task: Task, prediction: Prediction) -> list[str]:
    answer = prediction.tasks[task.name]
    return [answer.text, *(f"{answer.probabilities[label]:.6f}" for label in task.classes)]


def _csv(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
