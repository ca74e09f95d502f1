"""The transports of one batch store bodies in one folder, which one store has locked."""

from __future__ import annotations

import asyncio

import pytest

from fetcher.errors import StateBusyError
from fetcher.settings import BodySettings
from fetcher.transports.bodies.stores import BodyStores


@pytest.fixture
def settings(tmp_path):
    return BodySettings(store="file", path=str(tmp_path / "bodies" / "{sha256}"))


async def test_those_with_the_same_settings_share_a_store_until_the_last_has_closed_it(settings):
    stores = BodyStores()
    first, second = await asyncio.gather(stores.open(settings), stores.open(settings))
    assert first is second
    await stores.close(first)
    with pytest.raises(StateBusyError):
        await BodyStores().open(settings)
    await stores.close(first)
    other = BodyStores()
    await other.close(await other.open(settings))
    await stores.close(first)


async def test_another_batch_is_kept_out_of_the_folder(settings):
    stores = BodyStores()
    store = await stores.open(settings)
    with pytest.raises(StateBusyError):
        await stores.open(settings.model_copy())
    await stores.close(store)


async def test_bodies_that_become_no_files_need_none():
    assert await BodyStores().open(BodySettings(store="inline")) is None
