"""A function of the user's own."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from pydantic import Field

from fetcher.errors import ConfigError
from fetcher.model import Result
from fetcher.settings import Duration, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class PythonConfig(Settings):
    """A function gets a copy of each record and returns what is to go on, changed or not, or None to drop it.

    It may be ``async``. What it raises costs that one job: kind ``stage_failed``.
    """

    type: Literal["python"] = "python"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """``module:function``, installed or in the working folder. It is imported whenever the config is checked."""
    concurrency: int = Field(default=16, ge=1, le=1000)
    """How many calls of an ``async`` function are under way at once."""
    timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """For how long one call may take. A function that is not ``async`` can not be ended: it is left to itself."""

    def build(self) -> PythonStage:
        """Return the stage."""
        return PythonStage(self.function, self.concurrency, self.timeout)


class PythonStage:
    """Calls a function: on the loop if it is ``async``, or else on the thread of the stages."""

    def __init__(self, function: str, concurrency: int = 16, timeout: float = 30.0) -> None:
        self._name = function
        self._wanted = concurrency
        self.timeout = timeout
        self._function: Callable[[Result], Any] = lambda result: result
        self.concurrency = 0

    def check(self) -> None:
        """Import the function. Raises ConfigError if that can not be done."""
        module_name, _, path = self._name.partition(":")
        folder = str(Path.cwd())
        if folder not in sys.path:
            # At the end: a file in the working folder must not stand in for an installed package.
            sys.path.append(folder)
        try:
            found: Any = importlib.import_module(module_name)
            for name in path.split("."):
                found = getattr(found, name)
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, SystemExit):
                reason = f"it ends the process when it is imported ({reason}); do that under if __name__ == '__main__':"
            raise ConfigError(f"stage python: {self._name} can not be imported: {reason}") from error
        if not callable(found):
            raise ConfigError(f"stage python: {self._name} is no function")
        self._function = found
        called = found if inspect.isroutine(found) else getattr(found, "__call__", found)  # noqa: B004  an instance
        self.concurrency = self._wanted if inspect.iscoroutinefunction(called) else 0

    def apply(self, result: Result) -> Result | Awaitable[Result | None] | None:
        """Return what the function makes of a copy of the record. Raises ValueError if that is no record of the job."""
        if self.concurrency:
            return self._await(result)
        return _checked(result, self._function(_copy(result)))

    async def _await(self, result: Result) -> Result | None:
        try:
            async with asyncio.timeout(self.timeout):
                returned = await self._function(_copy(result))
        except TimeoutError:
            raise ValueError(f"{self._name} took longer than {self.timeout:g} s") from None
        return _checked(result, returned)


def _copy(result: Result) -> Result:
    """Return a copy whose mappings are its own as well: functions like to fill them."""
    made = copy.copy(result)
    made.meta, made.extracted = copy.deepcopy(result.meta), copy.deepcopy(result.extracted)
    return made


def _checked(before: Result, after: object) -> Result | None:
    """Return what a function has returned, if it is of the same job and every sink can take it."""
    if after is None:
        return None
    if not isinstance(after, Result):
        raise ValueError(f"the function returned a {type(after).__name__}, not a record or None")  # noqa: TRY004
    if (after.batch, after.job_id) != (before.batch, before.job_id):
        raise ValueError("the function returned the record of another job")
    # Plain values all the way down: a sink writes what is here, and does not know the classes of users.
    plain = msgspec.to_builtins(msgspec.structs.asdict(after), builtin_types=(bytes,), str_keys=True)
    return msgspec.convert(plain, Result, builtin_types=(bytes,))
