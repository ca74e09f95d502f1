"""The stores of bodies that are open: the transports of one batch share theirs, as it is one folder for all of them."""

from __future__ import annotations

import asyncio

import msgspec

from fetcher.settings import BodySettings
from fetcher.transports.bodies.storing import BodyStore


class _Opened(msgspec.Struct):
    settings: BodySettings
    store: BodyStore
    users: int = 1


class BodyStores:
    """Opens a store for the first that asks with the same settings (not equal ones), and closes it after the last."""

    def __init__(self) -> None:
        self._opened: list[_Opened] = []
        self._lock = asyncio.Lock()

    async def open(self, settings: BodySettings) -> BodyStore | None:
        """Return the store, None if bodies do not become files. Raises ConfigError, or StateBusyError."""
        if settings.store != "file":
            return None
        async with self._lock:
            known = next((one for one in self._opened if one.settings is settings), None)
            if known is not None:
                known.users += 1
                return known.store
            store = BodyStore(settings)
            try:
                await store.open()
            except BaseException:
                await store.close()
                raise
            self._opened.append(_Opened(settings, store))
            return store

    async def close(self, store: BodyStore) -> None:
        """Give a store back. To be called once for each ``open`` that returned one."""
        async with self._lock:
            known = next((one for one in self._opened if one.store is store), None)
            if known is None:
                return
            known.users -= 1
            if not known.users:
                self._opened.remove(known)
                await store.close()
