"""The command that answers cases: ``predict``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnduet.cli.answer_table import show_answers
from nnduet.cli.options import (
    DeviceOption,
    FoldsOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    RuntimeOption,
    parse_folds,
    quiet_environment,
)
from nnduet.console import progress_bar, reporting, say

if TYPE_CHECKING:
    from nnduet.inference.abstention import Abstention
    from nnduet.inference.prediction_summary import PredictionSummary
    from nnduet.inference.predictor import Predictor

__all__ = ["PredictOptions", "predict"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What ``predict`` takes."""

    images: ImagesOption
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for masks and tables, or a single mask.")]
    model: ModelOption
    folds: FoldsOption = None
    step_size: Annotated[float, typer.Option(help="Distance of tiles as a share of the patch.")] = 0.5
    tta: Annotated[bool, typer.Option("--tta/--no-tta", help="Mirror over the axes that training mirrored.")] = True
    fast: Annotated[
        bool, typer.Option("--fast", help="Tiles side by side, overlapping ones only around what they find, no mirroring.")
    ] = False
    covariates: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="CSV with the model's covariates by case; an empty cell counts as usual."
        ),
    ] = None
    id_column: Annotated[str | None, typer.Option(help="Column of --covariates with the case ids, if not case_id.")] = None
    error_rate: Annotated[
        float, typer.Option(help="Share of cases, in (0, 1), whose truth may lie outside the prediction set or interval.")
    ] = 0.1
    abstain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Leave a case to a person: confidence, set (number of classes in the prediction set), spread or outlier, then "
            "< or >, then a number. Quote it. Repeatable; any rule is enough.",
        ),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run into OUT stopped.")] = False
    device: DeviceOption = "auto"
    runtime: RuntimeOption = "auto"
    precision: PrecisionOption = "auto"
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if self.id_column and self.covariates is None:
            raise typer.BadParameter("--id-column names a column of --covariates, which is not given")
        if self.resume and self.is_for_one_mask():
            raise typer.BadParameter("--resume goes on with a folder of cases; leave it out for a single mask")

    def is_for_one_mask(self) -> bool:
        """Whether ``output`` is the file of a mask rather than a folder."""
        from nnduet.io.formats import is_image_name

        return is_image_name(self.output.name) and not self.output.is_dir()


def predict(options: PredictOptions) -> None:
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
    folds = parse_folds(options.folds)
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.inference.abstention import Abstention
        from nnduet.inference.predictor import Predictor

        rules = Abstention.parse(options.abstain or ())
        predictor = Predictor.load(
            options.model,
            folds,
            device=options.device,
            step_size=options.step_size,
            tta=options.tta,
            error_rate=options.error_rate,
            runtime=options.runtime,
            precision=options.precision,
            fast=options.fast,
        )
        summary = _answer(predictor, rules, options)
        _note_missing(summary.missing_covariates, len(summary.cases))
        for note in summary.not_used:
            say(note)
        report(summary.to_json(), lambda: show_answers(summary, predictor.tasks, rules))


def _answer(predictor: Predictor, rules: Abstention | None, options: PredictOptions) -> PredictionSummary:
    """The images, a single one into its mask or all into the folder, with the covariates of the table."""
    known = _read_covariates(predictor, options.covariates, options.id_column) if options.covariates else None
    with progress_bar("predict") as progress:
        if options.is_for_one_mask():
            from nnduet.inference.folder_runs import predict_file

            return predict_file(predictor, options.images, options.output, covariates=known, abstention=rules)
        from nnduet.inference.folder_runs import predict_folder

        with _showing_the_others(predictor, rules, options.as_json):
            return predict_folder(
                predictor,
                options.images,
                options.output,
                covariates=known,
                abstention=rules,
                resume=options.resume,
                progress=progress,
            )


def _read_covariates(predictor: Predictor, table: Path, id_column: str | None) -> dict[str, dict[str, float]]:
    from nnduet.datasets.case_tables import read_covariates

    return read_covariates(table, predictor.model.layout.covariates, id_column)


def _note_missing(missing: Mapping[str, int], num_cases: int) -> None:
    for name, number in missing.items():
        say(f"covariate {name}: missing for {number} of {num_cases} cases, which count as usual")


@contextlib.contextmanager
def _showing_the_others(predictor: Predictor, rules: Abstention | None, as_json: bool) -> Iterator[None]:
    """Where some cases fail, show the answers to the others before the error, as far as a person reads them."""
    from nnduet.inference.prediction_summary import FailedCasesError

    try:
        yield
    except FailedCasesError as error:
        if not as_json:
            show_answers(error.summary, predictor.tasks, rules)
        raise
