"""The ``nnduet`` command: a function of this room parses, calls one function of the package, and reports what it returned."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nnduet.cli import benchmark, dataset, evaluate, exchange, heads, machine, model, predict, reports
from nnduet.cli.options import QuietOption, VerboseOption, command_name, with_options
from nnduet.console import volume
from nnduet.errors import SettingsError
from nnduet.process import prepare

__all__ = ["app", "main"]

EXIT_USAGE = 2
COMMANDS: tuple[Callable[[Any], None], ...] = (
    dataset.convert,
    dataset.plan,
    model.train,
    model.cross_validate,
    heads.fit_head,
    heads.probe,
    predict.predict,
    evaluate.evaluate,
    reports.report,
    reports.compare,
    reports.preview,
    benchmark.benchmark,
    exchange.export,
    exchange.import_,
    machine.demo,
    machine.doctor,
    machine.plugin_path,
)

app = typer.Typer(
    name="nnduet",
    help="One nnU-Net that outlines structures and classifies the case, from one encoder pass.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich for the help costs as much as everything else together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command(command_name(_command))(with_options(_command))


def main() -> None:
    """Parse and run a command line; with ``--json`` a wrong one ends with a JSON line, too."""
    prepare(os.environ)
    try:
        app(prog_name="nnduet")
    except SystemExit as error:
        if error.code == EXIT_USAGE and "--json" in sys.argv:
            message = "wrong command line; stderr says what is expected"
            typer.echo(json.dumps({"error": {"code": "USAGE", "message": message, "remedy": SettingsError.remedy}}))
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("nnduet"))
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    context.with_resource(volume(verbose=verbose, quiet=quiet))
