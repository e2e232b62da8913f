"""What ``predict --fast`` costs: against the reference masks and labels, paired with the thorough prediction, by case.

    python benchmarks/fast.py --set lidc --fold 0        # a fold that benchmarks/accuracy.py has trained under --runs

Writes ``docs/results/fast-<set>.json``. Both predictions run on the validation cases in one process, alternating by case.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import RESULTS, Bench, dice_by_case, parser_of
from road import DATASET_ID, commit, images_of_cases, machine

from nnduet.console import progress_bar
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_dataset
from nnduet.inference.folder_runs import predict_case
from nnduet.inference.predictor import Predictor
from nnduet.inference.result_tables import write_tables
from nnduet.io.case_files import find_cases
from nnduet.io.files import write_json_atomically
from nnduet.records import to_plain

NON_INFERIOR = -0.003
"""Dice: the interval of the mean difference must lie above this."""


def compare(bench: Bench, fold: int) -> dict[str, Any]:
    """Predict the fold's validation cases both ways and measure the differences."""
    model = bench.model()
    references = references_of_dataset(bench.workspace, DATASET_ID, fold=fold)
    predictors = {"thorough": Predictor.load(model, [fold]), "fast": Predictor.load(model, [fold], fast=True)}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    with tempfile.TemporaryDirectory() as place, progress_bar("fast") as progress:
        images = images_of_cases(bench.workspace, references.case_ids or (), Path(place) / "images")
        found = find_cases(images, ending=predictors["fast"].model.dataset_json["file_ending"])
        cases = {case_id: list(paths) for case_id, paths in found.cases.items()}
        answers: dict[str, dict[str, Any]] = {name: {} for name in predictors}
        for index, (case_id, paths) in enumerate(cases.items()):
            for name in list(predictors) if index % 2 else reversed(list(predictors)):
                output = Path(place) / name
                output.mkdir(exist_ok=True)
                started = time.perf_counter()
                known, mask = bench.labels.covariates.get(case_id, {}), paths[0].name.replace("_0000", "")
                answers[name][case_id] = predict_case(predictors[name], paths, known, output, mask)
                seconds[name].append(time.perf_counter() - started)
            progress(index + 1, len(cases), case_id)
        metrics = {}
        for name, predictor in predictors.items():
            write_tables(Path(place) / name, predictor.tasks, answers[name])
            metrics[name] = evaluate(
                Path(place) / name,
                references.masks,
                labels=references.labels,
                tasks=references.tasks,
                table=references.table,
                case_ids=list(cases),
                output=Path(place) / f"{name}_metrics",
            )
        dice = {name: dice_by_case(Path(place) / f"{name}_metrics") for name in predictors}
    return {
        "set": bench.name,
        "fold": fold,
        "command": "python benchmarks/fast.py " + " ".join(sys.argv[1:]),
        "num_cases": len(cases),
        "times_faster": float(np.median(np.array(seconds["thorough"]) / np.array(seconds["fast"]))),
        "dice_difference": _differences(dice, bench),
        "tasks": {
            task.name: {name: to_plain(found.tasks[task.name].metrics["macro_f1"]) for name, found in metrics.items()}
            for task in references.tasks
        },
        "machine": machine(),
        "commit": commit(),
    }


def _differences(dice: Mapping[str, Mapping[str, Mapping[str, float | None]]], bench: Bench) -> dict[str, Any]:
    """Fast minus thorough, mean over cases with its interval over patients."""
    cases = list(dice["fast"])
    found = {}
    for column in dice["fast"][cases[0]]:
        pairs = [(dice["fast"][c][column], dice["thorough"][c][column]) for c in cases]
        entry = bench.mean(cases, [None if a is None or b is None else a - b for a, b in pairs])
        non_inferior = bool(entry["ci95"] and entry["ci95"][0] > NON_INFERIOR)
        found[column.removesuffix("_dsc")] = {**entry, "non_inferior": non_inferior}
    return found


def main() -> None:
    """Compare and write."""
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=["lidc", "acdc", "busbra"], required=True)
    parser.add_argument("--fold", type=int, default=0)
    arguments = parser.parse_args()
    result = compare(Bench.prepare(arguments.set, arguments.data, arguments.runs), arguments.fold)
    write_json_atomically(RESULTS / f"fast-{arguments.set}.json", result)
    sys.stdout.write(f"{result['times_faster']:.1f} times faster; Dice {result['dice_difference']}\n{result['tasks']}\n")


if __name__ == "__main__":
    main()
