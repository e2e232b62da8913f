"""Predict every case of a folder; one bad case does not stop the others."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnduet.data.files import write_json_atomically
from nnduet.data.images import write_segmentation
from nnduet.errors import DatasetError, NNDuetError, PartialFailureError
from nnduet.inference.abstention import Abstention
from nnduet.inference.answers import CaseAnswers
from nnduet.inference.predictor import Prediction, Predictor, Prepared
from nnduet.inference.tables import write_tables
from nnduet.schema import Task

__all__ = ["PredictionSummary", "find_cases", "predict_case", "predict_folder"]

Progress = Callable[[int, int, str], None]


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
    precision: str
    fast: bool

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
    Channels of every case are counted before any work. While the network runs, the next case is read and the last one's masks
    are written; the tables come at the end. Nothing stands half-written under its final name.

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
    with ThreadPoolExecutor(2) as pool:
        prepared = _one_ahead(pool, predictor.prepare, cases)
        writing: tuple[str, Future[None]] | None = None
        for index, (case_id, case) in enumerate(prepared):
            started = time.perf_counter()
            with _keeping(failed, case_id):
                prediction = predictor.predict_preprocessed(*case.result(), covariates=(covariates or {}).get(case_id, {}))
                _finish(writing, done, failed)
                writing = case_id, pool.submit(_write_masks, prediction, output, f"{case_id}{ending}")
                done[case_id] = prediction.answers
            seconds[case_id] = round(time.perf_counter() - started, 3)
            if progress:
                progress(index + 1, len(cases), f"predict {case_id}")
        _finish(writing, done, failed)
    write_tables(output, predictor.tasks, done, abstention)
    missing = _missing_covariates(predictor.model.layout.covariates, done, covariates or {})
    summary = _summary(predictor, output, done, failed, seconds, abstention, missing)
    write_json_atomically(output / "run.json", {**summary.to_json(), "images": str(images)})
    if failed:
        listed = "; ".join(f"{case_id} ({reason})" for case_id, reason in failed.items())
        raise PartialFailureError(f"{len(failed)} of {len(cases)} cases failed, the others are in {output}: {listed}")
    return summary


def predict_case(
    predictor: Predictor, paths: list[Path], covariates: Mapping[str, float], output: Path, name: str
) -> CaseAnswers:
    """Predict a case and write its masks into ``output``; returns the answers alone, for many masks would fill the memory."""
    prediction = predictor(paths, covariates=covariates)
    _write_masks(prediction, output, name)
    return prediction.answers


def _write_masks(prediction: Prediction, output: Path, name: str) -> None:
    assert prediction.geometry is not None
    for mask, array in prediction.masks.items():
        write_segmentation(output / mask / name, array, prediction.geometry)
    write_segmentation(output / name, prediction.segmentation, prediction.geometry)


def _one_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[list[Path]], Prepared], cases: Mapping[str, list[Path]]
) -> Iterator[tuple[str, Future[Prepared]]]:
    """Case by case, with the next one being prepared; no more than two are in memory."""
    waiting: tuple[str, Future[Prepared]] | None = None
    for case_id, paths in cases.items():
        following = case_id, pool.submit(prepare, paths)
        if waiting:
            yield waiting
        waiting = following
    if waiting:
        yield waiting


def _finish(writing: tuple[str, Future[None]] | None, done: dict[str, CaseAnswers], failed: dict[str, str]) -> None:
    """Wait for a case's masks; a case whose masks could not be written is not done."""
    if writing is None:
        return
    with _keeping(failed, writing[0]):
        writing[1].result()
    if writing[0] in failed:
        done.pop(writing[0], None)


@contextmanager
def _keeping(failed: dict[str, str], case_id: str) -> Iterator[None]:
    """Whatever one case does to the host must not stop the others: its reason is kept."""
    try:
        yield
    except Exception as error:
        failed[case_id] = f"{error.code}: {error}" if isinstance(error, NNDuetError) else f"FAILED: {error!r}"


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
        step_size=1.0 if predictor.fast else predictor.step_size,
        mirror_axes=list(predictor.mirror_axes),
        device=str(predictor.device),
        runtime=predictor.passes.name,
        precision=predictor.passes.precision,
        fast=predictor.fast,
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
