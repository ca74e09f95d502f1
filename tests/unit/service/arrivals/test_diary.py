"""What is known of schedules is there after any end."""

from __future__ import annotations

import os

import pytest

from fetcher.errors import StateError
from fetcher.service.arrivals.diary import Diary, Entry

ENTRY = Entry(at=5.5, rule="every 5 s", batch="b-1", ran=5.5)


def opened(folder):
    diary = Diary(folder)
    diary.open()
    return diary


def test_what_was_written_is_there_the_next_time(tmp_path):
    diary = opened(tmp_path)
    assert diary.find("a") is None
    diary.write("a", ENTRY)
    diary.write("b", Entry(1.0, "x"))
    assert opened(tmp_path).find("a") == diary.find("a") == ENTRY
    diary.keep({"b"})
    assert (opened(tmp_path).find("a"), opened(tmp_path).find("b")) == (None, Entry(1.0, "x"))
    assert (tmp_path / "schedules.json").stat().st_mode & 0o077 == 0


def test_what_can_not_be_written_has_not_happened(tmp_path, monkeypatch):
    diary = opened(tmp_path)
    diary.write("a", ENTRY)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        diary.write("a", Entry(9.0, "x"))
    assert diary.find("a") == opened(tmp_path).find("a") == ENTRY


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": {"at": "x"}}', b"\xff"])
def test_a_file_that_is_not_ours_is_told_and_left_alone(tmp_path, content):
    (tmp_path / "schedules.json").write_bytes(content)
    with pytest.raises(StateError, match="move it away, and schedules begin anew"):
        opened(tmp_path)
    assert (tmp_path / "schedules.json").read_bytes() == content
