"""A finished run as one folder that opens from disk in any browser: a page, its styles and scripts, pictures, volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from nnduet.errors import GeometryError, LabelError
from nnduet.inference.outlines import legend
from nnduet.progress import Progress
from nnduet.report.answered import answered_sections
from nnduet.report.explained_cases import ExplainedCases
from nnduet.report.facts import facts_of, title_of, warnings_of
from nnduet.report.report_folder import INDEX, ReportFolder, writing_report
from nnduet.report.runs import Run
from nnduet.report.sections import (
    case_header,
    case_rows,
    distributions,
    headlines,
    region_section,
    task_section,
    training_section,
)
from nnduet.report.shown_cases import ShownCases
from nnduet.report.volumes import CaseVolumes, write_volumes

__all__ = ["INDEX", "ReportSummary", "write_report"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class ReportSummary:
    """What was written: the page, the cases that it lists, shows in 3D and in pictures, its size, what could not be drawn."""

    page: str
    num_cases: int
    num_viewer_cases: int
    num_pictures: int
    megabytes: float
    not_drawn: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """A JSON object with every field."""
        return dict(vars(self))


def write_report(
    run: Run,
    output: Path,
    *,
    viewer_cases: int = 40,
    explain: ExplainedCases | None = None,
    refresh: int | None = None,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write the report of a run.

    Args:
        run: see :func:`nnduet.report.runs.read_run`.
        output: folder for ``index.html`` and what it loads; an earlier report is replaced, and stays whole until then.
        viewer_cases: how many can be viewed, volumes in 3D: the worst of every kind first, then as in the table.
        explain: evidence maps for the viewer; None leaves them out.
        refresh: seconds after which an open page loads itself again; None for a run that is finished.
        progress: called with (done, total, text) for each case that is drawn.

    Raises:
        OutputExistsError: ``output`` holds something else than a report.
        DiskFullError: the disk is full; an earlier report is still there.
    """
    with writing_report(output) as folder:
        shown = ShownCases(run, folder, explain)
        content: dict[str, object] = {
            "regions": [region_section(run, name, shown) for name in run.regions],
            "tasks": [task_section(run, entry, shown) for entry in run.tasks],
            "answered": answered_sections(run, shown),
        }
        volumes = _show_cases(shown, viewer_cases, progress)
        _copy_assets(folder, with_viewer=bool(volumes))
        folder.finish(_render(run, shown, content, volumes, refresh))
        size = round(folder.megabytes(), 1)
    return ReportSummary(str(output / INDEX), len(run.rows), len(volumes), len(shown.pictures), size, shown.failed)


def _render(run: Run, shown: ShownCases, content: dict[str, object], volumes: dict[str, str], refresh: int | None) -> str:
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(
        **content,
        title=title_of(run),
        refresh=refresh,
        facts=facts_of(run),
        warnings=[*warnings_of(run), *shown.warnings()],
        headlines=headlines(run),
        distributions=distributions(run),
        training=training_section(run),
        pictures=shown.pictures,
        explained=shown.explained,
        volumes=volumes,
        legend=legend(shown.labels),
        header=case_header(run),
        table=case_rows(run, volumes),
        definitions=run.metrics.definitions if run.metrics else {},
        missing=run.metrics.missing_predictions if run.metrics else (),
    )


def _show_cases(shown: ShownCases, viewer_cases: int, progress: Progress | None) -> dict[str, str]:
    """Draw the wanted cases and write the volumes of as many as may be viewed; {case: key of its volumes}."""
    viewer = [case for case in dict.fromkeys([*shown.wanted, *shown.run.cases]) if shown.has_image(case)][:viewer_cases]
    cases = [*dict.fromkeys([*shown.wanted, *viewer])]
    volumes: dict[str, str] = {}
    for index, case in enumerate(cases):
        parts = shown.read(case)
        flat = bool(parts) and parts[0].geometry.shape[0] == 1
        if parts and (case in shown.wanted or flat):
            shown.draw(case, parts)
        if parts and case in viewer and not flat:
            key = shown.folder.volume_key(len(volumes))
            if _write_volumes(shown, case, parts[0], key):
                volumes[case] = key
        if progress:
            progress(index + 1, len(cases), case)
    return volumes


def _write_volumes(shown: ShownCases, case: str, part: CaseVolumes, key: str) -> bool:
    """Whether a case can be viewed: its reason is in ``shown.failed`` where its labels or grid do not allow it."""
    try:
        write_volumes(shown.folder.place / "volumes" / f"{key}.js", key, shown.with_evidence(case, part))
    except (GeometryError, LabelError) as error:
        shown.failed[case] = f"{error.code}: {error}"
        return False
    return True


def _copy_assets(folder: ReportFolder, *, with_viewer: bool) -> None:
    """Styles and scripts; NiiVue, 2 MB, only where there is something to view."""
    for name in ("report.css", "report.js", *(("viewer.css", "viewer.js") if with_viewer else ())):
        folder.copy(f"static/{name}", (_HERE / "static" / name).read_bytes())
    for path in (_HERE / "vendor").iterdir() if with_viewer else ():
        folder.copy(f"vendor/{path.name}", path.read_bytes())
