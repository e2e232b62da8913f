"""A model folder is read without trusting it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TASKS, tiny_head

from nnduet.case_head.descriptors import DESCRIPTORS_VERSION
from nnduet.case_head.stored_heads import conformal_scores
from nnduet.errors import CorruptFileError, ModelError
from nnduet.io.checksums import write_sums
from nnduet.io.files import file_digest
from nnduet.model_store import model_files
from nnduet.model_store.folder_files import FolderFiles, available_folds, load_checkpoint
from nnduet.model_store.model_files import CASE_HEAD_FILE, Origin
from nnduet.model_store.model_folder import load_model

FINAL = "checkpoint_final.pth"
NO_HEADS: dict[str, Any] = {"tasks": {}, "outliers": None}


@pytest.fixture
def folder(model_2d: Path, tmp_path: Path) -> Path:
    """A copy of the 2d model that a test may spoil."""
    return Path(shutil.copytree(model_2d, tmp_path / "model"))


def load(folder: Path, folds: list[int] | None = None) -> Any:
    return load_model(FolderFiles(folder), folds)


def write_case_head(folder: Path, columns: int, rows: int = 2, **stored: Any) -> None:
    head = tiny_head([0.0] * rows, columns=columns)
    (folder / "fold_0" / CASE_HEAD_FILE).write_text(json.dumps({"tasks": {"grade": head}, **stored}))


def test_a_folder_that_training_wrote_is_read(model_3d: Path) -> None:
    model = load(model_3d)
    assert [member.fold for member in model.members] == ["0", "1"]
    assert [task.name for task in model.tasks] == ["grade", "age"]
    assert model.mirror_axes == (0, 1, 2)
    assert model.configuration_name == "3d_fullres"


def test_the_network_carries_the_weights_of_the_first_fold(model_3d: Path) -> None:
    model = load(model_3d)
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, model.members[0].weights[name])


def test_only_the_wanted_folds_are_read(model_3d: Path) -> None:
    assert [member.fold for member in load(model_3d, [1]).members] == ["1"]


def test_folds_with_a_number_are_preferred_to_fold_all(tmp_path: Path) -> None:
    for name in ("fold_all", "fold_1", "fold_0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / FINAL).touch()
    assert available_folds(tmp_path, FINAL) == ["0", "1"]


def test_fold_all_is_taken_where_it_is_alone(tmp_path: Path) -> None:
    (tmp_path / "fold_all").mkdir()
    (tmp_path / "fold_all" / FINAL).touch()
    assert available_folds(tmp_path, FINAL) == ["all"]


def test_a_truncated_checkpoint_is_refused(folder: Path) -> None:
    path = folder / "fold_0" / FINAL
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        load(folder)


def test_a_checkpoint_with_a_checksum_is_read_for_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "fold_0" / FINAL
    digest = file_digest(path)
    write_sums(path, digest)
    origin = FolderFiles(folder).fold("0").origin
    monkeypatch.setattr(model_files, "file_digest", lambda path: path.name)
    assert origin.digests == (digest, "plans.json")


def test_a_checkpoint_of_other_bytes_than_its_checksum_is_refused(folder: Path) -> None:
    write_sums(folder / "fold_0" / FINAL, "0" * 64)
    (folder / "fold_0" / f"{FINAL}.sha256").write_text("0" * 64)
    with pytest.raises(CorruptFileError, match="another checksum"):
        FolderFiles(folder).fold("0")


def test_without_checksums_every_file_is_read_for_its_digest(folder: Path) -> None:
    path = folder / "plans.json"
    assert Origin((path,), folder).digests == (file_digest(path),)


def test_weights_that_were_read_do_not_change_with_their_file(folder: Path) -> None:
    path = folder / "fold_0" / FINAL
    weights = FolderFiles(folder).fold("0").weights
    expected = {name: tensor.clone() for name, tensor in weights.items()}
    with path.open("r+b") as stream:  # as a training by stock nnU-Net would, which writes into the same file
        stream.write(bytes(path.stat().st_size))
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_in_the_old_format_of_torch_is_read(folder: Path) -> None:
    path = folder / "fold_0" / FINAL
    torch.save(torch.load(path, weights_only=False), path, _use_new_zipfile_serialization=False)
    assert FolderFiles(folder).fold("0").weights


def test_a_file_of_tensors_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / FINAL)
    with pytest.raises(ModelError, match="network_weights"):
        load_checkpoint(tmp_path / FINAL)


@pytest.mark.parametrize(("stored", "expected"), [({}, 1), ({"descriptors": 1}, 1), ({"descriptors": 2}, 2)])
def test_heads_that_name_no_version_read_descriptors_of_the_first(folder: Path, stored: dict[str, int], expected: int) -> None:
    (folder / "fold_0" / CASE_HEAD_FILE).write_text(json.dumps(NO_HEADS | stored))
    assert load(folder).members[0].descriptors == expected


def test_without_heads_descriptors_are_those_of_today(folder: Path) -> None:
    assert load(folder).members[0].descriptors == DESCRIPTORS_VERSION


@pytest.mark.parametrize("version", [0, 3, "2", True, None])
def test_heads_that_read_unknown_descriptors_are_refused(folder: Path, version: Any) -> None:
    (folder / "fold_0" / CASE_HEAD_FILE).write_text(json.dumps(NO_HEADS | {"descriptors": version}))
    with pytest.raises(ModelError, match=r"case_head\.json: descriptors: expected a version among \(1, 2\)"):
        load(folder)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_broken_json_is_named(folder: Path) -> None:
    (folder / "plans.json").write_text("{")
    with pytest.raises(ModelError, match=r"plans\.json: no readable JSON"):
        load(folder)


def test_a_missing_fold_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="fold_3"):
        load(folder, [3])


def test_a_folder_without_a_finished_fold_is_refused(folder: Path) -> None:
    (folder / "fold_0" / FINAL).unlink()
    with pytest.raises(ModelError, match="has the training finished"):
        load(folder)


def test_a_model_of_plain_nnunet_is_refused(folder: Path) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    del plans["nnduet"]
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="not trained by nnDuet"):
        load(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    plans["nnduet"]["head"]["hidden"] = 5
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match="do not fit the plans"):
        load(folder)


def test_weights_of_a_later_fold_are_checked_too(model_3d: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_3d, tmp_path / "model"))
    checkpoint = load_checkpoint(folder / "fold_1" / FINAL)
    del checkpoint["network_weights"][next(iter(checkpoint["network_weights"]))]
    torch.save(checkpoint, folder / "fold_1" / FINAL)
    with pytest.raises(ModelError, match=r"fold_1: the weights do not fit"):
        load(folder)


def test_a_case_head_is_read(folder: Path) -> None:
    write_case_head(folder, load(folder).layout.size)
    assert list(load(folder).members[0].case_heads) == ["grade"]


def test_a_case_head_for_three_classes_does_not_fit_a_binary_task(folder: Path) -> None:
    write_case_head(folder, 4, rows=3)
    with pytest.raises(ModelError, match="case head of task grade"):
        load(folder)


def test_a_case_head_for_other_features_is_refused(folder: Path) -> None:
    expected = load(folder).layout.size
    write_case_head(folder, expected + 1)
    with pytest.raises(ModelError, match=f"expected {expected} features, got column {expected}"):
        load(folder)


def test_an_outlier_model_of_other_features_is_refused(folder: Path) -> None:
    numbers = {"mean": [0.0], "scale": [1.0], "components": [[1.0]], "variances": [1.0], "noise": 1.0, "distances": [1.0]}
    write_case_head(folder, 4, outliers=numbers)
    with pytest.raises(ModelError, match=r"outlier model: expected \d+ features, got 1"):
        load(folder)


def test_case_heads_of_an_older_form_say_how_to_renew_them(folder: Path) -> None:
    (folder / "fold_0" / CASE_HEAD_FILE).write_text(json.dumps({"grade": {}}))
    with pytest.raises(ModelError, match="nnduet fit-head"):
        load(folder)


@pytest.mark.parametrize(
    ("folds", "expected"), [(["0", "1"], ["grade"]), (["1", "2"], ["grade"]), (["1"], []), (["0", "3"], [])]
)
def test_cross_validated_scores_speak_for_several_of_their_folds(folds: list[str], expected: list[str]) -> None:
    stored = {"grade": {"folds": [0, 1, 2], "scores": [0.5, 0.25]}, "another task": None}
    found = conformal_scores(stored, TASKS, folds, "conformal.json")
    assert {name: scores.tolist() for name, scores in found.items()} == {name: [0.5, 0.25] for name in expected}


def test_a_model_that_was_not_cross_validated_has_no_such_scores(folder: Path) -> None:
    assert load(folder).conformal == {}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"grade": 1}',
        '{"grade": {"folds": [0, 1]}}',
        '{"grade": {"folds": [0, 1], "scores": []}}',
        '{"grade": {"folds": [0, 1], "scores": [[0.5]]}}',
        '{"grade": {"folds": [0, 1], "scores": ["high"]}}',
        '{"grade": {"folds": [0, 1], "scores": [0.5, NaN]}}',
    ],
)
def test_damaged_scores_are_refused_by_the_name_of_their_file(folder: Path, content: str) -> None:
    (folder / "cross_validation").mkdir()
    (folder / "cross_validation" / "conformal.json").write_text(content)
    with pytest.raises(ModelError, match=r"cross_validation/conformal\.json"):
        load(folder)


def test_the_weights_of_inner_heads_may_be_absent(folder: Path) -> None:
    path = folder / "fold_0" / FINAL
    checkpoint = load_checkpoint(path)
    for name in [name for name in checkpoint["network_weights"] if name.startswith("inner_heads.")]:
        del checkpoint["network_weights"][name]
    torch.save(checkpoint, path)
    assert load(folder).members
    del checkpoint["network_weights"][next(name for name in checkpoint["network_weights"] if name.startswith("heads."))]
    torch.save(checkpoint, path)
    with pytest.raises(ModelError, match=r"fold_0: the weights do not fit the plans: missing weights: \['heads"):
        load(folder)
