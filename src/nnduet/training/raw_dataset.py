"""A converted dataset as ``plan`` finds it, and what of it is copied beside the preprocessed cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnduet.errors import DatasetError
from nnduet.io.files import copy_atomically
from nnduet.nnunet_types import CaseEntry, DatasetJson
from nnduet.records import read_json
from nnduet.schema import LABELS_FILE, SPLITS_FILE, Workspace
from nnduet.training.ingredients import raw_entries

__all__ = ["RawDataset", "copy_references", "copy_tables", "read_raw_dataset"]


@dataclass(frozen=True)
class RawDataset:
    """A converted dataset: its ``dataset.json``, and {case id: {"images": [...], "label": ...}}."""

    workspace: Workspace
    dataset: str
    dataset_json: DatasetJson
    entries: dict[str, CaseEntry]

    @property
    def raw(self) -> Path:
        """The folder that ``convert`` wrote."""
        return self.workspace.raw / self.dataset

    @property
    def target(self) -> Path:
        """The folder that ``plan`` writes."""
        return self.workspace.preprocessed / self.dataset


def read_raw_dataset(workspace: Workspace, dataset: str) -> RawDataset:
    """What ``convert`` wrote.

    Raises:
        DatasetError: it is not there, or was not written to its end.
    """
    raw = workspace.raw / dataset
    if not (raw / "dataset.json").is_file():
        raise DatasetError(f"{raw}: expected dataset.json; run `nnduet convert` to its end first")
    dataset_json: DatasetJson = read_json(raw / "dataset.json", dict[str, Any])
    entries = raw_entries(raw, dataset_json)
    if not entries:
        raise DatasetError(f"{raw}: expected training cases, found none; run `nnduet convert` to its end first")
    return RawDataset(workspace, dataset, dataset_json, entries)


def copy_tables(data: RawDataset) -> None:
    """Copy ``dataset.json``, folds and labels to where nnU-Net reads them."""
    data.target.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", SPLITS_FILE, LABELS_FILE):
        if (data.raw / name).is_file():
            copy_atomically(data.raw / name, data.target / name)


def copy_references(data: RawDataset) -> None:
    """Copy the masks to ``gt_segmentations``, against which validation measures."""
    ending = data.dataset_json["file_ending"]
    (data.target / "gt_segmentations").mkdir(exist_ok=True)
    for case_id, entry in data.entries.items():
        copy_atomically(Path(entry["label"]), data.target / "gt_segmentations" / f"{case_id}{ending}")
