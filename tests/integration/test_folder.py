"""Files that are put into a folder become batches: all of them, each once, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from origin_process import origin_process
from serve_process import serve_process

from fetcher.assembly import Shared
from fetcher.service.arrivals import folder as module
from fetcher.service.arrivals.folder import Folder
from fetcher.service.keeper import Keeper
from fetcher.service.models import BatchView, State
from fetcher.service.settings import ServiceConfig

SOON = 60.0


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found.url.rstrip("/")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "SETTLED", 0.1)
    monkeypatch.setattr(module, "LOOK", 0.02)
    return tmp_path


class Drop:
    """A folder, and what people see of it."""

    def __init__(self, path):
        self.path = path

    def put(self, name, content):
        """Put a file there as a careful person does: under another name first."""
        (self.path / "inbox").mkdir(parents=True, exist_ok=True)
        part = self.path / "inbox" / f".{len(name)}.part"
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
        part.rename(self.path / "inbox" / name)

    def names(self, folder):
        found = (entry.name for entry in os.scandir(self.path / folder))
        return sorted(name for name in found if not name.startswith("."))

    def ends(self):
        """Return the batches that have ended, as the files say."""
        # <id>.c.json is what was put there.
        found = (path for path in (self.path / "finished").glob("*.json") if path.name.count(".") == 1)
        return [BatchView.model_validate_json(path.read_text()) for path in found]

    def left(self):
        """Return what is on its way."""
        if not (self.path / "finished").exists():
            return ["nothing is there yet"]
        return self.names("inbox") + self.names("accepted") + self.names("accepted/.claimed")

    def why(self, name):
        return (self.path / "rejected" / f"{name}.txt").read_text()


@asynccontextmanager
async def watching(path="drop", **service):
    """Watch a folder, with a keeper behind it."""
    given = {"state_dir": "state/service", "files": ".", "watch": path} | service
    config = ServiceConfig.model_validate({"service": given, "http": {"guard": False}})
    troubles = {}
    shared = Shared(config.limits, config.http)
    async with AsyncExitStack() as opened:
        opened.push_async_callback(shared.close)
        await shared.open()
        keeper = Keeper(config, shared)
        await keeper.open()
        opened.push_async_callback(keeper.close, 5.0)
        folder = Folder(Path(path), config, keeper, troubles.__setitem__)
        await folder.open()
        opened.push_async_callback(folder.close)
        running = asyncio.create_task(folder.run())
        try:
            yield Drop(Path(path)), keeper, troubles
        finally:
            running.cancel()
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is not None:
                raise running.exception()


async def until(what, seconds=SOON):
    """Wait until something is so. Looked at often, as files tell nobody."""
    async with asyncio.timeout(seconds):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def config(url, **more):
    return json.dumps({"sources": [url], "retry": {"attempts": 1}} | more)


# What becomes of a file


async def test_configs_and_files_of_urls_become_batches_and_end_where_people_see_it(origin):
    async with watching() as (drop, keeper, _):
        drop.put("b.yaml", f"sources: ['{origin}/bytes/1?n={{1..20}}']\n")
        drop.put("c.json", '{"sources": ["' + origin.replace("/", "\\/") + '\\/bytes\\/1"]}')
        drop.put("urls.csv", "url,n\n" + "".join(f"{origin}/bytes/1?n={n},{n}\n" for n in range(30)))
        await until(lambda: len(drop.ends()) == 3 and not drop.left())
        ends = {end.name: end for end in drop.ends()}
        assert {name: end.progress.outcomes for name, end in ends.items()} == {
            "b": {"ok": 20},
            "c": {"ok": 1},
            "urls": {"ok": 30},
        }
        for end in ends.values():
            assert (end.state, end.origin) == (State.DONE, "folder")
            assert keeper.get(end.id) == end
            file = {"b": "b.yaml", "c": "c.json", "urls": "urls.csv"}[end.name]
            assert {f"{end.id}.{file}", f"{end.id}.json"} <= set(drop.names("finished"))
        assert drop.names("rejected") == []
        assert os.listdir("state/service/staged") == []  # noqa: PTH208


async def test_what_can_not_be_run_is_refused_with_everything_that_is_wrong(origin):
    async with watching(max_config=200, max_upload=100) as (drop, keeper, _):
        drop.put("b.yaml", "sources: [nothing.csv]\nsinkz: []\n")
        drop.put("out.yaml", "sources: [/etc/passwd]\n")
        drop.put("empty.txt", "")
        drop.put("columns.csv", "a,b\n1,2\n")
        drop.put("large.yaml", "#" * 300)
        drop.put("large.txt", f"{origin}/bytes/1\n" * 50)
        drop.put("what.pdf", "%PDF")
        drop.put("latin.yaml", b"name: \xe4\n")
        (drop.path / "inbox/link.yaml").symlink_to("/etc/passwd")
        (drop.path / "inbox/folder").mkdir()
        os.mkfifo(drop.path / "inbox/pipe.txt")
        await until(lambda: len(drop.names("rejected")) == 22)
        assert drop.left() == []
        assert "b.yaml:2: sinkz: unknown key; did you mean 'sinks'?" in drop.why("b.yaml")
        assert "out.yaml:1: sources.0" in drop.why("out.yaml")
        assert "lies outside" in drop.why("out.yaml")
        assert "empty.txt: is empty" in drop.why("empty.txt")
        assert "\ncolumns.csv:1: there is no column 'url'" in drop.why("columns.csv")
        assert "large.yaml: is larger than service.max_config (200 bytes)" in drop.why("large.yaml")
        assert "large.txt: is larger than service.max_upload (100 bytes)" in drop.why("large.txt")
        assert "what.pdf: should be a config" in drop.why("what.pdf")
        assert "latin.yaml:1: is not UTF-8" in drop.why("latin.yaml")
        assert "is a link, which is not followed" in drop.why("link.yaml")
        assert (drop.path / "rejected/link.yaml").is_symlink()
        assert "is a folder" in drop.why("folder")
        assert "is no file that can be read to its end" in drop.why("pipe.txt")
        assert keeper.list().batches == []


async def test_a_name_may_come_again_and_again(origin):
    async with watching() as (drop, _, _):
        for count in (1, 2, 3):
            drop.put("b.yaml", config(f"{origin}/bytes/1"))
            await until(lambda count=count: len(drop.ends()) == count and not drop.left())
        assert len({end.id for end in drop.ends()}) == 3


async def test_two_hundred_files_at_once_are_two_hundred_batches(origin):
    async with watching(running=50) as (drop, keeper, _):
        for n in range(200):
            if n % 2:
                drop.put(f"b.{n}.yaml", config(f"{origin}/bytes/1?n={n}"))
            else:
                drop.put(f"u {n}.txt", f"{origin}/bytes/1?n={n}\n")
        await until(lambda: len(drop.ends()) == 200 and not drop.left(), 110)
        assert keeper.counts()["done"] == 200
        assert {end.progress.outcomes["ok"] for end in drop.ends()} == {1}
        urls = Counter()
        for end in drop.ends():
            async for lines, _ in keeper.results(end.id):
                urls.update(json.loads(line)["url"] for line in lines.splitlines())
        assert urls == Counter(f"{origin}/bytes/1?n={n}" for n in range(200))


async def test_a_file_is_taken_when_it_is_whole_and_not_before(origin):
    async with watching() as (drop, keeper, _):
        path = drop.path / "inbox/slow.txt"
        with path.open("w") as file:
            for n in range(15):
                file.write(f"{origin}/bytes/1?n={n}\n")
                file.flush()
                await asyncio.sleep(0.02)
                assert path.exists()
        await until(drop.ends)
        assert drop.ends()[0].progress.outcomes == {"ok": 15}
        (drop.path / "inbox/b.yaml.part").write_text(config(f"{origin}/bytes/1"))
        (drop.path / "inbox/gone.yaml").write_text("x")
        (drop.path / "inbox/gone.yaml").unlink()
        drop.put("later.yaml", config(f"{origin}/bytes/1"))
        await until(lambda: len(drop.ends()) == 2)
        assert drop.names("inbox") == ["b.yaml.part"]
        assert drop.names("rejected") == []
        assert keeper.counts()["done"] == 2


async def test_files_are_found_where_nobody_tells_of_changes(origin, monkeypatch):
    import watchfiles  # noqa: PLC0415  what is replaced here is imported where it is used

    def none(*_, **__):
        raise OSError(28, "OS file watch limit reached.")

    monkeypatch.setattr(watchfiles, "awatch", none)
    monkeypatch.setattr(module, "RESCAN", 0.1)
    async with watching() as (drop, _, _):
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        await until(drop.ends)


async def test_a_full_disk_takes_nothing_and_loses_nothing(origin, monkeypatch):
    monkeypatch.setattr(module, "RESCAN", 0.1)
    async with watching() as (drop, keeper, troubles):
        create, full = keeper._workspace.create, [True]

        def create_if_there_is_room(*args):
            if full[0]:
                raise OSError(28, "No space left on device")
            create(*args)

        monkeypatch.setattr(keeper._workspace, "create", create_if_there_is_room)
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        drop.put("u.txt", f"{origin}/bytes/1\n")
        await until(lambda: troubles.get("folder"))
        assert troubles["folder"].endswith("No space left on device")
        assert (len(drop.names("accepted/.claimed")), drop.names("rejected")) == (2, [])
        full[0] = False
        await until(lambda: len(drop.ends()) == 2)
        await until(lambda: troubles["folder"] is None)


async def test_a_file_that_can_not_be_taken_is_told_and_keeps_no_other(origin, monkeypatch):
    monkeypatch.setattr(module, "RESCAN", 0.1)
    rename, stuck = Path.rename, [True]

    def stubborn(path, target):
        if path.name == "a.yaml" and stuck[0]:
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, target)

    async with watching() as (drop, _, troubles):
        drop.put("a.yaml", config(f"{origin}/bytes/1"))
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        monkeypatch.setattr(Path, "rename", stubborn)
        await until(drop.ends)
        await until(lambda: troubles.get("folder"))
        assert "inbox/a.yaml: Operation not permitted" in troubles["folder"]
        assert [end.name for end in drop.ends()] == ["b"]
        stuck[0] = False
        await until(lambda: len(drop.ends()) == 2)
        await until(lambda: troubles["folder"] is None)


async def test_an_end_that_can_not_be_noted_is_noted_later(origin, monkeypatch):
    monkeypatch.setattr(module, "RESCAN", 0.1)
    finish, full = module.Inbox.finish, [3]

    def finish_if_there_is_room(*args):
        if full[0]:
            full[0] -= 1
            raise OSError(28, "No space left on device")
        finish(*args)

    monkeypatch.setattr(module.Inbox, "finish", finish_if_there_is_room)
    async with watching() as (drop, _, _):
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        await until(drop.ends)
        assert full[0] == 0


async def test_a_file_that_is_deleted_while_its_batch_runs_takes_nothing_with_it(origin):
    async with watching() as (drop, keeper, _):
        drop.put("u.txt", "".join(f"{origin}/delay/0.05/bytes/1?n={n}\n" for n in range(40)))
        await until(lambda: drop.names("accepted"))
        (drop.path / "accepted" / drop.names("accepted")[0]).unlink()
        await until(drop.ends)
        assert drop.ends()[0].progress.outcomes == {"ok": 40}
        assert keeper.counts()["done"] == 1


async def test_a_fault_of_ours_is_that_of_one_file(origin, monkeypatch):
    async with watching() as (drop, keeper, _):
        submit = keeper.submit

        async def broken(text, label, *args, **more):
            if label == "a.yaml":
                raise ZeroDivisionError("by zero")
            return await submit(text, label, *args, **more)

        monkeypatch.setattr(keeper, "submit", broken)
        drop.put("a.yaml", config(f"{origin}/bytes/1"))
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        await until(lambda: drop.ends() and drop.names("rejected"))
        assert "this is a fault of fetcher: ZeroDivisionError: by zero" in drop.why("a.yaml")


async def test_what_was_going_on_when_the_service_ended_goes_on(origin):
    async with watching() as (drop, keeper, _):
        drop.put("u.txt", "".join(f"{origin}/delay/0.05/bytes/1?n={n}\n" for n in range(200)))
        await until(lambda: keeper.counts()["running"])
        await until(lambda: any(view.progress.outcomes for view in keeper.list().batches))
    assert len(drop.names("accepted")) == 1
    async with watching() as (drop, keeper, _):
        await until(lambda: drop.ends() and not drop.left())
        assert drop.ends()[0].progress.outcomes == {"ok": 200}
        assert len(keeper.list().batches) == 1


async def test_a_batch_that_was_forgotten_is_not_run_again_by_itself(origin):
    async with watching() as (drop, keeper, _):
        drop.put("b.yaml", config(f"{origin}/bytes/1"))
        await until(drop.ends)
        (end,) = drop.ends()
        await keeper.delete(end.id)
    # As if the service had been killed before it could move the file.
    (drop.path / "finished" / f"{end.id}.b.yaml").rename(drop.path / "accepted" / f"{end.id}.b.yaml")
    async with watching() as (drop, keeper, _):
        await until(lambda: drop.names("rejected"))
        assert f"it had a batch, {end.id}, which the service does not know any more" in drop.why("b.yaml")
        assert keeper.list().batches == []


# kill -9 between the steps

INBOX = "fetcher.service.arrivals.inbox:"
POINTS = [
    (f"{INBOX}Inbox.claim", "after", 1),
    ("fetcher.service.keeper:Keeper.submit", "before", 1),
    ("fetcher.service.batches.workspace:Workspace.create", "after", 1),
    ("fetcher.service.batches.workspace:Workspace.create", "after", 2),
    ("fetcher.service.keeper:Keeper.submit", "after", 1),
    ("fetcher.service.keeper:Keeper.submit", "after", 2),
    (f"{INBOX}Inbox.accept", "after", 2),
    (f"{INBOX}_write", "before", 1),
    (f"{INBOX}_write", "after", 1),
    (f"{INBOX}_write", "after", 2),
    (f"{INBOX}Inbox.reject", "after", 1),
    (f"{INBOX}Inbox.finish", "before", 1),
    (f"{INBOX}Inbox.finish", "after", 1),
]


@pytest.mark.parametrize(("place", "when", "count"), POINTS)
def test_nothing_is_lost_and_nothing_run_twice_when_the_service_is_killed(origin, here, place, when, count):
    drop = Drop(here / "drop")
    drop.put("b.yaml", config(f"{origin}/bytes/1?b={{1..5}}"))
    drop.put("u.csv", "url\n" + "".join(f"{origin}/bytes/1?u={n}\n" for n in range(5)))
    drop.put("wrong.yaml", "sourcez: 1")
    crash = Path(__file__).parents[1] / "crash_point.py"
    command = [sys.executable, str(crash), place, when, str(count), "serve"]
    settings = ["-s", "service.watch=drop", "-s", "service.port=0", "-s", "http.guard=false"]
    ended = subprocess.run([*command, *settings], stderr=subprocess.PIPE, timeout=SOON, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with serve_process(here, "service.watch=drop") as service:
        asyncio.run(until(lambda: len(drop.ends()) == 2 and not drop.left()))
        batches = service.ask("GET", "/v1/batches")["batches"]
        assert Counter(batch["name"] for batch in batches) == {"b": 1, "u": 1}
        for batch in batches:
            assert (batch["state"], batch["origin"]) == ("done", "folder")
            found = Counter(record["job_id"] for record in service.results(batch["id"]))
            assert (len(found), set(found.values())) == (5, {1})
    files = [name.partition(".")[2] for name in drop.names("finished")]
    assert Counter(files) == {"b.yaml": 1, "u.csv": 1, "json": 2}
    # A reason may be there twice; the file is there once.
    refused = [name for name in drop.names("rejected") if not name.endswith(".txt")]
    assert len(refused) == 1
    assert f"{refused[0]}.txt" in drop.names("rejected")
