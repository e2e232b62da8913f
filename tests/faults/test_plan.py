"""Planning survives rows 23, 24 and 26 of the list of faults; row 25 is in test_train.py."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import threading
import time
from dataclasses import replace
from pathlib import Path

import children
import numpy as np
import psutil
import pytest
from small_dataset import workspace_in, write_volumes

from nnduet.datasets.conversion import convert
from nnduet.datasets.layouts import read_folder
from nnduet.errors import WorkerError
from nnduet.io.images import read_image, write_image
from nnduet.schema import Workspace
from nnduet.training.planning import plan
from nnduet.training.preprocessed import damaged_cases
from nnduet.training.run import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

PREPARED = Path("Dataset001_Small") / "nnDuetCpuPlans_3d_fullres"


def converted(folder: Path, *, one_slice: str | None = None, **images: np.ndarray) -> Workspace:
    """The small volumes, with other voxels (Z, Y, X) in some cases, on the grid of the case, and a case cut to one slice."""
    source, workspace = write_volumes(folder / "cases"), workspace_in(folder / "workspace")
    for path in source.glob(f"*/{one_slice}*") if one_slice else ():
        image = read_image(path)
        write_image(path, image.array[5:6], replace(image.geometry, shape=(1, *image.geometry.shape[1:])))
    for case_id, array in images.items():
        path = source / "images" / f"{case_id}_0000.nii.gz"
        write_image(path, np.broadcast_to(array, read_image(path).array.shape).copy(), read_image(path).geometry)
    convert(read_folder(source, task_specs=["grade:binary"]), workspace=workspace, dataset_id=1, name="Small", num_folds=3)
    return workspace


def test_row_23_no_room_while_planning_is_named_and_a_rerun_completes(tmp_path: Path) -> None:
    workspace = converted(tmp_path)
    folders = [str(f) for f in (workspace.raw, workspace.preprocessed, workspace.results)]
    child = multiprocessing.get_context("spawn").Process(target=children.plan_with_small_files, args=(folders, 9000))
    child.start()
    child.join(120)
    assert child.exitcode == 42
    assert not (workspace.preprocessed / PREPARED).exists()
    plan(1, "cpu", workspace=workspace, configurations=("3d_fullres",), num_processes=1)
    assert damaged_cases(workspace.preprocessed / PREPARED) == []
    assert len(list((workspace.preprocessed / PREPARED).glob("*.pkl"))) == 10


def kill_the_first_worker(stop: threading.Event) -> None:
    """SIGKILL for the first process that a pool of this one spawns."""
    before = set(psutil.Process().children())
    while not stop.wait(0.01):
        for child in set(psutil.Process().children()) - before:
            with contextlib.suppress(psutil.Error):  # it has just ended
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    return


def test_row_24_a_killed_worker_is_named_within_a_minute_with_its_cases_and_a_rerun_completes(tmp_path: Path) -> None:
    workspace = converted(tmp_path)
    stop, started = threading.Event(), time.monotonic()
    killer = threading.Thread(target=kill_the_first_worker, args=(stop,))
    killer.start()
    try:
        with pytest.raises(WorkerError, match=r"a preprocessing worker died.* near cases \['case_00', 'case_01'\]"):
            plan(1, "cpu", workspace=workspace, configurations=("3d_fullres",), num_processes=2)
    finally:
        stop.set()
        killer.join()
    assert time.monotonic() - started < 60
    assert not (workspace.preprocessed / PREPARED).exists()
    plan(1, "cpu", workspace=workspace, configurations=("3d_fullres",), num_processes=2)
    assert damaged_cases(workspace.preprocessed / PREPARED) == []
    assert len(list((workspace.preprocessed / PREPARED).glob("*.pkl"))) == 10


def test_row_26_constant_one_slice_and_all_air_volumes_give_finite_inputs_and_a_training(tmp_path: Path) -> None:
    constant = {name: np.array(value, np.int16) for name, value in {"case_00": 0, "case_01": 7, "case_02": -1024}.items()}
    workspace = converted(tmp_path, one_slice="case_04", **constant)
    planned = plan(1, "cpu", workspace=workspace, configurations=("3d_fullres",), num_processes=1)
    plans = json.loads(Path(planned.plans_file).read_text())
    plans["nnduet"]["training"] |= {"iterations_per_epoch": 2, "validation_iterations": 1}
    Path(planned.plans_file).write_text(json.dumps(plans))
    train(1, "3d_fullres", 0, workspace=workspace, epochs=1, device="cpu")
    (progress,) = workspace.results.glob("*/*/fold_0/progress.csv")
    header, row = (line.split(",") for line in progress.read_text().splitlines())
    assert np.isfinite(float(row[header.index("train_loss")]))
