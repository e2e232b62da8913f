"""Training survives rows 27 to 35 of the list of faults: killed, stopped, short of disk, fed with nonsense, started twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import children
import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from small_dataset import edit_plans, workspace_in, write_volumes

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import CorruptFileError, DivergedError, LockedError, ResumeError
from nnduet.io.files import locked
from nnduet.model_store.folder_files import load_checkpoint
from nnduet.schema import Workspace
from nnduet.training.checkpoints import FINAL, LATEST, PREVIOUS
from nnduet.training.planning import plan
from nnduet.training.preprocessed import damaged_cases, write_checksums
from nnduet.training.run import train
from nnduet.training.trainer import MOST_BAD_STEPS, nnUNetTrainerMultitask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FOLD = Path("Dataset001_Small") / "nnUNetTrainerMultitask__nnDuetCpuPlans__3d_fullres" / "fold_0"


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Starts children in milliseconds, from a process that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nnduet.training.run", "children"])
    return context


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder, before = tmp_path_factory.mktemp("faults"), dict(os.environ)
    workspace = workspace_in(folder / "workspace")
    cases = read_folder(write_volumes(folder / "cases"), task_specs=["grade:binary", "age:regression"])
    convert(cases, workspace=workspace, dataset_id=1, name="Small", num_folds=3)
    planned = plan(1, "cpu", workspace=workspace, configurations=("3d_fullres",), num_processes=1)
    edit_plans(planned.plans_file, iterations_per_epoch=2, validation_iterations=1)
    yield workspace
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def workspace(prepared: Workspace, tmp_path: Path) -> Workspace:
    """The prepared data with a folder of its own for results."""
    return replace(prepared, results=tmp_path / "results")


@pytest.fixture(scope="module")
def uninterrupted(prepared: Workspace, processes: BaseContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fold of a training that nothing disturbed."""
    results = tmp_path_factory.mktemp("uninterrupted")
    assert run(processes, children.train, replace(prepared, results=results)) == 0
    return results / FOLD


def run(processes: BaseContext, work: Any, workspace: Workspace, *arguments: Any, **options: Any) -> int:
    """Run a function of ``children`` and return its exit code."""
    folders = [str(f) for f in (workspace.raw, workspace.preprocessed, workspace.results)]
    child = processes.Process(target=work, args=(folders, *arguments), kwargs=options)  # type: ignore[attr-defined]
    child.start()
    child.join(300)
    assert child.exitcode is not None
    return int(child.exitcode)


