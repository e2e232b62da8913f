"""Predict every case of a folder; one bad case does not stop the others."""

from __future__ import annotations

import csv
import io
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnduet.data.files import write_json_atomically, write_text_atomically
from nnduet.data.images import write_segmentation
from nnduet.errors import DatasetError, NNDuetError, PartialFailureError
from nnduet.inference.abstention import Abstention
from nnduet.inference.answers import CaseAnswers
from nnduet.inference.predictor import Predictor
from nnduet.schema import CASE_COLUMN, Task

__all__ = [
    "CLASSIFICATION_FILE",
    "OUTLIER_COLUMN",
    "PredictionSummary",
    "csv_text",
    "find_cases",
    "predict_folder",
    "write_results",
    "write_tables",
]

Progress = Callable[[int, int, str], None]
CLASSIFICATION_FILE = "classification.csv"
OUTLIER_COLUMN = "outlier_score"


@dataclass(frozen=True)
class PredictionSummary:
    """What a folder run wrote: finished cases, failed cases with their reasons, seconds per case.

    ``abstained`` counts the finished cases whose answer to a task is left to a person, ``num_abstained`` those that are for any
    task. ``missing_covariates`` counts the finished cases of which a covariate was not given, for covariates with such cases.
    """

    output: str
    cases: list[str]
    failed: dict[str, str]
    seconds: dict[str, float]
    folds: list[str]
    heads: dict[str, str]
    error_rate: float
    abstention: list[str]
    num_abstained: int
    abstained: dict[str, int]
    missing_covariates: dict[str, int]
    step_size: float
    mirror_axes: list[int]
    device: str
    runtime: str

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


