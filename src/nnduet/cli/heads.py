"""Commands on the stored features of a trained model: ``fit-head`` and ``probe``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnduet.cells import format_number
from nnduet.cli.options import FoldsOption, JsonOption, ModelArgument, WorkspaceOption, find_workspace, parse_folds
from nnduet.console import progress_bar, reporting, show, show_table

if TYPE_CHECKING:
    from nnduet.training.probing import ProbeMeans
    from nnduet.training.refitting import RefitRow

__all__ = ["FitHeadOptions", "ProbeOptions", "fit_head", "probe"]

_Table = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Labels, if not the dataset's classification_labels.csv; same columns."),
]
_IdColumn = Annotated[str | None, typer.Option(help="Column of --table with the case ids, if not case_id.")]
_Seed = Annotated[int, typer.Option(help="Seed of the inner cross-validation.")]


@dataclass(frozen=True, kw_only=True)
class FitHeadOptions:
    """What ``fit-head`` takes."""

    model: ModelArgument
    fold: FoldsOption = None
    table: _Table = None
    id_column: _IdColumn = None
    seed: _Seed = 0
    workspace: WorkspaceOption = None
    as_json: JsonOption = False


def fit_head(options: FitHeadOptions) -> None:
    """Fit the case heads of a trained model again.

    From stored features, without the network. The tables and metrics of the validation cases are replaced, too.
    """
    folds = parse_folds(options.fold)
    with reporting(options.as_json) as report:
        folders = find_workspace(options.workspace, make=False)
        from nnduet.training.refitting import refit_heads

        with progress_bar("fit-head") as progress:
            summary = refit_heads(
                options.model,
                workspace=folders,
                folds=folds,
                table=options.table,
                id_column=options.id_column,
                seed=options.seed,
                progress=progress,
            )
        report(summary.to_json(), lambda: _show_heads(summary.rows))


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What ``probe`` takes."""

    model: ModelArgument
    fold: FoldsOption = None
    table: _Table = None
    id_column: _IdColumn = None
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the results; default: MODEL/probe.")] = None
    seed: _Seed = 0
    workspace: WorkspaceOption = None
    as_json: JsonOption = False


def probe(options: ProbeOptions) -> None:
    """Find out which features carry which task.

    A linear model per encoder stage, and per other block of features, is asked about the held-out cases of each fold.
    """
    folds = parse_folds(options.fold)
    with reporting(options.as_json) as report:
        folders = find_workspace(options.workspace, make=False)
        from nnduet.training.probing import probe_model

        with progress_bar("probe") as progress:
            summary = probe_model(
                options.model,
                workspace=folders,
                folds=folds,
                table=options.table,
                id_column=options.id_column,
                output=options.output,
                seed=options.seed,
                progress=progress,
            )
        report(summary.to_json(), lambda: _show_probe(summary.means, summary.output))


def _show_heads(rows: Sequence[RefitRow]) -> None:
    cells = [
        (row.task, row.fold, row.model, row.features, _number(row.inner_loss), f"{row.network_share:g}", _scores(row.metrics))
        for row in rows
    ]
    show_table(("task", "fold", "model", "features", "inner loss", "network share", "on validation cases"), cells)


def _show_probe(means: Sequence[ProbeMeans], output: str) -> None:
    cells = [
        (
            *(row.task, row.block, str(row.num_features), row.model or "too few labels"),
            *(_number(row.inner_loss), _scores(vars(row)), _number(row.constant)),
        )
        for row in means
    ]
    show_table(("task", "features", "number", "model", "inner loss", "on held-out cases", "constant answer"), cells)
    show(f"\nprobe.json, probe.csv and probe.png are in {output}")


def _scores(metrics: Mapping[str, float | None]) -> str:
    """ "macro_f1 0.812  auroc 0.900", or "mae 3.2  spearman 0.4": the two that are told first."""
    from nnduet.evaluation.metrics.table import ANSWER_METRICS

    names = [metric.key for metric in ANSWER_METRICS if metric.prominence == "first"]
    return "  ".join(f"{name} {_number(metrics[name])}" for name in names if metrics.get(name) is not None)


def _number(value: float | None) -> str:
    return format_number(value, ".3f")
