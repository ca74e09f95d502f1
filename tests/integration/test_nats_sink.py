"""The NATS sink and a server with JetStream, users, and limits."""

from __future__ import annotations

import json
import socket
import sys
import uuid

import pytest
import trustme
from certificates import write_authority
from pydantic import ValidationError
from servers.nats import MAX_PAYLOAD, NatsServer

from fetcher.errors import ConfigError, MissingExtraError, SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks.nats import NatsConfig


def results(*names, **fields):
    return [
        Result(batch="b", job_id=f"0:{name}", url=f"http://a.test/{name}", outcome=Outcome.OK, attempts=1, **fields)
        for name in names
    ]


@pytest.fixture
async def stream(nats):
    name = f"S{uuid.uuid4().hex}"
    yield name
    async with nats.connection() as (_, jetstream):
        for info in await jetstream.streams_info():
            await jetstream.delete_stream(info.config.name)


@pytest.fixture
async def made(nats, stream, tmp_path):
    sinks = []

    def make(**settings):
        usual = {
            "servers": [nats.url],
            "stream": stream,
            "subject": f"{stream}.results",
            "username": nats.username,
            "password": nats.password,
            "rejected": str(tmp_path / "rejected.jsonl"),
            "timeout": 5.0,
        }
        sinks.append(NatsConfig.model_validate(usual | settings).build())
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()


async def opened(sink, mark=None):
    await sink.check(mark, resume=mark is not None)
    return await sink.open(mark)


async def arrived(nats, stream):
    return [json.loads(message.data)["job_id"] async for message in nats.messages(stream)]


async def test_a_message_says_whose_record_it_is(nats, made, stream):
    sink = made()
    run = await opened(sink)
    await sink.write(results("é x\r\n", 2))
    first, second = [message async for message in nats.messages(stream)]
    assert first.subject == f"{stream}.results"
    assert (first.headers["Fetcher-Batch"], first.headers["Fetcher-Job"]) == ("b", "0:%C3%A9%20x%0D%0A")
    assert second.headers["Nats-Msg-Id"] == f"b:{run}:0:2"
    assert json.loads(first.data)["job_id"] == "0:é x\r\n"


async def test_what_comes_again_is_there_once_and_another_run_is_another(nats, made, stream):
    first = made()
    run = await opened(first)
    await first.write(results(*range(700)))
    again = made()
    assert await opened(again, run) == run
    await again.write(results(*range(690, 710)))
    assert sorted(await arrived(nats, stream)) == sorted(f"0:{n}" for n in range(710))
    anew = made()
    assert await opened(anew) != run
    await anew.write(results(1))
    assert len(await arrived(nats, stream)) == 711


async def test_a_job_id_of_any_length_makes_a_header(nats, made, stream):
    sink = made()
    await opened(sink)
    await sink.write(results("x" * 5000, "x" * 5001, "\udcff"))
    assert len(await arrived(nats, stream)) == 3


async def test_what_is_larger_than_the_server_takes_is_kept_aside(nats, made, stream, tmp_path):
    sink = made()
    await opened(sink)
    await sink.write([*results(1), *results("large", body=b"x" * (MAX_PAYLOAD + 1)), *results(2)])
    assert await arrived(nats, stream) == ["0:1", "0:2"]
    (line,) = map(json.loads, (tmp_path / "rejected.jsonl").read_bytes().splitlines())
    assert line["record"]["job_id"] == "0:large"
    assert line["reason"] == f"has more than the {MAX_PAYLOAD} bytes of the server"


async def test_what_is_larger_than_the_stream_takes_is_kept_aside(nats, made, stream, tmp_path):
    async with nats.connection() as (_, jetstream):
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"], max_msg_size=2000)
    sink = made()
    await opened(sink)
    await sink.write([*results(1), *results("large", body=b"x" * 3000), *results(2)])
    assert await arrived(nats, stream) == ["0:1", "0:2"]
    assert (tmp_path / "rejected.jsonl").read_bytes().count(b"\n") == 1


async def test_a_stream_that_is_full_is_waited_for(nats, made, stream):
    async with nats.connection() as (_, jetstream):
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"], max_msgs=3, discard="new")
    sink = made()
    await opened(sink)
    for _ in range(2):
        with pytest.raises(SinkError, match="is full: maximum messages exceeded; make room") as failure:
            await sink.write(results(*range(5)))
        assert failure.value.retryable
    async with nats.connection() as (_, jetstream):
        await jetstream.update_stream(name=stream, subjects=[f"{stream}.>"], max_msgs=10, discard="new")
    await sink.write(results(*range(5)))
    assert sorted(await arrived(nats, stream)) == [f"0:{n}" for n in range(5)]


async def test_a_server_that_was_restarted_is_connected_to_again(nats, made, stream):
    sink = made()
    await opened(sink)
    await sink.write(results(1))
    nats.stop()
    with pytest.raises(SinkError, match="can not be reached") as failure:
        await sink.write(results(2))
    assert failure.value.retryable
    nats.start()
    await sink.write(results(2))
    assert await arrived(nats, stream) == ["0:1", "0:2"]


async def test_a_server_that_falls_silent(nats, made, stream):
    sink = made(timeout=1.0)
    await opened(sink)
    nats.freeze()
    try:
        with pytest.raises(SinkError, match="no acknowledgement within 1 s") as failure:
            await sink.write(results(1, 2))
        assert failure.value.retryable
    finally:
        nats.resume()
    await sink.write(results(1, 2))
    assert await arrived(nats, stream) == ["0:1", "0:2"]


