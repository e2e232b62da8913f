"""Commands for looking at results: ``report``, ``preview`` and ``compare``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nnduet.cells import format_number
from nnduet.cli.options import JsonOption, WorkspaceOption, find_workspace
from nnduet.console import progress_bar, reporting, say, show_table
from nnduet.progress import Progress

__all__ = ["CompareOptions", "PreviewOptions", "ReportOptions", "compare", "preview", "report"]

_SHOWN_CASES = 3


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What ``report`` takes."""

    run: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="A model, a fold, or what evaluate, cross-validate or predict wrote."
        ),
    ]
    output: Annotated[
        Path | None, typer.Option("-o", "--output", file_okay=False, help="Folder for the page; default: RUN/report.")
    ] = None
    images: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="Images, where they are not found.")] = None
    references: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Masks, where they are not found."),
    ] = None
    viewer_cases: Annotated[int, typer.Option(min=0, help="Cases that can be viewed in 3D; about 100 kB each.")] = 40
    evidence: Annotated[
        str | None, typer.Option(metavar="TASK", help="Also map where the network sees evidence for its answer, in the viewer.")
    ] = None
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="With --evidence: what answered; default: the model that RUN lies in.")
    ] = None
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Write the page again while a training runs, until it is done."),
    ] = False
    every: Annotated[int, typer.Option(min=2, help="With --follow: seconds between two pages.")] = 20
    workspace: WorkspaceOption = None
    as_json: JsonOption = False

    def place(self) -> Path:
        """The folder of the page."""
        return self.output or self.run / "report"


def report(options: ReportOptions) -> None:
    """Write one folder with a page that opens from disk: metrics, curves, pictures, cases in 3D.

    Examples:

    \b
      nnduet report MODEL
      nnduet report predictions/ --references masks/ -o report
      nnduet report MODEL/fold_0 --follow
    """
    with reporting(options.as_json) as tell:
        write = _report_writer(options)
        if options.follow:
            _follow(options, write)
        with progress_bar("report") as progress:
            tell(write(progress))


def _report_writer(options: ReportOptions) -> Callable[[Progress | None], Mapping[str, Any]]:
    """A function that reads the run as it is now, writes its page, and returns what it wrote."""
    from nnduet.report.page import write_report
    from nnduet.report.runs import read_run
    from nnduet.report.stored_model import is_finished

    raw = find_workspace(options.workspace, make=False).raw

    def write(progress: Progress | None) -> Mapping[str, Any]:
        found = read_run(options.run, images=options.images, references=options.references, raw=raw)
        explain = None
        if options.evidence and found.rows:
            from nnduet.report.explained_cases import ExplainedCases

            explain = ExplainedCases(found, options.evidence, options.model)
        return write_report(
            found,
            options.place(),
            viewer_cases=options.viewer_cases,
            refresh=options.every if options.follow and not is_finished(options.run) else None,
            progress=progress,
            explain=explain,
        ).to_json()

    return write


def _follow(options: ReportOptions, write: Callable[[Progress | None], Mapping[str, Any]]) -> None:
    """Write the page again and again until the training is done; the last page is left to the caller."""
    from nnduet.report.stored_model import is_finished

    write(None)
    page = options.place() / "index.html"
    say(f"{page} is written again every {options.every} s until the training is done; Ctrl-C stops that")
    while not is_finished(options.run):
        time.sleep(options.every)
        write(None)


@dataclass(frozen=True, kw_only=True)
class PreviewOptions:
    """What ``preview`` takes."""

    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Image: .nii.gz, .nii or greyscale .png.")]
    mask: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Predicted mask on the grid of the image.")]
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PNG", help="Picture to write.")]
    reference: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="True mask.")] = None
    planes: Annotated[str, typer.Option(help="Some of axial, coronal and sagittal, separated by commas.")] = "axial"
    size: Annotated[int, typer.Option(min=32, max=4096, help="Height of the picture in pixels.")] = 320
    margin_mm: Annotated[float, typer.Option(min=0, help="What is shown around the outlined structures.")] = 20.0
    as_json: JsonOption = False


