"""How options become a command: a dataclass per command, the options that several share, and how their values are read.

Only this room reads environment variables. nnU-Net reads its own when it is imported, hence the imports inside the commands,
after :func:`find_workspace` or :func:`quiet_environment`; they also keep ``nnduet --help`` quick.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from nnduet.console import say, volume
from nnduet.runtimes.all_runtimes import runtime_names
from nnduet.schema import Workspace

__all__ = [
    "DEFAULT_WORKSPACE",
    "DatasetId",
    "DeviceOption",
    "FoldOption",
    "FoldsOption",
    "ImagesOption",
    "JsonOption",
    "ModelArgument",
    "ModelOption",
    "PrecisionOption",
    "Preset",
    "QuietOption",
    "RuntimeOption",
    "VerboseOption",
    "WorkspaceOption",
    "command_name",
    "find_workspace",
    "parse_fold",
    "parse_folds",
    "parse_label_map",
    "quiet_environment",
    "with_options",
]

DEFAULT_WORKSPACE = "nnduet_data"

Preset = Literal["resenc-m", "resenc-l", "cpu"]
_Device = Literal["auto", "cpu", "cuda", "mps"]
if TYPE_CHECKING:
    _RuntimeName = str
else:  # typer lists the choices of a Literal, and a type checker reads no computed ones
    _RuntimeName = Literal[runtime_names()]

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
ImagesOption = Annotated[
    Path, typer.Option("-i", "--images", exists=True, help="Folder of images <case>_0000.<ending>, or one of them.")
]
ModelOption = Annotated[
    str, typer.Option("-m", "--model", help="Model folder, bundle (.nnduet), or shipped model: lidc-nodule.")
]
RuntimeOption = Annotated[
    _RuntimeName,
    typer.Option(help="What computes the network. auto: OpenVINO for large or already converted networks on CPUs, else torch."),
]
PrecisionOption = Annotated[
    Literal["auto", "float32", "float16", "bfloat16"],
    typer.Option(help="Number format of the network. auto: what the processor multiplies fastest, see run.json."),
]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show every step, and where in the program an error came up.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress and no notes.")]
ModelArgument = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Model folder that train wrote.")]


def with_options(command: Callable[[Any], None]) -> Callable[..., None]:
    """The command as typer reads it: with a parameter for each field of its options, and ``-v`` and ``-q``, which all have and
    none looks at.

    Args:
        command: a function of one argument ``options``, annotated with a dataclass whose fields are annotated for typer.
    """
    options_class: type[Any] = get_type_hints(command)["options"]

    @functools.wraps(command)
    def run(*, verbose: bool = False, quiet: bool = False, **values: Any) -> None:
        with volume(verbose=verbose, quiet=quiet, command=command_name(command)):
            command(options_class(**values))

    parameters = [*_parameters(options_class), *_volume_parameters()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(options_class: type[Any]) -> Iterator[inspect.Parameter]:
    """A parameter for each field, in their order; those without a default are required."""
    annotations = get_type_hints(options_class, include_extras=True)
    for field in dataclasses.fields(options_class):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        kind = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, kind, default=default, annotation=annotations[field.name])


def _volume_parameters() -> Iterator[inspect.Parameter]:
    for name, annotation in (("verbose", VerboseOption), ("quiet", QuietOption)):
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)


def command_name(command: Callable[..., None]) -> str:
    """``import_`` to ``import``, ``fit_head`` to ``fit-head``."""
    return command.__name__.rstrip("_").replace("_", "-")


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


def parse_label_map(pairs: Sequence[str] | None) -> dict[int, int] | None:
    """``["255=1"]`` to ``{255: 1}``; None where nothing is mapped.

    Raises:
        BadParameter: a pair that is no two whole numbers.
    """
    try:
        return {int(old): int(new) for old, new in (pair.split("=") for pair in pairs or ())} or None
    except ValueError as error:
        raise typer.BadParameter(f"--map-label expected OLD=NEW with whole numbers, got {pairs}") from error


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
