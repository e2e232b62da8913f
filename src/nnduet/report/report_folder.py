"""The folder of a report: only what a report wrote is replaced, and a reader never sees half of a page.

Pictures and volumes get names of their own each time. They are written beside those of the earlier page, then ``index.html`` is
replaced, then what the earlier page showed is removed. So a full disk or a killed process leaves the earlier page whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nnduet.errors import OutputExistsError
from nnduet.io.claimed_folders import claim_folder, is_claimed
from nnduet.io.files import remove_temporaries, write_bytes_atomically, write_text_atomically

__all__ = ["INDEX", "MAKER", "ReportFolder", "writing_report"]

INDEX, MAKER = "index.html", "nnduet report"
_PARTS = ("pictures", "volumes")
_FIXED = ("static", "vendor")
_OWN_NAME = re.compile(r"[0-9a-f]{8}-\d+\.(png|js)")


@dataclass(frozen=True)
class ReportFolder:
    """A report that is being written; ``token`` begins the names of its pictures and volumes."""

    place: Path
    token: str

    def picture(self, number: int) -> str:
        """Where a picture goes, as the page names it."""
        return f"pictures/{self.token}-{number}.png"

    def volume_key(self, number: int) -> str:
        """The key of a case's volumes, which lie in ``volumes/<key>.js``."""
        return f"{self.token}-{number}"

    def copy(self, name: str, content: bytes) -> None:
        """Write a style or script that every report has, e.g. ``static/report.css``."""
        write_bytes_atomically(self.place / name, content)

    def finish(self, page: str) -> None:
        """Put the page in place of the earlier one, then remove what only that one showed."""
        write_text_atomically(self.place / INDEX, page)
        self._remove(lambda name: not name.startswith(self.token))

    def discard(self) -> None:
        """Remove what was written for a page that will not be."""
        self._remove(lambda name: name.startswith(self.token))

    def megabytes(self) -> float:
        """Size of everything in the folder."""
        return sum(path.stat().st_size for path in self.place.rglob("*") if path.is_file()) / 1e6

    def _remove(self, is_chosen: Callable[[str], bool]) -> None:
        for part in _PARTS:
            folder = self.place / part
            for path in list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []:
                if _OWN_NAME.fullmatch(path.name) and is_chosen(path.name):
                    path.unlink(missing_ok=True)


@contextmanager
def writing_report(place: Path) -> Iterator[ReportFolder]:
    """A folder for a report, new or one that a report was written to; what is unfinished at the end of an error is removed.

    Raises:
        OutputExistsError: it holds other files, or is or holds a link where a report has a folder.
        DiskFullError: the disk is full.
    """
    if place.is_dir() and not place.is_symlink() and (place / INDEX).is_file() and not is_claimed(place, MAKER):
        raise OutputExistsError(
            f"{place}: holds a page that `{MAKER}` did not mark as its own; delete that folder, or choose another with -o"
        )
    claim_folder(place, MAKER)
    for name in (*_PARTS, *_FIXED):
        if (place / name).is_symlink() or (place / name).is_file():
            raise OutputExistsError(
                f"{place / name}: expected a folder of `{MAKER}`, got a link or a file; nothing was changed"
            )
    for folder in (place, *(place / name for name in (*_PARTS, *_FIXED))):
        remove_temporaries(folder)
    report = ReportFolder(place, secrets.token_hex(4))
    try:
        yield report
    except BaseException:
        report.discard()
        raise
