"""The one place for names of the files of a case: ``<case>_0000<ending>`` by channel, ``<case><ending>`` for its mask."""

from __future__ import annotations

import re
from pathlib import Path

from nnduet.io.formats import image_endings, split_ending

__all__ = ["FIRST_CHANNEL", "channel_files", "channel_name", "find_case_file", "mask_name", "split_channel", "without_channel"]

FIRST_CHANNEL = "_0000"
"""The end of a case's first image, before the file's ending."""
_CHANNEL = re.compile(r"(?P<case_id>.+)_(?P<channel>\d{4})", re.DOTALL)


def channel_name(case_id: str, channel: int, ending: str = "") -> str:
    """``<case>_0000<ending>`` of a channel from 0 on."""
    return f"{case_id}_{channel:04d}{ending}"


def mask_name(case_id: str, ending: str) -> str:
    """``<case><ending>``."""
    return f"{case_id}{ending}"


def split_channel(stem: str) -> tuple[str, int | None]:
    """Case and channel of a name without its ending; a name without a number of four digits is a case's own, channel None."""
    match = _CHANNEL.fullmatch(stem)
    return (match["case_id"], int(match["channel"])) if match else (stem, None)


def without_channel(path: Path) -> str:
    """The case of an image's file: its name without ending and without ``_0000``."""
    return split_ending(path.name)[0].removesuffix(FIRST_CHANNEL)


def channel_files(first: Path, number: int) -> list[Path]:
    """Where the channels of a case lie whose first one is ``first``; that one alone where it is not named ``<case>_0000``."""
    stem, ending = split_ending(first.name)
    if number == 1 or not stem.endswith(FIRST_CHANNEL):
        return [first]
    return [first.with_name(channel_name(stem.removesuffix(FIRST_CHANNEL), channel, ending)) for channel in range(number)]


def find_case_file(folder: Path, case_id: str) -> Path | None:
    """The mask ``<case>`` or first channel ``<case>_0000`` in a folder, its ending in lower or upper case; None for none."""
    if Path(case_id).name != case_id:
        return None  # a path, from a table that anyone may have written
    for stem in (case_id, channel_name(case_id, 0)):
        for ending in image_endings():
            for written in (ending, ending.upper()):
                if (path := folder / f"{stem}{written}").is_file():
                    return path
    return None
