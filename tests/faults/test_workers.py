"""Rows 89, 90 and 93 of the list of faults: processes that work for another, and what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import children
import psutil
import pytest
from planned import cases_folder, plan_pictures

from nnduet.schema import Workspace

PLAN = """
import sys
from pathlib import Path
from nnduet.schema import Workspace
from nnduet.training.planning import plan
plan(1, "cpu", workspace=Workspace(*map(Path, sys.argv[1:])), replace=True, num_processes=2)
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    before = dict(os.environ)
    yield plan_pictures(tmp_path_factory.mktemp("workers"))
    os.environ.clear()
    os.environ.update(before)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_row_89_plan_without_a_main_guard_says_so_and_touches_nothing(planned: Workspace, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PLAN)
    before = content_of(planned.preprocessed)
    folders = [str(folder) for folder in (planned.raw, planned.preprocessed, planned.results)]
    done = subprocess.run([sys.executable, str(script), *folders], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "WorkerError: a preprocessing worker died" in done.stderr
    assert 'call plan() below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    after = {name: content for name, content in content_of(planned.preprocessed).items() if not name.endswith(".nnduet-lock")}
    assert after == {name: content for name, content in before.items() if not name.endswith(".nnduet-lock")}
    assert cases_folder(planned).is_dir()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_row_90_no_worker_outlives_the_process_that_it_works_for(tmp_path: Path, number: int) -> None:
    child = multiprocessing.get_context("spawn").Process(target=children.work_in_a_pool, args=(str(tmp_path),))
    child.start()
    assert child.pid is not None
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("*"))) < 2 and time.monotonic() < deadline:  # both have begun
        time.sleep(0.05)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(child.pid, number)
    child.join(20)
    assert child.exitcode not in (None, 0)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, [process.cmdline() for process in alive]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_row_90_no_process_that_loads_cases_outlives_the_training(planned: Workspace, tmp_path: Path, number: int) -> None:
    folders, told = [str(f) for f in (planned.raw, planned.preprocessed, tmp_path / "results")], tmp_path / "loaders"
    child = multiprocessing.get_context("spawn").Process(target=children.train_with_loaders, args=(folders, str(told), number))
    child.start()
    child.join(120)
    assert child.exitcode not in (None, 0)
    loaders = [int(pid) for pid in told.read_text().split()]
    assert len(loaders) >= 3  # two for training, one for validation
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, loaders)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in loaders if psutil.pid_exists(pid)]


@pytest.mark.slow
def test_row_93_the_other_process_waits_for_a_validation_that_takes_longer_than_the_timeout_of_its_group() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=children.validate_in_a_group, args=(rank, port, 3.0, 5.0)) for rank in range(2)]
    started = time.monotonic()
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0]
    assert time.monotonic() - started > 5
