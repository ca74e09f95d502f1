"""What a batch does with an earlier run of itself, before anything is fetched."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from fetcher.assembly import Batch, plan
from fetcher.config.model import Config, fingerprint, sink_fingerprints
from fetcher.errors import ConfigError, SinkError, StateBusyError, StateError
from fetcher.model import Outcome, Result
from fetcher.pipeline.outlet import Batching, Plan
from fetcher.queues.sqlite import SqliteQueue
from fetcher.sinks.file import FileSink
from fetcher.sinks.sqlite import SqliteSink
from fetcher.sources.file import FileSource


def config(*sinks, source="http://127.0.0.1:1/", **settings):
    return Config.model_validate({"sources": [source], "sinks": list(sinks), **settings})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def opened():
    """Open a batch, as often as wanted; each one ends when the next one begins, killed rather than finished."""
    batches = []

    async def make(config, *, fresh=False):
        while batches:
            await batches.pop().close()
        batches.append(Batch(config, fresh=fresh))
        await batches[-1].open()
        return batches[-1]

    yield make
    for batch in batches:
        await batch.close()


class Verbatim:
    """A format for what is bytes already."""

    def begin(self):
        return b""

    def encode(self, results):
        return results


async def finish(batch, records=b""):
    """Write records to every sink, commit their marks and note that the batch has ended."""
    marks = {}
    for name, sink in batch._sinks.items():
        sink._format = Verbatim()
        marks[name] = await sink.write(records)
    await batch._queue.put([], marks | {"finished": "1"})


async def test_an_output_that_is_no_longer_named_stays(opened, folder):
    await finish(await opened(config("first.jsonl")), b"1\n")
    batch = await opened(config("second.jsonl"))
    assert not batch.resumed
    assert (folder / "first.jsonl").read_bytes() == b"1\n"
    await finish(batch, b"2\n")
    await opened(config("third.jsonl", source="http://127.0.0.1:2/"))
    assert (folder / "first.jsonl").read_bytes() == b"1\n"
    assert (folder / "second.jsonl").read_bytes() == b"2\n"


async def test_an_output_that_is_named_again_is_replaced_wherever_it_stands(opened, folder):
    await finish(await opened(config("a.jsonl", "b.jsonl")), b"1\n")
    await finish(await opened(config("c.jsonl", "b.jsonl", "a.jsonl")), b"22\n")
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == dict.fromkeys(
        ["a.jsonl", "b.jsonl", "c.jsonl"], b"22\n"
    )


@pytest.mark.parametrize("bad", ["/proc/nope/x.jsonl", "precious.jsonl"])
@pytest.mark.parametrize("first", [True, False])
async def test_nothing_is_deleted_unless_every_sink_can_be_opened(opened, folder, bad, first):
    (folder / "precious.jsonl").write_text("precious\n")
    await finish(await opened(config("good.jsonl")), b"1\n")
    with pytest.raises(ConfigError):
        await opened(config(*[bad, "good.jsonl", "new.jsonl"][:: 1 if first else -1]))
    assert (folder / "good.jsonl").read_bytes() == b"1\n"
    assert not (folder / "new.jsonl").exists()
    await opened(config("good.jsonl"))  # still known as its own
    assert (folder / "good.jsonl").read_bytes() == b""


async def test_a_crash_while_starting_over_is_started_over_again(opened, folder, monkeypatch):
    await finish(await opened(config("a.jsonl", "b.jsonl")), b"1\n")

    async def killed(_):
        raise KeyError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteQueue, "clear", killed)
        with pytest.raises(KeyError):
            await opened(config("a.jsonl", "b.jsonl"))
    await finish(await opened(config("a.jsonl", "b.jsonl")), b"2\n")
    assert (folder / "a.jsonl").read_bytes() == (folder / "b.jsonl").read_bytes() == b"2\n"


@pytest.mark.parametrize(
    "other",
    [
        ["b.jsonl"],
        ["a.jsonl", "b.jsonl"],
        ["-"],
        [{"type": "file", "path": "/x/a.jsonl"}],
    ],
)
async def test_an_unfinished_run_goes_on_with_its_own_sinks_only(opened, folder, other):
    await opened(config("a.jsonl"))
    (folder / "a.jsonl").write_bytes(b"tail")
    with pytest.raises(ConfigError, match=r"the sinks of 'batch' are not those .* start over with --fresh"):
        await opened(config(*other))
    assert (folder / "a.jsonl").read_bytes() == b"tail"
    assert (await opened(config({"type": "file", "path": "a.jsonl", "durability": "fsync"}))).resumed
    assert (folder / "a.jsonl").read_bytes() == b""


async def test_nothing_is_cut_unless_every_sink_can_go_on(opened, folder):
    batch = await opened(config("a.jsonl", "b.jsonl"))
    await finish(batch, b"1\n")
    await batch._queue.put([], {})
    batch._queue._connection().execute("DELETE FROM marks WHERE name = 'finished'")
    await batch.close()
    (folder / "a.jsonl").write_bytes(b"1\ntail")
    (folder / "b.jsonl").unlink()
    with pytest.raises(StateError, match=r"b\.jsonl: is not there"):
        await opened(config("a.jsonl", "b.jsonl"))
    assert (folder / "a.jsonl").read_bytes() == b"1\ntail"
    assert not (folder / "b.jsonl").exists()


async def test_fresh_replaces_an_output_that_was_changed(opened, folder):
    await finish(await opened(config("a.jsonl")), b"1\n")
    (folder / "a.jsonl").write_bytes(b"edited\n")
    with pytest.raises(StateError, match="was changed"):
        await opened(config("a.jsonl"))
    assert (folder / "a.jsonl").read_bytes() == b"edited\n"
    await opened(config("a.jsonl"), fresh=True)
    assert (folder / "a.jsonl").read_bytes() == b""


async def test_fresh_appends_to_an_output_that_was_changed(opened, folder):
    appended = config({"type": "file", "path": "a.jsonl", "if_exists": "append"})
    await finish(await opened(appended), b"1\n")
    (folder / "a.jsonl").write_bytes(b"edited\n")
    with pytest.raises(StateError, match="was changed"):
        await opened(appended)
    await finish(await opened(appended, fresh=True), b"2\n")
    assert (folder / "a.jsonl").read_bytes() == b"edited\n2\n"


async def test_fresh_waits_for_another_run_like_any(opened, folder):
    await finish(await opened(config("a.jsonl")), b"1\n")
    await finish(await opened(config("b.jsonl")))
    other = Batch(config("a.jsonl", name="other"), fresh=True)
    try:
        await other.open()
        for fresh in (False, True):
            with pytest.raises(StateBusyError, match=r"a\.jsonl: another run is writing to it"):
                await opened(config("a.jsonl"), fresh=fresh)
    finally:
        await other.close()


def test_a_sink_is_known_by_type_path_and_format():
    def known(sink):
        (fingerprint,) = sink_fingerprints(config(sink))
        return fingerprint

    same = [{"type": "file", "path": "a.jsonl"}, {"type": "file", "path": "a.jsonl", "format": "jsonl"}]
    assert {known(sink) for sink in [*same, same[0] | {"if_exists": "append"}]} == {known("a.jsonl")}
    assert len({known("a.jsonl"), known("b.jsonl"), known("-")}) == 3


ELSEWHERE = [
    {"type": "webhook", "url": "http://h/a?k=1"},
    {"type": "webhook", "url": "http://h/b?k=1"},
    {"type": "webhook", "url": "http://h/a?k=2"},
    {"type": "redis", "url": "redis://h", "stream": "s"},
    {"type": "redis", "url": "redis://h/1", "stream": "s"},
    {"type": "redis", "url": "redis://h", "stream": "t"},
    {"type": "nats", "servers": ["nats://h"], "stream": "s", "subject": "x"},
    {"type": "nats", "servers": ["nats://h"], "stream": "s", "subject": "y"},
    {"type": "nats", "servers": ["nats://i"], "stream": "s", "subject": "x"},
    {"type": "postgres", "dsn": "postgresql://u:p@h/d"},
    {"type": "postgres", "dsn": "postgresql://u:p@i/d"},
    {"type": "postgres", "dsn": "postgresql://u:p@h/e"},
    {"type": "postgres", "dsn": "postgresql://u:p@h/d", "table": "other"},
    {"type": "postgres", "dsn": "postgresql://u:p@h/d", "schema": "other"},
    {"type": "postgres", "dsn": "postgresql:///d?host=/run/pg"},
]


def test_a_sink_elsewhere_is_known_by_its_place_and_not_by_who_asks():
    prints = [sink_fingerprints(config(sink))[0] for sink in ELSEWHERE]
    assert len(set(prints)) == len(ELSEWHERE)
    same = [
        ELSEWHERE[0] | {"secret": "new", "timeout": "1s"},
        {"type": "redis", "url": "redis://H:6379/0", "stream": "s", "password": "p"},
        {"type": "nats", "servers": ["nats://h:4222"], "stream": "s", "subject": "x", "token": "t"},
        {"type": "postgres", "dsn": "postgres://other:new@H:5432/d?sslmode=require"},
    ]
    known = [prints[ELSEWHERE.index(sink)] for sink in (ELSEWHERE[0], ELSEWHERE[3], ELSEWHERE[6], ELSEWHERE[9])]
    assert [sink_fingerprints(config(sink))[0] for sink in same] == known


def test_a_source_that_is_a_database_is_known_by_its_place_and_not_by_who_asks():
    def known(dsn):
        return fingerprint(config("a.jsonl", source={"type": "postgres", "query": "SELECT 1 AS url", "dsn": dsn}))

    first = known("postgresql://u:p@h/d")
    assert first == known("postgres://other:new@H:5432/d")
    assert len({first, known("postgresql://u:p@i/d"), known("postgresql://u:p@h/e")}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"stages": ["status == 200"]},
        {"stages": [{"type": "select", "drop": ["body"]}]},
        {"sinks": [{"type": "file", "path": "a.jsonl", "where": "status == 200"}]},
        {"sinks": [{"type": "file", "path": "a.jsonl", "drop": ["body"]}]},
        {"sinks": [{"type": "file", "path": "a.jsonl", "select": ["url"]}]},
    ],
)
async def test_an_unfinished_run_goes_on_with_the_same_records_only(opened, folder, other):
    await finish(await opened(config("a.jsonl")), b"1\n")
    # An end is an end: what comes next may be as it likes.
    await opened(config(*other.get("sinks", ["a.jsonl"]), stages=other.get("stages", [])))
    assert (folder / "a.jsonl").read_bytes() == b""
    (folder / "a.jsonl").write_bytes(b"tail")
    with pytest.raises(ConfigError, match=r"the stages, or the where, select or drop of a sink, of 'batch' are not"):
        await opened(config("a.jsonl"))
    assert (folder / "a.jsonl").read_bytes() == b"tail"


async def test_an_unfinished_run_of_a_version_that_knew_less_goes_on(opened):
    batch = await opened(config("a.jsonl"))
    batch._queue._connection().execute("DELETE FROM marks WHERE name = 'records'")
    assert (await opened(config("a.jsonl"))).resumed


# Sinks that are not required


def optional(path="extra.jsonl", **settings):
    return {"type": "file", "name": "extra", "path": path, "required": False} | settings


@pytest.fixture
def unreachable(monkeypatch):
    """Have the check of every sink at extra.jsonl fail, as if it were a server that is away."""
    check = FileSink.check

    async def fails(self, mark, *, resume):
        if self._path.name == "extra.jsonl":
            raise SinkError("the server is away", retryable=True)
        await check(self, mark, resume=resume)

    monkeypatch.setattr(FileSink, "check", fails)


async def test_one_that_is_away_at_the_start_keeps_nobody_from_starting(opened, unreachable):
    with pytest.raises(SinkError, match="away"):
        await opened(config("a.jsonl", "extra.jsonl"))
    batch = await opened(config("a.jsonl", optional()), fresh=True)
    assert [outlet.title for outlet in batch.engine.delivery.outlets] == ["file-1", "extra"]
    await opened(config("a.jsonl", optional()))


async def test_one_that_can_never_be_used_is_refused_all_the_same(opened):
    with pytest.raises(ConfigError):
        await opened(config("a.jsonl", optional("/proc/nope/x.jsonl")))


@pytest.mark.parametrize("changed", [False, True])
async def test_dead_letters_of_an_earlier_run_go_with_it_unless_they_were_taken_in_hand(opened, folder, changed):
    batch = await opened(config("a.jsonl", optional()))
    dead = batch._dead["sink:1"]
    await dead.open(None)
    dead._format = Verbatim()
    await finish(batch)
    await batch._queue.put([], {"dead:sink:1": await dead.write(b"lost\n")})
    path = folder / "state" / "batch.extra.dead.jsonl"
    assert path.read_bytes() == b"lost\n"
    if changed:
        path.write_bytes(b"mine\n")
    await opened(config("a.jsonl", optional()))
    assert path.read_bytes() == (b"mine\n" if changed else b"")


@pytest.fixture
def server(monkeypatch):
    """The server of every SQLite sink, which can be away."""
    server = SimpleNamespace(down=False)
    check, begin = SqliteSink.check, SqliteSink.open

    def answer():
        if server.down:
            raise SinkError("the server is away", retryable=True)

    async def checked(self, mark, *, resume):
        answer()
        await check(self, mark, resume=resume)

    async def begun(self, mark):
        answer()
        return await begin(self, mark)

    monkeypatch.setattr(SqliteSink, "check", checked)
    monkeypatch.setattr(SqliteSink, "open", begun)
    return server


def rows(path):
    with closing(sqlite3.connect(path)) as db:
        return sorted(job_id for (job_id,) in db.execute("SELECT job_id FROM results"))


async def written(batch, *ids):
    """Have the second sink write records, commit its marks and note that the batch has ended."""
    outlet = batch.engine.delivery.outlets[1]
    await outlet.deliver([Result(batch="batch", job_id=one, url="u", outcome=Outcome.OK, attempts=1) for one in ids])
    await batch._queue.put([], outlet.marks() | {"finished": "1"})


@pytest.mark.parametrize("resumed", [False, True])
async def test_one_that_was_away_at_the_start_forgets_the_earlier_run_once_it_is_there(opened, server, resumed):
    table = optional("extra.db", type="sqlite", patience="1m")
    await written(await opened(config("a.jsonl", table)), "old-1", "old-2")
    server.down = True
    batch = await opened(config("a.jsonl", table))
    if resumed:
        batch = await opened(config("a.jsonl", table))
        assert batch.resumed
    server.down = False
    await written(batch, "new-1")
    assert rows("extra.db") == ["new-1"]
    # What this run wrote is known as its own again, and nothing is left to be deleted later.
    batch = await opened(config("a.jsonl", table))
    await written(batch, "newer-1")
    assert rows("extra.db") == ["newer-1"]


async def test_one_that_was_away_through_a_whole_run_forgets_the_one_before_it(opened, server):
    table = optional("extra.db", type="sqlite", patience="0s")
    await written(await opened(config("a.jsonl", table)), "old-1", "old-2")
    server.down = True
    await written(await opened(config("a.jsonl", table)), "lost")
    server.down = False
    await written(await opened(config("a.jsonl", table)), "new-1")
    assert rows("extra.db") == ["new-1"]


def test_the_settings_of_a_sink_become_its_plan():
    made = config(
        "a.jsonl",
        optional(
            where="status == 200", drop=["body"], patience="1m", batch={"size": 5, "bytes": "1kB", "linger": "2s"}
        ),
    )
    first, second = (plan(sink, index) for index, sink in enumerate(made.sinks, 1))
    assert first == Plan(title="file-1")
    assert (second.title, second.required, second.patience) == ("extra", False, 60.0)
    assert second.batching == Batching(5, 1000, 2.0)
    record = Result(batch="b", job_id="1", url="u", outcome="ok", attempts=1, status=200, body=b"x")
    assert second.where(record)
    assert second.reshape(record).body is None


# Batches of a service


async def test_the_loop_goes_on_while_inputs_are_checked(opened, monkeypatch):
    passed = threading.Event()
    asyncio.get_running_loop().call_soon(passed.set)
    monkeypatch.setattr(FileSource, "check", lambda _: passed.wait(30) or pytest.fail("the loop stood still"))
    await opened(config("a.jsonl", source="urls.txt"))


async def test_inputs_that_can_not_be_read_are_told_all_the_same(opened, folder):
    with pytest.raises(ConfigError, match=r"none\.txt"):
        await opened(config("a.jsonl", source="none.txt"))
    assert not (folder / "state").exists()


async def test_what_a_batch_keeps_may_be_in_a_folder_of_its_own(folder):
    own = folder / "batches" / "1"
    for queue in ({"type": "sqlite", "path": "elsewhere.db"}, "sqlite"):
        batch = Batch(config("a.jsonl", optional(), queue=queue), state_dir=own)
        await batch.open()
        await batch._dead["sink:1"].open(None)
        await batch.close()
        assert batch.resumed is (queue == "sqlite")
    assert sorted(path.name for path in own.iterdir() if path.suffix in {".db", ".jsonl"}) == [
        "batch.extra.dead.jsonl",
        "queue.db",
    ]
    assert not (folder / "state").exists()
    assert not (folder / "elsewhere.db").exists()


def test_what_receivers_reject_goes_into_the_folder_too_unless_it_has_a_place(folder):
    sinks = [
        {"type": "webhook", "url": "http://127.0.0.1:1/"},
        {"type": "webhook", "url": "http://127.0.0.1:2/", "name": "other", "rejected": "mine.jsonl"},
    ]
    first, second = Batch(config(*sinks, queue="memory"), state_dir=folder / "1").config.sinks
    assert (first.rejected, second.rejected) == (str(folder / "1" / "{batch}.{sink}.rejected.jsonl"), "mine.jsonl")


async def test_only_the_jobs_that_are_named_are_taken():
    source = {"type": "template", "url": "http://127.0.0.1:1/{1..3}"}
    # Both sources call their rows the same; in a batch no two jobs have the same id.
    two = Config.model_validate({"sources": [source, source], "sinks": ["a.jsonl"], "queue": "memory"})
    first, second = Batch(two, only={"0-1", "1-3", "1-7"})._sources
    assert [job.id async for chunk in first.read(None) for job in chunk.jobs] == ["1"]
    assert [job.id async for chunk in second.read(None) for job in chunk.jobs] == ["3"]
