from __future__ import annotations

import asyncio

import pytest

from fetcher.errors import ConfigError
from fetcher.sources.chosen import ChosenSource
from fetcher.sources.file import FileSourceConfig
from fetcher.sources.template import TemplateConfig


def template(many):
    return TemplateConfig(url=f"http://a.test/{{1..{many}}}").build()


async def read(source, position=None):
    return [chunk async for chunk in source.read(position)]


async def ids(source, position=None):
    return [job.id for chunk in await read(source, position) for job in chunk.jobs]


async def test_passes_on_what_is_wanted():
    every = await ids(template(5000))
    wanted = {every[0], every[7], every[4999]}
    assert await ids(ChosenSource(template(5000), wanted.__contains__)) == sorted(wanted, key=every.index)


async def test_goes_on_after_the_position_of_a_chunk():
    every = await ids(template(5000))
    source = ChosenSource(template(5000), {every[0], every[4999]}.__contains__)
    first, last = await read(source)
    assert await ids(source, first.position) == [every[4999]]
    assert await read(source, last.position) == []


async def test_holds_nobody_up_while_it_finds_nothing():
    source = ChosenSource(template(1_000_000_000), lambda _: False)
    reading = asyncio.create_task(read(source))
    for _ in range(5):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


def test_is_checked_as_the_other_is(tmp_path):
    source = ChosenSource(FileSourceConfig(path=str(tmp_path / "none.txt")).build(), lambda _: True)
    with pytest.raises(ConfigError, match=r"none\.txt"):
        source.check()
