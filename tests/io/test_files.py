"""Atomic writing: all or nothing, and the same again costs nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from data_builders import tree
from filelock import FileLock

from nnduet.errors import CorruptFileError, DiskFullError, OutputExistsError, StorageError
from nnduet.io import files
from nnduet.io.checksums import is_whole, write_sums, written_digest
from nnduet.io.claimed_folders import claim_folder, is_claimed, remove_claimed
from nnduet.io.files import (
    copy_atomically,
    file_digest,
    is_temporary,
    json_text,
    link_atomically,
    locked,
    remove_temporaries,
    replace_together,
    replacing,
    same_content,
    scratch_folder,
    write_bytes_atomically,
    write_json_atomically,
    write_text_atomically,
)


def test_the_temporary_is_a_hidden_sibling_with_the_same_suffixes(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "mask.nii.gz") as temporary:
        assert temporary.parent == tmp_path / "new" and temporary.name.endswith(".nii.gz") and temporary.name[0] == "."
        assert is_temporary(temporary)
        temporary.write_text("content")
    assert tree(tmp_path) == {"new/mask.nii.gz": b"content"}


def test_an_error_inside_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "old")
    with pytest.raises(ValueError, match="stop"), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert tree(tmp_path) == {"a.txt": b"old"}


def test_an_ordinary_os_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert tree(tmp_path) == {}


def test_a_disk_that_gives_back_other_bytes_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "file_digest", lambda path: "other")
    with pytest.raises(CorruptFileError, match="gave back other bytes"):
        write_bytes_atomically(tmp_path / "a.bin", b"content")
    assert tree(tmp_path) == {}


def test_json_is_readable_text_in_the_given_order_and_refuses_nan(tmp_path: Path) -> None:
    write_json_atomically(tmp_path / "a.json", {"z": "größer", "a": [1]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "z": "größer",\n  "a": [\n    1\n  ]\n}\n'
    with pytest.raises(ValueError, match=r"NaN|JSON"):
        json_text(float("nan"))


def test_copying_the_same_content_again_writes_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"12345")
    assert copy_atomically(source, target)
    before = target.stat().st_mtime_ns
    assert not copy_atomically(source, target) and target.stat().st_mtime_ns == before
    source.write_bytes(b"54321")
    assert not same_content(source, target) and copy_atomically(source, target) and target.read_bytes() == b"54321"


def test_a_copy_that_went_wrong_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"123"))
    with pytest.raises(CorruptFileError, match="differs"):
        copy_atomically(tmp_path / "a", tmp_path / "b")
    assert list(tree(tmp_path)) == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_one_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"1")
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_bytes(b"12345")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DiskFullError, match="disk is full"):
        copy_atomically(tmp_path / "a", tmp_path / "b")
    assert list(tree(tmp_path)) == ["a"]


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".nnduet-tmp-123.nii.gz").write_bytes(b"half")
    (tmp_path / ".other").write_bytes(b"")
    assert remove_temporaries(tmp_path) == 1 and remove_temporaries(tmp_path / "none") == 0
    assert list(tree(tmp_path)) == [".other"]


def test_the_digest_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a").startswith("ba7816bf")


def test_only_bytes_that_were_written_have_a_written_digest(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert written_digest(path) is None and is_whole(path)
    write_sums(path, file_digest(path))
    assert written_digest(path) == file_digest(path)
    path.write_bytes(b"abd")
    assert written_digest(path) is None and not is_whole(path)


def test_a_link_is_a_second_name_and_replaces_what_had_it(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "new")
    write_text_atomically(tmp_path / "b.txt", "old")
    for _ in range(2):
        link_atomically(tmp_path / "a.txt", tmp_path / "b.txt")
        assert (tmp_path / "a.txt").samefile(tmp_path / "b.txt")
    write_text_atomically(tmp_path / "a.txt", "newer")
    assert tree(tmp_path) == {"a.txt": b"newer", "b.txt": b"new"}


def test_without_hard_links_a_copy_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_text_atomically(tmp_path / "a.txt", "text")
    link_atomically(tmp_path / "a.txt", tmp_path / "b.txt")
    assert tree(tmp_path) == {"a.txt": b"text", "b.txt": b"text"}
    assert not (tmp_path / "a.txt").samefile(tmp_path / "b.txt")


def test_files_are_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old a")
    with scratch_folder(tmp_path) as scratch:
        for name in ("a", "b"):
            (scratch / name).write_text(f"new {name}")
        replace_together({tmp_path / "a": scratch / "a", tmp_path / "deep" / "b": scratch / "b"})
    assert {p.name: p.read_text() for p in tmp_path.rglob("*") if p.is_file()} == {"a": "new a", "b": "new b"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "deep"]


def test_if_one_of_several_files_cannot_be_replaced_all_stay_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old a")
    (tmp_path / "in_the_way").mkdir()
    with scratch_folder(tmp_path) as scratch, pytest.raises(OSError):
        for name in ("a", "b", "c"):
            (scratch / name).write_text(f"new {name}")
        targets = {tmp_path / "a": "a", tmp_path / "b": "b", tmp_path / "in_the_way": "c"}
        replace_together({target: scratch / name for target, name in targets.items()})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "in_the_way"]
    assert (tmp_path / "a").read_text() == "old a"


def test_row_133_a_claimed_folder_may_be_filled_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    claim_folder(folder, "nnduet report")
    (folder / "page.html").write_text("x")
    claim_folder(folder, "nnduet report")
    assert (folder / "page.html").exists() and is_claimed(folder, "nnduet report")
    remove_claimed(folder, "nnduet report")
    assert not folder.exists()
    remove_claimed(folder, "nnduet report")


def test_row_133_what_somebody_else_wrote_is_neither_claimed_nor_removed(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(photos)
    claimed = tmp_path / "claimed"
    claim_folder(claimed, "nnduet benchmark")
    for folder in (photos, link, photos / "cat.jpg", claimed):
        with pytest.raises(OutputExistsError, match=re.escape(str(folder))):
            claim_folder(folder, "nnduet report") if folder is not claimed else remove_claimed(folder, "nnduet report")
        if folder is not claimed:
            with pytest.raises(OutputExistsError):
                remove_claimed(folder, "nnduet report")
    assert [path.name for path in photos.iterdir()] == ["cat.jpg"] and is_claimed(claimed, "nnduet benchmark")


def test_row_133_links_inside_a_claimed_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    claim_folder(tmp_path / "report", "nnduet report")
    (tmp_path / "report" / "pictures").symlink_to(tmp_path / "photos")
    remove_claimed(tmp_path / "report", "nnduet report")
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("way", ["link", "dangling", "folder"])
def test_row_133_a_link_or_folder_in_the_place_of_the_lock_is_refused_and_stays(tmp_path: Path, way: str) -> None:
    precious, place = tmp_path / "precious", tmp_path / "out" / files.LOCK_FILE
    precious.write_text("precious")
    place.parent.mkdir()
    place.mkdir() if way == "folder" else place.symlink_to(precious if way == "link" else tmp_path / "nowhere")
    with (
        pytest.raises(OutputExistsError, match=r"\.nnduet-lock: expected a lock of nnDuet's, got a link"),
        locked(place.parent),
    ):
        pass
    assert precious.read_text() == "precious" and not (tmp_path / "nowhere").exists() and os.path.lexists(place)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", unknown)
    with pytest.raises(StorageError, match="knows no locks"), locked(tmp_path):
        pass


def test_row_87_files_are_written_where_only_writable_descriptors_can_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, whose _commit says EBADF for the others."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text_atomically(tmp_path / "a.txt", "x")
    copy_atomically(tmp_path / "a.txt", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "x"


def test_a_folder_is_synced_after_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    write_text_atomically(tmp_path / "a.txt", "x")
    assert synced[-1] is True and False in synced
