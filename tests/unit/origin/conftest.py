from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unit.origin.wire_client import Client, connect, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fetcher.origin import Origin


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with running() as origin:
        yield origin


@pytest.fixture
async def client(origin: Origin) -> AsyncIterator[Client]:
    async with connect(origin) as client:
        yield client
