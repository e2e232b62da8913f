"""Cross-validate nnDuet's default on a real data set and say what each of its parts is worth.

    python benchmarks/accuracy.py --set acdc --folds 0 1       # the default; --set lidc, busbra; --row a trains an ablation
    python benchmarks/accuracy.py --set acdc --summarise       # docs/results/accuracy-acdc.{json,md} from what is there

Every fold is a run of its own that goes on where it was interrupted; what it says of each of its validation cases is written
to ``docs/results/accuracy/<set>/`` when it is done (predictions only: the truth stays in the data). Everything is chosen
inside the training cases of the fold. The rows of the ablation, each on top of the one before:

    a  the usual way: bottleneck, plain average, class loss 0.5 from the start and into the encoder, one optimiser group
    b  the heads in their own AdamW group, class loss 0.1 after a warm-up
    c  all encoder stages
    d  pooled in the predicted regions, and the encoder learns from the segmentation alone: the network head of the default
    e  the case head on these features
    f  and on the shapes of the predicted regions
    g  and on the covariates
    h  calibrated, and combined with the network head: the default
    m  for comparison, the default with the one best model as its case head, not the mean of the best
    s  for comparison, the default trained 0.4 times as long, as rows a to c were
    t  for comparison, a calibrated case head on the shapes of the reference masks and the covariates: no segmentation to err
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from render_results import cell, met
from road import DATASET_ID, REPOSITORY, SETS, commit, machine

from nnduet.case_head.descriptors import describe_regions
from nnduet.case_head.feature_table import FeatureTable
from nnduet.case_head.fit import fit_case_head
from nnduet.case_head.head import CaseHead
from nnduet.console import progress_bar
from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.evaluation.bootstrap import draw_resamples, weighted_mean
from nnduet.evaluation.evaluate import evaluate
from nnduet.evaluation.reference_sets import references_of_dataset
from nnduet.inference.case_features import grid_spacing_mm
from nnduet.inference.result_tables import write_tables
from nnduet.io.files import write_json_atomically, write_text_atomically
from nnduet.network.hardware import select_precision
from nnduet.records import to_plain
from nnduet.report.compare import compare_runs
from nnduet.schema import SPLITS_FILE, Task, Workspace
from nnduet.training.head_fitting import TRAINING_FEATURES, VALIDATION_FEATURES, answer_table
from nnduet.training.labels import CaseLabels, read_case_labels
from nnduet.training.planning import plan
from nnduet.training.run import train

CaseRows = Mapping[str, Mapping[str, str]]
"""Cells of classification.csv by case."""

RESULTS = REPOSITORY / "docs" / "results"
EPOCHS = {"lidc": 200, "acdc": 250, "busbra": 300}
SHORTER = 0.4
"""Epochs of the rows of :data:`TRAINED_ROWS` by those of the default."""
MASKS = {"acdc": {"ED": "labels", "ES": "labels_ES"}}
USUAL: dict[str, Any] = {
    "pooling": "average",
    "stages": [-1],
    "class_loss_weight": 0.5,
    "warmup_fraction": 0.0,
    "head_optimizer": "shared",
    "class_gradient": 1.0,
}
_OWN_GROUP = {"class_loss_weight": 0.1, "warmup_fraction": 0.1, "head_optimizer": "own"}
TRAINED_ROWS: dict[str, dict[str, Any]] = {
    "a": USUAL,
    "b": USUAL | _OWN_GROUP,
    "c": USUAL | _OWN_GROUP | {"stages": None},
    "s": {},
}
"""Settings of the rows that need a training of their own."""
TARGETS: dict[str, list[tuple[str, str, float]]] = {
    "acdc": [("mean of the regions", "dice", 0.90), ("group", "accuracy", 0.92)],
    "lidc": [("nodule", "dice", 0.84), ("malignancy3", "macro_f1", 0.66), ("diagnosis_binary", "auroc", 0.94)],
    "busbra": [("lesion", "dice", 0.90), ("Pathology", "auroc", 0.93), ("BIRADS", "macro_f1", 0.55)],
}
"""What the default should reach out of fold: a region or task, the measure, the least value."""
LARGEST_ECE = 0.08
LARGEST_COVERAGE_ERROR = 0.03
BESIDE_TARGETS = {"s": f"{SHORTER} times as long (row s)", "t": "with reference masks (row t)"}
"""Rows that the targets' table shows beside the default."""


