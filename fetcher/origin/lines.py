"""A protocol of lines, as many old ones are: a command and what it is about, answered by a line or several.

    > PING            < PONG
    > ECHO grüße      < grüße
    > SLOW 2          < 1 of 2
                      < 2 of 2
    > QUIT            < BYE

Lines are UTF-8, end in CRLF (LF alone is understood), and have up to 1024 bytes. What is wrong is answered by ``ERR``
and a reason.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fetcher.origin.parsing import BadRequestError, number
from fetcher.origin.streams import LONGEST_LINE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.origin.streams import Stream

PAUSE = 0.02
MOST_LINES = 1000
_END = "\r\n"


async def converse(stream: Stream) -> None:
    """Answer line by line until QUIT, or until the client goes."""
    command = ""
    while command != "QUIT":
        try:
            command, text = _command(await stream.line())
            await COMMANDS[command](stream, text)
        except BadRequestError as error:
            await _say(stream, f"ERR {error}")
        except ValueError:
            # Where the next line begins is not known any more.
            await _say(stream, f"ERR a line of more than {LONGEST_LINE} bytes")
            return


def _command(line: bytes) -> tuple[str, str]:
    """Return a command and what it is about. Characters are decoded once their line is whole, never before."""
    try:
        command, _, text = line.decode().partition(" ")
    except UnicodeDecodeError:
        raise BadRequestError("not UTF-8") from None
    if command not in COMMANDS:
        raise BadRequestError(f"no such command; there are {', '.join(COMMANDS)}")
    return command, text


async def _say(stream: Stream, line: str) -> None:
    await stream.send(f"{line}{_END}".encode())


async def _ping(stream: Stream, _: str) -> None:
    await _say(stream, "PONG")


async def _time(stream: Stream, _: str) -> None:
    await _say(stream, datetime.now(UTC).isoformat(timespec="seconds"))


async def _echo(stream: Stream, text: str) -> None:
    await _say(stream, text)


async def _split(stream: Stream, text: str) -> None:
    """Send the text back a byte at a time: characters of several bytes are split over as many reads."""
    await stream.send_slowly(f"{text}{_END}".encode(), PAUSE)


async def _slow(stream: Stream, text: str) -> None:
    count = number(text, MOST_LINES)
    for index in range(1, count + 1):
        await asyncio.sleep(PAUSE)
        await _say(stream, f"{index} of {count}")


async def _quit(stream: Stream, _: str) -> None:
    await _say(stream, "BYE")


COMMANDS: dict[str, Callable[[Stream, str], Awaitable[None]]] = {
    "PING": _ping,
    "TIME": _time,
    "ECHO": _echo,
    "SPLIT": _split,
    "SLOW": _slow,
    "QUIT": _quit,
}
