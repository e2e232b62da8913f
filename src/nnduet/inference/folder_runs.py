"""Predict every case of a folder; one bad case does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nnduet.errors import ModelError, NNDuetError
from nnduet.inference.abstention import Abstention
from nnduet.inference.case_records import CaseRecords, RunIdentity, check_same_run, digests_of, identity_of
from nnduet.inference.output_folder import RUN_FILE, check_mask_file, check_output, check_place, mask_paths, table_paths
from nnduet.inference.prediction import Prediction
from nnduet.inference.prediction_summary import FailedCasesError, PredictionSummary, summarise
from nnduet.inference.predictor import Predictor, Prepared
from nnduet.inference.result_tables import result_ending, write_tables
from nnduet.inference.saving import write_masks
from nnduet.inference.task_predictions import CaseAnswers
from nnduet.io.case_files import find_cases
from nnduet.io.files import locked, write_json_atomically
from nnduet.names import name_problem, printable
from nnduet.progress import Progress

__all__ = ["PredictionSummary", "predict_case", "predict_file", "predict_folder"]


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
    are written; the tables come at the end. Nothing stands half-written under its final name. What an earlier run of the same
    model wrote for the same cases is replaced, and nothing else.

    Args:
        images: a folder, or one file; what is not used there is named in the summary, see ``case_files``.
        covariates: {case id: {name: value}}; what is missing counts as usual.
        abstention: when to say that a case should be looked at by a person; adds a column to ``classification.csv``.
        resume: keep what an interrupted run with the same model and settings finished; its failed cases are tried again.

    Raises:
        ModelError: a case has the wrong number of channels.
        DatasetError: no images.
        SettingsError: the output is the folder of the images or lies in the model, or a rule that cannot be followed.
        OutputExistsError: the output holds another model's answers, or files of the same names that no prediction wrote.
        LockedError: another process predicts into ``output``.
        ResumeError: nothing to resume, or another model or other settings.
        PartialFailureError: some cases failed; the others are complete and ``run.json`` lists the failed ones.
    """
    known, work = covariates or {}, _find_work(predictor, images, output)
    identity = identity_of(predictor, known)
    _check_work(predictor, work, identity, abstention, resume=resume)
    with locked(output):
        (output / RUN_FILE).unlink(missing_ok=True)  # says that a run is complete
        run = _Run(CaseRecords(output, identity, work.cases, predictor.tasks, resume=resume), work, failed=dict(work.nameless))
        _predict_cases(predictor, run, known, progress)
        done = {case_id: run.done[case_id] for case_id in work.cases if case_id in run.done}
        write_tables(output, predictor.tasks, done, abstention, result_ending(predictor.model.dataset_json))
        summary = summarise(predictor, str(output), done, run.failed, run.seconds, abstention, known, work.notes)
        write_json_atomically(output / RUN_FILE, summary.record(images))
    if run.failed:
        raise FailedCasesError(summary)
    return summary


def predict_file(
    predictor: Predictor,
    images: Path,
    mask: Path,
    *,
    covariates: Mapping[str, Mapping[str, float]] | None = None,
    abstention: Abstention | None = None,
) -> PredictionSummary:
    """Predict one case and write its mask under the name ``mask``, and nothing else.

    Args:
        images: a file, or a folder with one case; ``covariates`` and ``abstention`` as in :func:`predict_folder`.

    Raises:
        SettingsError: several cases, a model of several masks, another ending than that of the model's masks, or a rule that
            cannot be followed.
        OutputExistsError: ``mask`` is there already.
        NNDuetError: as for a call of the predictor.
    """
    known = covariates or {}
    found = find_cases(images, predictor.num_channels, ending=predictor.file_ending, error=ModelError)
    check_mask_file(mask, predictor.file_ending, predictor.mask_names, len(found.cases))
    if abstention:
        abstention.check_known(predictor.quantities)
    ((case_id, paths),) = found.cases.items()
    started = time.perf_counter()
    prediction = predictor(paths, covariates=known.get(case_id, {}))
    write_masks(prediction, [mask])
    done, seconds = {case_id: prediction.answers}, {case_id: round(time.perf_counter() - started, 3)}
    return summarise(predictor, str(mask), done, {}, seconds, abstention, known, found.notes)


