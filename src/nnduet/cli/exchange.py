"""Commands that pass models on: ``export`` and ``import``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nnduet.cli.options import FoldsOption, JsonOption, parse_folds, quiet_environment
from nnduet.console import reporting, show

__all__ = ["ExportOptions", "ImportOptions", "export", "import_"]


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What ``export`` takes."""

    model: Annotated[str, typer.Argument(help="Model folder that train wrote, a bundle, or a shipped model.")]
    target: Annotated[Path, typer.Argument(dir_okay=False, help="File to write: .nnduet, a bundle; .onnx, one fold's network.")]
    fold: FoldsOption = None
    as_json: JsonOption = False


def export(options: ExportOptions) -> None:
    """Write a model to one file.

    A bundle predicts like the model folder and is verified before use. An ONNX file has the network alone, with the answers of
    its own heads, for ONNX Runtime.
    """
    folds = _fold_names(options.fold)
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.runtimes.export import export_model

        summary = export_model(options.model, options.target, folds)
        report(summary, lambda: _show(summary))


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What ``import`` takes."""

    model: Annotated[Path, typer.Argument(exists=True, help="Model folder of nnU-Net, or a checkpoint in it.")]
    target: Annotated[Path, typer.Argument(dir_okay=False, help="Bundle to write, .nnduet.")]
    fold: FoldsOption = None
    as_json: JsonOption = False


def import_(options: ImportOptions) -> None:
    """Make a bundle of a model that nnU-Net trained; it segments and answers nothing."""
    folds = _fold_names(options.fold)
    with reporting(options.as_json) as report:
        quiet_environment()
        from nnduet.runtimes.export import import_stock_model

        summary = import_stock_model(options.model, options.target, folds)
        report(summary, lambda: _show(summary))


def _fold_names(texts: Sequence[str] | None) -> list[str] | None:
    chosen = parse_folds(texts)
    return [str(fold) for fold in chosen] if chosen else None


def _show(summary: Mapping[str, Any]) -> None:
    show(f"{summary['file']}: {summary['bytes'] / 1e6:.1f} MB, fold {', '.join(summary['folds'])}")
