"""Atomic writing: a final name never holds half a file.

Every writer goes through :func:`replacing`: a hidden temporary file in the same folder, fsync, rename. Writers of bytes read
the temporary back and compare checksums first, because some disks and libraries report success for truncated output.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nnduet.errors import (
    DISK_FULL_NUMBERS,
    CorruptFileError,
    DiskFullError,
    LockedError,
    OutputExistsError,
    StorageError,
)
from nnduet.records import to_plain

__all__ = [
    "LOCK_FILE",
    "copy_atomically",
    "file_digest",
    "is_temporary",
    "json_text",
    "link_atomically",
    "locked",
    "naming_disk_errors",
    "remove_temporaries",
    "replace_together",
    "replacing",
    "same_content",
    "scratch_folder",
    "sync_folder",
    "write_bytes_atomically",
    "write_json_atomically",
    "write_text_atomically",
]

_TEMPORARY_PREFIX = ".nnduet-tmp-"
_NO_FOLDER_SYNC = (errno.EBADF, errno.EACCES, errno.EINVAL, errno.EPERM, errno.EROFS, errno.ENOTSUP)
LOCK_FILE = ".nnduet-lock"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` with the same suffixes; on success fsync it and rename it to ``path``.

    Missing parent folders are made. On any error the temporary is removed and an existing ``path`` stays as it was.

    Raises:
        DiskFullError: the disk or the quota is full.
    """
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(6)}{''.join(path.suffixes[-2:])}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in DISK_FULL_NUMBERS:
            raise DiskFullError(f"{path}: the disk is full; nothing was left under this name") from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring renames in a folder to the disk; nothing where the system cannot sync folders, as Windows and some file systems.

    Raises:
        OSError: the disk is full or failing.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: temporary file, fsync, read-back of size and checksum, rename.

    Raises:
        DiskFullError: the disk is full.
        CorruptFileError: the bytes on the disk differ from ``content``.
    """
    with replacing(path) as temporary:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if file_digest(temporary) != hashlib.sha256(content).hexdigest():
            raise CorruptFileError(f"{path}: the disk gave back other bytes than the {len(content)} that were written")


def write_text_atomically(path: Path, text: str) -> None:
    """:func:`write_bytes_atomically` of UTF-8 text with the line ends as given."""
    write_bytes_atomically(path, text.encode("utf-8"))


def json_text(value: object) -> str:
    """A record or plain values as JSON: two spaces, keys in their order, readable unicode, NaN refused (ValueError)."""
    return json.dumps(to_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json_atomically(path: Path, value: object) -> None:
    """:func:`write_text_atomically` of :func:`json_text`."""
    write_text_atomically(path, json_text(value))


def copy_atomically(source: Path, target: Path) -> bool:
    """Copy the bytes of ``source``; False when ``target`` already holds them and nothing was written.

    Raises:
        DiskFullError: the disk is full.
        CorruptFileError: the copy differs from the source.
    """
    if same_content(source, target):
        return False
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if not same_content(source, temporary):
            raise CorruptFileError(f"{target}: the copy differs from {source}")
    return True


def link_atomically(source: Path, target: Path) -> None:
    """Give a file a second name without copying its bytes; what had the name is replaced.

    A copy where the file system has no hard links or the names lie on two of them. The files of this package are replaced and
    never written into, so that a later change of one name leaves the other as it was.

    Raises:
        As :func:`copy_atomically`.
    """
    try:
        with replacing(target) as temporary:
            os.link(source, temporary)
    except OSError:
        copy_atomically(source, target)


@contextmanager
def naming_disk_errors(folder: Path, what: str) -> Iterator[None]:
    """For libraries that read or write below ``folder`` and do not pass on why they could not; ``what`` begins the message.

    Raises:
        DiskFullError: the block failed, and there is no room for 1 MiB either.
        StorageError: it failed otherwise.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) in DISK_FULL_NUMBERS or not _has_room(folder):
            raise DiskFullError(f"{what}: the disk of {folder} is full ({error})") from error
        raise StorageError(f"{what}: {error}") from error


def _has_room(folder: Path) -> bool:
    """Whether 1 MiB can be written; True where it cannot for other reasons."""
    probe = folder / f"{_TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    try:
        probe.write_bytes(bytes(2**20))
        _sync(probe)
    except OSError as reason:
        return reason.errno not in DISK_FULL_NUMBERS
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if it is missing and be the only one in this block for it; a process that dies unlocks it.

    Raises:
        LockedError: another process is in such a block.
        OutputExistsError: a link, a folder or a device stands where the lock's file would be.
        StorageError: the file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OutputExistsError(f"{path}: expected a lock of nnDuet's, got a link, a folder or a device; nothing was changed")
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedError(f"{folder}: another process is writing here; wait for it, or choose another folder") from error
    except NotImplementedError as error:  # by older versions of filelock
        raise StorageError(f"{folder}: its file system knows no locks; choose a folder on another one") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder on the disk of ``parent`` in which files are prepared; gone at the end."""
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY_PREFIX, dir=parent) as name:
        yield Path(name)


def replace_together(prepared: Mapping[Path, Path]) -> None:
    """Rename prepared files to their targets: {target: file on the same disk}, in this order, all of them or none.

    If one fails, the targets that were replaced before it get their old content back. (Only a process that is killed among the
    renames leaves some new beside some old files, each of them whole.)
    """
    with ExitStack() as undo:
        for target, source in prepared.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            kept = source.with_name(f"{source.name}.before")
            if target.exists():
                shutil.copyfile(target, kept)
                undo.callback(os.replace, kept, target)
            else:
                undo.callback(target.unlink, missing_ok=True)
            os.replace(source, target)
        undo.pop_all()


def same_content(first: Path, second: Path) -> bool:
    """Whether both are files of the same size and SHA-256."""
    if not (first.is_file() and second.is_file()) or first.stat().st_size != second.stat().st_size:
        return False
    return file_digest(first) == file_digest(second)


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_temporary(path: Path) -> bool:
    """Whether ``path`` is named like what :func:`replacing` leaves behind when its process is killed."""
    return path.name.startswith(_TEMPORARY_PREFIX)


def remove_temporaries(folder: Path) -> int:
    """Delete temporaries left in ``folder`` (not below) by killed processes, files and scratch folders; returns how many. A
    missing folder gives 0."""
    stale = [path for path in folder.iterdir() if is_temporary(path)] if folder.is_dir() else []
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(stale)
