"""A checkpoint is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nnduet.errors import DiskFullError, ResumeError, StorageError
from nnduet.io.checksums import is_whole, sums_of
from nnduet.training import checkpoints
from nnduet.training.checkpoints import (
    FINAL,
    LATEST,
    PREVIOUS,
    find_checkpoint,
    remove_passing_checkpoints,
    replace_checkpoint,
    stoppable,
)


def save(folder: Path, name: str, content: str) -> Path:
    def write(partial: str) -> None:
        Path(partial).write_text(content)

    replace_checkpoint(write, str(folder / name))
    return folder / name


def test_a_new_checkpoint_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        save(tmp_path, FINAL, content)
    assert (tmp_path / FINAL).read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FINAL, f"{FINAL}.sha256"]


def test_the_last_two_of_a_running_training_are_kept(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        save(tmp_path, LATEST, content)
    assert [(tmp_path / name).read_text() for name in (LATEST, PREVIOUS)] == ["third", "second"]
    assert is_whole(tmp_path / LATEST) and is_whole(tmp_path / PREVIOUS)
    remove_passing_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_checksums_becomes_the_previous_one_without_them(tmp_path: Path) -> None:
    (tmp_path / LATEST).write_text("from before checksums")
    save(tmp_path, LATEST, "new")
    assert is_whole(tmp_path / PREVIOUS) and not sums_of(tmp_path / PREVIOUS).exists()


def test_a_damaged_latest_checkpoint_gives_way_to_the_previous_one(tmp_path: Path) -> None:
    save(tmp_path, LATEST, "first")
    save(tmp_path, LATEST, "second")
    assert find_checkpoint(tmp_path) == tmp_path / LATEST
    (tmp_path / LATEST).write_text("secund")
    assert find_checkpoint(tmp_path) == tmp_path / PREVIOUS
    (tmp_path / PREVIOUS).write_text("")
    with pytest.raises(ResumeError, match=r"checkpoint_latest\.pth, checkpoint_previous\.pth changed on the disk"):
        find_checkpoint(tmp_path)


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None


@pytest.mark.parametrize("step", ["link_atomically", "write_sums", "os.replace"])
def test_a_kill_at_any_step_of_saving_leaves_a_whole_checkpoint(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill before, or after, each step leaves on the disk; ``finally`` does not run for a killed process."""
    for when in ("before", "after"):
        folder = tmp_path / when
        folder.mkdir()
        save(folder, LATEST, "first")
        save(folder, LATEST, "second")
        place = "nnduet.training.checkpoints." + step
        module, name = place.rsplit(".", 1)
        holder = os if module.endswith(".os") else checkpoints
        original = getattr(holder, name)

        def die(*arguments: Any, original: Any = original, when: str = when) -> None:
            if when == "after":
                original(*arguments)
            raise SystemExit

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(holder, name, die)
            save(folder, LATEST, "third")
        found = find_checkpoint(folder)
        assert found is not None and found.read_text() in ("second", "third")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_an_error_that_says_how_to_go_on(name: str) -> None:
    program = (
        "import os, signal, time\n"
        "from nnduet.training.checkpoints import stoppable\n"
        f"before = signal.getsignal(signal.{name})\n"
        "try:\n"
        "    with stoppable():\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        time.sleep(5)\n"
        "finally:\n"
        f"    assert signal.getsignal(signal.{name}) is before\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = f"StoppedError: stopped by {name}; every finished epoch is kept: go on with --resume"
    assert done.returncode == 1 and done.stderr.strip().endswith(expected)


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    def work() -> None:
        with stoppable():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.ENOSPC, "no space"), DiskFullError), (RuntimeError("unexpected pos"), StorageError)],
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
