"""What runs in processes that are killed, stopped or short of something; in a module of its own, so that they import little."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

EPOCHS = 5


def train(
    folders: list[str], *, at: int | None = None, number: int = signal.SIGKILL, resume: bool = False, **options: Any
) -> None:
    """Train fold 0; when progress is told for the ``at``-th time, this process gets the signal ``number``."""
    import torch

    from nnduet.schema import Workspace
    from nnduet.training.run import train as train_fold

    torch.set_num_threads(1)
    count = 0

    def progress(done: int, total: int, text: str) -> None:
        nonlocal count
        count += not text.startswith("check ")
        if count == at:
            os.kill(os.getpid(), number)

    workspace = Workspace(*map(Path, folders))
    fold = options.pop("fold", 0)
    train_fold(1, "3d_fullres", fold, workspace=workspace, epochs=EPOCHS, device="cpu", resume=resume, progress=progress)


def train_with_small_files(folders: list[str], largest: int) -> None:
    """Train where no file may become larger than ``largest`` bytes."""
    from nnduet.errors import DiskFullError

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        train(folders, resume=True)
    except DiskFullError:
        os._exit(42)
    os._exit(0)


def predict_with_little_memory(model: str, image: str, spare: int) -> None:
    """Predict where this process may take ``spare`` bytes more than it has; exit code 43 for a refusal before the work."""
    import psutil

    from nnduet import Predictor
    from nnduet.errors import TooLargeError

    predictor = Predictor.load(model, device="cpu")
    limit = psutil.Process().memory_info().vms + spare
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        predictor(image)
    except TooLargeError:
        os._exit(43)
    os._exit(0)


def plan_with_small_files(folders: list[str], largest: int) -> None:
    """Plan where no file may become larger than ``largest`` bytes; exit code 42 for the named error."""
    from nnduet.errors import DiskFullError
    from nnduet.schema import Workspace
    from nnduet.training.planning import plan

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        plan(1, "cpu", workspace=Workspace(*map(Path, folders)), configurations=("3d_fullres",), num_processes=1)
    except DiskFullError:
        os._exit(42)
    os._exit(0)


ALONE = """
import multiprocessing.process, sys

def refuse(event, arguments):
    if event in ("socket.bind", "socket.connect"):
        raise PermissionError(1, f"not here: {event} {arguments}")

def start(self):
    raise PermissionError(1, f"not here: a process {self.name}")

multiprocessing.process.BaseProcess.start = start
sys.addaudithook(refuse)
from nnduet.cli import main
main()
"""
"""A program that is the command without sockets and without processes of multiprocessing."""


def in_a_small_container(shm_bytes: int, *arguments: str) -> list[str]:
    """The command line that runs ``nnduet`` ARGUMENTS as ALONE, with a network of its own and ``shm_bytes`` of /dev/shm."""
    mount = f'mount -t tmpfs -o size={shm_bytes} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "--mount", "--net", "sh", "-c", mount, "sh", sys.executable, "-c", ALONE, *arguments]


def begin_and_wait(folder: str, case_id: str, entry: None) -> None:
    """Tell that a case has begun, then work on it for longer than any test."""
    (Path(folder) / case_id).touch()
    time.sleep(300)


def work_in_a_pool(folder: str) -> None:
    """Work on many cases in two processes, until somebody ends it."""
    from nnduet.training.workers import case_runner

    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
    with case_runner(2, ["a", "b"]) as run_cases:
        list(run_cases(partial(begin_and_wait, folder), dict.fromkeys("abcdef")))


def validate_in_a_group(rank: int, port: int, timeout_s: float, seconds: float) -> None:
    """End a training as one of two processes of a group with a short timeout; the first validates for ``seconds``."""
    import torch
    from torch import distributed
    from torch._C._distributed_c10d import TCPStore

    from nnduet.evaluation.stored_metrics import Metrics
    from nnduet.training import trainer
    from nnduet.training.ranks import patient_group

    store = TCPStore("127.0.0.1", port, 2, rank == 0, timedelta(seconds=60))  # returns when both have come
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=timeout_s))

    def validate_fold(fold: Any) -> Metrics:
        time.sleep(seconds)
        return Metrics()

    trainer.validate_fold = validate_fold  # type: ignore[assignment,attr-defined]
    one = SimpleNamespace(local_rank=rank, is_ddp=True, waiting=patient_group(), _learn_labels=lambda: None)
    trainer.nnUNetTrainerMultitask.perform_actual_validation(one)  # type: ignore[arg-type]
    together = torch.ones(1)
    distributed.all_reduce(together)
    assert together.item() == 2
    distributed.destroy_process_group()


def train_with_loaders(folders: list[str], told: str, number: int) -> None:
    """Train the tiny pictures with processes that load them; in the second epoch tell who they are, then get a signal."""
    import psutil
    import torch

    from nnduet.schema import Workspace
    from nnduet.training.run import train as train_fold

    os.environ.update({"nnUNet_n_proc_DA": "2"})
    torch.set_num_threads(1)

    def progress(done: int, total: int, text: str) -> None:
        if text == "train epoch 2":
            loaders = [child.pid for child in psutil.Process().children(recursive=True)]
            Path(told).write_text(" ".join(map(str, loaders)))
            os.kill(os.getpid(), number)

    train_fold(1, "2d", 0, workspace=Workspace(*map(Path, folders)), device="cpu", progress=progress)