@dataclass(frozen=True)
class Bench:
    """A converted and planned data set."""

    name: str
    workspace: Workspace
    tasks: tuple[Task, ...]
    labels: CaseLabels
    num_folds: int

    @classmethod
    def prepare(cls, name: str, data: Path, runs: Path) -> Bench:
        """Convert and plan, unless that is done."""
        road, folder = SETS[name], data / name
        workspace = Workspace.from_environment({}, runs / f"accuracy-{name}")
        masks = {mask: folder / place for mask, place in MASKS[name].items()} if name in MASKS else None
        source = read_folder(
            folder,
            task_specs=road.tasks,
            labels=masks,
            id_column=road.id_column,
            group_column=road.group_column,
            covariates=road.covariates,
        )
        with progress_bar("convert") as progress:
            convert(source, workspace=workspace, dataset_id=DATASET_ID, name=name.capitalize(), progress=progress)
        prepared = workspace.preprocessed / workspace.dataset_name(DATASET_ID)
        if len(list(prepared.glob(f"nnDuetCpuPlans_{road.configuration}/*.pkl"))) < len(source.cases):
            with progress_bar("plan") as progress:
                plan(DATASET_ID, "cpu", workspace=workspace, configurations=(road.configuration,), progress=progress)
        labels = read_case_labels([prepared], source.tasks, road.covariates)
        return cls(name, workspace, source.tasks, labels, len(json.loads((prepared / SPLITS_FILE).read_text())))

    def train(self, fold: int, row: str) -> Path:
        """Train one fold of the default ("h") or of a row with a training of its own; returns its folder."""
        plans_name = self.plans_name(row)
        begun = any((self.model(plans_name) / f"fold_{fold}").glob("checkpoint_*.pth"))
        with progress_bar(f"{self.name} fold {fold} row {row}") as progress:
            summary = train(
                DATASET_ID,
                SETS[self.name].configuration,
                fold,
                workspace=self.workspace,
                plans_name=plans_name,
                epochs=self.epochs(row),
                resume=begun,
                progress=progress,
            )
        return Path(summary.metrics_file).parent

    def plans_name(self, row: str) -> str:
        """The plans that a row is trained with; written, for a row with a training of its own."""
        prepared = self.workspace.preprocessed / self.workspace.dataset_name(DATASET_ID)
        plans_name = "nnDuetCpuPlans"
        if row in TRAINED_ROWS:
            plans = json.loads((prepared / f"{plans_name}.json").read_text())
            plans["plans_name"] = plans_name = f"nnDuetCpuPlansRow{row.upper()}"
            plans["nnduet"]["training"] |= TRAINED_ROWS[row]
            write_json_atomically(prepared / f"{plans_name}.json", plans)
        return plans_name

    def epochs(self, row: str) -> int:
        """How long a row is trained."""
        return round(EPOCHS[self.name] * (SHORTER if row in TRAINED_ROWS else 1))

    def mean(self, cases: Sequence[str], values: Sequence[float | None]) -> dict[str, Any]:
        """Mean over cases, None or NaN left out, with its interval over patients."""
        numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
        resamples = draw_resamples(self.labels.patients(cases), num_resamples=1000, seed=0)
        number = int(np.isfinite(numbers).sum())
        found = resamples.estimate(weighted_mean(numbers, resamples.weights), n_defined=number, reason="no_defined_case")
        return cast(dict[str, Any], to_plain(found))

    def model(self, plans_name: str = "nnDuetCpuPlans") -> Path:
        """The model folder of the default, or of a row's plans."""
        dataset = self.workspace.results / self.workspace.dataset_name(DATASET_ID)
        return dataset / f"nnUNetTrainerMultitask__{plans_name}__{SETS[self.name].configuration}"

    def fold_file(self, fold: int, row: str) -> Path:
        """Where the predictions of a fold are kept."""
        return RESULTS / "accuracy" / self.name / f"fold_{fold}{'' if row == 'h' else '-row_' + row}.json"


