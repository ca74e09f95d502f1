"""The Redis sink and a server with a password, users, and limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import uuid

import pytest
import redis as driver
import trustme
from certificates import serving, write_authority
from pydantic import ValidationError

from fetcher.errors import ConfigError, MissingExtraError, SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks.redis import RedisConfig


def results(*names, **fields):
    return [
        Result(batch="b", job_id=f"0:{name}", url=f"http://a.test/{name}", outcome=Outcome.OK, attempts=1, **fields)
        for name in names
    ]


@pytest.fixture
def client(redis):
    with redis.client() as found:
        yield found
        found.config_set("maxmemory", "0")
        found.flushall()
        found.acl_deluser("writer", "reader")


@pytest.fixture
def key():
    return f"results-{uuid.uuid4().hex}"


@pytest.fixture
async def made(redis, key):
    sinks = []

    def make(**settings):
        usual = {"url": redis.url, "stream": key, "password": redis.password, "timeout": 5.0}
        sinks.append(RedisConfig.model_validate(usual | settings).build())
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()


async def test_an_entry_says_whose_record_it_is(client, made, key):
    sink = made()
    await sink.check(None, resume=False)
    assert not client.exists(key)
    await sink.write(results("é", 2))
    (_, first), (_, second) = client.xrange(key)
    assert first[b"batch"] == b"b"
    assert [entry[b"job_id"].decode() for entry in (first, second)] == ["0:é", "0:2"]
    assert first[b"record"].startswith(b'{"schema_version":1,"batch":"b",')


async def test_a_stream_that_is_kept_short(client, made, key):
    sink = made(max_length=200)
    for start in range(0, 2000, 500):
        await sink.write(results(*range(start, start + 500)))
    assert 200 <= client.xlen(key) < 1000
    assert client.xrevrange(key, count=1)[0][1][b"job_id"] == b"0:1999"


async def test_f84_a_server_that_is_full_is_waited_for_and_has_nothing_twice(client, made, key):
    sink = made()
    await sink.write(results(1))
    client.config_set("maxmemory", "1")
    for _ in range(2):
        with pytest.raises(SinkError, match="is full; make room, raise its maxmemory, or set max_length") as failure:
            await sink.write(results(2, 3))
        assert failure.value.retryable
    with pytest.raises(SinkError, match="is full") as failure:
        await made().check(None, resume=False)
    assert failure.value.retryable
    client.config_set("maxmemory", "0")
    await sink.write(results(2, 3))
    assert [entry[b"job_id"] for _, entry in client.xrange(key)] == [b"0:1", b"0:2", b"0:3"]


async def test_a_batch_that_was_interrupted_between_transactions_has_nothing_twice(client, made, key):
    sink = made()
    batch = [*results(*range(1200)), *results("large", body=b"x" * 1_200_000)]
    client.config_set("proto-max-bulk-len", str(2**20))
    with pytest.raises(SinkError):
        await sink.write(batch)
    assert client.xlen(key) == 1200
    client.config_set("proto-max-bulk-len", str(2**29))
    await sink.write(batch)
    assert client.xlen(key) == 1201


async def test_f84_a_replica_is_waited_for(client, made, redis):
    sink = made()
    await sink.write(results(1))
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(SinkError, match=r"takes nothing at this moment: .*read only replica") as failure:
            await sink.write(results(2))
        assert failure.value.retryable
    finally:
        client.replicaof("no", "one")
    await sink.write(results(2))


async def test_f84_a_server_that_was_restarted_is_connected_to_again(client, made, redis, key):
    sink = made()
    await sink.write(results(1))
    redis.stop()
    redis.start()
    try:
        await sink.write(results(2))
    except SinkError:  # the connection of before was found to be lost
        await sink.write(results(2))
    with redis.client() as found:
        assert found.xlen(key) == 2


async def test_wrong_credentials_are_refused_before_the_first_fetch(client, made):
    words = "the server refuses to log in: .*; see username and password"
    for settings in ({"password": "wrong"}, {"password": None}, {"username": "nobody", "password": "x"}):
        with pytest.raises(ConfigError, match=words):
            await made(**settings).check(None, resume=False)


async def test_missing_rights_are_refused_before_the_first_fetch(client, made, key):
    client.acl_setuser("reader", enabled=True, passwords=["+pw"], commands=["+get", "+xread"], keys=["*"])
    with pytest.raises(ConfigError, match=r"this user may not append to it: .*; allow it \+xadd"):
        await made(username="reader", password="pw").check(None, resume=False)
    client.acl_setuser("writer", enabled=True, passwords=["+pw"], commands=["+xadd", "+multi", "+exec"], keys=["other"])
    with pytest.raises(ConfigError, match="this user may not append to it"):
        await made(username="writer", password="pw").check(None, resume=False)
    client.acl_setuser("writer", enabled=True, keys=[key])
    sink = made(username="writer", password="pw")
    await sink.check(None, resume=False)
    await sink.write(results(1))
    assert client.xlen(key) == 1


async def test_a_key_that_is_something_else_is_refused(client, made, key):
    client.set(key, "text")
    with pytest.raises(ConfigError, match="is a string, not a stream; choose another key"):
        await made().check(None, resume=False)
    sink = made()
    await sink.open(None)
    with pytest.raises(SinkError, match="WRONGTYPE") as failure:
        await sink.write(results(1))
    assert not failure.value.retryable


@pytest.mark.parametrize(("resume", "code"), [(False, 78), (True, 75)])
async def test_a_server_that_is_away_at_the_start(made, resume, code):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(SinkError, match="can not be reached") as failure:
        await made(url=url).check(None, resume=resume)
    assert (failure.value.retryable, failure.value.exit_code) == (True, code)


async def test_a_certificate_is_checked(client, made, redis, key, tmp_path):
    authority = trustme.CA()

    async def forward(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", redis.port)
        await asyncio.gather(piped(reader, inner_writer), piped(inner_reader, writer))

    async with await asyncio.start_server(
        forward, "127.0.0.1", ssl=serving(authority.issue_cert("127.0.0.1"))
    ) as front:
        url = f"rediss://127.0.0.1:{front.sockets[0].getsockname()[1]}"
        with pytest.raises(SinkError, match="certificate verify failed"):
            await made(url=url).check(None, resume=False)
        sink = made(url=url, ca_file=write_authority(authority, tmp_path))
        await sink.check(None, resume=False)
        await sink.write(results(1))
        await sink.close()
        assert client.xlen(key) == 1
        with pytest.raises(ConfigError, match="ca_file '/nowhere' can not be used: No such file"):
            await made(url=url, ca_file="/nowhere").check(None, resume=False)


async def piped(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_a_missing_driver_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.exceptions", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'redis>="):
        await made().check(None, resume=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "redis://:hidden@a.test"}, "put them into username and password"),
        ({"url": "http://a.test"}, "should be an address such as redis://host:6379/0"),
        ({"url": "redis://a.test/x"}, "should be an address"),
        ({"url": "redis://a.test/0?password=hidden"}, "should be an address"),
        ({"username": "u"}, "has a username but no password"),
    ],
)
def test_settings_that_can_not_be_meant(settings, words):
    with pytest.raises(ValidationError) as caught:
        RedisConfig.model_validate({"url": "redis://a.test", "stream": "s"} | settings)
    message = caught.value.errors()[0]["msg"]
    assert words in message
    assert "hidden" not in message


def test_the_driver_knows_what_is_told_apart():
    assert issubclass(driver.exceptions.OutOfMemoryError, driver.exceptions.ResponseError)
    assert issubclass(driver.exceptions.NoPermissionError, driver.exceptions.ResponseError)
