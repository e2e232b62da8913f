"""Where a prediction may write: into its own folder, over nothing but what the same model wrote there before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnduet.errors import OutputExistsError, SettingsError
from nnduet.inference.case_records import RECORDS_FILE, EarlierRun, RunIdentity, read_earlier_run
from nnduet.inference.result_tables import CLASSIFICATION_FILE
from nnduet.io.case_names import mask_name
from nnduet.io.formats import is_image_name, readers_named
from nnduet.model_store.model_files import ModelSource
from nnduet.names import check_name, printable
from nnduet.schema import Task

__all__ = ["RUN_FILE", "check_mask_file", "check_output", "check_place", "mask_paths", "table_paths"]

RUN_FILE = "run.json"
_MOST_NAMES = 5
_OWN = "name a folder of its own for the answers with -o"
_ELSEWHERE = "choose another folder, or move what stands there away"


def mask_paths(output: Path, case_id: str, ending: str, masks: Sequence[str]) -> list[Path]:
    """Where the masks of a case go: ``<case>``, then ``<mask>/<case>`` of models with several.

    Raises:
        SettingsError: a name that cannot be part of a path; it would lead elsewhere.
    """
    name = mask_name(check_name(case_id, "case"), ending)
    return [output / name, *(output / check_name(mask, "mask") / name for mask in masks)]


def table_paths(output: Path, tasks: Iterable[Task]) -> list[Path]:
    """Where everything but masks goes."""
    names = [CLASSIFICATION_FILE, *(f"{check_name(task.name, 'task')}_results.csv" for task in tasks), RUN_FILE, RECORDS_FILE]
    return [output / name for name in names]


def check_place(output: Path, images: Path | None, model: ModelSource | None) -> None:
    """Refuse an output that is named like a mask, is the folder of the images (None: in memory), or lies in the model.

    Raises:
        SettingsError: with what to name instead.
    """
    if is_image_name(output.name):
        raise SettingsError(f"{output}: the output is a folder, where a mask is named like its case; leave out the ending")
    place = output.resolve()
    if images and place == (images if images.is_dir() else images.parent).resolve():
        raise SettingsError(f"{output}: is the folder of the images, which masks of the same names would replace", remedy=_OWN)
    if model and model.place.is_dir() and place.is_relative_to(model.place.resolve()):
        raise SettingsError(f"{output}: lies in the model {model.place}", remedy=_OWN)
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output}: expected a folder or nothing, got a file", remedy=_ELSEWHERE)


def check_mask_file(mask: Path, ending: str, masks: Sequence[str], num_cases: int = 1) -> None:
    """Refuse to write a single file: for several cases or masks, of another format than the model's, or over a file.

    Args:
        ending: of the model's masks; ``masks``: their names, where a case has several.

    Raises:
        SettingsError, OutputExistsError: with what to do.
    """
    if num_cases != 1 or masks:
        got = f"{num_cases} cases" if num_cases != 1 else f"the masks {list(masks)}"
        raise SettingsError(f"{mask}: expected one mask for this name, got {got}", remedy="name a folder with -o")
    if not set(readers_named(mask.name)) & set(readers_named(ending)):
        raise SettingsError(f"{mask}: expected a name that ends in {ending}, as the masks of this model do")
    if mask.exists() or mask.is_symlink():
        raise OutputExistsError(
            f"{mask}: is there already; nothing was changed", remedy="name another file, or move this one away"
        )


def check_output(
    output: Path,
    identity: RunIdentity,
    cases: Mapping[str, Sequence[Path]],
    tables: Sequence[Path],
    inputs: Iterable[Path],
) -> None:
    """Refuse to replace what is not an answer of the same model.

    Args:
        identity: of the run, see :func:`~nnduet.inference.case_records.identity_of`.
        cases: {case id: its masks' paths}; ``tables``: those of everything else that will be written.
        inputs: the images, which stay whatever they are named.

    Raises:
        OutputExistsError: another model's answers, or files that no prediction wrote, stand there. Nothing was changed.
    """
    earlier = read_earlier_run(output)
    if earlier and not _is_of(identity, earlier):
        raise OutputExistsError(f"{output}: holds answers of another model; nothing was changed", remedy=_ELSEWHERE)
    own = set(earlier.cases) if earlier else set()
    targets = [path for case_id, paths in cases.items() if case_id not in own for path in paths]
    foreign = [path for path in (*(() if earlier else tables), *targets) if path.exists() or path.is_symlink()]
    foreign += [path for path in {path.parent for paths in cases.values() for path in paths} - {output} if path.is_symlink()]
    if foreign:
        raise OutputExistsError(f"{output}: holds {_listed(foreign)}, not written by this model", remedy=_ELSEWHERE)
    images = {_identity(path) for path in inputs if path.exists()}
    replaced = [path for paths in cases.values() for path in paths if path.exists() and _identity(path) in images]
    if replaced:
        raise OutputExistsError(f"{output}: {_listed(replaced)} are images, which masks would replace", remedy=_ELSEWHERE)


def _is_of(identity: RunIdentity, earlier: EarlierRun) -> bool:
    """Whether both runs read the same files of a model, folds that only one of them combined apart."""
    before, now = earlier.run.model, identity.model
    alone = {f"fold_{fold}" for fold in set(earlier.run.folds) ^ set(identity.folds)}
    return all(before.get(name) == now.get(name) for name in {*before, *now} if name.split("/")[0] not in alone)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
    return ", ".join(printable(path.name) for path in sorted(paths)[:_MOST_NAMES]) + more