def run_fold(bench: Bench, fold: int, row: str, code: str) -> None:
    """Train one fold and write what its model, and the rows that follow from its features, say of the validation cases."""
    started = time.perf_counter()
    folder = bench.train(fold, row)
    if row in ("h", "s"):
        rows = {row: _read_rows(folder / "validation" / "classification.csv")}
        rows |= rows_from_features(bench, folder) if row == "h" else {}
    else:
        rows = {row: _cells(bench, FeatureTable.load(folder / VALIDATION_FEATURES), {})}
    metrics = json.loads((folder / "final_metrics.json").read_text())
    result: dict[str, Any] = {
        "set": bench.name,
        "fold": fold,
        "row": row,
        "command": "python benchmarks/accuracy.py " + " ".join(sys.argv[1:]),
        "epochs": bench.epochs(row),
        "seconds_of_last_run": round(time.perf_counter() - started, 1),
        "heads": metrics["heads"],
        "alarms": metrics["alarms"],
        "dice": dice_by_case(folder / "validation"),
        "rows": rows,
        "machine": {**machine(), "torch_threads": torch.get_num_threads()},
        "precision": select_precision("auto", torch.device("cpu")),
        "versions": {p: version(p) for p in ("nnduet", "nnunetv2", "torch", "numpy", "scikit-learn")},
        "commit": code,
    }
    target = bench.fold_file(fold, row)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomically(target, result)
    sys.stdout.write(f"{target}\n")


def rows_from_features(bench: Bench, folder: Path) -> dict[str, dict[str, dict[str, str]]]:
    """{row: {case: cells}} of the rows d to g, m and t, from the stored features of one fold."""
    training, validation = (FeatureTable.load(folder / name) for name in (TRAINING_FEATURES, VALIDATION_FEATURES))
    network = [b for b in training.blocks if b == "intensity" or b.startswith("stage")]
    wanted = {"e": network, "f": [*network, "shape"]}
    if "covariates" in training.blocks:
        wanted["g"] = [*network, "shape", "covariates"]
    rows = {"d": _cells(bench, validation, {})}
    for row, names in wanted.items():
        blocks = {name: training.blocks[name] for name in names if name in training.blocks}
        heads = _fit(bench, training, blocks)
        rows[row] = _cells(bench, validation, {name: _uncalibrated(head) for name, head in heads.items()})
    rows["m"] = _cells(bench, validation, _fit(bench, training, training.blocks, training.network, averaged=[1]))
    if "shape" in training.blocks:
        training, validation = (_with_true_shapes(bench, table) for table in (training, validation))
        blocks = {name: training.blocks[name] for name in ("shape", "covariates") if name in training.blocks}
        rows["t"] = _cells(bench, validation, _fit(bench, training, blocks))
    return rows


def _uncalibrated(head: CaseHead) -> CaseHead:
    """The head with logits as large as its models had them, in geometric mean, for calibration is the last row."""
    *hidden, (weights, bias) = head.layers
    own = head.choice["own_temperature"]
    return replace(head, layers=(*hidden, (weights * own, bias * own)), temperature=1.0)


def _cells(bench: Bench, table: FeatureTable, heads: Mapping[str, CaseHead]) -> dict[str, dict[str, str]]:
    """{case: cells} that a table of predictions has, by these case heads; by the network's heads where there are none."""
    with tempfile.TemporaryDirectory() as place:
        write_tables(Path(place), bench.tasks, answer_table(table, bench.tasks, dict(heads), None))
        return _read_rows(Path(place) / "classification.csv")


