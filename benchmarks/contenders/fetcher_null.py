"""Everything of a batch but the network: file source, SQLite queue, engine, JSONL file, and NullTransport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.batch_files import write_config
from benchmarks.contenders.fetcher_batch import run
from fetcher.config import load
from fetcher.settings import Settings
from fetcher.testing import NullTransport
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders import Fetched, Task
    from fetcher.transports.http.session import HttpSession


class _Null(NullTransport):
    schemes: ClassVar[Sequence[str]] = ("http", "https")


class _NullHttp(Settings):
    """Stands where the config has its http section."""

    def build(self, *_: Any) -> _Null:
        return _Null()

    def session(self) -> HttpSession:
        """Return connections that nobody uses."""
        return HttpConfig().session()


def fetch(task: Task) -> Fetched:
    """Fetch nothing, and account for it in full."""
    return run(task, load(write_config(task)).model_copy(update={"http": _NullHttp()}))
