import asyncio
import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from fetcher.cli import progress
from fetcher.sinks.file import FileSinkConfig
from fetcher.sinks.stdout import StdoutConfig


@pytest.mark.parametrize(
    ("terminal", "sink", "shown"),
    [
        (True, StdoutConfig(), False),
        (False, StdoutConfig(), True),
        (True, FileSinkConfig(path="out.jsonl"), True),
    ],
)
async def test_no_display_is_drawn_into_records(monkeypatch, terminal, sink, shown):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr(progress, "render", lambda *_: "DISPLAY")
    batch = SimpleNamespace(
        config=SimpleNamespace(sinks=[sink]),
        engine=SimpleNamespace(done=0),
    )
    screen = io.StringIO()
    task = asyncio.create_task(progress.show(batch, Console(file=screen, force_terminal=True)))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert ("DISPLAY" in screen.getvalue()) is shown
