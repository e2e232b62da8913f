"""Commands that prepare a dataset: ``convert`` and ``plan``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nnduet.cli.options import DatasetId, JsonOption, Preset, WorkspaceOption, find_workspace, parse_label_map
from nnduet.console import progress_bar, reporting

if TYPE_CHECKING:
    from nnduet.datasets.sources import Source

__all__ = ["ConvertOptions", "PlanOptions", "convert", "plan"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What ``convert`` takes; an option of :func:`~nnduet.datasets.layouts.read_folder` that is not given is None."""

    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with the cases.")] = Path(".")
    dataset_id: Annotated[int, typer.Option(min=1, max=999, help="The NNN of DatasetNNN_Name.")]
    name: Annotated[str, typer.Option(help="The Name of DatasetNNN_Name.")]
    layout: Annotated[
        Literal["folder", "subtype-folders"],
        typer.Option(
            help="folder: images/, labels/, cases.csv; subtype-folders: train/subtypeN/, validation/subtypeN/, test/."
        ),
    ] = "folder"
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME:type of a table column; type: binary, multiclass, ordinal, regression, multilabel. "
            "'NAME:ordinal=low<high' states an order. :fixed=x behind it keeps training from mirroring left and right. "
            "Repeatable."
        ),
    ] = None
    images: Annotated[Path | None, typer.Option(help="Images, if not in FOLDER/images.")] = None
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Masks, if not in FOLDER/labels. NAME=PATH, two times or more: several masks of each case."),
    ] = None
    table: Annotated[Path | None, typer.Option(help="Case table, if not FOLDER/cases.csv.")] = None
    test_images: Annotated[Path | None, typer.Option(help="Images without masks, if not in FOLDER/test_images.")] = None
    splits: Annotated[Path | None, typer.Option(help="Folds, if not FOLDER/splits_final.json.")] = None
    id_column: Annotated[str | None, typer.Option(help="Column with the case ids, if not case_id.")] = None
    group_column: Annotated[str | None, typer.Option(help="Column with the patients; their cases share a fold.")] = None
    ignore_extra_rows: Annotated[
        bool, typer.Option("--ignore-extra-rows", help="Pass over table rows of cases without an image, and count them.")
    ] = False
    covariate: Annotated[list[str] | None, typer.Option(help="Numeric table column to keep. Repeatable.")] = None
    map_label: Annotated[
        list[str] | None, typer.Option(help="OLD=NEW: store mask value OLD as label NEW, e.g. 255=1. Repeatable.")
    ] = None
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of the image channels, once for each, in order; before dataset.json. CT keeps Hounsfield units, others "
            "are standardised one by one. Default: image; of subtype-folders: CT."
        ),
    ] = None
    tolerate_mm: Annotated[
        float, typer.Option(min=0.0, help="Put masks that lie up to this far beside their image onto its grid, with a note.")
    ] = 0.0
    num_folds: Annotated[int, typer.Option(min=2, help="Folds to make where none are given.")] = 5
    replace: Annotated[bool, typer.Option("--replace", help="Let other labels, tasks or folds replace existing ones.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if self.layout == "subtype-folders" and (self.places() or len(self.task or ()) > 1):
            given = self.places() or self.task
            raise typer.BadParameter(f"subtype-folders takes no other sources and at most one --task NAME, got {given}")

    def places(self) -> dict[str, Any]:
        """Of the options of ``read_folder`` that say where things are and what they are called: those that were given."""
        names = ("images", "labels", "table", "test_images", "splits", "id_column", "group_column")
        options = {name: getattr(self, name) for name in names} | {"covariates": self.covariate}
        options |= {"ignore_extra_rows": self.ignore_extra_rows or None}
        return {option: value for option, value in options.items() if value is not None}

    def changes(self) -> dict[str, Any]:
        """The options of both layouts that change what is read."""
        changes: dict[str, Any] = {"label_map": parse_label_map(self.map_label)}
        changes |= {"channels": self.channel} if self.channel else {}
        return changes | ({"tolerance_mm": self.tolerate_mm} if self.tolerate_mm else {})


def convert(options: ConvertOptions) -> None:
    """Check the cases and write them as an nnU-Net dataset."""
    changes = options.changes()
    with reporting(options.as_json) as report:
        from nnduet.datasets.conversion import convert as convert_source

        read = _read_folder if options.layout == "folder" else _read_subtype_folders
        source = read(options, changes)
        with progress_bar("convert") as progress:
            summary = convert_source(
                source,
                workspace=find_workspace(options.workspace, make=not options.dry_run),
                dataset_id=options.dataset_id,
                name=options.name,
                num_folds=options.num_folds,
                replace=options.replace,
                dry_run=options.dry_run,
                progress=progress,
            )
        report(summary.to_json())


def _read_subtype_folders(options: ConvertOptions, changes: dict[str, Any]) -> Source:
    from nnduet.datasets.subtype_folders import read_subtype_folders

    task_name = options.task[0] if options.task else "subtype"
    return read_subtype_folders(options.folder, task_name=task_name, num_folds=options.num_folds, **changes)


def _read_folder(options: ConvertOptions, changes: dict[str, Any]) -> Source:
    from nnduet.datasets.layouts import read_folder
    from nnduet.datasets.sources import parse_mask_folders

    places = options.places()
    if options.labels:
        places["labels"] = parse_mask_folders(options.labels, options.folder)
    return read_folder(options.folder, task_specs=options.task or (), **places, **changes)


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What ``plan`` takes."""

    dataset_id: DatasetId
    preset: Annotated[
        Preset | None,
        typer.Option(help="resenc-m (default) and resenc-l want a GPU; cpu trains in minutes on two cores."),
    ] = None
    configuration: Annotated[list[str] | None, typer.Option(help="2d, 3d_fullres, …; default: these two. Repeatable.")] = None
    spacing: Annotated[str | None, typer.Option(help="Z,Y,X in mm of the resampled cases; Y,X for pictures.")] = None
    patch_size: Annotated[str | None, typer.Option(help="Z,Y,X in voxels; Y,X for 2d.")] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches per step.")] = None
    keep: Annotated[bool, typer.Option("--keep", help="Preprocess with the plans that are there, edited or not.")] = False
    plans: Annotated[str | None, typer.Option(help="With --keep: the plans of this name.")] = None
    replace: Annotated[bool, typer.Option("--replace", help="Let new plans replace edited ones.")] = False
    num_processes: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: from the cores.")] = None
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        if self.keep and self.replace:
            raise typer.BadParameter("--keep takes the plans as they are and --replace plans anew; give one of them")
        if self.plans and not self.keep:
            raise typer.BadParameter("--plans names plans that are there, so it goes with --keep")


def plan(options: PlanOptions) -> None:
    """Fingerprint, plan and preprocess a converted dataset."""
    spacing = _numbers("--spacing", options.spacing, float)
    patch_size = _numbers("--patch-size", options.patch_size, int)
    with reporting(options.as_json) as report:
        folders = find_workspace(options.workspace)
        from nnduet.training.plan_files import PlanChanges
        from nnduet.training.planning import plan as plan_dataset

        with progress_bar("plan") as progress:
            summary = plan_dataset(
                options.dataset_id,
                options.preset or (None if options.keep else "resenc-m"),
                workspace=folders,
                configurations=options.configuration or None,
                changes=PlanChanges(spacing, patch_size, options.batch_size),
                keep=options.keep,
                replace=options.replace,
                plans_name=options.plans,
                num_processes=options.num_processes,
                progress=progress,
            )
        report(summary.to_json())


def _numbers(option: str, text: str | None, kind: Any) -> Any:
    """``"2,1,1"`` as a tuple of numbers above 0; None for None."""
    if text is None:
        return None
    try:
        numbers = tuple(kind(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise typer.BadParameter(f"{option} expected Z,Y,X or Y,X: numbers above 0, divided by commas, got {text!r}")
    return numbers
