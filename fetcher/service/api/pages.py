"""Files that come with the package: the dashboard, and the style of the API page. A handful, kept in memory."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

_FOLDER = Path(__file__).parent
DASHBOARD = _FOLDER.parent / "dashboard"
REFERENCE = _FOLDER / "reference"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


class Page(NamedTuple):
    """What is served, and how a browser tells whether it has it already."""

    body: bytes
    content_type: str
    etag: str

    def answer(self, request: web.Request) -> web.Response:
        """Return the page, or that the browser has it (RFC 9110, section 13.1.2)."""
        headers = {"ETag": f'"{self.etag}"', "Cache-Control": "no-cache"}
        if any(tag.value in {self.etag, "*"} for tag in request.if_none_match or ()):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return web.Response(body=self.body, headers=headers | {"Content-Type": self.content_type})


def page(body: bytes, suffix: str) -> Page:
    """Return a page of the type that a suffix stands for."""
    return Page(body, _TYPES[suffix], hashlib.sha256(body).hexdigest()[:32])


def load(folder: Path) -> dict[str, Page]:
    """Return the pages of a folder by their path in it. What is not named here can not be asked for."""
    found = sorted(path for path in folder.rglob("*") if path.suffix in _TYPES and path.is_file())
    return {path.relative_to(folder).as_posix(): page(path.read_bytes(), path.suffix) for path in found}