def preview(options: PreviewOptions) -> None:
    """Draw the slice with most foreground: the mask filled, the reference as a white and black line.

    Example:

    \b
      nnduet preview case_0000.nii.gz case.nii.gz --reference truth.nii.gz --planes axial,coronal,sagittal -o case.png
    """
    with reporting(options.as_json) as report:
        from nnduet.report.preview import preview_files

        report(
            preview_files(
                options.image,
                options.mask,
                options.output,
                reference=options.reference,
                planes=[plane.strip() for plane in options.planes.split(",")],
                size=options.size,
                margin_mm=options.margin_mm,
            )
        )


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What ``compare`` takes."""

    run_a: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="What evaluate wrote; or a model, or a fold.")]
    run_b: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The same of the run whose gain is asked for.")]
    table: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Case table with patient_id: tests then draw patients.")
    ] = None
    output: Annotated[
        Path | None, typer.Option("-o", "--output", file_okay=False, help="Folder for comparison.json and comparison.csv.")
    ] = None
    as_json: JsonOption = False


def compare(options: CompareOptions) -> None:
    """Compare two runs on their common cases: B - A with paired bootstrap intervals and p-values.

    Examples:

    \b
      nnduet compare MODEL_A MODEL_B --table cases.csv -o comparison
      nnduet compare MODEL_A/fold_0 MODEL_B/fold_0
    """
    with reporting(options.as_json) as report:
        from nnduet.report.compare import compare_runs

        found = compare_runs(options.run_a, options.run_b, table=options.table, output=options.output)
        _note_what_is_left_out(found)
        report(found, lambda: _show_comparison(found))


def _note_what_is_left_out(found: Mapping[str, Any]) -> None:
    for what, runs in found["only_in_one_run"].items():
        for run, names in runs.items():
            if names:
                more = f" and {len(names) - _SHOWN_CASES} more" if len(names) > _SHOWN_CASES else ""
                say(f"left out, {what} only in {run.upper()}: {', '.join(names[:_SHOWN_CASES])}{more}")
    for region, part in found["segmentation"].items():
        only_a, only_b = (part["metrics"]["dsc"][f"n_only_{run}"] for run in "ab")
        if only_a or only_b:
            say(f"{region}: left out of Dice, cases that define it in one run only: {only_a} in A, {only_b} in B")


def _show_comparison(found: Mapping[str, Any]) -> None:
    parts = {**found["segmentation"], **found["tasks"]}
    rows = [_metric_row(f"{part} {name}", entry) for part, its in parts.items() for name, entry in its["metrics"].items()]
    show_table(("metric", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "cases"), rows)
    changes = list(_change_rows(found))
    if changes:
        show_table(("changed", "cases", "most"), changes)
    cases, unit = found["cases"], found["settings"]["resampling_unit"]
    say(f"{cases['num_common']} common cases; resampled: {cases['num_resampling_units']} {unit}s")
    say(f"{found['num_comparisons']} comparisons: p is that of each alone, p (Holm) is corrected for all of them")


def _metric_row(name: str, entry: Mapping[str, Any]) -> Sequence[str]:
    if entry["difference"] is None:
        return (name, _number(entry["a"]), _number(entry["b"]), f"undefined ({entry['reason']})", "", "", "", "0")
    interval = "{:+.3f} to {:+.3f}".format(*entry["ci95"]) if entry["ci95"] else ""
    p_values = (_number(entry[key]) for key in ("p_value", "p_holm"))
    difference = f"{entry['difference']:+.3f}"
    return (name, _number(entry["a"]), _number(entry["b"]), difference, interval, *p_values, str(entry["n_defined"]))


def _number(value: float | None) -> str:
    return format_number(value, ".3f")


def _change_rows(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """A line per kind of change that occurred; of Dice and of numbers at most the ten largest are known."""
    for name, part in {**found["segmentation"], **found["tasks"]}.items():
        for kind in ("rose", "fell", "closer", "farther", "became_right", "became_wrong"):
            changed = part.get(kind, [])
            if changed:
                what = "dsc " if kind in ("rose", "fell") else ""
                told = [f"{entry['case_id']} ({_change(entry)})" for entry in changed[:_SHOWN_CASES]]
                yield f"{name} {what}{kind.replace('_', ' ')}", str(len(changed)), ", ".join(told)


def _change(entry: Mapping[str, Any]) -> str:
    return f"{entry['difference']:+.3f}" if "difference" in entry else f"{entry['a']} to {entry['b']}"