def assert_same_training(fold: Path, expected: Path) -> None:
    """Weights, case heads and metrics are equal bit for bit."""
    first, second = (load_checkpoint(folder / FINAL)["network_weights"] for folder in (fold, expected))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name in ("case_head.json", "validation/classification.csv", "validation/per_case.csv"):
        assert (fold / name).read_bytes() == (expected / name).read_bytes()
    metrics, others = (json.loads((folder / "final_metrics.json").read_text()) for folder in (fold, expected))
    assert metrics["tasks"] == others["tasks"] and metrics["segmentation"] == others["segmentation"]
    assert not list(fold.glob("*.partial")) and not (fold / LATEST).exists() and not (fold / PREVIOUS).exists()


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_row_25_a_preprocessed_file_that_changed_is_found_and_made_again(
    prepared: Workspace, tmp_path: Path, ending: str
) -> None:
    preprocessed = Path(shutil.copytree(prepared.preprocessed, tmp_path / "preprocessed"))
    folder = preprocessed / "Dataset001_Small" / "nnDuetCpuPlans_3d_fullres"
    path = folder / f"case_04{ending}"
    sound = path.read_bytes()
    path.write_bytes(sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
    assert damaged_cases(folder) == ["case_04"]
    train(1, "3d_fullres", 0, workspace=replace(prepared, preprocessed=preprocessed, results=tmp_path), epochs=1, device="cpu")
    assert damaged_cases(folder) == []
    assert path.read_bytes() == sound
    log = "".join(file.read_text() for file in (tmp_path / FOLD).glob("training_log*"))
    assert "preprocessed files of case_04 changed on the disk and were made again" in log


def test_row_25_without_the_raw_data_the_damaged_cases_are_named(prepared: Workspace, tmp_path: Path) -> None:
    preprocessed = Path(shutil.copytree(prepared.preprocessed, tmp_path / "preprocessed"))
    (preprocessed / "Dataset001_Small" / "nnDuetCpuPlans_3d_fullres" / "case_04.pkl").unlink()
    raw = tmp_path / "raw" / "Dataset001_Small"
    raw.mkdir(parents=True)
    workspace = Workspace(raw.parent, preprocessed, tmp_path / "results")
    with pytest.raises(CorruptFileError, match=r"\['case_04'\] changed on the disk, and .* is not there"):
        train(1, "3d_fullres", 0, workspace=workspace, epochs=1, device="cpu")


def test_row_27_killed_at_20_points_a_training_ends_like_an_uninterrupted_one(
    workspace: Workspace, processes: BaseContext, uninterrupted: Path
) -> None:
    kills = 0
    for at in [3, 1, 2, 3, 2, 3, 1, 3, 3, 3, *range(2, 12)]:  # steps of epochs, then cases that are measured and validated
        code = run(processes, children.train, workspace, at=at, resume=(workspace.results / FOLD / LATEST).exists())
        kills += code == -signal.SIGKILL
        if (workspace.results / FOLD / FINAL).is_file():
            code = run(processes, children.train, workspace, at=at, resume=True)
            kills += code == -signal.SIGKILL
    assert kills >= 20
    assert run(processes, children.train, workspace, resume=True) == 0
    assert_same_training(workspace.results / FOLD, uninterrupted)


def test_row_28_a_damaged_latest_checkpoint_is_passed_over_for_the_one_before(
    workspace: Workspace, processes: BaseContext, uninterrupted: Path
) -> None:
    assert run(processes, children.train, workspace, at=7) == -signal.SIGKILL
    latest = workspace.results / FOLD / LATEST
    content = bytearray(latest.read_bytes())
    content[len(content) // 2] ^= 1
    latest.write_bytes(content)
    assert run(processes, children.train, workspace, resume=True) == 0
    assert_same_training(workspace.results / FOLD, uninterrupted)


def test_row_29_no_room_for_a_checkpoint_leaves_the_old_one_and_goes_on_later(
    workspace: Workspace, processes: BaseContext, uninterrupted: Path
) -> None:
    assert run(processes, children.train, workspace, at=5) == -signal.SIGKILL
    fold = workspace.results / FOLD
    before = (fold / LATEST).read_bytes()
    assert len(before) > 2**20
    assert run(processes, children.train_with_small_files, workspace, 2**19) == 42
    assert (fold / LATEST).read_bytes() == before
    assert not list(fold.glob("*.partial"))
    assert run(processes, children.train, workspace, resume=True) == 0
    assert_same_training(fold, uninterrupted)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_row_30_a_signal_ends_the_command_with_75_and_resume_goes_on(
    workspace: Workspace, processes: BaseContext, uninterrupted: Path, name: str
) -> None:
    program = (
        "import os, signal, sys\n"
        "import nnduet.training.run as run\n"
        "import nnduet.cli\n"
        "train = run.train\n"
        "def stopped(*arguments, progress, **options):\n"
        "    def tell(done, total, text):\n"
        f"        text == 'train epoch 3' and os.kill(os.getpid(), signal.{name})\n"
        "        progress(done, total, text)\n"
        "    return train(*arguments, progress=tell, **options)\n"
        "run.train = stopped\n"
        "nnduet.cli.main()\n"
    )
    command = [sys.executable, "-c", program, "train", "1", "--epochs", str(children.EPOCHS), "--device", "cpu"]
    environment = os.environ | workspace.environment() | {"OMP_NUM_THREADS": "1"}
    stopped = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert stopped.returncode == 75, stopped.stderr
    assert f"STOPPED: stopped by {name}; every finished epoch is kept: go on with --resume" in stopped.stderr
    assert run(processes, children.train, workspace, resume=True) == 0
    assert_same_training(workspace.results / FOLD, uninterrupted)


def test_row_31_resume_with_other_plans_is_refused_by_what_differs(
    workspace: Workspace, processes: BaseContext, tmp_path: Path
) -> None:
    assert run(processes, children.train, workspace, at=4) == -signal.SIGKILL
    preprocessed = Path(shutil.copytree(workspace.preprocessed, tmp_path / "preprocessed"))
    edit_plans(preprocessed / "Dataset001_Small" / "nnDuetCpuPlans.json", hidden=32)
    with pytest.raises(ResumeError, match="trained with other settings: hidden 64 -> 32"):
        train(1, "3d_fullres", 0, workspace=replace(workspace, preprocessed=preprocessed), device="cpu", resume=True)


def not_a_number(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> list[int]:
    """Let the loss of these steps be no number, as a broken case would."""
    original, count = nnUNetTrainerMultitask._joint_loss, [0]

    def joint_loss(trainer: Any, batch: Any) -> Any:
        count[0] += 1
        loss, terms = original(trainer, batch)
        return (loss * float("nan") if count[0] in steps else loss), terms

    monkeypatch.setattr(nnUNetTrainerMultitask, "_joint_loss", joint_loss)
    return count


def test_row_32_a_loss_that_is_no_number_changes_no_weights(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    not_a_number(monkeypatch, {1, 3})
    train(1, "3d_fullres", 0, workspace=workspace, epochs=2, device="cpu")
    fold = workspace.results / FOLD
    weights = load_checkpoint(fold / FINAL)["network_weights"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    log = "".join(path.read_text() for path in fold.glob("training_log*"))
    assert log.count("passed over") == 2 and "case_0" in log


def test_row_32_a_loss_that_stays_no_number_stops_the_training_with_the_cases(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = not_a_number(monkeypatch, set(range(3, 100)))
    with pytest.raises(DivergedError, match=r"epoch \d: loss .* for cases \['case_"):
        train(1, "3d_fullres", 0, workspace=workspace, epochs=children.EPOCHS, device="cpu")
    assert count[0] == 2 + MOST_BAD_STEPS
    weights = load_checkpoint(workspace.results / FOLD / LATEST)["network_weights"]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_row_33_empty_masks_and_a_single_class_give_a_finite_loss(prepared: Workspace, tmp_path: Path) -> None:
    raw, preprocessed = (shutil.copytree(f, tmp_path / f.name) for f in (prepared.raw, prepared.preprocessed))
    workspace = Workspace(Path(raw), Path(preprocessed), tmp_path / "results")
    data, table_file = Path(preprocessed) / "Dataset001_Small", Path(raw) / "Dataset001_Small" / "classification_labels.csv"
    table = table_file.read_text().splitlines()
    grade = table[0].split(",").index("grade")
    rows = [line.split(",") for line in table[1:]]
    for row in rows:
        row[grade] = "low"
    table_file.write_text("\n".join([table[0], *map(",".join, rows)]) + "\n")
    configuration = data / "nnDuetCpuPlans_3d_fullres"
    dataset = nnUNetDatasetBlosc2(str(configuration))
    for case_id in dataset.identifiers:
        image, mask, _, properties = dataset.load_case(case_id)
        image, mask = np.asarray(image[:]), np.zeros_like(mask[:])
        for path in configuration.glob(f"{case_id}*"):
            path.unlink()
        properties["class_locations"] = {key: [] for key in properties["class_locations"]}
        nnUNetDatasetBlosc2.save_case(image, mask, properties, str(configuration / case_id))
    write_checksums(configuration)
    summary = train(1, "3d_fullres", 0, workspace=workspace, epochs=2, device="cpu")
    with open(workspace.results / FOLD / "progress.csv") as stream:
        header, *epochs = [line.strip().split(",") for line in stream]
    assert all(np.isfinite(float(epoch[header.index("train_loss")])) for epoch in epochs)
    assert summary.metrics.tasks["grade"].metrics["auroc"].value is None


def test_row_34_two_folds_that_start_together_both_finish(workspace: Workspace, processes: BaseContext) -> None:
    folders = [str(f) for f in (workspace.raw, workspace.preprocessed, workspace.results)]
    both = [
        processes.Process(target=children.train, args=(folders,), kwargs={"fold": fold})  # type: ignore[attr-defined]
        for fold in (0, 1)
    ]
    for child in both:
        child.start()
    for child in both:
        child.join(300)
    assert [child.exitcode for child in both] == [0, 0]
    assert len(list(workspace.results.glob(f"*/*/fold_*/{FINAL}"))) == 2


def test_row_34_the_same_fold_twice_is_refused(workspace: Workspace) -> None:
    with locked(workspace.results / FOLD), pytest.raises(LockedError, match="fold_0: another process is writing here"):
        train(1, "3d_fullres", 0, workspace=workspace, epochs=1, device="cpu")


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "--net", "true"]).returncode != 0, reason="needs the rights to unshare"
)
def test_row_35_with_64_mb_of_shared_memory_no_sockets_and_no_processes_it_trains_as_ever(
    workspace: Workspace, uninterrupted: Path
) -> None:
    command = children.in_a_small_container(2**26, "train", "1", "--epochs", str(children.EPOCHS), "--device", "cpu")
    environment = os.environ | workspace.environment() | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_training(workspace.results / FOLD, uninterrupted)
