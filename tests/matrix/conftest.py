"""A folder in which commands are run as a user types them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("every_command")

from every_command import Commands  # noqa: E402

SINGLE_PROCESS = {"nnUNet_n_proc_DA": "0"}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """Commands in an empty folder, without any place of nnU-Net's in the environment, which is put back."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    os.environ.update(SINGLE_PROCESS)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.pop(name, None)
    yield Commands(tmp_path)
    os.environ.clear()
    os.environ.update(before)
