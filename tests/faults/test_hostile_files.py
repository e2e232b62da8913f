"""Row 139: files that could be read for ever, or that promise more than they have, are refused at once."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_files import manifest_of, signed
from tiny import TASK_SPECS, write_tiny_dataset

from nnduet.datasets.case_tables import read_table
from nnduet.datasets.layouts import read_folder
from nnduet.errors import CorruptFileError, ModelError, NNDuetError
from nnduet.evaluation.reference_sets import references_of_json
from nnduet.inference.predictor import Predictor
from nnduet.io.images import read_image
from nnduet.model_store.folder_files import FolderFiles, load_checkpoint
from nnduet.model_store.model_folder import load_model

FINAL = "checkpoint_final.pth"


@pytest.fixture
def folder(model_2d: Path, tmp_path: Path) -> Path:
    """A copy of the 2d model that a test may spoil."""
    return Path(shutil.copytree(model_2d, tmp_path / "model"))


@pytest.fixture(params=["pipe", "device", "folder"])
def strange(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Puts what is no regular file in the place of one."""

    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        if request.param == "pipe":
            os.mkfifo(path)
        elif request.param == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        return path

    return put


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """The refusal takes no time: nothing is read to its end."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", f"fold_0/{FINAL}", "fold_0/case_head.json"])
def test_row_139_no_file_of_a_model_may_be_a_pipe_or_a_device(folder: Path, strange: Callable[[Path], Path], name: str) -> None:
    path = strange(folder / name)
    with pytest.raises(ModelError, match=str(path if name.endswith("json") else folder)):
        load_model(FolderFiles(folder))


def test_row_139_a_model_may_be_no_pipe_and_no_device(tmp_path: Path, strange: Callable[[Path], Path]) -> None:
    with pytest.raises(ModelError, match=r"model\.nnduet"):
        Predictor.load(strange(tmp_path / "model.nnduet"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.png"])
def test_row_139_an_image_may_be_no_pipe_and_no_device(tmp_path: Path, strange: Callable[[Path], Path], name: str) -> None:
    with pytest.raises(NNDuetError, match=f"{name}: expected an image, got a folder, a pipe or a device"):
        read_image(strange(tmp_path / name))


def test_row_139_a_table_may_be_no_pipe_and_no_device(tmp_path: Path, strange: Callable[[Path], Path]) -> None:
    with pytest.raises(NNDuetError, match=r"cases\.csv: expected a table, got a folder, a pipe or a device"):
        read_table(strange(tmp_path / "cases.csv"))


@pytest.mark.parametrize("name", ["dataset.json", "splits_final.json", "cases.csv"])
def test_row_139_nothing_that_convert_reads_may_be_a_pipe_or_a_device(
    tmp_path: Path, strange: Callable[[Path], Path], name: str
) -> None:
    user = write_tiny_dataset(tmp_path / "user", 2, 4)
    with pytest.raises(NNDuetError, match=f"{name}: expected a"):
        strange(user / name)
        read_folder(user, task_specs=TASK_SPECS)


def test_row_139_dataset_json_of_evaluate_may_be_no_pipe_and_no_device(tmp_path: Path, strange: Callable[[Path], Path]) -> None:
    with pytest.raises(NNDuetError, match=r"d\.json: expected a JSON file"):
        references_of_json(strange(tmp_path / "d.json"), masks=None, table=None)


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "fold_0" / FINAL
    torch.save(load_checkpoint(path) | changes, path)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"network_weights": [torch.zeros(1)]},
        {"network_weights": {"a": 1}},
        {"init_args": None},
        {"init_args": {"configuration": 3}},
        {"inference_allowed_mirroring_axes": (7,)},
        {"inference_allowed_mirroring_axes": 3},
        {"inference_allowed_mirroring_axes": ["x"]},
    ],
)
def test_row_139_a_checkpoint_of_other_types_is_refused_by_its_name(folder: Path, changes: dict[str, Any]) -> None:
    saved(folder, **changes)
    with pytest.raises(ModelError, match=f"fold_0/{FINAL}: "):
        load_model(FolderFiles(folder))


def test_row_139_weights_that_unfold_to_more_than_their_file_are_refused_before_they_are_copied(folder: Path) -> None:
    weights = load_checkpoint(folder / "fold_0" / FINAL)["network_weights"]
    saved(folder, network_weights=weights | {"more": torch.zeros(1).expand(2**40)})
    with pytest.raises(CorruptFileError, match="its weights promise"):
        load_model(FolderFiles(folder))


def test_row_139_weights_of_a_bundle_that_promise_more_than_they_have_are_refused(bundle: Path, tmp_path: Path) -> None:
    metadata = {"nnduet": json.dumps(manifest_of(bundle))}
    header = {"__metadata__": metadata, "fold_0/a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    (tmp_path / "bad.nnduet").write_bytes(signed(struct.pack("<Q", len(text)) + text + bytes(32)))
    with pytest.raises(ModelError, match="not readable as safetensors"):
        Predictor.load(tmp_path / "bad.nnduet")


@pytest.mark.parametrize("features", [[4, 8, 2**14], [2**14] * 3])
def test_row_139_plans_cannot_ask_for_more_memory_than_the_weights_have(folder: Path, features: list[int]) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = features
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="fold_0: the weights do not fit the plans"):
        load_model(FolderFiles(folder))


def test_row_139_plans_cannot_ask_for_heads_that_the_weights_do_not_have(folder: Path) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    plans["nnduet"]["head"]["hidden"] = 10**9
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="fold_0: the weights do not fit the plans"):
        load_model(FolderFiles(folder))
