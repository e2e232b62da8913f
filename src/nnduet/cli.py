"""The ``nnduet`` command: every function parses, calls one function of the package, and reports what it returned.

Only this module reads environment variables. nnU-Net reads its own when it is imported, hence the imports inside functions,
after :func:`_workspace`; they also keep ``nnduet --help`` quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnduet.console import progress_bar, reporting, say, show_table
from nnduet.schema import Workspace

__all__ = ["app", "main"]

app = typer.Typer(
    name="nnduet",
    help="One nnU-Net that outlines structures and classifies the case, from one encoder pass.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich for the help costs as much as everything else together
    add_completion=False,
    pretty_exceptions_enable=False,
)

DEFAULT_WORKSPACE = "nnduet_data"
EXIT_USAGE = 2

_Preset = Literal["resenc-m", "resenc-l", "cpu"]
_Device = Literal["auto", "cpu", "cuda", "mps"]

_Json = Annotated[bool, typer.Option("--json", help="End with one line of JSON on stdout.")]
_WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Folder for nnU-Net's three folders; before the variables nnUNet_raw and so on."),
]
_DatasetId = Annotated[int, typer.Argument(min=1, max=999, help="The NNN of DatasetNNN_Name.")]
_DeviceOption = Annotated[_Device, typer.Option(help="auto: CUDA if there is one, else the CPU.")]


def main() -> None:
    """Entry point of the ``nnduet`` script; with ``--json`` a wrong command line ends with a JSON line, too."""
    # on shared cores torch's threads otherwise spin while they wait for one that is not scheduled
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as error:
        if error.code == EXIT_USAGE and "--json" in sys.argv:
            message = "wrong command line; stderr says what is expected"
            typer.echo(json.dumps({"error": {"code": "USAGE", "message": message}}))
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("nnduet"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with the cases.")] = Path("."),
    *,
    dataset_id: Annotated[int, typer.Option(min=1, max=999, help="The NNN of DatasetNNN_Name.")],
    name: Annotated[str, typer.Option(help="The Name of DatasetNNN_Name.")],
    layout: Annotated[
        Literal["folder", "subtype-folders"],
        typer.Option(
            help="folder: images/, labels/, cases.csv; subtype-folders: train/subtypeN/, validation/subtypeN/, test/."
        ),
    ] = "folder",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME:type of a table column; type: binary, multiclass, ordinal, regression. :fixed=x behind it keeps "
            "training from mirroring left and right. Repeatable."
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Images, if not in FOLDER/images.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Masks, if not in FOLDER/labels. NAME=PATH, two times or more: several masks of each case."),
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Case table, if not FOLDER/cases.csv.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="Images without masks, if not in FOLDER/test_images.")] = None,
    splits: Annotated[Path | None, typer.Option(help="Folds, if not FOLDER/splits_final.json.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the case ids, if not case_id.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column with the patients; their cases share a fold.")] = None,
    covariate: Annotated[list[str] | None, typer.Option(help="Numeric table column to keep. Repeatable.")] = None,
    map_label: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW: store mask value OLD as label NEW, e.g. 255=1. Repeatable.")
    ] = None,
    num_folds: Annotated[int, typer.Option(min=2, help="Folds to make where none are given.")] = 5,
    replace: Annotated[bool, typer.Option("--replace", help="Let other labels, tasks or folds replace existing ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    workspace: _WorkspaceOption = None,
    as_json: _Json = False,
) -> None:
    """Check the cases and write them as an nnU-Net dataset."""
    options: dict[str, Any] = {"images": images, "labels": labels, "table": table, "test_images": test_images, "splits": splits}
    options |= {"id_column": id_column, "group_column": group_column, "covariates": covariate}
    given = {option: value for option, value in options.items() if value is not None}
    if layout == "subtype-folders" and (given or len(task or ()) > 1):
        raise typer.BadParameter(f"subtype-folders takes no other sources and at most one --task NAME, got {given or task}")
    label_map = _label_map(map_label or ())
    with reporting(as_json) as report:
        from nnduet.data.conversion import convert as convert_source
        from nnduet.data.layouts import read_folder, read_subtype_folders
        from nnduet.data.sources import parse_mask_folders

        if labels:
            given["labels"] = parse_mask_folders(labels, folder)
        if layout == "subtype-folders":
            task_name = task[0] if task else "subtype"
            source = read_subtype_folders(folder, task_name=task_name, label_map=label_map, num_folds=num_folds)
        else:
            source = read_folder(folder, task_specs=task or (), label_map=label_map, **given)
        with progress_bar("convert") as progress:
            summary = convert_source(
                source,
                workspace=_workspace(workspace, make=not dry_run),
                dataset_id=dataset_id,
                name=name,
                num_folds=num_folds,
                replace=replace,
                dry_run=dry_run,
                progress=progress,
            )
        report(summary.to_json())


def _label_map(pairs: Sequence[str]) -> dict[int, int] | None:
    """``["255=1"]`` to ``{255: 1}``; None where nothing is mapped."""
    try:
        return {int(old): int(new) for old, new in (pair.split("=") for pair in pairs)} or None
    except ValueError as error:
        raise typer.BadParameter(f"--map-label expected OLD=NEW with whole numbers, got {list(pairs)}") from error


@app.command()
def plan(
    dataset_id: _DatasetId,
    preset: Annotated[
        _Preset, typer.Option(help="resenc-m and resenc-l want a GPU; cpu trains in minutes on two cores.")
    ] = "resenc-m",
    configuration: Annotated[list[str] | None, typer.Option(help="2d, 3d_fullres, …; default: these two. Repeatable.")] = None,
    num_processes: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: from the cores.")] = None,
    workspace: _WorkspaceOption = None,
    as_json: _Json = False,
) -> None:
    """Fingerprint, plan and preprocess a converted dataset."""
    with reporting(as_json) as report:
        folders = _workspace(workspace)
        from nnduet.training.planning import plan as plan_dataset

        with progress_bar("plan") as progress:
            summary = plan_dataset(
                dataset_id,
                preset,
                workspace=folders,
                configurations=configuration or ("2d", "3d_fullres"),
                num_processes=num_processes,
                progress=progress,
            )
        report(summary.to_json())


@app.command()
def train(
    dataset_id: _DatasetId,
    configuration: Annotated[str, typer.Argument(help="2d, 3d_fullres, …")] = "3d_fullres",
    fold: Annotated[str, typer.Option(help="Number of the fold, or all.")] = "0",
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: what the plans say.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: _DeviceOption = "auto",
    preset: Annotated[_Preset | None, typer.Option(help="Train the plans of this preset.")] = None,
    plans: Annotated[str | None, typer.Option(help="Train the plans of this name.")] = None,
    workspace: _WorkspaceOption = None,
    as_json: _Json = False,
) -> None:
    """Train one fold and validate it on whole cases."""
    if preset and plans:
        raise typer.BadParameter("name the plans by --preset or by --plans, not both")
    chosen_fold = _fold(fold)
    with reporting(as_json) as report:
        folders = _workspace(workspace)
        from nnduet.training.planning import plans_name_of
        from nnduet.training.run import train as train_fold

        with progress_bar("train") as progress:
            summary = train_fold(
                dataset_id,
                configuration,
                chosen_fold,
                workspace=folders,
                plans_name=plans_name_of(preset) if preset else plans,
                epochs=epochs,
                resume=resume,
                device=device,
                progress=progress,
            )
        report(summary.to_json(), lambda: _show_training(summary.model, summary.metrics_file, summary.metrics))


@app.command()
def predict(
    images: Annotated[Path, typer.Option("-i", "--images", exists=True, file_okay=False, help="Images <case>_0000.<ending>.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for masks and tables.")],
    model: Annotated[Path, typer.Option("-m", "--model", exists=True, file_okay=False, help="Model folder that train wrote.")],
    folds: Annotated[
        str | None, typer.Option(help="Folds to combine, e.g. 0,1 or all; default: all that are finished.")
    ] = None,
    step_size: Annotated[float, typer.Option(help="Distance of tiles as a share of the patch.")] = 0.5,
    tta: Annotated[bool, typer.Option("--tta/--no-tta", help="Mirror over the axes that training mirrored.")] = True,
    device: _DeviceOption = "auto",
    as_json: _Json = False,
) -> None:
    """Outline and classify every case of a folder."""
    chosen = [_fold(entry) for entry in folds.split(",")] if folds else None
    with reporting(as_json) as report:
        _quiet_environment()
        from nnduet.inference.folder import predict_folder
        from nnduet.inference.predictor import Predictor

        predictor = Predictor.load(model, chosen, device=device, step_size=step_size, tta=tta)
        with progress_bar("predict") as progress:
            summary = predict_folder(predictor, images, output, progress=progress)
        report(summary.to_json())


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Option("-p", "--predictions", exists=True, file_okay=False, help="What predict wrote.")],
    references: Annotated[Path | None, typer.Option("-r", "--references", exists=True, file_okay=False, help="Masks.")] = None,
    dataset_json: Annotated[Path | None, typer.Option(help="dataset.json with the labels and tasks.")] = None,
    table: Annotated[Path | None, typer.Option(help="Case table with the true answers to the tasks.")] = None,
    dataset_id: Annotated[int | None, typer.Option(help="Take all of these from a converted dataset.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="With --dataset-id: only the fold's validation cases.")] = None,
    cases: Annotated[str | None, typer.Option(help="Only these cases, separated by commas.")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the normalized surface distance.")] = 2.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for metrics.json and per_case.csv.")] = None,
    workspace: _WorkspaceOption = None,
    as_json: _Json = False,
) -> None:
    """Score predictions, with bootstrap intervals."""
    if (dataset_json is None) == (dataset_id is None):
        raise typer.BadParameter("name the labels and tasks by --dataset-json or by --dataset-id, one of them")
    with reporting(as_json) as report:
        from nnduet.evaluation.evaluate import evaluate as score
        from nnduet.evaluation.requests import references_of_dataset, references_of_json

        if dataset_json is not None:
            truth = references_of_json(dataset_json, masks=references, table=table)
        else:
            truth = references_of_dataset(_workspace(workspace), dataset_id or 0, fold=fold)
        with progress_bar("evaluate") as progress:
            metrics = score(
                predictions,
                references or truth.masks,
                labels=truth.labels,
                tasks=truth.tasks,
                table=table or truth.table,
                case_ids=cases.split(",") if cases else truth.case_ids,
                output=output,
                tolerance_mm=tolerance_mm,
                progress=progress,
            )
        report(metrics, lambda: _show_metrics(metrics))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for data, model, predictions and metrics.")] = Path("nnduet_demo"),
    seed: Annotated[int, typer.Option(help="Seed of the synthetic cases.")] = 0,
    as_json: _Json = False,
) -> None:
    """Go the whole way on synthetic CT."""
    with reporting(as_json) as report:
        _quiet_environment()
        from nnduet.demo import run_demo

        with progress_bar("demo") as progress:
            summary = run_demo(output, seed=seed, progress=progress)
        report(summary.to_json(), lambda: _show_demo(summary.to_json()))
    if not summary.passed:
        raise typer.Exit(1)


def _show_demo(summary: Mapping[str, Any]) -> None:
    """What was measured against the floors, where everything is, and what to type next."""
    rows = []
    for name, floor in summary["floors"].items():
        value, interval = summary["measured"][name], summary["intervals"][name]
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        rows.append((name, f"{value:.3f}", between, f">= {floor:.2f}", "ok" if value >= floor else "BELOW"))
    show_table(("on unseen cases", "measured", "95 % interval", "floor", ""), rows, styles={"BELOW": "red"})
    minutes = sum(summary["seconds"].values()) / 60
    typer.echo(f"\n{minutes:.1f} minutes, of which training {summary['seconds']['train'] / 60:.1f}\n")
    for title in ("data", "model", "predictions", "metrics_file"):
        typer.echo(f"{title.replace('_file', ''):<12} {summary[title]}")
    typer.echo(
        "\nOn your own cases (images/, labels/, cases.csv):\n"
        "  nnduet convert FOLDER --task COLUMN --dataset-id 2 --name Mine && nnduet plan 2 --preset cpu && nnduet train 2"
    )


@app.command()
def doctor(workspace: _WorkspaceOption = None, as_json: _Json = False) -> None:
    """Look at this machine and say what would stop nnDuet."""
    with reporting(as_json) as report:
        from nnduet.doctor import diagnose

        environment = {} if workspace else os.environ
        diagnosis = diagnose(environment, (workspace or Path(DEFAULT_WORKSPACE)).absolute())
        rows = [(check.status, check.name, check.detail) for check in diagnosis.checks]
        styles = {"WARN": "yellow", "FAIL": "bold red"}
        report(diagnosis.to_json(), lambda: show_table(("", "what", "detail"), rows, styles=styles))
    if not diagnosis.passed:
        raise typer.Exit(1)


@app.command()
def plugin_path(as_json: _Json = False) -> None:
    """Print the folder for nnUNet_extTrainer.

    For stock nnU-Net: export nnUNet_extTrainer=$(nnduet plugin-path).
    """
    folder = str(Path(__file__).resolve().parent / "_nnunet_plugin")
    with reporting(as_json) as report:
        report({"plugin_path": folder}, lambda: typer.echo(folder))


def _workspace(folder: Path | None, *, make: bool = True) -> Workspace:
    """The nnU-Net folders, set in the environment for nnU-Net and made if ``make``; says on stderr if the default was taken."""
    default = (folder or Path(DEFAULT_WORKSPACE)).absolute()
    workspace = Workspace.from_environment({} if folder else os.environ, default)
    unset = [name for name in workspace.environment() if not os.environ.get(name)]
    if unset and not folder:
        say(f"{', '.join(unset)} not set: using {default}")
    for name, path in workspace.environment().items():
        if make:
            Path(path).mkdir(parents=True, exist_ok=True)
        os.environ[name] = path
    return workspace


def _quiet_environment() -> None:
    """Set the variables without which nnU-Net prints warnings when it is imported; nothing is written there."""
    default = Path(DEFAULT_WORKSPACE).absolute()
    os.environ.update(Workspace.from_environment(os.environ, default).environment())


def _fold(text: str) -> int | str:
    if text.strip() == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"fold: expected a number or all, got {text!r}") from None


def _show_metrics(metrics: dict[str, object]) -> None:
    from nnduet.evaluation.summary import format_summary

    show_table(("metric", "value", "95 % interval", "cases"), format_summary(metrics))


def _show_training(model: str, metrics_file: str, metrics: dict[str, object]) -> None:
    _show_metrics(metrics)
    typer.echo(f"model    {model}\nmetrics  {metrics_file}")
