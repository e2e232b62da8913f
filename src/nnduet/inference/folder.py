"""Predict every case of a folder; one bad case does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnduet.data.case_files import find_cases
from nnduet.data.files import locked, write_json_atomically
from nnduet.data.images import FILE_ENDINGS, write_segmentation
from nnduet.errors import ModelError, NNDuetError, PartialFailureError, SettingsError
from nnduet.inference.abstention import Abstention
from nnduet.inference.answers import CaseAnswers
from nnduet.inference.case_records import CaseRecords, identity_of
from nnduet.inference.predictor import Prediction, Predictor, Prepared
from nnduet.inference.tables import result_ending, write_tables
from nnduet.names import name_problem, printable
from nnduet.schema import Task

__all__ = ["PredictionSummary", "predict_case", "predict_folder"]

RUN_FILE = "run.json"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PredictionSummary:
    """What a folder run wrote: finished cases, failed cases with their reasons, seconds per case.

    ``abstained`` counts the finished cases whose answer to a task is left to a person, ``num_abstained`` those that are for any
    task. ``missing_covariates`` counts the finished cases of which a covariate was not given, for covariates with such cases.
    ``not_used`` says which files of the folder are no cases, and why.
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
    not_used: list[str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every field and the versions that made the outputs."""
        return {**asdict(self), "versions": {p: version(p) for p in ("nnduet", "nnunetv2", "torch", "numpy", "SimpleITK")}}


def predict_folder(
    predictor: Predictor,
    images: Path,
    output: Path,
    *,
    covariates: Mapping[str, Mapping[str, float]] | None = None,
    abstention: Abstention | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> PredictionSummary:
    """Predict all cases and write ``<case>`` masks, ``<task>_results.csv``, ``classification.csv`` and ``run.json``.

    Models of several masks also write each one as ``<mask>/<case>``; ``<case>`` then holds their codes, see ``mask_codes``.
    Channels of every case are counted before any work. While the network runs, the next case is read and the last one's masks
    are written; the tables come at the end. Nothing stands half-written under its final name. What an earlier run wrote for the
    same cases is replaced.

    Args:
        images: a folder, or one file; what is not used there is named in the summary, see ``case_files``.
        covariates: {case id: {name: value}}; what is missing counts as usual.
        abstention: when to say that a case should be looked at by a person; adds a column to ``classification.csv``.
        resume: keep what an interrupted run with the same model and settings finished; its failed cases are tried again.

    Raises:
        ModelError: a case has the wrong number of channels.
        DatasetError: no images.
        SettingsError: the output is named like an image.
        LockedError: another process predicts into ``output``.
        ResumeError: nothing to resume, or another model or other settings.
        PartialFailureError: some cases failed; the others are complete and ``run.json`` lists the failed ones.
    """
    if output.name.lower().endswith(FILE_ENDINGS):
        raise SettingsError(f"{output}: the output is a folder, where a mask is named like its case; leave out the ending")
    ending = str(predictor.model.dataset_json["file_ending"])
    found, known = find_cases(images, predictor.num_channels, ending=ending, error=ModelError), covariates or {}
    nameless = {printable(case_id): f"DATASET: {why}" for case_id in found.cases if (why := name_problem(case_id))}
    cases = {case_id: list(paths) for case_id, paths in found.cases.items() if not name_problem(case_id)}
    if abstention:
        abstention.check_known(predictor.quantities)
    with locked(output):
        (output / RUN_FILE).unlink(missing_ok=True)  # says that a run is complete
        records = CaseRecords(output, identity_of(predictor, known), resume=resume)
        run = _Run(records, cases, failed=nameless)
        for case_id, paths in cases.items():
            kept = records.done(case_id, paths, _mask_paths(predictor, output, f"{case_id}{ending}"))
            if kept:
                run.done[case_id], run.seconds[case_id] = kept
        waiting = {case_id: paths for case_id, paths in cases.items() if case_id not in run.done}
        with ThreadPoolExecutor(2) as pool:
            for case_id, case in _one_ahead(pool, predictor.prepare, waiting):
                with run.case(case_id):
                    prediction = predictor.predict_preprocessed(*case.result(), covariates=known.get(case_id, {}))
                    run.finish()
                    task = pool.submit(_write_masks, prediction, output, f"{case_id}{ending}")
                    run.writing = case_id, prediction.answers, task
                if progress:
                    progress(len(run.seconds), len(cases), f"predict {case_id}")
            run.finish()
        done = {case_id: run.done[case_id] for case_id in cases if case_id in run.done}
        write_tables(output, predictor.tasks, done, abstention, result_ending(predictor.model.dataset_json))
        missing = _missing_covariates(predictor.model.layout.covariates, done, known)
        summary = _summary(predictor, output, done, run.failed, run.seconds, abstention, missing, found.notes)
        write_json_atomically(output / RUN_FILE, {**summary.to_json(), "images": str(images)})
    if run.failed:
        listed = "; ".join(f"{case_id} ({reason})" for case_id, reason in run.failed.items())
        raise PartialFailureError(f"{len(run.failed)} of {len(found.cases)} cases failed, the others are in {output}: {listed}")
    return summary


@dataclass
class _Run:
    """How far a folder is: finished and failed cases, and the one whose masks are being written."""

    records: CaseRecords
    cases: Mapping[str, list[Path]]
    done: dict[str, CaseAnswers] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    writing: tuple[str, CaseAnswers, Future[None]] | None = None

    @contextmanager
    def case(self, case_id: str) -> Iterator[None]:
        """Time a case; whatever it does to the host must not stop the others."""
        started = time.perf_counter()
        with self._keeping(case_id):
            yield
        self.seconds[case_id] = round(time.perf_counter() - started, 3)

    def finish(self) -> None:
        """Wait for a case's masks; it is done once they and its record are written."""
        if self.writing is None:
            return
        case_id, answers, task = self.writing
        self.writing = None
        with self._keeping(case_id):
            task.result()
            self.records.add(case_id, self.cases[case_id], self.seconds[case_id], answers)
            self.done[case_id] = answers

    @contextmanager
    def _keeping(self, case_id: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = f"{error.code}: {error}" if isinstance(error, NNDuetError) else f"FAILED: {error!r}"
            self.failed[case_id] = reason
            with suppress(OSError):  # a full disk has no room for the reason either; run.json has it, or the message
                self.records.add(case_id, self.cases[case_id], 0.0, reason)


def predict_case(
    predictor: Predictor, paths: list[Path], covariates: Mapping[str, float], output: Path, name: str
) -> CaseAnswers:
    """Predict a case and write its masks into ``output``; returns the answers alone, for many masks would fill the memory."""
    prediction = predictor(paths, covariates=covariates)
    _write_masks(prediction, output, name)
    return prediction.answers


def _mask_paths(predictor: Predictor, output: Path, name: str) -> list[Path]:
    codes = predictor.mask_codes
    return [output / name, *(output / mask / name for mask in (codes.names if codes else ()))]


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


def _summary(
    predictor: Predictor,
    output: Path,
    done: Mapping[str, CaseAnswers],
    failed: dict[str, str],
    seconds: dict[str, float],
    abstention: Abstention | None,
    missing_covariates: dict[str, int],
    not_used: Sequence[str],
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
        not_used=list(not_used),
    )


def _abstained(tasks: tuple[Task, ...], done: Mapping[str, CaseAnswers], abstention: Abstention | None) -> dict[str, set[str]]:
    """{task: cases whose answer is left to a person}; nothing without rules."""
    if abstention is None:
        return {}
    return {
        task.name: {case_id for case_id, p in done.items() if abstention.reason(task, p.tasks[task.name], p.outlier_score)}
        for task in tasks
    }


def _missing_covariates(
    names: Sequence[str], cases: Collection[str], covariates: Mapping[str, Mapping[str, float]]
) -> dict[str, int]:
    counts = {name: sum(name not in covariates.get(case_id, {}) for case_id in cases) for name in names}
    return {name: count for name, count in counts.items() if count}
