"""Run the whole road on one of the real data sets and write ``docs/results/road-<set>.json``.

    python benchmarks/road.py --set lidc          # also acdc, busbra, busi; --epochs, --resume, --runs FOLDER

Convert, plan (cpu preset), train fold 0, predict its validation cases from their files, evaluate. The numbers of epochs
were cut to fit the time, after validation-patch Dice of longer runs had been seen; class labels of validation cases
chose nothing. ``--resume`` goes on with an interrupted training in the same ``--runs`` folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nnduet.console import progress_bar
from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_dataset
from nnduet.evaluation.summary import format_summary
from nnduet.inference.folder_runs import predict_folder
from nnduet.inference.memory import peak_bytes
from nnduet.inference.predictor import Predictor
from nnduet.io.files import write_json_atomically
from nnduet.network.hardware import processor_name
from nnduet.schema import Workspace
from nnduet.training.history import HISTORY_FILE
from nnduet.training.planning import plan
from nnduet.training.provenance import provenance
from nnduet.training.run import train

REPOSITORY = Path(__file__).resolve().parent.parent
DATASET_ID, FOLD, PRESET = 1, 0, "cpu"


@dataclass(frozen=True)
class RoadSet:
    """How a data set is read and how long it is trained."""

    tasks: tuple[str, ...]
    configuration: str
    epochs: int
    group_column: str | None = None
    id_column: str | None = None
    covariates: tuple[str, ...] = ()


SETS = {
    "lidc": RoadSet(("malignancy3", "diagnosis_binary", "texture:ordinal"), "3d_fullres", 60, "patient_id"),
    "acdc": RoadSet(("group",), "2d", 50, covariates=("height_cm", "weight_kg")),
    "busi": RoadSet(("label",), "2d", 60),
    "busbra": RoadSet(("Pathology", "BIRADS:ordinal"), "2d", 50, "Case", "ID"),
}


def run(name: str, data: Path, runs: Path, *, epochs: int | None, resume: bool) -> dict[str, Any]:
    """All stages of one set; returns what is written to the results file."""
    road, code = SETS[name], commit()
    workspace = Workspace.from_environment({}, runs / name)
    seconds: dict[str, float] = {}
    with stage("convert", seconds) as progress:
        source = read_folder(
            data / name,
            task_specs=road.tasks,
            id_column=road.id_column,
            group_column=road.group_column,
            covariates=road.covariates,
        )
        conversion = convert(source, workspace=workspace, dataset_id=DATASET_ID, name=name.capitalize(), progress=progress)
    planned = None
    if not resume:
        with stage("plan", seconds) as progress:
            planned = plan(
                DATASET_ID, PRESET, workspace=workspace, configurations=(road.configuration,), progress=progress
            ).to_json()
    with stage("train", seconds) as progress:
        training = train(
            DATASET_ID,
            road.configuration,
            FOLD,
            workspace=workspace,
            epochs=epochs or road.epochs,
            resume=resume,
            progress=progress,
        )
    references = references_of_dataset(workspace, DATASET_ID, fold=FOLD)
    predictions = runs / name / "predictions"
    with stage("predict", seconds) as progress:
        images = images_of_cases(workspace, references.case_ids or (), runs / name / "validation_images")
        predicted = predict_folder(Predictor.load(training.model, [FOLD]), images, predictions, progress=progress)
    with stage("evaluate", seconds):
        metrics = evaluate(
            predictions,
            references.masks,
            labels=references.labels,
            tasks=references.tasks,
            table=references.table,
            case_ids=references.case_ids,
            output=runs / name / "evaluation",
        )
    return {
        "set": name,
        "command": "python benchmarks/road.py " + " ".join(sys.argv[1:]),
        "fold": FOLD,
        "preset": PRESET,
        "configuration": road.configuration,
        "epochs": training.epochs,
        "resumed": resume,
        "seconds": seconds,
        "epoch_seconds": round(epoch_seconds(Path(training.metrics_file).parent / HISTORY_FILE), 1),
        "peak_memory_mib": round(peak_bytes() / 2**20),
        "conversion": {k: v for k, v in conversion.to_json().items() if k not in ("raw", "preprocessed", "notes")},
        "plan": planned and {k: v for k, v in planned.items() if k != "plans_file"},
        "heads": predicted.heads,
        "metrics": metrics,
        "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        "versions": {p: version(p) for p in ("nnduet", "nnunetv2", "torch", "numpy", "scikit-learn")},
        "commit": code,
    }


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[Callable[[int, int, str], None]]:
    """Time a stage and show its progress."""
    started = time.perf_counter()
    with progress_bar(name) as progress:
        yield progress
    seconds[name] = round(time.perf_counter() - started, 1)


def epoch_seconds(history: Path) -> float:
    """Seconds of all epochs, those before an interruption included; ``seconds`` has only what this run took."""
    with history.open(newline="", encoding="utf-8") as handle:
        return sum(float(row["seconds"]) for row in csv.DictReader(handle))


def images_of_cases(workspace: Workspace, case_ids: tuple[str, ...], folder: Path) -> Path:
    """A folder with copies of the images of the given cases."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = workspace.raw / workspace.dataset_name(DATASET_ID) / "imagesTr"
    wanted = set(case_ids)
    for path in source.iterdir():
        if path.name.split(".")[0].rsplit("_", 1)[0] in wanted:
            shutil.copy(path, folder)
    return folder


def machine() -> dict[str, Any]:
    """Processor, cores and memory that the figures were taken on."""
    return {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit of the code that ran, with ``-dirty`` where the work tree differs from it."""
    return provenance().get("commit", "")


def main() -> None:
    """Parse, run, write, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=sorted(SETS), required=True)
    parser.add_argument("--epochs", type=int, help="default: what fits 40 minutes on two cores")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NNDUET_DATA", REPOSITORY.parent / "shared" / "data")))
    arguments = parser.parse_args()
    results = run(arguments.set, arguments.data, arguments.runs, epochs=arguments.epochs, resume=arguments.resume)
    target = REPOSITORY / "docs" / "results" / f"road-{arguments.set}.json"
    write_json_atomically(target, results)
    for row in format_summary(results["metrics"]):
        sys.stdout.write(f"{row.name:45} {row.value:>8}  {row.interval:18} n={row.num_cases}\n")
    sys.stdout.write(json.dumps(results["seconds"]) + f"\n{target}\n")


if __name__ == "__main__":
    main()