def _fit(
    bench: Bench,
    table: FeatureTable,
    blocks: Mapping[str, range],
    answers: Mapping[str, NDArray[np.float32]] | None = None,
    **options: Any,
) -> dict[str, CaseHead]:
    """Case heads on some of the features, together with the network heads' answers where there are any."""
    values, patients, found = table.values.astype(float), bench.labels.patients(table.case_ids), {}
    for task in bench.tasks:
        column = bench.labels.column(task, table.case_ids)
        own = None if answers is None else answers[task.name].astype(float)
        found[task.name] = fit_case_head(task, values, column, patients, blocks=blocks, network=own, **options)
    return {name: head for name, head in found.items() if head}


def _with_true_shapes(bench: Bench, table: FeatureTable) -> FeatureTable:
    """The table with the shapes of the reference masks in place of those of the predicted ones."""
    prepared = bench.workspace.preprocessed / bench.workspace.dataset_name(DATASET_ID)
    plans = PlansManager(json.loads((prepared / "nnDuetCpuPlans.json").read_text()))
    labels = plans.get_label_manager(json.loads((prepared / "dataset.json").read_text()))
    regions = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    configuration = plans.get_configuration(SETS[bench.name].configuration)
    cases = nnUNetDatasetBlosc2(str(prepared / configuration.data_identifier))
    values = table.values.copy()
    for row, case_id in enumerate(table.case_ids):
        image, reference, _, properties = cases.load_case(case_id)
        masks = np.stack([np.isin(reference[0], region) for region in regions])
        spacing = grid_spacing_mm(properties, configuration, plans)
        values[row, table.blocks["shape"]] = describe_regions(np.asarray(image[:]), masks, spacing, table.descriptors)
    return replace(table, values=values)


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return {row.pop("case_id"): row for row in csv.DictReader(handle)}


def dice_by_case(folder: Path) -> dict[str, dict[str, float | None]]:
    """{case: {"<region>_dsc": Dice or None}} of a ``per_case.csv``."""
    rows = _read_rows(folder / "per_case.csv")
    return {c: {k: float(v) if v else None for k, v in cells.items() if k.endswith("_dsc")} for c, cells in rows.items()}


def summarise(bench: Bench) -> dict[str, Any]:
    """Measure all folds that are there, out of fold, and each row on the folds that have it."""
    stored = [json.loads(path.read_text()) for path in sorted((RESULTS / "accuracy" / bench.name).glob("fold_*.json"))]
    default = [fold for fold in stored if fold["row"] == "h"]
    rows: dict[str, dict[int, CaseRows]] = {}
    for fold in stored:
        for row, cells in fold["rows"].items():
            rows.setdefault(row, {})[fold["fold"]] = cells
    of_cases = {row: {c: cells for fold in sorted(folds) for c, cells in folds[fold].items()} for row, folds in rows.items()}
    with tempfile.TemporaryDirectory() as place:
        runs = {row: Path(place) / row for row in sorted(rows)}
        measured = {row: measure(bench, of_cases[row], run) for row, run in runs.items()}
        comparable = [row for row in runs if row != "h" and set(rows[row]) & set(rows.get(compared_with(row), ()))]
        gains = {row: gain(bench, runs[row], runs[compared_with(row)]) for row in comparable}
    for row in {"h", "s"} & set(measured):
        for task in bench.tasks:
            measured[row][task.name]["coverage"] = coverage(bench, task, of_cases[row])
    dice = {row: _dice(bench, [fold for fold in stored if fold["row"] == row]) for row in measured}
    result: dict[str, Any] = {
        "set": bench.name,
        "folds": [fold["fold"] for fold in default],
        "of_folds": bench.num_folds,
        "commits": sorted({fold["commit"] for fold in stored}),
        "epochs": sorted({fold["epochs"] for fold in default}),
        "processors": {fold["fold"]: fold["machine"]["cpu"] for fold in default},
        "preset": "cpu",
        "segmentation": dice["h"],
        "tasks": measured["h"],
        "ablation": {
            row: {
                "folds": sorted(rows[row]),
                "tasks": tasks,
                "compared_with": compared_with(row),
                "gain": gains.get(row, {}),
                "dice": dice[row],
            }
            for row, tasks in measured.items()
        },
        "dice_of_trained_rows": dice_of_trained_rows(bench, stored),
    }
    result["sanity"] = {task: failures(entry) for task, entry in result["tasks"].items()}
    result["targets"] = targets(result)
    return result


