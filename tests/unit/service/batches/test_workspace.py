"""The folders of batches."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from fetcher.service.batches.workspace import Workspace, upload_name


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.csv", "urls.csv"),
        ("A.CSV.GZ", "urls.csv.gz"),
        ("list.jsonl.zst", "urls.jsonl.zst"),
        ("list", "urls.txt"),
        ("list.gz", "urls.gz"),
        ("list.exe", "urls.txt"),
        ("x.parquet", "urls.parquet"),
    ],
)
def test_the_suffixes_of_a_file_say_what_it_is_and_nothing_else_of_its_name_stays(given, kept):
    assert upload_name(Path("/in") / given) == kept


def mode(path):
    return oct(path.stat().st_mode)[-3:]


def test_a_folder_has_config_and_upload_and_is_for_its_owner_alone(tmp_path):
    workspace = Workspace(tmp_path)
    upload = tmp_path / "given.csv"
    upload.write_text("url\n")
    workspace.create("a", "name: ü\n", {"urls.csv": upload})
    upload.unlink()
    assert workspace.text("a") == "name: ü\n"
    assert (workspace.of("a") / "urls.csv").read_text() == "url\n"
    assert (mode(workspace.of("a")), mode(workspace.of("a") / "config.yaml")) == ("700", "600")


def test_an_upload_may_come_from_another_file_system(tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EXDEV, "cross-device link")

    monkeypatch.setattr(os, "link", link)
    upload = tmp_path / "given.txt"
    upload.write_text("x\n")
    Workspace(tmp_path).create("a", "{}", {"urls.txt": upload})
    assert (tmp_path / "batches" / "a" / "urls.txt").read_text() == "x\n"


def test_where_there_is_no_room_for_all_of_it_nothing_is_left(tmp_path, monkeypatch):
    def copyfile(source, target):
        target.write_text("a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    workspace = Workspace(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        workspace.create("a", "{}", {"urls.txt": tmp_path / "nothing.txt"})
    assert not workspace.of("a").exists()


def test_what_a_submission_left_that_was_broken_off_is_swept_away_and_replaced(tmp_path):
    workspace = Workspace(tmp_path)
    assert workspace.sweep(set()) == []
    for name in ("known", "unknown"):
        workspace.create(name, "{}")
    assert workspace.sweep({"known"}) == ["unknown"]
    assert not workspace.of("unknown").exists()
    workspace.create("known", "new")
    assert workspace.text("known") == "new"


def test_forgetting_a_queue_leaves_the_results(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.create("a", "{}")
    for name in ("queue.db", "queue.db-wal", "results.jsonl"):
        (workspace.of("a") / name).write_text("")
    workspace.forget_queue("a")
    assert sorted(path.name for path in workspace.of("a").iterdir()) == ["config.yaml", "results.jsonl"]
    workspace.remove("a")
    workspace.remove("a")
    assert not workspace.of("a").exists()
