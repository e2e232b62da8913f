"""Folders that a command made and may therefore empty and replace; whatever else stands there is the user's."""

from __future__ import annotations

import shutil
from pathlib import Path

from nnduet.errors import OutputExistsError
from nnduet.io.files import LOCK_FILE, is_temporary, write_text_atomically

__all__ = ["OWNER_FILE", "claim_folder", "is_claimed", "remove_claimed"]

OWNER_FILE = ".nnduet-folder"
"""In folders that a command makes and may replace: one line that says what wrote it, see :func:`claim_folder`."""


def claim_folder(folder: Path, maker: str) -> None:
    """Make a folder that ``maker`` may fill, empty and replace; one that it made before stays as it is.

    Only folders that were claimed may be deleted with what is in them: whatever else stands there is the user's.

    Args:
        maker: what writes there, e.g. ``"nnduet report"``; one line.

    Raises:
        OutputExistsError: a file, a link, or a folder with content of somebody else stands there.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputExistsError(f"{folder}: expected a folder of `{maker}`, got a {'link' if folder.is_symlink() else 'file'}")
    if not is_claimed(folder, maker):
        if folder.is_dir() and any(not is_temporary(path) and path.name != LOCK_FILE for path in folder.iterdir()):
            raise OutputExistsError(f"{folder}: holds files that `{maker}` did not write; nothing was changed there")
        write_text_atomically(folder / OWNER_FILE, f"{maker}\n")


def is_claimed(folder: Path, maker: str) -> bool:
    """Whether a folder is one that :func:`claim_folder` made for ``maker``, and no link to one."""
    owner = folder / OWNER_FILE
    return not folder.is_symlink() and owner.is_file() and owner.read_text(encoding="utf-8", errors="replace") == f"{maker}\n"


def remove_claimed(folder: Path, maker: str) -> None:
    """Delete a folder of ``maker`` with everything in it; links in it are removed, not followed. A missing one is fine.

    Raises:
        OutputExistsError: something else stands there.
    """
    if folder.is_symlink() or folder.exists():
        if not is_claimed(folder, maker):
            raise OutputExistsError(f"{folder}: `{maker}` did not make this; nothing was deleted")
        shutil.rmtree(folder)