def _dice(bench: Bench, folds: list[dict[str, Any]]) -> dict[str, Any]:
    """{region: Dice over the cases of these folds}; empty for no folds, as of a row without a training of its own."""
    return mean_dice(bench, {case_id: cells for fold in folds for case_id, cells in fold["dice"].items()})


def mean_dice(bench: Bench, cases: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any]:
    """{region: Dice over these cases}, and of the mean of several regions, from what :func:`dice_by_case` reads."""
    columns = {name.removesuffix("_dsc"): [cells[name] for cells in cases.values()] for name in next(iter(cases.values()), {})}
    together = columns.pop("foreground", [])
    if len(columns) > 1:
        mean = np.nanmean(np.array(list(columns.values()), dtype=float), axis=0)
        columns |= {"mean of the regions": mean.tolist(), "foreground": together}
    return {name: bench.mean(list(cases), values) for name, values in columns.items()}


def targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each target beside what the default, row s and row t reached; None for what a row does not measure."""
    rows = []
    for name, measure, least in TARGETS[result["set"]]:
        rows.append((f"{name} {SHOWN.get(measure, 'Dice')}", f"at least {least:.2f}", name, measure, least, 1.0))
    for name, entry in result["tasks"].items():
        promise = 1 - entry["coverage"]["error_rate"]
        within = (round(promise - LARGEST_COVERAGE_ERROR, 4), round(promise + LARGEST_COVERAGE_ERROR, 4))
        rows.append((f"{name} ECE", f"at most {LARGEST_ECE}", name, "ece", 0.0, LARGEST_ECE))
        text = f"{promise:.2f} within {LARGEST_COVERAGE_ERROR}"
        rows.append((f"{name} sets that hold the truth", text, name, "covered", *within))
    found = []
    for what, text, name, measure, least, most in rows:
        reached = {}
        for row in ("h", *BESIDE_TARGETS):
            value = _reached(result["ablation"].get(row, {}), name, measure)
            reached[row] = {"measured": value, "met": None if value is None else least <= value <= most}
        found.append({"what": what, "target": text, **reached.pop("h"), "rows": reached})
    return found


def _reached(row: Mapping[str, Any], name: str, measure: str) -> float | None:
    """A measure of a region or task of one row of the ablation; None where the row does not have it."""
    task = row.get("tasks", {}).get(name, {})
    places = {"dice": row.get("dice", {}).get(name), "covered": task.get("coverage", {}).get("covered")}
    entry = places[measure] if measure in places else task.get("metrics", {}).get(measure)
    return None if entry is None else float(entry["value"])


def dice_of_trained_rows(bench: Bench, folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{row: folds, Dice of all regions together, and how much more the row it is compared with has, on their common cases}."""
    of_rows: dict[str, dict[str, float | None]] = {}
    for fold in folds:
        of_rows.setdefault(fold["row"], {}).update({c: cells["foreground_dsc"] for c, cells in fold["dice"].items()})
    found = {}
    for row, values in sorted(of_rows.items()):
        other = of_rows.get(compared_with(row), {})
        cases = [case_id for case_id in values if case_id in other]
        pairs = [(other[case_id], values[case_id]) for case_id in cases]
        if cases and row != "h":
            found[row] = {
                "folds": sorted(fold["fold"] for fold in folds if fold["row"] == row),
                "compared_with": compared_with(row),
                "dice": bench.mean(cases, [value for _, value in pairs]),
                "gain": bench.mean(cases, [None if a is None or b is None else a - b for a, b in pairs]),
            }
    return found


def compared_with(row: str) -> str:
    """The row that a row is compared with: the default, or for a training of another kind the one that was as long."""
    return "s" if row in ("a", "b", "c") else "h"


