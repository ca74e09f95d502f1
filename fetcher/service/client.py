"""A client of the API, typed by its models: what ``fetcher submit`` and the other commands are made of."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote, urlsplit

import aiohttp
from pydantic import ValidationError

from fetcher.errors import ApiError, ConfigError
from fetcher.service.models import BatchPage, BatchView, Problem, Snapshot, Why

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

_CONNECT = 10.0
_SILENCE = 120.0
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_PIECE = 256 * 1024
# How a service begins what it says of a config.
_LABEL = re.compile(r"^(batch\.(yaml|json)|urls\.yaml):")
NEXT = "Fetcher-Next-Cursor"


class Upload(NamedTuple):
    """What is submitted: a file, and what it is; None is said by its name, as for what is compressed.

    ``about`` is said of a file of URLs: its name, weight, column. ``name`` is what the batch is known by.
    """

    path: Path
    media_type: str | None
    name: str = "batch"
    about: Mapping[str, str] = {}

    def body(self) -> aiohttp.MultipartWriter | AsyncIterator[bytes]:
        """Return what is sent, piece by piece: it may be of any size."""
        if self.media_type is not None:
            return _pieces(self.path)
        form = aiohttp.MultipartWriter("form-data")
        form.append_json(dict(self.about)).set_content_disposition("form-data", name="config")
        part = form.append(_pieces(self.path), {"Content-Type": "application/octet-stream"})
        part.set_content_disposition("form-data", name="urls", filename=f"urls{''.join(self.path.suffixes[-2:])}")
        return form


class Client:
    """A service at a URL. To be entered with ``async with``.

    Every method raises ApiError with what the service says, or why it can not be reached. What can be repeated without
    harm is, for some seconds, when the service is away for a moment.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raise ConfigError if the URL is none of a service."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.username:
            raise ConfigError(f"{url[:200]}: should be the URL of a service such as http://127.0.0.1:8080")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open a session."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()

    async def submit(self, upload: Upload) -> BatchView:
        """Submit a config or a file of URLs. It is taken once, however often it has to be sent."""
        # The id of the batch begins with the key.
        key = f"{upload.name[:60]}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
        headers = {"Idempotency-Key": key}
        params: Mapping[str, str] = {}
        if upload.media_type is not None:
            headers["Content-Type"] = upload.media_type
            params = upload.about
        answer = await self._ask("POST", "/v1/batches", upload=upload, headers=headers, params=params)
        return BatchView.model_validate_json(answer)

    async def batch(self, batch_id: str) -> BatchView:
        """Return a batch."""
        return BatchView.model_validate_json(await self._ask("GET", _path(batch_id)))

    async def batches(self, state: str | None = None, limit: int = 50) -> BatchPage:
        """Return the latest batches."""
        params = {"limit": str(limit)} | ({} if state is None else {"state": state})
        return BatchPage.model_validate_json(await self._ask("GET", "/v1/batches", params=params))

    async def act(self, batch_id: str, action: str) -> BatchView:
        """Pause, resume, cancel or retry a batch, and return the one that this is about."""
        return BatchView.model_validate_json(await self._ask("POST", f"{_path(batch_id)}/{action}"))

    async def delete(self, batch_id: str) -> None:
        """Delete a batch that has ended, with its results."""
        await self._ask("DELETE", _path(batch_id))

    async def why(self) -> Why:
        """Return what bounds the throughput."""
        return Why.model_validate_json(await self._ask("GET", "/v1/why"))

    async def snapshot(self) -> Snapshot:
        """Return the service as it is."""
        return Snapshot.model_validate_json(await self._ask("GET", "/v1/snapshot"))

    async def results(
        self, batch_id: str, *, cursor: int = 0, outcome: str | None = None, kind: str | None = None
    ) -> AsyncIterator[tuple[bytes, int]]:
        """Yield records as whole lines of JSON, in pages, each with the cursor after it; up to those there are now.

        A page is asked for again if the connection breaks, so that every record comes once.
        """
        params = {"limit": "1000"} | {name: text for name, text in (("outcome", outcome), ("kind", kind)) if text}
        while True:
            found: dict[str, str] = {}
            page = await self._ask(
                "GET", f"{_path(batch_id)}/results", params=params | {"cursor": str(cursor)}, found=found
            )
            cursor = int(found[NEXT])
            yield page, cursor
            if "Link" not in found:
                return

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        upload: Upload | None = None,
        found: dict[str, str] | None = None,
        **options: Any,
    ) -> bytes:
        """Return the body of an answer that is well, and put its header fields into ``found``."""
        pauses = iter(_PAUSES)
        while True:
            try:
                return await self._attempt(method, path, upload, found, options)
            except ApiError as error:
                pause = next(pauses, None)
                # A submission has a key. Of the rest, what is done twice is not the same as once only for retry.
                if not error.passing or pause is None or path.endswith("/retry"):
                    raise
            await asyncio.sleep(pause)

    async def _attempt(
        self, method: str, path: str, upload: Upload | None, found: dict[str, str] | None, options: dict[str, Any]
    ) -> bytes:
        if self._session is None:
            raise RuntimeError("the client is not open")
        data = None if upload is None else upload.body()
        try:
            async with self._session.request(method, self.url + path, data=data, **options) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from None
        if response.ok:
            if found is not None:
                found.update(response.headers)
            return body
        raise self._refused(response, body, upload)

    def _unreachable(self, error: BaseException) -> ApiError:
        reason = f"{error}" if isinstance(error, aiohttp.ClientError) else "it does not answer"
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            reason = (
                os.strerror(number) if number is not None and number > 0 else str(error.os_error).rpartition("] ")[2]
            )
        message = f"{self.url}: can not be reached: {reason.lower()}; is `fetcher serve` running there? See --to"
        return ApiError(message, None, passing=True)

    def _refused(self, response: aiohttp.ClientResponse, body: bytes, upload: Upload | None) -> ApiError:
        status = response.status
        try:
            problem = Problem.model_validate_json(body)
        except ValidationError:
            return ApiError(f"{self.url}: answered {status}, and is no fetcher; see --to", status)
        lines = problem.problems or [problem.detail or problem.title]
        if upload is not None:
            # The service does not know what the file is called here.
            lines = [
                f"{upload.path}:{_LABEL.sub('', line)}" if _LABEL.match(line) else f"{upload.path}: {line}"
                for line in lines
            ]
        if status == HTTPStatus.UNAUTHORIZED:
            lines = [f"{self.url}: takes a token ({lines[0]}); give it by FETCHER_TOKEN or --token-file"]
        return ApiError("\n".join(lines), status, passing=status in _BUSY)


def _path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """Yield a file piece by piece: it may be of any size."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
