"""A checkpoint is replaced whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nnduet.errors import DiskFullError
from nnduet.training.checkpoints import replace_checkpoint


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("old")
    replace_checkpoint(lambda name: Path(name).write_text("new") and None, str(target))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(target.name, "new")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.ENOSPC, "no space"), DiskFullError), (RuntimeError("unexpected pos"), RuntimeError)],
)
def test_a_write_that_fails_half_way_leaves_the_old_checkpoint(
    tmp_path: Path, error: Exception, expected: type[Exception]
) -> None:
    target = tmp_path / "checkpoint_latest.pth"
    target.write_text("old")

    def fail(name: str) -> None:
        Path(name).write_text("ne")
        raise error

    with pytest.raises(expected):
        replace_checkpoint(fail, str(target))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(target.name, "old")]
