"""The ``nnduet`` command: a function of this room parses, calls one function of the package, and reports what it returned."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from nnduet.cli.dataset import convert, plan
from nnduet.cli.exchange import export, import_
from nnduet.cli.heads import fit_head, probe
from nnduet.cli.machine import demo, doctor, plugin_path
from nnduet.cli.model import cross_validate, train
from nnduet.cli.predictions import benchmark, evaluate, predict
from nnduet.cli.reports import compare, preview, report

__all__ = ["app", "main"]

EXIT_USAGE = 2
COMMANDS = (
    convert,
    plan,
    train,
    cross_validate,
    fit_head,
    probe,
    predict,
    evaluate,
    report,
    compare,
    preview,
    benchmark,
    export,
    import_,
    demo,
    doctor,
    plugin_path,
)

app = typer.Typer(
    name="nnduet",
    help="One nnU-Net that outlines structures and classifies the case, from one encoder pass.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich for the help costs as much as everything else together
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command(_command.__name__.rstrip("_").replace("_", "-"))(_command)


def main() -> None:
    """Entry point of the ``nnduet`` script; with ``--json`` a wrong command line ends with a JSON line, too."""
    # on shared cores torch's threads otherwise spin while they wait for one that is not scheduled
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as error:
        if error.code == EXIT_USAGE and "--json" in sys.argv:
            message = "wrong command line; stderr says what is expected"
            typer.echo(json.dumps({"error": {"code": "USAGE", "message": message}}))
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("nnduet"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