def gain(bench: Bench, row: Path, default: Path) -> dict[str, dict[str, Any]]:
    """{task: {metric: the second's value less the first's, with its interval}} of two measured runs, on their common cases."""
    table = references_of_dataset(bench.workspace, DATASET_ID).table if SETS[bench.name].group_column else None
    compared = compare_runs(row, default, table=table, num_bootstrap=1000)["tasks"]
    return {
        task: {
            name: {"value": entry["metrics"][name]["difference"], "ci95": entry["metrics"][name]["ci95"]} for name in COMPARED
        }
        for task, entry in compared.items()
    }


def measure(bench: Bench, rows: CaseRows, output: Path) -> dict[str, Any]:
    """Metrics of all tasks, by evaluate(), for {case: cells of classification.csv}; ``output`` keeps them."""
    references = references_of_dataset(bench.workspace, DATASET_ID)
    with tempfile.TemporaryDirectory() as place:
        header = ["case_id", *next(iter(rows.values()))]
        lines = [",".join(header), *(",".join([c, *(cells[h] for h in header[1:])]) for c, cells in rows.items())]
        write_text_atomically(Path(place) / "classification.csv", "\n".join(lines) + "\n")
        found = evaluate(
            Path(place),
            None,
            labels=references.labels,
            tasks=bench.tasks,
            table=references.table,
            case_ids=list(rows),
            output=output,
        )
    tasks: dict[str, Any] = to_plain(found.tasks)
    return tasks


