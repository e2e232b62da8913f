"""Atomic writing: all or nothing, and the same again costs nothing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from data_builders import tree

from nnduet.data import files
from nnduet.data.files import (
    copy_atomically,
    file_digest,
    is_temporary,
    is_whole,
    json_text,
    link_atomically,
    remove_temporaries,
    replace_together,
    replacing,
    same_content,
    scratch_folder,
    write_bytes_atomically,
    write_json_atomically,
    write_sums,
    write_text_atomically,
    written_digest,
)
from nnduet.errors import CorruptFileError, DiskFullError


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
