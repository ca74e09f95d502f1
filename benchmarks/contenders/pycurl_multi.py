"""libcurl's multi interface by its socket actions: one thread, an easy handle for each slot, a selector.

``select`` of the same interface is shorter, and stops at file descriptor 1,024.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

import pycurl

from benchmarks.contenders import Fetched, metered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.contenders import Task

_OK = 200


def fetch(task: Task) -> Fetched:
    """Fetch every URL with one multi handle."""
    with metered() as fetched:
        _Loop(task, fetched).run()
    return fetched


class _Loop:
    """Asks the selector what libcurl wants to know, and hands each URL to a handle that is free."""

    def __init__(self, task: Task, fetched: Fetched) -> None:
        self._fetched = fetched
        self._urls: Iterator[str] = iter(task.read())
        self._selector = selectors.DefaultSelector()
        self._timeout: float | None = None
        self._running = 0
        self._bodies: dict[pycurl.Curl, list[bytes]] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timeout)
        self._multi.setopt(pycurl.M_MAXCONNECTS, task.concurrency)
        for _ in range(task.concurrency):
            self._next(_handle(task))

    def run(self) -> None:
        """Go on until every URL has been fetched."""
        act, timeout = self._multi.socket_action, pycurl.SOCKET_TIMEOUT
        act(timeout, 0)
        while self._running:
            ready = self._selector.select(self._timeout)
            for key, events in ready:
                readable = pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0
                writable = pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
                act(key.fd, readable | writable)
            if not ready:
                self._timeout = None
                act(timeout, 0)
            self._collect()
        self._multi.close()

    def _next(self, handle: pycurl.Curl) -> None:
        url = next(self._urls, None)
        if url is None:
            return
        pieces: list[bytes] = []
        self._bodies[handle] = pieces
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.WRITEFUNCTION, pieces.append)
        self._multi.add_handle(handle)
        self._running += 1

    def _collect(self) -> None:
        _, done, failed = self._multi.info_read()
        for handle, _, message in failed:
            raise OSError(f"{handle.getinfo(pycurl.EFFECTIVE_URL)}: {message}")
        for handle in done:
            self._multi.remove_handle(handle)
            self._running -= 1
            body = b"".join(self._bodies.pop(handle))
            if handle.getinfo(pycurl.RESPONSE_CODE) == _OK:
                self._fetched.add(body)
            self._next(handle)

    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        known = fd in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(fd)
            return
        events = selectors.EVENT_READ if what & pycurl.POLL_IN else 0
        events |= selectors.EVENT_WRITE if what & pycurl.POLL_OUT else 0
        if known:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def _set_timeout(self, milliseconds: int) -> None:
        self._timeout = None if milliseconds < 0 else milliseconds / 1000


def _handle(task: Task) -> pycurl.Curl:
    handle = pycurl.Curl()
    handle.setopt(pycurl.NOPROXY, "*")
    if task.ca:
        handle.setopt(pycurl.SSL_SESSIONID_CACHE, 0)
        handle.setopt(pycurl.CAINFO, str(task.ca))
    return handle
