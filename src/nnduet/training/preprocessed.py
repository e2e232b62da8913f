"""Preprocessed cases whose bytes have changed on the disk are found before a training, and made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnduet.data.files import file_digest, locked, naming_disk_errors, write_json_atomically
from nnduet.errors import CorruptFileError
from nnduet.schema import Workspace

__all__ = ["PreprocessCase", "PreprocessedCases", "checksums_of", "damaged_cases", "mend_preprocessed", "write_checksums"]

PreprocessCase = Callable[[dict[str, Any], str, dict[str, Any], str, str, dict[str, Any]], None]
"""(plans, configuration, dataset_json, folder, case_id, {"images", "label"}): writes a preprocessed case."""


def checksums_of(folder: Path) -> Path:
    """Where the checksums of a folder of preprocessed cases are: beside it, for nnU-Net wants nothing else in it."""
    return folder.with_name(f"{folder.name}_checksums.json")


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder of preprocessed cases, {file name: digest}."""
    write_json_atomically(checksums_of(folder), {path.name: file_digest(path) for path in _files(folder)})


def mend_preprocessed(
    workspace: Workspace,
    dataset: str,
    plans: dict[str, Any],
    configuration: str,
    preprocess_case: PreprocessCase,
    progress: Callable[[int, int, str], None] | None = None,
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
    dataset_json = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    entries = get_filenames_of_train_images_and_targets(str(raw), dataset_json)
    with locked(folder.parent):
        for case_id in damaged:
            for name in (f"{case_id}.b2nd", f"{case_id}_seg.b2nd", f"{case_id}.pkl"):
                (folder / name).unlink(missing_ok=True)  # blosc2 writes over no file
            preprocess_case(plans, configuration, dataset_json, str(folder), case_id, entries[case_id])
        write_checksums(folder)
    return damaged


def damaged_cases(folder: Path, progress: Callable[[int, int, str], None] | None = None) -> list[str]:
    """Names of the cases, sorted, with a file that is missing or has another checksum than was written."""
    if not checksums_of(folder).is_file():
        return []
    sums: dict[str, str] = json.loads(checksums_of(folder).read_text(encoding="utf-8"))
    damaged = set()
    for index, (name, digest) in enumerate(sums.items()):
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            damaged.add(name.removesuffix(".pkl").removesuffix(".b2nd").removesuffix("_seg"))
        if progress:
            progress(index + 1, len(sums), f"check {name}")
    return sorted(damaged)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".b2nd", ".pkl"))


class PreprocessedCases(nnUNetDatasetBlosc2):  # type: ignore[misc]
    """nnU-Net's dataset; a case that cannot be read is a StorageError with its name."""

    def load_case(self, identifier: str) -> Any:
        with naming_disk_errors(Path(self.source_folder), f"{identifier}: the preprocessed case could not be read"):
            return super().load_case(identifier)
