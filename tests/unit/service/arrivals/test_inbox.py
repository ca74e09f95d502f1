"""The folders of the inbox: from one to the next, whatever a file is called."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fetcher.errors import ConfigError, StateBusyError
from fetcher.service.arrivals.inbox import Claim, Inbox, is_being_written

NOW = 1_800_000_000.0
NAMES = ["b.yaml", "a.b.c.csv.gz", "ä ö.txt", "-.yaml", "x" * 250 + ".yaml", "ü" * 125 + ".yml", "a\nb.txt", "no"]
RAW = [name.encode() for name in NAMES] + [b"\xff\xfe.yaml", b"\xc3" * 200 + b".csv"]


@pytest.fixture
def inbox(tmp_path):
    made = Inbox(tmp_path / "watch")
    made.open()
    yield made
    made.close()


def put(inbox, name, content="x"):
    path = inbox.path / os.fsdecode(name)
    path.write_text(content)
    return path.name


def names(folder):
    return sorted(entry.name for entry in os.scandir(folder))


def claim_one(inbox, name):
    inbox.claim([put(inbox, name)], NOW)
    (claim,) = inbox.claims()
    return claim


@pytest.mark.parametrize("name", RAW)
def test_a_file_goes_its_way_whatever_it_is_called(inbox, tmp_path, name):
    kept = claim_one(inbox, name)
    assert names(inbox.path) == []
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*-20270115T080000-[0-9a-f]{8}", kept.id)
    assert os.fsencode(kept.name).endswith(name[-100:])
    assert kept.shown.isprintable()
    kept.shown.encode()
    assert inbox.claimed(kept).read_text() == "x"
    inbox.accept(kept)
    assert (inbox.claims(), inbox.accepted()) == ([], [kept])
    inbox.accept(kept)  # as after a crash
    inbox.finish(kept, "end")
    assert inbox.accepted() == []
    assert names(tmp_path / "watch/finished") == sorted([kept.file, f"{kept.id}.json"])


@pytest.mark.parametrize("name", RAW)
def test_what_is_refused_has_its_reason_beside_it(inbox, tmp_path, name):
    kept = claim_one(inbox, name)
    inbox.reject(kept, ["b: \udcff is wrong"])
    rejected = tmp_path / "watch/rejected"
    assert names(rejected) == sorted([kept.name, f"{kept.name}.txt"])
    text = (rejected / f"{kept.name}.txt").read_text()
    assert text.startswith(f"{kept.shown} was not taken:\n\nb: \\udcff is wrong\n")
    assert names(tmp_path / "watch/accepted/.claimed") == []


def test_no_file_that_was_refused_takes_the_place_of_another(inbox, tmp_path):
    rejected = tmp_path / "watch/rejected"
    for name, content in [("b.yaml", "1"), ("b.yaml", "2"), ("b.yaml.txt", "3"), ("b.yaml", "4")]:
        inbox.claim([put(inbox, name, content)], NOW)
        (claim,) = inbox.claims()
        inbox.reject(claim, ["no"])
    found = [path.read_text() for path in rejected.iterdir()]
    assert {"1", "2", "3", "4"} < set(found)
    assert len(found) == 8


def test_what_is_still_written_or_hidden_is_left_alone(inbox):
    for name in ("a.yaml.tmp", "b.csv.part", ".hidden.yaml", "c.yaml~", "D.PART", "e.txt"):
        put(inbox, name)
    assert list(inbox.waiting()) == ["e.txt"]


def test_the_oldest_file_comes_first(inbox):
    for age, name in enumerate(["c.txt", "a.txt", "b.txt"]):
        put(inbox, name)
        os.utime(inbox.path / name, (100 - age, 100 - age))
    assert list(inbox.waiting()) == ["b.txt", "a.txt", "c.txt"]


def test_what_changes_is_seen_to(inbox):
    name = put(inbox, "a.txt", "1")
    before = inbox.waiting()[name]
    put(inbox, "a.txt", "12")
    assert inbox.waiting()[name] != before


def test_a_file_that_is_gone_or_can_not_be_moved_keeps_no_other(inbox, monkeypatch):
    put(inbox, "b.txt")
    put(inbox, "c.txt")
    rename = Path.rename

    def stubborn(path, target):
        if path.name == "b.txt":
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(PermissionError):
        inbox.claim(["a.txt", "b.txt", "c.txt"], NOW)
    assert [claim.name for claim in inbox.claims()] == ["c.txt"]
    assert list(inbox.waiting()) == ["b.txt"]


def test_a_file_that_somebody_has_open_for_writing_is_not_whole(inbox):
    name = put(inbox, "a.txt")
    with (inbox.path / name).open("a"):
        if not is_being_written(inbox.path / name):
            pytest.skip("this file system does not tell")
        inbox.claim([name], NOW)
        assert inbox.claims() == []
    with (inbox.path / name).open():
        inbox.claim([name], NOW)
    assert [claim.name for claim in inbox.claims()] == ["a.txt"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir(), lambda path: path.symlink_to("/dev/tty")])
def test_what_is_no_file_is_never_opened(inbox, make):
    make(inbox.path / "a.yaml")
    assert not is_being_written(inbox.path / "a.yaml")
    inbox.claim(["a.yaml"], NOW)
    assert [claim.name for claim in inbox.claims()] == ["a.yaml"]


def test_the_folders_belong_to_one_service(inbox, tmp_path):
    other = Inbox(tmp_path / "watch")
    with pytest.raises(StateBusyError, match="another service is using it"):
        other.open()
    inbox.close()
    other.open()
    other.close()


def test_folders_on_other_file_systems_are_told_at_the_start(tmp_path):
    elsewhere = Path("/dev/shm")  # the point is that it is another file system
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    there = elsewhere / f"fetcher-{os.getpid()}-{tmp_path.name}"
    there.mkdir()
    try:
        (tmp_path / "inbox").symlink_to(there)
        with pytest.raises(ConfigError, match=r"is on another file system than .*inbox; mount the folder"):
            Inbox(tmp_path).open()
        assert names(there) == []
    finally:
        there.rmdir()


def test_folders_that_can_not_be_are_told_at_the_start(tmp_path):
    (tmp_path / "watch").write_text("a file")
    with pytest.raises(ConfigError, match=r"service.watch: .* can not be used: (Not a directory|File exists)"):
        Inbox(tmp_path / "watch").open()


def test_names_that_are_none_of_ours_are_no_claims(inbox, tmp_path):
    (tmp_path / "watch/accepted/.keep").touch()
    (tmp_path / "watch/accepted/stray").touch()
    (tmp_path / "watch/accepted/id.name.yaml").touch()
    assert inbox.accepted() == [Claim("id", "name.yaml")]