def predict_folder(
    predictor: Predictor,
    images: Path,
    output: Path,
    *,
    covariates: Mapping[str, Mapping[str, float]] | None = None,
    abstention: Abstention | None = None,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Predict all cases and write ``<case>`` masks, ``<task>_results.csv``, ``classification.csv`` and ``run.json``.

    Models of several masks also write each one as ``<mask>/<case>``; ``<case>`` then holds their codes, see ``mask_codes``.
    Channels of every case are counted before any work. Each mask is written as soon as it is there, the tables at the end;
    nothing stands half-written under its final name.

    Args:
        covariates: {case id: {name: value}}; what is missing counts as usual.
        abstention: when to say that a case should be looked at by a person; adds a column to ``classification.csv``.

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
    done: dict[str, CaseAnswers] = {}
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for index, (case_id, paths) in enumerate(cases.items()):
        started = time.perf_counter()
        try:
            known = (covariates or {}).get(case_id, {})
            done[case_id] = _predict_case(predictor, paths, known, output, f"{case_id}{ending}")
        except Exception as error:  # whatever one case does to the host must not stop the others
            failed[case_id] = f"{error.code}: {error}" if isinstance(error, NNDuetError) else f"FAILED: {error!r}"
        seconds[case_id] = round(time.perf_counter() - started, 3)
        if progress:
            progress(index + 1, len(cases), f"predict {case_id}")
    write_tables(output, predictor.tasks, done, abstention)
    missing = _missing_covariates(predictor.model.layout.covariates, done, covariates or {})
    summary = _summary(predictor, output, done, failed, seconds, abstention, missing)
    write_json_atomically(output / "run.json", {**summary.to_json(), "images": str(images)})
    if failed:
        listed = "; ".join(f"{case_id} ({reason})" for case_id, reason in failed.items())
        raise PartialFailureError(f"{len(failed)} of {len(cases)} cases failed, the others are in {output}: {listed}")
    return summary


def _predict_case(
    predictor: Predictor, paths: list[Path], covariates: Mapping[str, float], output: Path, name: str
) -> CaseAnswers:
    """Write the masks and keep the answers only: the masks of a large folder would not fit into memory."""
    prediction = predictor(paths, covariates=covariates)
    assert prediction.geometry is not None
    for mask, array in prediction.masks.items():
        write_segmentation(output / mask / name, array, prediction.geometry)
    write_segmentation(output / name, prediction.segmentation, prediction.geometry)
    return prediction.answers


def _summary(
    predictor: Predictor,
    output: Path,
    done: Mapping[str, CaseAnswers],
    failed: dict[str, str],
    seconds: dict[str, float],
    abstention: Abstention | None,
    missing_covariates: dict[str, int],
) -> PredictionSummary:
    abstained = _abstained(predictor.tasks, done, abstention)
    return PredictionSummary(
        output=str(output),
        cases=list(done),
        failed=failed,
        seconds=seconds,
        folds=[member.fold for member in predictor.model.members],
        heads={task.name: predictor.head_used(task) for task in predictor.tasks},
        error_rate=predictor.error_rate,
        abstention=[str(rule) for rule in abstention.rules] if abstention else [],
        num_abstained=len(set().union(*abstained.values())),
        abstained={task: len(cases) for task, cases in abstained.items()},
        missing_covariates=missing_covariates,
        step_size=predictor.step_size,
        mirror_axes=list(predictor.mirror_axes),
        device=str(predictor.device),
        runtime=predictor.passes.name,
    )


def _abstained(tasks: tuple[Task, ...], done: Mapping[str, CaseAnswers], abstention: Abstention | None) -> dict[str, set[str]]:
    """{task: cases whose answer is left to a person}; nothing without rules."""
    if abstention is None:
        return {}
    return {
        task.name: {case_id for case_id, p in done.items() if abstention.reason(p.tasks[task.name], p.outlier_score)}
        for task in tasks
    }


def _missing_covariates(
    names: Sequence[str], cases: Collection[str], covariates: Mapping[str, Mapping[str, float]]
) -> dict[str, int]:
    counts = {name: sum(name not in covariates.get(case_id, {}) for case_id in cases) for name in names}
    return {name: count for name, count in counts.items() if count}


def write_tables(
    output: Path, tasks: tuple[Task, ...], predictions: Mapping[str, CaseAnswers], abstention: Abstention | None = None
) -> None:
    """Write ``classification.csv`` and per task ``<task>_results.csv`` (columns ``Names,<Task>``).

    ``classification.csv`` has per task the answer, the probabilities, the prediction set ("benign|malignant") or the interval
    (lowest and highest value), the spread and, where asked for, the reason to abstain; then the case's outlier score. What is
    not known stays empty.
    """
    if not tasks:
        return
    header = [CASE_COLUMN, *(column for task in tasks for column in _columns(task, abstention)), OUTLIER_COLUMN]
    rows = [
        [case_id, *(v for t in tasks for v in _values(t, p, abstention)), _number(p.outlier_score)]
        for case_id, p in predictions.items()
    ]
    write_text_atomically(output / CLASSIFICATION_FILE, csv_text([header, *rows]))
    for task in tasks:
        write_results(output, task, {case_id: p.tasks[task.name].text for case_id, p in predictions.items()})


def write_results(output: Path, task: Task, answers: Mapping[str, str]) -> None:
    """Write ``<task>_results.csv``, columns ``Names,<Task>``, from {case id: answer}."""
    title = task.name[:1].upper() + task.name[1:]
    write_text_atomically(output / f"{task.name}_results.csv", csv_text([["Names", title], *map(list, answers.items())]))


def _columns(task: Task, abstention: Abstention | None) -> list[str]:
    certainty = ["set"] if task.is_classification else ["low", "high"]
    extra = [*certainty, "spread", *(["abstain"] if abstention else [])]
    return [task.name, *(f"{task.name}_p_{label}" for label in task.classes), *(f"{task.name}_{name}" for name in extra)]


def _values(task: Task, prediction: CaseAnswers, abstention: Abstention | None) -> list[str]:
    answer = prediction.tasks[task.name]
    certainty = ["|".join(answer.prediction_set)]
    if not task.is_classification:
        certainty = [_number(bound) for bound in answer.interval or (None, None)]
    reason = [abstention.reason(answer, prediction.outlier_score)] if abstention else []
    probabilities = [f"{answer.probabilities[label]:.6f}" for label in task.classes]
    return [answer.text, *probabilities, *certainty, _number(answer.spread), *reason]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def csv_text(rows: list[list[str]]) -> str:
    """Rows of cells as CSV with line feeds."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
