"""Commands about answers to cases: ``predict`` and ``evaluate``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nnduet.cli.answer_table import show_answers
from nnduet.cli.options import (
    DeviceOption,
    FoldsOption,
    JsonOption,
    WorkspaceOption,
    find_workspace,
    parse_folds,
    parse_label_map,
    quiet_environment,
)
from nnduet.console import progress_bar, reporting, say, show_table, warn
from nnduet.runtimes.all_runtimes import runtime_names

__all__ = ["benchmark", "evaluate", "predict", "show_metrics"]

_Images = Annotated[
    Path, typer.Option("-i", "--images", exists=True, help="Folder of images <case>_0000.<ending>, or one of them.")
]
_Model = Annotated[str, typer.Option("-m", "--model", help="Model folder, bundle (.nnduet), or shipped model: lidc-nodule.")]
_Covariates = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="CSV with the model's covariates by case; an empty cell counts as usual."),
]
_ErrorRate = Annotated[
    float, typer.Option(help="Share of cases, in (0, 1), whose truth may lie outside the prediction set or interval.")
]
_Abstain = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE",
        help="Leave a case to a person: confidence, set (number of classes in the prediction set), spread or outlier, then "
        "< or >, then a number. Quote it. Repeatable; any rule is enough.",
    ),
]

if TYPE_CHECKING:
    _RuntimeName = str
else:  # typer lists the choices of a Literal, and a type checker reads no computed ones
    _RuntimeName = Literal[runtime_names()]
_Runtime = Annotated[
    _RuntimeName,
    typer.Option(help="What computes the network. auto: OpenVINO for large or already converted networks on CPUs, else torch."),
]
_Precision = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(help="Number format of the network. auto: what the processor multiplies fastest, see run.json."),
]


def predict(
    images: _Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for masks and tables, or a single mask.")],
    model: _Model,
    folds: FoldsOption = None,
    step_size: Annotated[float, typer.Option(help="Distance of tiles as a share of the patch.")] = 0.5,
    tta: Annotated[bool, typer.Option("--tta/--no-tta", help="Mirror over the axes that training mirrored.")] = True,
    fast: Annotated[
        bool, typer.Option("--fast", help="Tiles side by side, overlapping ones only around what they find, no mirroring.")
    ] = False,
    covariates: _Covariates = None,
    id_column: Annotated[str | None, typer.Option(help="Column of --covariates with the case ids, if not case_id.")] = None,
    error_rate: _ErrorRate = 0.1,
    abstain: _Abstain = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run into OUT stopped.")] = False,
    device: DeviceOption = "auto",
    runtime: _Runtime = "auto",
    precision: _Precision = "auto",
    as_json: JsonOption = False,
) -> None:
    """Outline and classify every case of a folder, or one case.

    Examples:

    \b
      nnduet predict -i case_0000.nii.gz -o mask.nii.gz -m MODEL
      nnduet predict -i images -o out -m MODEL
      nnduet predict -i images -o out -m lidc-nodule
      nnduet predict -i images -o out -m MODEL --covariates cases.csv
      nnduet predict -i images -o out -m MODEL --error-rate 0.05 --abstain 'set>1'
      nnduet predict -i images -o out -m MODEL --abstain 'confidence<0.6' --abstain 'outlier>0.99'
    """
    chosen = parse_folds(folds)
    if id_column and covariates is None:
        raise typer.BadParameter("--id-column names a column of --covariates, which is not given")
    if resume and _is_mask(output):
        raise typer.BadParameter("--resume goes on with a folder of cases; leave it out for a single mask")
    with reporting(as_json) as report:
        quiet_environment()
        from nnduet.inference.abstention import Abstention
        from nnduet.inference.predictor import Predictor

        rules = Abstention.parse(abstain or ())
        predictor = Predictor.load(
            model,
            chosen,
            device=device,
            step_size=step_size,
            tta=tta,
            error_rate=error_rate,
            runtime=runtime,
            precision=precision,
            fast=fast,
        )
        known = _read_covariates(predictor, covariates, id_column) if covariates else None
        with progress_bar("predict") as progress:
            if _is_mask(output):
                from nnduet.inference.folder_runs import predict_file

                summary = predict_file(predictor, images, output, covariates=known, abstention=rules)
            else:
                from nnduet.inference.folder_runs import predict_folder

                with _showing_the_others(predictor, rules, as_json):
                    summary = predict_folder(
                        predictor, images, output, covariates=known, abstention=rules, resume=resume, progress=progress
                    )
        _note_missing(summary.missing_covariates, len(summary.cases))
        for note in summary.not_used:
            say(note)
        report(summary.to_json(), lambda: show_answers(summary, predictor.tasks, rules))


def _read_covariates(predictor: Any, table: Path, id_column: str | None) -> dict[str, dict[str, float]]:
    from nnduet.datasets.case_tables import read_covariates

    names: tuple[str, ...] = predictor.model.layout.covariates
    return read_covariates(table, names, id_column)


def _note_missing(missing: Mapping[str, int], num_cases: int) -> None:
    for name, number in missing.items():
        say(f"covariate {name}: missing for {number} of {num_cases} cases, which count as usual")


def _is_mask(output: Path) -> bool:
    from nnduet.io.formats import is_image_name

    return is_image_name(output.name) and not output.is_dir()


@contextlib.contextmanager
def _showing_the_others(predictor: Any, rules: Any, as_json: bool) -> Iterator[None]:
    """Where some cases fail, show the answers to the others before the error, as far as a person reads them."""
    from nnduet.inference.prediction_summary import FailedCasesError

    try:
        yield
    except FailedCasesError as error:
        if not as_json:
            show_answers(error.summary, predictor.tasks, rules)
        raise


def benchmark(
    images: _Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the comparison and what every arm wrote.")],
    model: _Model,
    folds: FoldsOption = None,
    rounds: Annotated[int, typer.Option(min=2, help="Times that every arm runs, in ABBA order.")] = 3,
    cold: Annotated[bool, typer.Option("--cold/--no-cold", help="Also time whole commands with one case.")] = True,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the networks compute.")] = "cpu",
    runtime: _Runtime = "auto",
    precision: _Precision = "auto",
    as_json: JsonOption = False,
) -> None:
    """Time stock nnU-Net against nnDuet: same weights, same tiles, same mirroring, and compare what they say.

    Exits with 1 where nnDuet's ratio may not be called a speed-up.
    """
    chosen = parse_folds(folds)
    with reporting(as_json) as report:
        quiet_environment()
        from nnduet.benchmark.cold_start import OWN
        from nnduet.benchmark.speed import compare_speed
        from nnduet.model_store.shipped_models import find_model

        with progress_bar("benchmark") as progress:
            found = compare_speed(
                find_model(model),
                images,
                output,
                rounds=rounds,
                runtime=runtime,
                precision=precision,
                device=device,
                folds=[str(fold) for fold in chosen or ()],
                cold=cold,
                progress=progress,
            )
        report(found, lambda: _show_speed(found))
    if not found["ratios"][OWN]["is_speed_up"]:
        raise typer.Exit(1)


def _show_speed(found: Mapping[str, Any]) -> None:
    rows = []
    for name, arm in found["arms"].items():
        ratio, alike = found["ratios"].get(name), found["agreement"].get(name, {})
        between = f"{ratio['ci95'][0]:.2f} to {ratio['ci95'][1]:.2f}" if ratio and ratio["ci95"] else ""
        dice = f"{min(alike['dice'].values(), default=1.0):.4f}" if alike else ""
        rows.append(
            (
                name,
                arm["computed_by"],
                f"{arm['median_seconds']:.2f}",
                f"{arm['peak_bytes'] / 2**20:.0f}",
                f"{ratio['times_faster']:.2f}" if ratio else "",
                between,
                dice,
                "; ".join(ratio["why_not"]) if ratio else "",
            )
        )
    titles = ("arm", "computed by", "s a case", "peak MiB", "times faster", "95 % interval", "least Dice", "why no speed-up")
    show_table(titles, rows)
    if "times_faster" in found.get("cold", {}):
        say(f"whole command with one case: {found['cold']['times_faster']:.2f} times faster")
    elif "cold" in found:
        say(f"whole command with one case: not measured, {found['cold']['reason']}")


def evaluate(
    predictions: Annotated[Path, typer.Option("-p", "--predictions", exists=True, file_okay=False, help="What predict wrote.")],
    references: Annotated[Path | None, typer.Option("-r", "--references", exists=True, file_okay=False, help="Masks.")] = None,
    dataset_json: Annotated[Path | None, typer.Option(help="dataset.json with the labels and tasks.")] = None,
    table: Annotated[Path | None, typer.Option(help="Case table with the true answers to the tasks.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the table with the case ids, if not case_id.")] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Take labels and tasks from what predicted, instead of dataset.json.")
    ] = None,
    map_label: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Replace a value of the references, e.g. 255=1, as in convert. Repeatable."),
    ] = None,
    dataset_id: Annotated[int | None, typer.Option(help="Take all of these from a converted dataset.")] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", "--folds", min=0, help="With --dataset-id: only the fold's validation cases.")
    ] = None,
    cases: Annotated[str | None, typer.Option(help="Only these cases, separated by commas.")] = None,
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the normalized surface distance.")] = 2.0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for metrics.json and per_case.csv.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score predictions, with bootstrap intervals.

    Examples:

    \b
      nnduet evaluate -p out -r masks -m MODEL --table cases.csv -o metrics
      nnduet evaluate -p out -r masks -m lidc-nodule --map-label 255=1
    """
    if (dataset_json is not None) + (dataset_id is not None) + (model is not None) != 1:
        raise typer.BadParameter("name the labels and tasks by --model, by --dataset-json or by --dataset-id, one of them")
    label_map = parse_label_map(map_label or ())
    with reporting(as_json) as report:
        quiet_environment()
        from nnduet.evaluation.evaluate import evaluate as score
        from nnduet.evaluation.own_files import check_own_metrics
        from nnduet.evaluation.reference_sets import references_of_dataset, references_of_json, references_of_model

        if output is not None:
            check_own_metrics(output)
        if model is not None:
            truth = references_of_model(model, masks=references, table=table)
        elif dataset_json is not None:
            truth = references_of_json(dataset_json, masks=references, table=table)
        else:
            truth = references_of_dataset(find_workspace(workspace), dataset_id or 0, fold=fold)
        with progress_bar("evaluate") as progress:
            metrics = score(
                predictions,
                references or truth.masks,
                labels=truth.labels,
                tasks=truth.tasks,
                table=table or truth.table,
                id_column=id_column,
                case_ids=cases.split(",") if cases else truth.case_ids,
                output=output,
                model=_model_place(model),
                label_map=label_map,
                tolerance_mm=tolerance_mm,
                progress=progress,
            )
        report(metrics, lambda: show_metrics(metrics))


def _model_place(model: str | None) -> Path | None:
    if model is None:
        return None
    from nnduet.model_store.shipped_models import find_model

    return find_model(model)


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """Print the rows that a person wants to see first of what ``evaluate`` found; on stderr what to be wary of."""
    from nnduet.evaluation.summary import format_summary, missing_note

    missing = missing_note(metrics)
    for note in metrics.get("not_used", ()):
        say(note)
    for warning in (*([missing] if missing else []), *metrics.get("warnings", ())):
        warn(warning)
    show_table(("metric", "value", "95 % interval", "cases"), format_summary(metrics))
