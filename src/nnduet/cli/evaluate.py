"""The command that scores predictions: ``evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnduet.cli.metric_table import show_metrics
from nnduet.cli.options import JsonOption, WorkspaceOption, find_workspace, parse_label_map, quiet_environment
from nnduet.console import progress_bar, reporting
from nnduet.records import record_object

if TYPE_CHECKING:
    from nnduet.evaluation.reference_sets import ReferenceSet

__all__ = ["EvaluateOptions", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What ``evaluate`` takes."""

    predictions: Annotated[Path, typer.Option("-p", "--predictions", exists=True, file_okay=False, help="What predict wrote.")]
    references: Annotated[Path | None, typer.Option("-r", "--references", exists=True, file_okay=False, help="Masks.")] = None
    dataset_json: Annotated[Path | None, typer.Option(help="dataset.json with the labels and tasks.")] = None
    table: Annotated[Path | None, typer.Option(help="Case table with the true answers to the tasks.")] = None
    id_column: Annotated[str | None, typer.Option(help="Column of the table with the case ids, if not case_id.")] = None
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Take labels and tasks from what predicted, instead of dataset.json.")
    ] = None
    map_label: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Replace a value of the references, e.g. 255=1, as in convert. Repeatable."),
    ] = None
    dataset_id: Annotated[int | None, typer.Option(help="Take all of these from a converted dataset.")] = None
    fold: Annotated[
        int | None, typer.Option("--fold", "--folds", min=0, help="With --dataset-id: only the fold's validation cases.")
    ] = None
    cases: Annotated[str | None, typer.Option(help="Only these cases, separated by commas.")] = None
    tolerance_mm: Annotated[float, typer.Option(help="Tolerance of the normalized surface distance.")] = 2.0
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for metrics.json and per_case.csv.")] = None
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if (self.dataset_json is not None) + (self.dataset_id is not None) + (self.model is not None) != 1:
            raise typer.BadParameter("name the labels and tasks by --model, by --dataset-json or by --dataset-id, one of them")

    def truth(self) -> ReferenceSet:
        """Labels, tasks and, of a dataset, masks, table and cases, by whichever option names them."""
        from nnduet.evaluation.reference_sets import references_of_dataset, references_of_json, references_of_model

        if self.model is not None:
            return references_of_model(self.model, masks=self.references, table=self.table)
        if self.dataset_json is not None:
            return references_of_json(self.dataset_json, masks=self.references, table=self.table)
        return references_of_dataset(find_workspace(self.workspace), self.dataset_id or 0, fold=self.fold)


def evaluate(options: EvaluateOptions) -> None:
    """Score predictions, with bootstrap intervals.

    Examples:

    \b
      nnduet evaluate -p out -r masks -m MODEL --table cases.csv -o metrics
      nnduet evaluate -p out -r masks -m lidc-nodule --map-label 255=1
    """
    label_map = parse_label_map(options.map_label)
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.evaluation.evaluate import evaluate as score
        from nnduet.evaluation.own_files import check_own_metrics

        if options.output is not None:
            check_own_metrics(options.output)
        truth = options.truth()
        with progress_bar("evaluate") as progress:
            metrics = score(
                options.predictions,
                options.references or truth.masks,
                labels=truth.labels,
                tasks=truth.tasks,
                table=options.table or truth.table,
                id_column=options.id_column,
                case_ids=options.cases.split(",") if options.cases else truth.case_ids,
                output=options.output,
                model=_model_place(options.model),
                label_map=label_map,
                tolerance_mm=options.tolerance_mm,
                progress=progress,
            )
        report(record_object(metrics), lambda: show_metrics(metrics))


def _model_place(model: str | None) -> Path | None:
    if model is None:
        return None
    from nnduet.model_store.shipped_models import find_model

    return find_model(model)
