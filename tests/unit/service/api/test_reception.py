from __future__ import annotations

import asyncio
import stat

import pytest

from fetcher.service.api import reception
from fetcher.service.api.problems import ProblemError
from fetcher.service.api.reception import Reception, read_text


def reader(*chunks):
    left = list(chunks)

    async def read():
        return left.pop(0) if left else b""

    return read


async def test_text_is_read_without_its_byte_order_mark():
    assert await read_text(reader(b"\xef\xbb", b"\xbfname: \xc3", b"\xa4"), 100) == "name: \xe4"


async def test_the_most_that_is_taken_is_taken():
    assert await read_text(reader(b"x" * 50, b"x" * 50), 100) == "x" * 100
    with pytest.raises(ProblemError) as refused:
        await read_text(reader(b"x" * 50, b"x" * 51), 100)
    assert refused.value.status == 413


async def test_what_is_not_utf_8_is_named_by_its_line():
    with pytest.raises(ProblemError, match="line 2 of the body is not UTF-8"):
        await read_text(reader(b"a\n\xff\n"), 100)


def drip(size, count, seconds):
    """Return a reader of chunks that come that late."""
    left = [b"x" * size] * count

    async def read():
        await asyncio.sleep(seconds)
        return left.pop() if left else b""

    return read


async def test_bytes_buy_time_and_pauses_do_not(monkeypatch):
    monkeypatch.setattr(reception, "GRACE_SECONDS", 0.3)
    assert len(await read_text(drip(1_000, 4, 0.1), 10_000)) == 4_000
    for late in (drip(1, 1_000, 0.05), drip(5_000, 2, 1.0)):
        with pytest.raises(ProblemError) as refused:
            await read_text(late, 10_000)
        assert refused.value.status == 408


async def test_a_file_is_ours_alone_and_goes_unless_it_is_moved(tmp_path):
    office = Reception(tmp_path / "incoming")
    office.open()
    async with office.file(reader(b"a", b"b" * 500_000, b"c"), ".csv", 600_000) as path:
        assert path.read_bytes() == b"a" + b"b" * 500_000 + b"c"
        assert path.suffix == ".csv"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    async with office.file(reader(b"a"), ".txt", 10) as path:
        path.rename(tmp_path / "moved")
    assert (tmp_path / "moved").read_bytes() == b"a"
    with pytest.raises(ProblemError):
        async with office.file(reader(b"too much"), ".txt", 5):
            pytest.fail("it was taken")
    assert list((tmp_path / "incoming").iterdir()) == []


def test_what_an_earlier_service_was_receiving_is_deleted(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "left").write_text("x")
    Reception(tmp_path / "incoming").open()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_there_is_room_for_so_many_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(reception, "MOST_AT_ONCE", 2)
    office = Reception(tmp_path)
    with office.room():
        with office.room(), pytest.raises(ProblemError) as refused, office.room():
            pass
        assert refused.value.status == 503
        with office.room():
            pass
