"""What several commands share: their common options, the workspace, and the fold on the command line.

Only this room reads environment variables. nnU-Net reads its own when it is imported, hence the imports inside the commands,
after :func:`find_workspace` or :func:`quiet_environment`; they also keep ``nnduet --help`` quick.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nnduet.console import say, volume
from nnduet.schema import Workspace

__all__ = [
    "DEFAULT_WORKSPACE",
    "DatasetId",
    "DeviceOption",
    "FoldOption",
    "FoldsOption",
    "JsonOption",
    "ModelArgument",
    "Preset",
    "QuietOption",
    "VerboseOption",
    "WorkspaceOption",
    "command_name",
    "find_workspace",
    "parse_fold",
    "parse_folds",
    "parse_label_map",
    "quiet_environment",
    "with_volume",
]

DEFAULT_WORKSPACE = "nnduet_data"

Preset = Literal["resenc-m", "resenc-l", "cpu"]
_Device = Literal["auto", "cpu", "cuda", "mps"]

JsonOption = Annotated[bool, typer.Option("--json", help="End with one line of JSON on stdout.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Folder for nnU-Net's three folders; before the variables nnUNet_raw and so on."),
]
DatasetId = Annotated[int, typer.Argument(min=1, max=999, help="The NNN of DatasetNNN_Name.")]
DeviceOption = Annotated[_Device, typer.Option(help="auto: CUDA if there is one, else the CPU.")]
FoldsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--folds", "--fold", help="Number of a fold, several with commas, or all. Repeatable; default: all that are finished."
    ),
]
FoldOption = Annotated[str | None, typer.Option("--fold", "--folds", help="Number of the fold, or all.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show every step, and where in the program an error came up.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress and no notes.")]
ModelArgument = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Model folder that train wrote.")]


def find_workspace(folder: Path | None, *, make: bool = True) -> Workspace:
    """The nnU-Net folders, set in the environment for nnU-Net and made if ``make``; says on stderr if the default was taken."""
    default = (folder or Path(DEFAULT_WORKSPACE)).absolute()
    workspace = Workspace.from_environment({} if folder else os.environ, default)
    unset = [name for name in workspace.environment() if not os.environ.get(name)]
    if unset and not folder:
        say(f"{', '.join(unset)} not set: using {default}")
    for name, path in workspace.environment().items():
        if make:
            Path(path).mkdir(parents=True, exist_ok=True)
        os.environ[name] = path
    return workspace


def quiet_environment() -> None:
    """Set the variables without which nnU-Net prints warnings when it is imported; nothing is written there."""
    default = Path(DEFAULT_WORKSPACE).absolute()
    os.environ.update(Workspace.from_environment(os.environ, default).environment())


def parse_label_map(pairs: Sequence[str]) -> dict[int, int] | None:
    """``["255=1"]`` to ``{255: 1}``; None where nothing is mapped.

    Raises:
        BadParameter: a pair that is no two whole numbers.
    """
    try:
        return {int(old): int(new) for old, new in (pair.split("=") for pair in pairs)} or None
    except ValueError as error:
        raise typer.BadParameter(f"--map-label expected OLD=NEW with whole numbers, got {list(pairs)}") from error


def parse_fold(text: str) -> int | str:
    """A fold's number, or "all".

    Raises:
        BadParameter: anything else.
    """
    if text.strip() == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"fold: expected a number or all, got {text!r}") from None


def parse_folds(texts: Sequence[str] | None) -> list[int | str] | None:
    """``["0,1", "2"]`` to ``[0, 1, 2]``, each fold once; None where none is named.

    Raises:
        BadParameter: something else than numbers and "all".
    """
    return list(dict.fromkeys(parse_fold(entry) for text in texts for entry in text.split(","))) if texts else None


def command_name(command: Callable[..., None]) -> str:
    """``import_`` to ``import``, ``fit_head`` to ``fit-head``."""
    return command.__name__.rstrip("_").replace("_", "-")


def with_volume(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options ``-v`` and ``-q``, which all have and none looks at."""

    @functools.wraps(command)
    def run(*, verbose: bool = False, quiet: bool = False, **options: Any) -> None:
        with volume(verbose=verbose, quiet=quiet, command=command_name(command)):
            command(**options)

    added = {"verbose": VerboseOption, "quiet": QuietOption}
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = list(inspect.signature(command, eval_str=True).parameters.values())
    parameters += [inspect.Parameter(name, kind, default=False, annotation=given) for name, given in added.items()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, **added}
    return run
