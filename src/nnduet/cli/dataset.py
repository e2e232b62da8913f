"""Commands that prepare a dataset: ``convert`` and ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnduet.cli.options import DatasetId, JsonOption, Preset, WorkspaceOption, find_workspace, parse_label_map
from nnduet.console import progress_bar, reporting

__all__ = ["convert", "plan"]

_Layout = Annotated[
    Literal["folder", "subtype-folders"],
    typer.Option(help="folder: images/, labels/, cases.csv; subtype-folders: train/subtypeN/, validation/subtypeN/, test/."),
]
_Tasks = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME or NAME:type of a table column; type: binary, multiclass, ordinal, regression. 'NAME:ordinal=low<high' "
        "states an order. :fixed=x behind it keeps training from mirroring left and right. Repeatable."
    ),
]
_Labels = Annotated[
    list[str] | None,
    typer.Option(help="Masks, if not in FOLDER/labels. NAME=PATH, two times or more: several masks of each case."),
]
_MapLabel = Annotated[
    list[str] | None, typer.Option(help="OLD=NEW: store mask value OLD as label NEW, e.g. 255=1. Repeatable.")
]


_Channels = Annotated[
    list[str] | None,
    typer.Option(
        help="Name of the image channels, once for each, in order; before dataset.json. CT keeps Hounsfield units, others "
        "are standardised one by one. Default: image; of subtype-folders: CT."
    ),
]


def convert(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with the cases.")] = Path("."),
    *,
    dataset_id: Annotated[int, typer.Option(min=1, max=999, help="The NNN of DatasetNNN_Name.")],
    name: Annotated[str, typer.Option(help="The Name of DatasetNNN_Name.")],
    layout: _Layout = "folder",
    task: _Tasks = None,
    images: Annotated[Path | None, typer.Option(help="Images, if not in FOLDER/images.")] = None,
    labels: _Labels = None,
    table: Annotated[Path | None, typer.Option(help="Case table, if not FOLDER/cases.csv.")] = None,
    test_images: Annotated[Path | None, typer.Option(help="Images without masks, if not in FOLDER/test_images.")] = None,
    splits: Annotated[Path | None, typer.Option(help="Folds, if not FOLDER/splits_final.json.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column with the case ids, if not case_id.")] = None,
    group_column: Annotated[str | None, typer.Option(help="Column with the patients; their cases share a fold.")] = None,
    ignore_extra_rows: Annotated[
        bool, typer.Option("--ignore-extra-rows", help="Pass over table rows of cases without an image, and count them.")
    ] = False,
    covariate: Annotated[list[str] | None, typer.Option(help="Numeric table column to keep. Repeatable.")] = None,
    map_label: _MapLabel = None,
    channel: _Channels = None,
    tolerate_mm: Annotated[
        float, typer.Option(min=0.0, help="Put masks that lie up to this far beside their image onto its grid, with a note.")
    ] = 0.0,
    num_folds: Annotated[int, typer.Option(min=2, help="Folds to make where none are given.")] = 5,
    replace: Annotated[bool, typer.Option("--replace", help="Let other labels, tasks or folds replace existing ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the cases and write them as an nnU-Net dataset."""
    options: dict[str, Any] = {"images": images, "labels": labels, "table": table, "test_images": test_images, "splits": splits}
    options |= {"id_column": id_column, "group_column": group_column, "covariates": covariate}
    options |= {"ignore_extra_rows": ignore_extra_rows or None}
    given = {option: value for option, value in options.items() if value is not None}
    if layout == "subtype-folders" and (given or len(task or ()) > 1):
        raise typer.BadParameter(f"subtype-folders takes no other sources and at most one --task NAME, got {given or task}")
    kept: dict[str, Any] = {"label_map": parse_label_map(map_label or ())}
    kept |= {"channels": channel} if channel else {}
    kept |= {"tolerance_mm": tolerate_mm} if tolerate_mm else {}
    with reporting(as_json) as report:
        from nnduet.datasets.conversion import convert as convert_source

        if layout == "subtype-folders":
            source = _subtype_folders(folder, task, num_folds, kept)
        else:
            source = _folder(folder, task, given | kept)
        with progress_bar("convert") as progress:
            where = find_workspace(workspace, make=not dry_run)
            target: dict[str, Any] = {"dataset_id": dataset_id, "name": name, "num_folds": num_folds, "replace": replace}
            summary = convert_source(source, workspace=where, dry_run=dry_run, progress=progress, **target)
        report(summary.to_json())


def _subtype_folders(folder: Path, task: list[str] | None, num_folds: int, kept: dict[str, Any]) -> Any:
    from nnduet.datasets.layouts import read_subtype_folders

    task_name = task[0] if task else "subtype"
    return read_subtype_folders(folder, task_name=task_name, num_folds=num_folds, **kept)


def _folder(folder: Path, task: list[str] | None, given: dict[str, Any]) -> Any:
    from nnduet.datasets.layouts import read_folder
    from nnduet.datasets.sources import parse_mask_folders

    masks = {"labels": parse_mask_folders(given["labels"], folder)} if given.get("labels") else {}
    return read_folder(folder, task_specs=task or (), **given | masks)


def plan(
    dataset_id: DatasetId,
    preset: Annotated[
        Preset | None,
        typer.Option(help="resenc-m (default) and resenc-l want a GPU; cpu trains in minutes on two cores."),
    ] = None,
    configuration: Annotated[list[str] | None, typer.Option(help="2d, 3d_fullres, …; default: these two. Repeatable.")] = None,
    spacing: Annotated[str | None, typer.Option(help="Z,Y,X in mm of the resampled cases; Y,X for pictures.")] = None,
    patch_size: Annotated[str | None, typer.Option(help="Z,Y,X in voxels; Y,X for 2d.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches per step.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Preprocess with the plans that are there, edited or not.")] = False,
    plans: Annotated[str | None, typer.Option(help="With --keep: the plans of this name.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Let new plans replace edited ones.")] = False,
    num_processes: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: from the cores.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fingerprint, plan and preprocess a converted dataset."""
    if keep and replace:
        raise typer.BadParameter("--keep takes the plans as they are and --replace plans anew; give one of them")
    if plans and not keep:
        raise typer.BadParameter("--plans names plans that are there, so it goes with --keep")
    wanted_spacing, wanted_patch = _numbers("--spacing", spacing, float), _numbers("--patch-size", patch_size, int)
    with reporting(as_json) as report:
        folders = find_workspace(workspace)
        from nnduet.training.plan_files import PlanChanges
        from nnduet.training.planning import plan as plan_dataset

        with progress_bar("plan") as progress:
            summary = plan_dataset(
                dataset_id,
                preset or (None if keep else "resenc-m"),
                workspace=folders,
                configurations=configuration or None,
                changes=PlanChanges(wanted_spacing, wanted_patch, batch_size),
                keep=keep,
                replace=replace,
                plans_name=plans,
                num_processes=num_processes,
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
