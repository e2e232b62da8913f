"""The whole road on synthetic CT: make cases, convert, plan, train, predict unseen cases, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnduet.datasets.conversion import convert
from nnduet.datasets.phantom import write_phantom
from nnduet.datasets.subtype_folders import read_subtype_folders
from nnduet.errors import OutputExistsError
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.stored_metrics import Estimate, Metrics
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.predictor import Predictor
from nnduet.io.claimed_folders import claim_folder, is_claimed, remove_claimed
from nnduet.io.files import write_json_atomically
from nnduet.progress import Progress
from nnduet.records import record_object
from nnduet.report.explained_cases import ExplainedCases
from nnduet.report.page import write_report
from nnduet.report.runs import read_run
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.run import train

__all__ = ["FLOORS", "DemoSummary", "run_demo"]


FLOORS = {"organ DSC": 0.80, "lesion DSC": 0.50, "subtype macro-F1": 0.75}
"""What a run must reach on the unseen cases; a run below is a failure of nnDuet, not of the user."""

_ID, _NAME = 1, "Phantom"
_NUM_TRAIN, _NUM_VALIDATION, _NUM_TEST = 81, 9, 24
_SIZE = (20, 48, 56)  # mean voxels (Z, Y, X): a whole case fits one patch
_EPOCHS = 20
_MAKER, _SUMMARY_FILE = "nnduet demo", "demo.json"


@dataclass(frozen=True)
class DemoSummary:
    """What the demo measured and where everything is, as ``demo.json`` has it.

    Attributes:
        output, data, model, predictions, report: folders and the page of the report; ``metrics_file`` is of the unseen cases.
        measured, intervals, floors: values on the unseen cases by name, their 95 % intervals (None where they have none), and
            what they must reach.
        seconds: wall time by stage.
    """

    output: str
    data: str
    model: str
    predictions: str
    metrics_file: str
    report: str
    measured: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    floors: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every measured value reaches its floor."""
        return all(self.measured[name] >= floor for name, floor in self.floors.items())

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field and ``passed``."""
        return {**record_object(self), "passed": self.passed}


def run_demo(output: Path, *, seed: int = 0, replace_old: bool = False, progress: Progress | None = None) -> DemoSummary:
    """Run every stage in ``output``, a folder that is empty or not there.

    Args:
        seed: draws the phantom; the training has its own fixed seed.
        replace_old: delete the demo that an earlier run wrote there first.
        progress: called with (done, total, text) within each long stage.

    Raises:
        OutputExistsError: ``output`` holds an earlier demo that is not to be replaced, or files that no demo wrote.
    """
    _make_room(output, replace_old)
    workspace = Workspace.from_environment({}, output / "nnduet_data")
    seconds: dict[str, float] = {}
    with _timed(seconds, "phantom"):
        data = output / "images"
        write_phantom(data, num_train=_NUM_TRAIN, num_validation=_NUM_VALIDATION, num_test=_NUM_TEST, seed=seed, size=_SIZE)
    with _timed(seconds, "convert"):
        convert(read_subtype_folders(data), workspace=workspace, dataset_id=_ID, name=_NAME, progress=progress)
    with _timed(seconds, "plan"):
        plan(_ID, "cpu", workspace=workspace, configurations=("3d_fullres",), progress=progress)
    with _timed(seconds, "train"):
        training = train(_ID, "3d_fullres", 0, workspace=workspace, epochs=_EPOCHS, progress=progress)
    images, predictions = workspace.raw / workspace.dataset_name(_ID) / "imagesTs", output / "predictions"
    with _timed(seconds, "predict"):
        predictor = Predictor.load(training.model)
        predict_folder(predictor, images, predictions, progress=progress)
    with _timed(seconds, "evaluate"):
        metrics = _score(output, predictor)
    with _timed(seconds, "report"):
        page = _write_page(output, images, Path(training.model), progress)
    summary = DemoSummary(
        output=str(output),
        data=str(data),
        model=training.model,
        predictions=str(predictions),
        metrics_file=str(output / "evaluation" / "metrics.json"),
        report=page,
        measured={name: _entry(metrics, name).value or 0.0 for name in FLOORS},
        intervals={name: _entry(metrics, name).ci95 for name in FLOORS},
        floors=dict(FLOORS),
        seconds=seconds,
    )
    write_json_atomically(output / _SUMMARY_FILE, summary.to_json())
    return summary


def _score(output: Path, predictor: Predictor) -> Metrics:
    """The metrics of the unseen cases, which ``output / "evaluation"`` keeps."""
    data = output / "images"
    return evaluate(
        output / "predictions",
        data / "test_labels",
        labels=predictor.model.dataset_json["labels"],
        tasks=predictor.tasks,
        table=data / "test_cases.csv",
        output=output / "evaluation",
    )


def _write_page(output: Path, images: Path, model: Path, progress: Progress | None) -> str:
    """The report on the unseen cases, with the training curves and with evidence for the subtype; where it is."""
    run = replace(read_run(output / "evaluation", images=images), folds={"fold_0": model / "fold_0"})
    explain = ExplainedCases(run, "subtype", str(model))
    return write_report(run, output / "report", viewer_cases=_NUM_TEST, explain=explain, progress=progress).page


def _make_room(output: Path, replace_old: bool) -> None:
    if replace_old:
        remove_claimed(output, _MAKER)
    elif is_claimed(output, _MAKER):
        state = "a demo" if (output / _SUMMARY_FILE).is_file() else "a demo that did not reach its end"
        raise OutputExistsError(
            f"{output}: holds {state}; nothing was changed there",
            remedy=f"make it again with --replace, name another folder by --output, or look at {output / 'report'}/index.html",
        )
    claim_folder(output, _MAKER)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 1)


def _entry(metrics: Metrics, name: str) -> Estimate:
    """The aggregated value behind a floor; "organ" is the union of all foreground (whole pancreas = label > 0)."""
    entries = {
        "organ DSC": metrics.segmentation["foreground"].estimates["dsc"],
        "lesion DSC": metrics.segmentation["lesion"].estimates["dsc"],
        "subtype macro-F1": metrics.tasks["subtype"].metrics["macro_f1"],
    }
    return entries[name]
