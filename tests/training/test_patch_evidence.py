"""Which share of a case's regions a patch shows, for labels and for overlapping regions."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nnduet.training.patch_evidence import Evidence

LABELS = SimpleNamespace(has_regions=False, foreground_labels=[1, 2])
REGIONS = SimpleNamespace(has_regions=True, foreground_regions=[(1, 2), 2])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Case "both" holds organ and lesion, case "organ" no lesion."""
    voxel = [[0, 0, 0, 0]]
    for name, locations in {"both": {1: voxel, 2: voxel}, "organ": {1: voxel, 2: []}}.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps({"class_locations": locations}))
    return str(tmp_path)


def test_a_patch_counts_by_the_share_of_labels_it_shows(folder: str) -> None:
    target = torch.tensor([[0, 1], [0, 1]]).reshape(2, 1, 1, 2)
    assert Evidence(folder, LABELS).gates(target, ["both", "organ"]).tolist() == [0.5, 1.0]


def test_overlapping_regions_stand_in_channels_of_their_own(folder: str) -> None:
    target = torch.zeros(2, 3, 1, 2)  # two regions and the ignore label
    target[0, 0, 0, 0] = 1
    target[:, 2] = 1
    assert Evidence(folder, REGIONS).gates(target, ["both", "organ"]).tolist() == [0.5, 0.0]


def test_what_a_case_holds_is_read_once(folder: str) -> None:
    evidence = Evidence(folder, LABELS)
    target = torch.ones(1, 1, 1, 1)
    evidence.gates(target, ["both"])
    (Path(folder) / "both.pkl").unlink()
    assert evidence.gates(target, ["both"]).tolist() == [0.5]
