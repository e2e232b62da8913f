"""Preprocessed cases on the disk: only what was written there is read, and what has changed is made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnduet.errors import CorruptFileError, DatasetError
from nnduet.io.files import file_digest, locked, naming_disk_errors, write_json_atomically
from nnduet.names import printable
from nnduet.nnunet_types import CaseEntry, CaseProperties, DatasetJson, Plans
from nnduet.progress import Progress
from nnduet.records import read_json
from nnduet.schema import Workspace
from nnduet.training.case_properties import read_properties
from nnduet.training.ingredients import raw_entries
from nnduet.training.workers import settle_worker

__all__ = [
    "PreprocessCase",
    "PreprocessedCases",
    "check_listed",
    "checksums_of",
    "damaged_cases",
    "mend_preprocessed",
    "write_checksums",
]

PreprocessCase = Callable[[Plans, str, DatasetJson, str, str, CaseEntry], None]
"""(plans, configuration, dataset_json, folder, case_id, {"images", "label"}): writes a preprocessed case."""


def checksums_of(folder: Path) -> Path:
    """Where the checksums of a folder of preprocessed cases are: beside it, for nnU-Net wants nothing else in it."""
    return folder.with_name(f"{folder.name}_checksums.json")


def write_checksums(folder: Path, target: Path | None = None) -> None:
    """Write the SHA-256 of every file of a folder of preprocessed cases, {file name: digest}; None is beside the folder."""
    sums = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    write_json_atomically(target or checksums_of(folder), sums)


def mend_preprocessed(
    workspace: Workspace,
    dataset: str,
    plans: Plans,
    configuration: str,
    preprocess_case: PreprocessCase,
    progress: Progress | None = None,
) -> list[str]:
    """Compare all files of a configuration with their checksums; make the cases again whose files differ or are missing.

    A folder without checksums (nnU-Net's own preprocessing) is left as it is.

    Returns:
        Names of the cases that were made again.

    Raises:
        CorruptFileError: there are such cases, and the raw dataset is not there.
        LockedError: another process is mending.
    """
    folder = workspace.preprocessed / dataset / PlansManager(plans).get_configuration(configuration).data_identifier
    damaged = damaged_cases(folder, progress)
    if not damaged:
        return []
    raw = workspace.raw / dataset
    if not (raw / "dataset.json").is_file():
        raise CorruptFileError(f"{folder}: {damaged} changed on the disk, and {raw} is not there to make them again")
    dataset_json: DatasetJson = read_json(raw / "dataset.json", dict[str, Any])
    entries = raw_entries(raw, dataset_json)
    unknown = sorted(set(damaged) - set(entries))
    if unknown:
        raise CorruptFileError(f"{folder}: {unknown} changed on the disk, and {raw} has no such cases to make them again")
    with locked(folder.parent):
        for case_id in damaged:
            for name in (f"{case_id}.b2nd", f"{case_id}_seg.b2nd", f"{case_id}.pkl"):
                (folder / name).unlink(missing_ok=True)  # blosc2 writes over no file
            preprocess_case(plans, configuration, dataset_json, str(folder), case_id, entries[case_id])
        write_checksums(folder)
    return damaged


def damaged_cases(folder: Path, progress: Progress | None = None) -> list[str]:
    """Names of the cases, sorted, with a file that is missing or has another checksum than was written."""
    if not checksums_of(folder).is_file():
        return []
    sums = _read_sums(folder)
    damaged = set()
    for index, (name, digest) in enumerate(sums.items()):
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            damaged.add(name.removesuffix(".pkl").removesuffix(".b2nd").removesuffix("_seg"))
        if progress:
            progress(index + 1, len(sums), f"check {name}")
    return sorted(damaged)


def check_listed(folder: Path) -> None:
    """Refuse files in a folder of preprocessed cases that are not in its checksums: a training would read them as cases.

    Raises:
        DatasetError: naming the first of them.
    """
    if not checksums_of(folder).is_file():
        return
    listed = _read_sums(folder)
    unlisted = sorted(path.name for path in folder.iterdir() if path.name not in listed)
    if unlisted:
        raise DatasetError(
            f"{folder}: holds {len(unlisted)} files that `nnduet plan` did not write ({printable(', '.join(unlisted[:5]))}); "
            "none of them was read; move them away"
        )


def _read_sums(folder: Path) -> dict[str, str]:
    path = checksums_of(folder)
    sums: dict[str, str] = read_json(path, dict[str, str])
    strange = next((name for name in sums if Path(name).name != name or "\\" in name), None)
    if strange is not None:
        raise DatasetError(f"{path}: expected names of files in {folder.name}, got {printable(strange)!r}")
    return sums


class PreprocessedCases(nnUNetDatasetBlosc2):  # type: ignore[misc]
    """nnU-Net's dataset; a case that cannot be read is a StorageError with its name.

    Pickles are read as data (:func:`read_properties`). A worker that loads its first case is settled as one.
    """

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self._process = os.getpid()

    def load_case(self, identifier: str) -> tuple[NDArray[np.float32], NDArray[np.int16], None, CaseProperties]:
        if os.getpid() != self._process:
            self._process = os.getpid()
            settle_worker()
        folder = Path(self.source_folder)
        with naming_disk_errors(folder, f"{identifier}: the preprocessed case could not be read"):
            data, segmentation = (self._open(folder / f"{identifier}{ending}") for ending in (".b2nd", "_seg.b2nd"))
            return data, segmentation, None, read_properties(folder / f"{identifier}.pkl")

    def _open(self, path: Path) -> Any:
        return blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs)
