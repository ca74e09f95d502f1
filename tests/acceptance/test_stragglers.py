"""How a run ends that waits for the last few, and what a person sees meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

import pytest
from raw_server import ok, raw_server

FETCHED = 20


class Last:
    """Answers every job but that for ``/last``, which has to wait until it is let go."""

    def __init__(self):
        self.let_go = asyncio.Event()

    async def __call__(self, peer):
        while True:
            request = await peer.request()
            if b" /last " in request.partition(b"\r\n")[0] and not self.let_go.is_set():
                await peer.gone()
                return
            await peer.send(ok())


@pytest.fixture
async def server(tmp_path):
    last = Last()
    async with raw_server(last) as running:
        port = running.port
        running.let_go = last.let_go
        (tmp_path / "batch.yaml").write_text(
            "sources:\n"
            f"  - 'http://page.test:{port}/{{1..{FETCHED}}}'\n"
            f"  - 'http://me:secret@slow.test:{port}/last'\n"
            "http: {resolve: {'*.test': 127.0.0.1}}\n"
            "shutdown_timeout: 300ms\n"
            "sinks: [out.jsonl]\n"
        )
        yield running


@contextlib.asynccontextmanager
async def fetcher(folder, *arguments, **options):
    """Start a command, and kill it if it has not ended by the end of the block."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FETCHER_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fetcher", *arguments,
        cwd=folder, env=environment | {"COLUMNS": "120", "LINES": "40"},
        **({"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE} | options),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run_to_its_end(folder, *arguments):
    async with fetcher(folder, *arguments) as process:
        _, said = await process.communicate()
        return process.returncode, said.decode()


def records(folder):
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


async def test_the_log_names_what_the_run_waits_for(tmp_path, server):
    async with fetcher(tmp_path, "run", "batch.yaml") as run:
        async for line in run.stderr:
            said = json.loads(line)
            if said["event"] == "waiting":
                break
        run.terminate()
        rest = (await run.stderr.read()).decode()
        assert await run.wait() == 75
    assert said["in_flight"] == 1
    assert said["quiet_s"] >= 3
    (job,) = said["jobs"]
    assert job["url"] == f"http://slow.test:{server.port}/last"
    assert (job["host"], job["phase"], job["attempt"]) == ("slow.test", "first byte", 1)
    assert 3 <= job["seconds"] < 30
    assert "secret" not in str(said) + rest


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
async def test_the_display_names_what_the_run_waits_for(tmp_path, server):
    ours, theirs = os.openpty()
    try:
        async with fetcher(tmp_path, "run", "batch.yaml", stderr=theirs) as run:
            os.close(theirs)
            shown = b""
            async with asyncio.timeout(60):
                while b"in flight for longest" not in shown or b"more" not in shown.rpartition(b"longest")[2]:
                    shown += await asyncio.to_thread(os.read, ours, 65536)
            run.terminate()
            with contextlib.suppress(OSError):  # the other end has been closed
                while await asyncio.to_thread(os.read, ours, 65536):
                    pass
            assert await run.wait() == 75
    finally:
        os.close(ours)
    last = shown.decode().rpartition("nothing has ended for ")[2]
    assert f"http://slow.test:{server.port}/last  first byte  " in last
    assert "at most " in last
    assert "secret" not in shown.decode()


@pytest.mark.parametrize("how", ["option", "config"])
async def test_a_run_ends_at_its_deadline_and_can_be_resumed(tmp_path, server, how):
    if how == "config":
        with (tmp_path / "batch.yaml").open("a") as config:
            config.write("deadline: 2s\n")
    code, said = await run_to_its_end(tmp_path, "run", "batch.yaml", *(["--deadline", "2s"] if how == "option" else []))
    assert code == 75
    assert "the run's deadline of 2 s has passed; draining: 1 request in flight\n" in said
    assert said.splitlines()[-1].startswith("the run's deadline of 2 s has passed; 1 job left; ")
    assert said.splitlines()[-1].endswith("run the same command again to go on")
    server.let_go.set()
    code, said = await run_to_its_end(tmp_path, "run", "batch.yaml", "--deadline", "1h")
    assert code == 0, said
    assert f"resuming batch: {FETCHED} of {FETCHED + 1} jobs done" in said
    assert "deadline" not in said
    assert len({record["job_id"] for record in records(tmp_path)}) == len(records(tmp_path)) == FETCHED + 1


async def test_a_stuck_sink_does_not_outlive_the_deadline(tmp_path, server):
    source = f"sources=['http://page.test:{server.port}/{{1..9999}}']"
    arguments = ("run", "batch.yaml", "--deadline", "2s", "-s", source, "-s", "sinks=['-']")
    reader, writer = os.pipe()  # nobody reads the records: the pipe fills up
    try:
        async with fetcher(tmp_path, *arguments, stdout=writer) as run:
            said = (await run.stderr.read()).decode()
            assert await run.wait() == 75
    finally:
        os.close(reader)
        os.close(writer)
    assert "the run's deadline of 2 s has passed; draining: " in said
    assert "did not take the last results in time; their jobs will be fetched again" in said


@pytest.mark.parametrize(("value", "message"), [("0s", "should be more than 0"), ("soon", "should be a duration")])
async def test_a_deadline_that_is_none_is_refused(tmp_path, server, value, message):
    code, said = await run_to_its_end(tmp_path, "run", "batch.yaml", "--deadline", value)
    assert code == 78
    assert message in said
