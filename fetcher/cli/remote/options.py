"""Which service is asked, and with which token."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from fetcher.errors import ConfigError
from fetcher.service.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

USUAL = "http://127.0.0.1:8080"
To = Annotated[str, Parameter(env_var="FETCHER_TO")]
"""The URL of the service."""
TokenFile = Annotated[str | None, Parameter(name="--token-file")]
"""The file that holds the token. A token is no option itself: everybody on a machine can read command lines."""

Returned = TypeVar("Returned")


def ask(to: str, token_file: str | None, asking: Callable[[Client], Coroutine[Any, Any, Returned]]) -> Returned:
    """Ask a service something. Raises ApiError, and ConfigError for a file that is not there."""

    async def main() -> Returned:
        async with Client(to, _token(token_file)) as client:
            return await asking(client)

    return asyncio.run(main())


def _token(token_file: str | None) -> str | None:
    if token_file is None:
        return os.environ.get("FETCHER_TOKEN") or None
    try:
        return Path(token_file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the token's file {token_file[:200]!r} can not be read: {reason}") from None
