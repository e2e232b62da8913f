"""A result says what made it."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from nnduet.training.provenance import _commit, provenance


def test_versions_and_processor_are_named() -> None:
    found = provenance()
    assert found["nnunetv2"] == version("nnunetv2") and found["torch"] == version("torch")
    assert found["python"].count(".") == 2 and found["processor"]


def test_the_commit_is_that_of_the_checkout_and_says_where_files_differ(tmp_path: Path) -> None:
    assert _commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert head.startswith(_commit(tmp_path)) and _commit(tmp_path)
    (tmp_path / "file").write_text("2")
    assert _commit(tmp_path).endswith("-dirty")
