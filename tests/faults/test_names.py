"""Row 84: a name that cannot be a file everywhere is refused wherever it enters, and nothing is written by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_files import entries_of, manifest_of, tensors_of, text, write_entries, write_old_bundle, write_parts
from tiny import TASK_SPECS, write_tiny_dataset

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.datasets.mask_codes import MaskCodes
from nnduet.errors import NNDuetError
from nnduet.inference.predictor import Predictor
from nnduet.model_store.bundles import write_bundle
from nnduet.model_store.folder_files import FolderFiles, available_folds
from nnduet.model_store.model_folder import load_model
from nnduet.schema import Workspace
from nnduet.task_list import tasks_from_json

HOSTILE = {
    "parent": "../outside",
    "inner": "a/b",
    "backslash": "a\\b",
    "device": "CON",
    "slash": "HER2+/-",
    "nul": "a\0b",
    "long": "x" * 300,
    "direction": "a\u202egnp.exe",
    "newline": "a\nb",
    "ansi": "\x1b[2Ja",
    "not UTF-8": "a\udcffb",
    "empty": "",
    "dots": "..",
}
CLASSES = {"type": "binary", "classes": ["a", "b"]}


def changed_plans(model: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    plans = json.loads((model / "plans.json").read_text())
    change(plans)
    (model / "plans.json").write_text(json.dumps(plans))
    load_model(FolderFiles(model))


def changed_dataset(model: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((model / "dataset.json").read_text())
    change(content)
    (model / "dataset.json").write_text(json.dumps(content))
    load_model(FolderFiles(model))


def configuration_called(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda plans: plans["configurations"].update({name: plans["configurations"]["2d"]})


def part_called(name: str, model: Path) -> None:
    write_bundle(FolderFiles(model), model / "sound.nnduet")
    manifest, parts = manifest_of(model / "sound.nnduet"), tensors_of(model / "sound.nnduet")
    Predictor.load(write_parts(model / "bad.nnduet", manifest, parts | {name: text(b"{}")}))


def entry_called(name: str, model: Path) -> None:
    write_old_bundle(model / "sound.nnduet", FolderFiles(model))
    entries = entries_of(model / "sound.nnduet") | {name: b"x"}
    Predictor.load(write_entries(model / "bad.nnduet", entries, signed=True))


def dataset_called(name: str, folder: Path) -> None:
    source = read_folder(write_tiny_dataset(folder / "user", 2, 4), task_specs=TASK_SPECS)
    workspace = Workspace(folder / "raw", folder / "preprocessed", folder / "results")
    convert(source, workspace=workspace, dataset_id=1, name=name, num_folds=2)


ENTRIES: dict[str, Callable[[str, Path], Any]] = {
    "task in plans": lambda name, model: changed_plans(model, lambda plans: plans["nnduet"].update(tasks={name: CLASSES})),
    "task": lambda name, model: tasks_from_json({name: CLASSES}),
    "task in dataset.json": lambda name, model: changed_dataset(
        model, lambda content: content.update(classification={name: CLASSES})
    ),
    "mask": lambda name, model: MaskCodes.of([name, "ES"], {"background": 0, "a": 1}),
    "mask in dataset.json": lambda name, model: changed_dataset(
        model, lambda d: d.update(masks={name: {"a": 1}, "b": {"a": 1}})
    ),
    "dataset": dataset_called,
    "dataset in plans": lambda name, model: changed_plans(model, lambda plans: plans.update(dataset_name=name)),
    "plans": lambda name, model: changed_plans(model, lambda plans: plans.update(plans_name=name)),
    "configuration": lambda name, model: changed_plans(model, configuration_called(name)),
    "preprocessed data": lambda name, model: changed_plans(
        model, lambda plans: plans["configurations"]["2d"].update(data_identifier=name)
    ),
    "fold": lambda name, model: load_model(FolderFiles(model), [name]),
    "fold of a bundle": lambda name, model: write_bundle(FolderFiles(model), model / "new.nnduet", [name]),
    "part of a bundle": part_called,
    "entry of an old bundle": entry_called,
}
"""{what is named: (name, a model folder that may be spoiled): reads or writes it}."""


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_row_84_a_name_that_is_no_file_name_is_refused_where_it_enters(
    model_2d: Path, tmp_path: Path, entry: Callable[[str, Path], Any], name: str
) -> None:
    if name == "CON" and entry is dataset_called:
        return  # Dataset001_CON is a fine name
    if name == HOSTILE["not UTF-8"] and entry in (part_called, entry_called):
        return  # zipfile and safetensors write no such name
    model = Path(shutil.copytree(model_2d, tmp_path / "room" / "model"))
    with pytest.raises(NNDuetError) as caught:
        entry(name, model)
    assert not set(str(caught.value)) & set("\0\x1b\u202e\udcff"), "the message would act on a terminal"
    assert [path.name for path in tmp_path.iterdir()] == ["room"]
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["model"]
    assert {path.name for path in model.iterdir()} <= {
        "plans.json",
        "dataset.json",
        "fold_0",
        "user",
        "sound.nnduet",
        "bad.nnduet",
    }


def test_row_84_a_copy_of_a_fold_that_was_put_aside_is_no_fold(model_2d: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_2d, tmp_path / "model"))
    shutil.copytree(model / "fold_0", model / "fold_0 (copy)")
    shutil.copytree(model / "fold_0", model / "fold_old")
    assert available_folds(model, "checkpoint_final.pth") == ["0"]
