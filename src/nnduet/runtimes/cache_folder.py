"""The user's folder for what can be made again, where this system keeps such folders."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """nnDuet's folder in the user's cache, an absolute path; it need not exist.

    Raises:
        FileNotFoundError: the user has no home.
    """
    try:
        folder = user_cache_path("nnduet")
    except RuntimeError as error:  # no HOME, and no such user in the system's list
        raise FileNotFoundError(f"no home folder ({error})") from error
    if not folder.is_absolute():
        raise FileNotFoundError("no home folder")
    return folder
