"""Where converted networks are kept, and when a kept one is computed with.

A network lies beside its model, or else in the user's cache. Conversion writes the SHA-256 of its files into a file of the same
name that ends in .json. Without it, with other bytes, under a link, or where somebody else can write, a network counts as
missing and is converted again. This guards against damage and against others on the machine; whoever may write where the model
lies can as well replace the model.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from nnduet.errors import NNDuetError
from nnduet.io.files import (
    LOCK_FILE,
    file_digest,
    remove_temporaries,
    scratch_folder,
    write_json_atomically,
)
from nnduet.model_store.model_folder import Member
from nnduet.network.heads import JointNetwork
from nnduet.records import read_json
from nnduet.runtimes.all_runtimes import RUNTIMES
from nnduet.runtimes.cache_folder import cache_folder
from nnduet.runtimes.joint_graph import conversion_digest
from nnduet.runtimes.runtime import Runtime, Save

__all__ = ["ConvertedNetworks", "Place", "find", "keep", "private_folder"]

LONGEST_WAIT_S = 60.0
"""For another process that is writing its network to the same folder."""


@dataclass(frozen=True)
class Place:
    """A folder for converted networks.

    Attributes:
        owners: user numbers, one of which must own the folder and its files; not looked at on Windows.
        private: whether nobody but the owner may be allowed to write there; else the owner's group may be, too.
    """

    folder: Path
    owners: frozenset[int]
    private: bool


class ConvertedNetworks:
    """The converted networks of a model's folds for one runtime.

    They are looked for in ``converted/`` of the model, then in the user's cache, and made in the first of them that takes them,
    else in a temporary folder that lasts as long as this object.

    Args:
        network: with the weights of the fold that is asked for; only read where there is no converted network.
        runtime: one that converts.
        shape: (B, C, *patch) of a full batch.
        precision: one of the runtime's.
    """

    def __init__(self, network: JointNetwork, runtime: Runtime, shape: Sequence[int], precision: str) -> None:
        assert runtime.conversion is not None
        self._network, self._runtime, self._shape, self._precision = network, runtime, shape, precision
        self._conversion = runtime.conversion
        self._temporary: TemporaryDirectory[str] | None = None

    def seems_kept(self, member: Member) -> bool:
        """Whether there is a converted network of a fold; :meth:`path_of` looks at its bytes.

        Its name hashes the checkpoint, which is not worth reading where there are none.
        """
        folders = [place.folder for place in _places(member) if any(place.folder.glob("*.json"))]
        return bool(folders) and any(_sums_of(folder / self._name_of(member)).is_file() for folder in folders)

    def path_of(self, member: Member) -> Path | None:
        """The converted network of a fold, made where there is none; None where it can be kept nowhere."""
        name, places = self._name_of(member), _places(member)
        return find(places, name) or self._make(places, name)

    def _make(self, places: Sequence[Place], name: str) -> Path | None:
        save = self._conversion.convert(self._network, self._shape, self._precision)
        kept = next(filter(None, (keep(place, name, save) for place in places)), None)
        if kept is None:
            with suppress(OSError):
                self._temporary = self._temporary or TemporaryDirectory(prefix="nnduet-", ignore_cleanup_errors=True)
                kept = keep(private_folder(Path(self._temporary.name)), name, save)
        return kept

    def _name_of(self, member: Member) -> str:
        """It changes with the model's files, the fold, and all else that the network depends on."""
        assert member.origin is not None
        conversion = conversion_digest(self._runtime, self._shape, self._precision)
        digest = hashlib.sha256("\n".join([conversion, member.fold, *member.origin.digests]).encode())
        return f"{digest.hexdigest()[:24]}{self._conversion.endings[-1]}"


def _places(member: Member) -> list[Place]:
    """Beside the model, whose owner is trusted as the model is, and the user's cache, if the user has a home."""
    assert member.origin is not None
    model = Place(member.origin.converted, _own() | {0, member.origin.files[0].stat().st_uid}, private=False)
    return [model, *_user_cache()]


def _user_cache() -> list[Place]:
    try:
        return [private_folder(cache_folder())]
    except FileNotFoundError:
        return []


def private_folder(folder: Path) -> Place:
    """A folder of this user alone; it is made when something is kept in it."""
    return Place(folder, _own(), private=True)


def _own() -> frozenset[int]:
    return frozenset({os.getuid()} if hasattr(os, "getuid") else ())


def find(places: Sequence[Place], name: str) -> Path | None:
    """The first file of that name whose bytes are those that its conversion wrote; None where there is none."""
    return next((place.folder / name for place in places if _is_sound(place, name)), None)


def keep(place: Place, name: str, save: Save) -> Path | None:
    """Write a converted network and its sums, or take what another process wrote meanwhile; None where that is not possible.

    A process that is killed leaves nothing under that name that counts as sound.
    """
    try:
        _make(place)
        with FileLock(place.folder / LOCK_FILE, timeout=LONGEST_WAIT_S):
            if not _is_sound(place, name):
                remove_temporaries(place.folder)
                _write(place.folder, name, save)
            return find([place], name)
    except (OSError, NotImplementedError, NNDuetError):  # NotImplementedError: a file system without locks
        return None


def _make(place: Place) -> None:
    """Make the folder; OSError where that is not possible, or where somebody else could write there."""
    if not place.folder.exists():
        place.folder.mkdir(parents=True, mode=0o700 if place.private else 0o755)
    if not _is_trusted(place.folder, place, stat.S_ISDIR):
        raise PermissionError(f"{place.folder}: others can write here")


def _write(folder: Path, name: str, save: Save) -> None:
    files = _files_of(folder / name)
    with scratch_folder(folder) as scratch:
        save(scratch / name)
        made = {path.name: scratch / path.name for path in files}
        sums = {file_name: file_digest(path) for file_name, path in made.items()}
        for file_name, path in made.items():
            path.chmod(path.stat().st_mode & 0o755)
            os.replace(path, folder / file_name)
    write_json_atomically(_sums_of(folder / name), sums)


def _is_sound(place: Place, name: str) -> bool:
    path = place.folder / name
    sums, files = _sums_of(path), _files_of(path)
    try:
        if not _is_trusted(place.folder, place, stat.S_ISDIR):
            return False
        if not all(_is_trusted(file, place, stat.S_ISREG) for file in (sums, *files)):
            return False
        return read_json(sums, dict[str, str]) == {file.name: file_digest(file) for file in files}
    except (OSError, NNDuetError):
        return False


def _is_trusted(path: Path, place: Place, is_kind: Callable[[int], bool]) -> bool:
    """Whether a folder or file, and no link, can be written to by nobody but those that the place trusts."""
    status = path.lstat()
    if not is_kind(status.st_mode):
        return False
    writable_by_others = status.st_mode & (0o022 if place.private else 0o002)
    return os.name != "posix" or (status.st_uid in place.owners and not writable_by_others)


def _files_of(path: Path) -> list[Path]:
    """All files of a network that is found under ``path``."""
    conversions = [runtime.conversion for runtime in RUNTIMES if runtime.conversion]
    endings = next(conversion.endings for conversion in conversions if path.suffix in conversion.endings)
    return [path.with_suffix(ending) for ending in endings]


def _sums_of(path: Path) -> Path:
    return path.with_suffix(".json")
