"""Commands that train networks: ``train`` and ``cross-validate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nnduet.cli.metric_table import show_metrics
from nnduet.cli.options import (
    DatasetId,
    DeviceOption,
    FoldOption,
    JsonOption,
    Preset,
    WorkspaceOption,
    find_workspace,
    parse_fold,
    parse_folds,
)
from nnduet.console import progress_bar, reporting, show

if TYPE_CHECKING:
    from nnduet.evaluation.stored_metrics import Metrics

__all__ = ["CrossValidateOptions", "TrainOptions", "cross_validate", "train"]

_Configuration = Annotated[str, typer.Argument(help="2d, 3d_fullres, …")]
_Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Default: what the plans say, or what a resumed training began with; more than that extends it."),
]
_Plans = Annotated[str | None, typer.Option(help="Train the plans of this name.")]


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What ``train`` takes."""

    dataset_id: DatasetId
    configuration: _Configuration = "3d_fullres"
    fold: FoldOption = "0"
    epochs: _Epochs = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, or begin.")] = False
    device: DeviceOption = "auto"
    preset: Annotated[Preset | None, typer.Option(help="Train the plans of this preset.")] = None
    plans: _Plans = None
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if self.preset and self.plans:
            raise typer.BadParameter("name the plans by --preset or by --plans, not both")
        if "," in (self.fold or ""):
            several = f"`nnduet cross-validate --folds {self.fold}` trains several"
            raise typer.BadParameter(f"train: expected one fold, got {self.fold}; {several}")


def train(options: TrainOptions) -> None:
    """Train one fold and validate it on whole cases."""
    fold = parse_fold(options.fold or "0")
    with reporting(options.as_json) as report:
        folders = find_workspace(options.workspace)
        from nnduet.training.planners import plans_name_of
        from nnduet.training.run import train as train_fold

        with progress_bar("train") as progress:
            summary = train_fold(
                options.dataset_id,
                options.configuration,
                fold,
                workspace=folders,
                plans_name=plans_name_of(options.preset) if options.preset else options.plans,
                epochs=options.epochs,
                resume=options.resume,
                device=options.device,
                progress=progress,
            )
        report(summary.to_json(), lambda: _show_training(summary.model, summary.metrics_file, summary.metrics, summary.notes))


@dataclass(frozen=True, kw_only=True)
class CrossValidateOptions:
    """What ``cross-validate`` takes."""

    dataset_id: DatasetId
    configuration: _Configuration = "3d_fullres"
    folds: Annotated[
        list[str] | None, typer.Option("--folds", "--fold", help="Numbers of the folds, e.g. 0,1,2; default: all folds.")
    ] = None
    epochs: _Epochs = None
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished folds and go on with the others.")] = False
    device: DeviceOption = "auto"
    plans: _Plans = None
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def fold_numbers(self) -> list[int] | None:
        """The folds, each once; None for all.

        Raises:
            BadParameter: something else than numbers.
        """
        chosen = parse_folds(self.folds)
        if chosen is None:
            return None
        if "all" in chosen:
            raise typer.BadParameter(
                "cross-validate: folds expected numbers, got all, which is validated on its training cases"
            )
        return [fold for fold in chosen if isinstance(fold, int)]


def cross_validate(options: CrossValidateOptions) -> None:
    """Train and validate every fold of a dataset.

    The answers to all cases, each from the fold that had not seen it, are measured together.
    """
    folds = options.fold_numbers()
    with reporting(options.as_json) as report:
        folders = find_workspace(options.workspace)
        from nnduet.training.cross_validation import cross_validate as cross_validate_folds

        with progress_bar("cross-validate") as progress:
            summary = cross_validate_folds(
                options.dataset_id,
                options.configuration,
                workspace=folders,
                plans_name=options.plans,
                folds=folds,
                epochs=options.epochs,
                resume=options.resume,
                device=options.device,
                progress=progress,
            )
        report(summary.to_json(), lambda: _show_training(summary.model, summary.metrics_file, summary.metrics))


def _show_training(model: str, metrics_file: str, metrics: Metrics, notes: Sequence[str] = ()) -> None:
    show_metrics(metrics)
    for note in notes:
        show(f"note     {note}")
    show(f"model    {model}\nmetrics  {metrics_file}")