@dataclass(frozen=True)
class _Work:
    """What a folder run will read and write: {case id: images} and {case id: masks}, and cases that no file can be named like,
    with the reason."""

    images: Path
    output: Path
    cases: Mapping[str, list[Path]]
    targets: Mapping[str, list[Path]]
    nameless: Mapping[str, str]
    notes: tuple[str, ...]


def _find_work(predictor: Predictor, images: Path, output: Path) -> _Work:
    ending, masks = predictor.file_ending, predictor.mask_names
    found = find_cases(images, predictor.num_channels, ending=ending, error=ModelError)
    nameless = {printable(case_id): f"DATASET: {why}" for case_id in found.cases if (why := name_problem(case_id))}
    cases = {case_id: list(paths) for case_id, paths in found.cases.items() if not name_problem(case_id)}
    targets = {case_id: mask_paths(output, case_id, ending, masks) for case_id in cases}
    return _Work(images, output, cases, targets, nameless, found.notes)


def _check_work(
    predictor: Predictor, work: _Work, identity: RunIdentity, abstention: Abstention | None, *, resume: bool
) -> None:
    """All that can be refused before any work; see :func:`predict_folder`."""
    if abstention:
        abstention.check_known(predictor.quantities)
    check_place(work.output, work.images, predictor.model.source)
    if resume:
        check_same_run(work.output, identity)
    inputs = [path for paths in work.cases.values() for path in paths]
    check_output(work.output, identity, work.targets, table_paths(work.output, predictor.tasks), inputs)


def _predict_cases(
    predictor: Predictor, run: _Run, covariates: Mapping[str, Mapping[str, float]], progress: Progress | None
) -> None:
    """Every case that an earlier run has not done; the next one is read, and the last one written, beside the network."""
    work = run.work
    for case_id, paths in work.cases.items():
        kept = run.records.done(case_id, paths, work.targets[case_id])
        if kept:
            run.done[case_id], run.seconds[case_id] = kept
    waiting = {case_id: paths for case_id, paths in work.cases.items() if case_id not in run.done}
    with ThreadPoolExecutor(2) as pool:
        for case_id, case in _one_ahead(pool, predictor.prepare, waiting):
            with run.case(case_id):
                prediction = predictor.predict_preprocessed(*case.result(), covariates=covariates.get(case_id, {}))
                run.finish()
                files = work.cases[case_id], work.targets[case_id], work.output
                run.writing = case_id, prediction.answers, pool.submit(_write_and_sum, prediction, *files)
            if progress:
                progress(len(run.seconds), len(work.cases), f"predict {case_id}")
        run.finish()


@dataclass
class _Run:
    """How far a folder is: finished and failed cases, and the one whose masks are being written."""

    records: CaseRecords
    work: _Work
    done: dict[str, CaseAnswers] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    writing: tuple[str, CaseAnswers, Future[tuple[dict[str, str], dict[str, str]]]] | None = None

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
            self.records.add(case_id, self.seconds[case_id], answers, *task.result())
            self.done[case_id] = answers

    @contextmanager
    def _keeping(self, case_id: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            reason = f"{error.code}: {error}" if isinstance(error, NNDuetError) else f"FAILED: {error!r}"
            self.failed[case_id] = reason
            with suppress(OSError):  # a full disk has no room for the reason either; run.json has it, or the message
                self.records.add(case_id, 0.0, reason)


def predict_case(
    predictor: Predictor, paths: list[Path], covariates: Mapping[str, float], output: Path, name: str
) -> CaseAnswers:
    """Predict a case and write its masks into ``output``; returns the answers alone, for many masks would fill the memory."""
    prediction = predictor(paths, covariates=covariates)
    write_masks(prediction, [output / name, *(output / mask / name for mask in prediction.masks)])
    return prediction.answers


def _write_and_sum(
    prediction: Prediction, inputs: Sequence[Path], targets: Sequence[Path], output: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the masks of a case; the digests of its images and of its masks."""
    write_masks(prediction, targets)
    return digests_of(inputs), digests_of(targets, output)


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
