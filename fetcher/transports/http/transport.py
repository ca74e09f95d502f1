"""http and https: from a job to a response, over one shared ``aiohttp.ClientSession``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fetcher.settings import Duration, Settings


class HttpConfig(Settings):
    """How http and https URLs are fetched."""

    user_agent: str = "fetcher/0.1"
    """Sent with every request that does not set its own."""
    resolve: dict[str, str] = {}
    """Host names or patterns (``*.test``) to the IP address to connect to instead of asking the DNS."""
    exchange: Literal["connection", "session"] = "connection"
    """``connection`` writes requests straight onto the session's pooled connections, which costs less than half
    of what ``session`` does; ``session`` goes through every layer of aiohttp's client."""
    keep_alive: Duration = Field(default=15.0)
    """How long an idle connection is kept for reuse."""
