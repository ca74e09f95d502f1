"""What a batch does with an earlier run of itself, before anything is fetched."""

from __future__ import annotations

import pytest

from fetcher.assembly import Batch
from fetcher.config.model import Config, sink_fingerprints
from fetcher.errors import ConfigError, StateBusyError, StateError
from fetcher.queues.sqlite import SqliteQueue


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