async def test_a_server_that_falls_silent_is_given_up_however_much_is_to_be_sent(nats, made):
    """More than all buffers between here and there take: a publish must not wait for what nobody reads."""
    sink = made(timeout=1.0)
    await opened(sink)
    large = [one for n in range(8) for one in results(n, body=b"x" * (MAX_PAYLOAD - 100_000))]
    nats.freeze()
    try:
        with pytest.raises(SinkError, match="no acknowledgement within 1 s") as failure:
            await sink.write(large)
        assert failure.value.retryable
    finally:
        nats.resume()
    await sink.write(large[:1])


async def test_a_stream_that_was_deleted_is_waited_for(nats, made, stream):
    sink = made()
    await opened(sink)
    async with nats.connection() as (_, jetstream):
        await jetstream.delete_stream(stream)
        with pytest.raises(SinkError, match="no stream takes") as failure:
            await sink.write(results(1))
        assert failure.value.retryable
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"])
    await sink.write(results(1))
    assert await arrived(nats, stream) == ["0:1"]


async def test_a_check_creates_and_publishes_nothing(nats, made, stream):
    await made().check(None, resume=False)
    async with nats.connection() as (_, jetstream):
        assert await jetstream.streams_info() == []
        await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"])
    await made().check(None, resume=False)
    assert await arrived(nats, stream) == []


async def test_wrong_credentials_are_refused_before_the_first_fetch(made):
    words = "the server refuses to log in; see username, password and token"
    for settings in ({"password": "wrong"}, {"username": None, "password": None, "token": "x"}):
        with pytest.raises(ConfigError, match=words):
            await made(**settings).check(None, resume=False)


async def test_missing_rights_are_refused_before_the_first_fetch(nats, made, stream):
    async with nats.connection() as (_, jetstream):
        await jetstream.add_stream(name=stream, subjects=["secret.results"])
    with pytest.raises(ConfigError, match=r"can not publish to 'secret.results': .*permissions violation"):
        await made(subject="secret.results", timeout=1.0).check(None, resume=False)


async def test_missing_rights_to_publish_to_a_stream_that_is_yet_to_be_created_are_refused(made):
    sink = made(subject="secret.new", timeout=1.0)
    await sink.check(None, resume=False)
    with pytest.raises(ConfigError, match=r"can not publish to 'secret.new': .*permissions violation"):
        await sink.open(None)


async def test_a_right_to_publish_that_was_taken_away_is_not_waited_for(made, monkeypatch):
    sink = made(timeout=1.0)
    await opened(sink)
    monkeypatch.setattr(sink, "_config", sink._config.model_copy(update={"subject": "secret.results"}))
    with pytest.raises(SinkError, match=r"can not publish to 'secret.results': .*permissions violation") as failure:
        await sink.write(results(1))
    assert not failure.value.retryable


async def test_a_stream_that_is_wrong_is_refused_before_the_first_fetch(nats, made, stream):
    with pytest.raises(ConfigError, match="is not there; create it, or set 'create: true'"):
        await made(create=False).check(None, resume=False)
    async with nats.connection() as (_, jetstream):
        await jetstream.add_stream(name=stream, subjects=["other"])
        with pytest.raises(ConfigError, match="is taken by no stream; give the stream that subject"):
            await made().check(None, resume=False)
        await jetstream.add_stream(name="elsewhere", subjects=["taken.>"])
    sink = made(stream="new", subject="taken.results")
    await sink.check(None, resume=False)
    with pytest.raises(ConfigError, match="can not be created: subjects overlap with an existing stream"):
        await sink.open(None)


@pytest.mark.parametrize(("resume", "code"), [(False, 78), (True, 75)])
async def test_a_server_that_is_away_at_the_start(made, resume, code):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"nats://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(SinkError, match="can not be reached") as failure:
        await made(servers=[url]).check(None, resume=resume)
    assert (failure.value.retryable, failure.value.exit_code) == (True, code)


async def test_a_certificate_is_checked(made, tmp_path):
    authority = trustme.CA()
    with NatsServer(authority.issue_cert("127.0.0.1")) as secure:
        with pytest.raises(SinkError, match="certificate verify failed"):
            await made(servers=[secure.url]).check(None, resume=False)
        sink = made(servers=[secure.url], ca_file=write_authority(authority, tmp_path), stream="tls", subject="tls")
        await opened(sink)
        await sink.write(results(1))
        await sink.close()
        with pytest.raises(ConfigError, match="ca_file '/nowhere' can not be used: No such file"):
            await made(servers=[secure.url], ca_file="/nowhere").check(None, resume=False)


async def test_another_server_of_the_cluster_will_do(nats, made, stream):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"nats://127.0.0.1:{closed.getsockname()[1]}"
    sink = made(servers=[url, nats.url])
    await opened(sink)
    await sink.write(results(1))
    assert await arrived(nats, stream) == ["0:1"]


async def test_a_missing_driver_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "nats.js.errors", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nats-py>="):
        await made().check(None, resume=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"servers": ["nats://u:hidden@a.test"]}, "put them into username and password"),
        ({"servers": ["http://a.test"]}, "should be an address such as nats://host:4222"),
        ({"servers": ["nats://a.test/x"]}, "should be an address"),
        ({"username": "u"}, "has a username without a password"),
        ({"username": "u", "password": "p", "token": "t"}, "one of them is enough"),
        ({"subject": "a.*"}, "should match pattern"),
    ],
)
def test_settings_that_can_not_be_meant(settings, words):
    with pytest.raises(ValidationError) as caught:
        NatsConfig.model_validate({"servers": ["nats://a.test"], "stream": "s", "subject": "s"} | settings)
    message = caught.value.errors()[0]["msg"]
    assert words in message
    assert "hidden" not in message