def coverage(bench: Bench, task: Task, rows: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Share of cases whose prediction set at error rate 0.1 holds the truth, and the mean size of the sets."""
    truth = bench.labels.column(task, list(rows))
    sets = [cells[f"{task.name}_set"].split("|") for cells in rows.values()]
    held = [np.nan if np.isnan(t) else float(task.classes[int(t)] in chosen) for t, chosen in zip(truth, sets, strict=True)]
    return {
        "error_rate": 0.1,
        "covered": bench.mean(list(rows), held),
        "mean_size": round(float(np.mean([len(s) for s in sets])), 4),
    }


def failures(entry: Mapping[str, Any]) -> list[str]:
    """Why a task's figures could be those of a constant or random predictor; nothing for one that has learned something."""
    metrics, baseline = entry["metrics"], entry["majority_baseline"]
    found = []
    if entry["collapsed"]:
        found.append("one class was predicted for all cases")
    if (metrics["macro_f1"]["ci95"] or [0.0])[0] <= baseline["macro_f1"]:
        found.append("macro-F1 is not above that of a constant answer")
    if (metrics["auroc"]["ci95"] or [0.0])[0] <= 0.5:
        found.append("AUROC is not above that of chance")
    return found


COMPARED = ("macro_f1", "auroc")
SHOWN = {"macro_f1": "macro-F1", "accuracy": "accuracy", "auroc": "AUROC", "quadratic_kappa": "quadratic kappa", "ece": "ECE"}


def render(result: Mapping[str, Any]) -> str:
    """The page of one set."""
    epochs, processors = " and ".join(map(str, result["epochs"])), " and ".join(sorted(set(result["processors"].values())))
    heads = {row: _of_folds(text, result["ablation"].get(row)) for row, text in BESIDE_TARGETS.items()}
    lines = [
        f"# {result['set']}: out-of-fold accuracy",
        "",
        f"`python benchmarks/accuracy.py --set {result['set']}`, folds {result['folds']} of {result['of_folds']}, preset "
        f"`{result['preset']}`, {epochs} epochs, commits {', '.join(result['commits'])}, on {processors}. "
        "Every case by the fold that had not seen it; 95 % intervals by resampling patients.",
        "",
        "| region | Dice |",
        "|---|---|",
        *(f"| {region} | {cell(entry)} |" for region, entry in result["segmentation"].items()),
        "",
        "| target | | default | | " + " | ".join(heads.values()) + " |",
        "|---|---|---|---" + "|---" * len(heads) + "|",
        *(
            f"| {row['what']} | {row['target']} | {row['measured']:.3f} | {met(row['met'])} | "
            + " | ".join(_beside(row["rows"][name]) for name in heads)
            + " |"
            for row in result["targets"]
        ),
        "",
        "| row with a training of its own | folds | foreground Dice | compared with | its gain |",
        "|---|---|---|---|---|",
        *(
            f"| {row} | {' '.join(map(str, e['folds']))} | {cell(e['dice'])} | {e['compared_with']} | "
            f"{cell(e['gain'], sign='+')} |"
            for row, e in result["dice_of_trained_rows"].items()
        ),
        "",
    ]
    for task, entry in result["tasks"].items():
        rows = result["ablation"]
        shown, gained = [name for name in SHOWN if name in entry["metrics"]], [f"{SHOWN[n]}, its gain" for n in COMPARED]
        lines += [
            f"## {task}",
            "",
            f"| {' | '.join(['row', 'folds', *(SHOWN[n] for n in shown), 'compared with', *gained])} |",
            "|---" * (len(shown) + len(COMPARED) + 3) + "|",
        ]
        for row, measured in rows.items():
            gains = [measured["gain"].get(task, {}).get(n) for n in COMPARED]
            cells = [cell(measured["tasks"][task]["metrics"][n]) for n in shown]
            cells.append("" if row == "h" else measured["compared_with"])
            cells += ["" if found is None else cell(found, sign="+") for found in gains]
            lines.append(f"| {row} | {' '.join(map(str, measured['folds']))} | {' | '.join(cells)} |")
        baseline = entry["majority_baseline"]
        problems = "; ".join(result["sanity"][task]) or "none"
        sets, size = entry["coverage"], f"{entry['coverage']['mean_size']:.2f} of {len(entry['classes'])} classes"
        lines += [
            "",
            f"Prediction sets at error rate 0.1 hold the truth in {cell(sets['covered'])}; their mean size is {size}.",
        ]
        lines += ["", f"A constant answer has macro-F1 {baseline['macro_f1']:.3f}. Failed sanity checks: {problems}.", ""]
    explained = (__doc__ or "").split("each on top of the one before:")[1].strip().splitlines()
    paired = (
        "The last columns are what the row it is compared with has more, on the same cases: the default (h), or s, which was "
        "trained as long as a to c. Rows of fewer folds are to be read there."
    )
    return "\n".join(
        [*lines, paired, "", "Rows, each on top of the one before:", "", *(f"- {line.strip()}" for line in explained), ""]
    )


def _beside(reached: Mapping[str, Any]) -> str:
    """``0.842, met``, or nothing for what was not measured."""
    return "" if reached["measured"] is None else f"{reached['measured']:.3f}, {met(reached['met'])}"


def _of_folds(text: str, row: Mapping[str, Any] | None) -> str:
    """The head of a column, with the folds that it is of."""
    return f"{text}, {'not run' if row is None else 'folds ' + ' '.join(map(str, row['folds']))}"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows where runs and data are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NNDUET_DATA", REPOSITORY.parent / "shared" / "data")))
    return parser


def main() -> None:
    """Run the asked folds, then summarise."""
    parser = parser_of(__doc__)
    parser.add_argument("--set", choices=sorted(EPOCHS), required=True)
    parser.add_argument("--folds", type=int, nargs="*", help="default: all")
    parser.add_argument("--row", choices=[*TRAINED_ROWS, "h"], default="h")
    parser.add_argument("--summarise", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    bench = Bench.prepare(arguments.set, arguments.data, arguments.runs)
    if not arguments.summarise:
        code = commit()  # before results are written, which are part of the work tree
        for fold in range(bench.num_folds) if arguments.folds is None else arguments.folds:
            run_fold(bench, fold, arguments.row, code)
    result = summarise(bench)
    write_json_atomically(RESULTS / f"accuracy-{bench.name}.json", result)
    write_text_atomically(RESULTS / f"accuracy-{bench.name}.md", render(result))
    sys.stdout.write(render(result))
    if any(result["sanity"].values()):
        sys.exit("sanity checks failed, see above")


if __name__ == "__main__":
    main()
