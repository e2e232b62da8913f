"""Fixtures that several rooms share; this file also puts ``tests/`` on the path, so that tests can import ``tiny``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from every_command import Commands

pytest.register_assert_rewrite("every_command")

STAND_IN = Path(__file__).parent / "torchvision_stand_in"
SLOW = frozenset((Path(__file__).parent / "slow_tests.txt").read_text(encoding="utf-8").splitlines())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``slow_tests.txt`` lists, files and tests with all of their parameters."""
    for item in items:
        name = item.nodeid.partition("[")[0]
        if name in SLOW or name.partition("::")[0] in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def torchvision_environment() -> dict[str, str]:
    """Environment of a subprocess in which ``import torchvision`` works, with the stand-in where the real one is broken."""
    environment = dict(os.environ)
    if subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode != 0:
        environment["PYTHONPATH"] = os.pathsep.join([str(STAND_IN), *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment


@pytest.fixture(scope="session")
def model_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of two folds with random weights, one NIfTI channel. Read only."""
    from tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model") / "3d", 3, num_folds=2)


@pytest.fixture(scope="session")
def model_2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of one fold with random weights, one PNG channel. Read only."""
    from tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model") / "2d", 2)


@pytest.fixture(scope="session")
def bundle(model_2d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model_2d`` as one file. Read only."""
    from nnduet.model_store.bundles import write_bundle
    from nnduet.model_store.folder_files import FolderFiles

    path = tmp_path_factory.mktemp("bundle") / "tiny.nnduet"
    write_bundle(FolderFiles(model_2d), path)
    return path


@pytest.fixture(scope="session")
def old_bundle(model_2d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model_2d`` as earlier versions wrote it to one file. Read only."""
    from bundle_files import write_old_bundle

    from nnduet.model_store.folder_files import FolderFiles

    return write_old_bundle(tmp_path_factory.mktemp("bundle") / "old.nnduet", FolderFiles(model_2d))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, and much slower on two threads of a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """Commands in an empty folder, without any place of nnU-Net's in the environment, which is put back; for ``matrix``."""
    from every_command import Commands

    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    os.environ.update({"nnUNet_n_proc_DA": "0"})  # augmented in this process
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.pop(name, None)
    yield Commands(tmp_path)
    os.environ.clear()
    os.environ.update(before)
