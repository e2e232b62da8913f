"""Commands about this machine and this installation: ``demo``, ``doctor`` and ``plugin-path``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnduet.cli.options import DEFAULT_WORKSPACE, JsonOption, WorkspaceOption, quiet_environment
from nnduet.console import progress_bar, reporting, show, show_table

if TYPE_CHECKING:
    from nnduet.demo import DemoSummary

__all__ = ["DemoOptions", "DoctorOptions", "PluginPathOptions", "demo", "doctor", "plugin_path"]


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What ``demo`` takes."""

    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for data, model, predictions and metrics."),
    ] = Path("nnduet_demo")
    seed: Annotated[int, typer.Option(help="Seed of the synthetic cases.")] = 0
    replace: Annotated[bool, typer.Option("--replace", help="Delete an earlier demo in the folder first.")] = False
    as_json: JsonOption = False


def demo(options: DemoOptions) -> None:
    """Go the whole way on synthetic CT."""
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.demo import run_demo

        with progress_bar("demo") as progress:
            summary = run_demo(options.output, seed=options.seed, replace_old=options.replace, progress=progress)
        report(summary.to_json(), lambda: _show_demo(summary))
    if not summary.passed:
        raise typer.Exit(1)


def _show_demo(summary: DemoSummary) -> None:
    """What was measured against the floors, where everything is, and what to type next."""
    rows = []
    for name, floor in summary.floors.items():
        value, interval = summary.measured[name], summary.intervals[name]
        between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        rows.append((name, f"{value:.3f}", between, f">= {floor:.2f}", "ok" if value >= floor else "BELOW"))
    show_table(("on unseen cases", "measured", "95 % interval", "floor", ""), rows, styles={"BELOW": "red"})
    minutes = sum(summary.seconds.values()) / 60
    show(f"\n{minutes:.1f} minutes, of which training {summary.seconds['train'] / 60:.1f}\n")
    for title in ("data", "model", "predictions", "metrics_file", "report"):
        show(f"{title.replace('_file', ''):<12} {getattr(summary, title)}")
    show(
        "\nOpen the report in a browser. On your own cases (images/, labels/, cases.csv):\n"
        "  nnduet convert FOLDER --task COLUMN --dataset-id 2 --name Mine && nnduet plan 2 --preset cpu && nnduet train 2"
    )


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What ``doctor`` takes."""

    workspace: WorkspaceOption = None
    as_json: JsonOption = False


def doctor(options: DoctorOptions) -> None:
    """Look at this machine and say what would stop nnDuet."""
    with reporting(options.as_json) as report:
        from nnduet.doctor import diagnose

        environment = {} if options.workspace else os.environ
        diagnosis = diagnose(environment, (options.workspace or Path(DEFAULT_WORKSPACE)).absolute())
        rows = [(check.status, check.name, check.detail) for check in diagnosis.checks]
        styles = {"WARN": "yellow", "FAIL": "bold red"}
        report(diagnosis.to_json(), lambda: show_table(("", "what", "detail"), rows, styles=styles))
    if not diagnosis.passed:
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class PluginPathOptions:
    """What ``plugin-path`` takes."""

    as_json: JsonOption = False


def plugin_path(options: PluginPathOptions) -> None:
    """Print the folder for nnUNet_extTrainer.

    For stock nnU-Net: export nnUNet_extTrainer=$(nnduet plugin-path).
    """
    folder = str(Path(__file__).resolve().parents[1] / "_nnunet_plugin")
    with reporting(options.as_json) as report:
        report({"plugin_path": folder}, lambda: show(folder))
