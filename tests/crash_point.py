"""``python crash_point.py <module>:<name> <before|after> <n> <arguments>``: fetcher, which kills itself (SIGKILL).

It does so before or after the n-th call of a function or method.
"""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import sys
from functools import reduce, wraps


def arm(place: str, when: str, count: int) -> None:
    """Have a function kill this process."""
    module, _, name = place.partition(":")
    *owners, last = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    inner = getattr(owner, last)
    left = [count]

    def die(now: str) -> None:
        if now == "before":
            left[0] -= 1
        if now == when and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @wraps(inner)
    def call(*args, **kwargs):
        die("before")
        found = inner(*args, **kwargs)
        die("after")
        return found

    @wraps(inner)
    async def call_async(*args, **kwargs):
        die("before")
        found = await inner(*args, **kwargs)
        die("after")
        return found

    setattr(owner, last, call_async if inspect.iscoroutinefunction(inner) else call)


if __name__ == "__main__":
    arm(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    from fetcher.cli.app import main

    sys.exit(main(sys.argv[4:]))
