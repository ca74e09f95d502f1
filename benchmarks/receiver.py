"""A receiver of webhooks that takes everything: each body becomes a line of a file. Prints its port.

python -m benchmarks.receiver FILE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

_LARGEST = 2**28


async def serve(path: Path) -> None:
    """Answer until the process is ended."""
    with path.open("wb") as file:

        async def take(request: web.Request) -> web.Response:
            body = await request.read()
            if body and request.method == "POST":
                file.write(body + b"\n")
                file.flush()
            return web.Response()

        application = web.Application(client_max_size=_LARGEST)
        application.router.add_route("*", "/{path:.*}", take)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
