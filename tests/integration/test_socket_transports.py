"""tcp, tls and udp against real servers: what tutorials get wrong, on both event loops."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import time

import pytest
from batches import run_batch
from origin_process import origin_process
from raw_server import raw_server
from transport_factories import failure, job, socket_transport
from transport_partners.datagrams import DatagramServer, serving_datagrams

from fetcher.config import Config
from fetcher.errors import ErrorKind
from fetcher.model import Receive

BOTH_LOOPS = True
PAUSE = 0.02
TEXT = "Grüße, 世界 🌍\r\n".encode()


def ask(server, scheme="tcp", **fields):
    return job(f"{scheme}://127.0.0.1:{server.port}", **fields)


def saying(*pieces, after=0, pause=PAUSE, until_gone=True):
    """Read so many bytes, then send pieces with pauses between them."""

    async def script(peer):
        await peer.receive(after)
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(pause)
        if until_gone:
            await peer.gone()

    return script


# What is received


async def test_until_the_server_closes():
    script = saying(b"all ", b"of ", b"it", until_gone=False)
    async with raw_server(script) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server))
    assert (response.body, response.body_size, response.wire_size) == (b"all of it", 9, 9)
    assert (response.status, response.http_version, response.method) == (None, None, "SEND")
    assert response.length_unknown
    assert response.sha256 == hashlib.sha256(b"all of it").hexdigest()
    assert response.final_url == f"tcp://127.0.0.1:{server.port}"
    assert 0 < response.timings.connect < response.timings.first_byte
    assert response.timings.tls is None


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_a_delimiter_and_characters_that_are_split_over_reads(size):
    pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    async with raw_server(saying(*pieces, pause=0.002)) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server, receive=Receive(delimiter=b"\r\n")))
    assert response.body == TEXT
    assert not response.length_unknown


async def test_what_comes_after_the_delimiter_is_not_taken():
    async with raw_server(saying(b"one\r\ntwo\r\n")) as server, socket_transport("tcp") as transport:
        assert (await transport.fetch(ask(server, receive=Receive(delimiter=b"\r\n")))).body == b"one\r\n"


@pytest.mark.parametrize("pieces", [[b"1234", b"56"], [b"12", b"34"], [b"123456789"]])
async def test_an_exact_length(pieces):
    async with raw_server(saying(*pieces)) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server, receive=Receive(length=4)))
    assert (response.body, response.length_unknown) == (b"1234", False)


async def test_a_quiet_time_begins_with_the_first_byte():
    async def script(peer):
        await asyncio.sleep(0.7)
        for piece in (b"late, ", b"but ", b"here"):
            await peer.send(piece)
            await asyncio.sleep(PAUSE)
        await peer.gone()

    # Silence that is waited for is no read timeout, however long it is.
    request = {"timeout": {"read": 1.5}}
    async with raw_server(script) as server, socket_transport("tcp", request=request) as transport:
        asked = (ask(server, receive=Receive(quiet=quiet)) for quiet in (0.5, 2.0))
        responses = await asyncio.gather(*map(transport.fetch, asked))
    assert [response.body for response in responses] == [b"late, but here"] * 2
    assert all(response.length_unknown for response in responses)


async def test_the_end_of_the_connection_ends_a_quiet_time():
    async with raw_server(saying(b"done", until_gone=False)) as server, socket_transport("tcp") as transport:
        assert (await transport.fetch(ask(server, receive=Receive(quiet=50.0)))).body == b"done"


async def test_the_section_says_when_answers_are_whole_and_a_job_says_otherwise():
    async with (
        raw_server(saying(b"one\ntwo\n")) as server,
        socket_transport("tcp", receive={"delimiter": "\n"}) as transport,
    ):
        assert (await transport.fetch(ask(server))).body == b"one\n"
        assert (await transport.fetch(ask(server, receive=Receive(length=5)))).body == b"one\nt"


async def test_a_large_answer_arrives_whole_however_slowly_it_is_read(tmp_path):
    piece = bytes(range(256)) * 256

    async def script(peer):
        for _ in range(160):
            await peer.send(piece)

    body = {"store": "file", "path": str(tmp_path / "{sha256}"), "max_size": "100MiB"}
    async with raw_server(script) as server, socket_transport("tcp", body=body) as transport:
        response = await transport.fetch(ask(server))
    assert (tmp_path / response.sha256).read_bytes() == piece * 160
    assert response.sha256 == hashlib.sha256(piece * 160).hexdigest()
    assert response.body is None


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
async def test_a_checksum_is_checked(scheme):
    right, wrong = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (b"hello", b"world"))
    async with (
        raw_server(saying(b"hello", until_gone=False)) as stream,
        serving_datagrams(DatagramServer(lambda data: data)) as datagrams,
        socket_transport(scheme) as transport,
    ):
        asked = ask(datagrams if scheme == "udp" else stream, scheme, body=b"hello", checksum=right)
        assert (await transport.fetch(asked)).body == b"hello"
        asked.checksum = wrong
        assert (await failure(transport, asked)).kind is ErrorKind.CHECKSUM_MISMATCH


# What is sent


async def echo(peer):
    """Answer with everything that was sent, at its end: whoever waits for both must half-close."""
    await peer.send(await peer.rest())


async def test_a_server_that_waits_for_the_end_is_told_of_it():
    async with raw_server(echo) as server, socket_transport("tcp") as transport:
        assert (await transport.fetch(ask(server, body=b"hello"))).body == b"hello"


async def test_who_must_not_be_told_of_the_end_is_not():
    async def script(peer):
        await peer.receive(5)
        ended = asyncio.create_task(peer.gone())
        await asyncio.wait([ended], timeout=0.2)
        await peer.send(b"ended" if ended.done() else b"open")

    async with raw_server(script) as server:
        asked = ask(server, body=b"hello")
        async with socket_transport("tcp", half_close=False) as transport:
            assert (await transport.fetch(asked)).body == b"open"
        async with socket_transport("tcp") as transport:
            assert (await transport.fetch(asked)).body == b"ended"
            asked.receive = Receive(length=4)
            assert (await transport.fetch(asked)).body == b"open"


async def test_a_server_that_hangs_up_at_once_is_not_sent_anything():
    def hang_up(reader, writer):
        writer.transport.abort()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with socket_transport("tcp") as transport:
        kinds = {
            (await failure(transport, job(f"tcp://127.0.0.1:{port}", body=b"hello" * 1000))).kind for _ in range(50)
        }
    listening.close()
    assert kinds <= {ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED}


async def test_a_long_payload_reaches_a_slow_reader_whole():
    payload = bytes(range(256)) * 40_960  # 10 MiB

    async def script(peer):
        received = hashlib.sha256()
        for _ in range(10):
            received.update(await peer.receive(len(payload) // 10))
            await asyncio.sleep(PAUSE)
        await peer.send(received.hexdigest().encode())

    async with raw_server(script) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server, body=payload))
    assert response.body == hashlib.sha256(payload).hexdigest().encode()


async def test_an_answer_may_come_before_all_is_read():
    async def script(peer):
        await peer.receive(5)
        await peer.send(b"enough!")
        await peer.gone()

    payload = b"x" * 32 * 1024 * 1024
    async with raw_server(script) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server, body=payload, receive=Receive(delimiter=b"!")))
    assert response.body == b"enough!"


async def test_both_sides_may_talk_at_once():
    async def script(peer):
        for _ in range(160):
            await peer.send(await peer.receive(65_536))

    payload = bytes(range(256)) * 40_960
    async with raw_server(script) as server, socket_transport("tcp", body={"max_size": "20MiB"}) as transport:
        response = await transport.fetch(ask(server, body=payload, receive=Receive(length=len(payload))))
    assert response.body == payload


async def test_a_quiet_time_begins_when_all_is_sent():
    async def script(peer):
        await peer.send(b"ready ")
        await asyncio.sleep(1.2)
        await peer.receive(len(payload))
        await peer.send(b"done")
        await peer.gone()

    payload = b"x" * 32 * 1024 * 1024
    async with raw_server(script) as server, socket_transport("tcp") as transport:
        response = await transport.fetch(ask(server, body=payload, receive=Receive(quiet=1.0)))
    assert response.body == b"ready done"


@pytest.mark.parametrize(
    ("patience", "kind"), [({"read": 0.3}, ErrorKind.READ_TIMEOUT), ({"total": 0.3}, ErrorKind.TOTAL_TIMEOUT)]
)
async def test_a_server_that_never_reads_is_given_up(patience, kind):
    async def script(peer):
        await given_up.wait()

    given_up = asyncio.Event()
    payload = b"x" * 32 * 1024 * 1024
    async with raw_server(script) as server, socket_transport("tcp", request={"timeout": patience}) as transport:
        error = await failure(transport, ask(server, body=payload))
        given_up.set()
    assert (error.kind, error.sent) == (kind, True)


# Datagrams


async def test_an_empty_datagram_is_one_and_so_is_an_empty_answer():
    class Empty(DatagramServer):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            # The event loops send none.
            with socket.fromfd(self._transport.get_extra_info("socket").fileno(), *kind) as sending:
                sending.sendto(b"", addr)

    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    async with serving_datagrams(Empty(lambda _: None)) as server, socket_transport("udp") as transport:
        response = await transport.fetch(ask(server, "udp"))
    assert (response.body, response.body_size, response.length_unknown) == (b"", 0, False)
    assert server.contacts == 1


async def test_a_payload_that_fits_no_datagram_says_so():
    async with serving_datagrams(DatagramServer(lambda data: data)) as server, socket_transport("udp") as transport:
        error = await failure(transport, ask(server, "udp", body=b"x" * 65_508))
    assert (error.kind, error.sent) == (ErrorKind.INVALID_ROW, False)
    assert "65,507" in error.message


async def test_where_no_datagram_can_be_sent_at_all_is_no_connection():
    async with socket_transport("udp") as transport:
        error = await failure(transport, job("udp://255.255.255.255:9", body=b"hello"))
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_FAILED, False)
    assert error.message == "can not connect to 255.255.255.255:9: permission denied"


async def test_tries_double_their_patience_and_stay_within_the_timeout():
    async with serving_datagrams(DatagramServer(lambda _: None)) as server:
        async with socket_transport("udp", timeout="100ms", tries=3) as transport:
            started = time.monotonic()
            await failure(transport, ask(server, "udp"))
            assert time.monotonic() - started > 0.6  # 0.3 if each had the same
        async with socket_transport("udp", timeout="10s", request={"timeout": {"total": 0.2}}) as transport:
            assert (await failure(transport, ask(server, "udp"))).kind is ErrorKind.TOTAL_TIMEOUT


# Files


FEW_FILES = """
import asyncio, json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
import uvloop
from transport_factories import job, socket_transport
from fetcher.errors import FetchError

section, url = sys.argv[1:]
failed = []

async def fetch(transport, number):
    body = str(number).encode()
    try:
        assert (await transport.fetch(job(url, body=body))).body == body
    except FetchError as error:
        failed.append(error.message)

async def main():
    async with socket_transport(section) as transport:
        await asyncio.gather(*(fetch(transport, number) for number in range(200)))

uvloop.run(main())
print(json.dumps(failed))
"""


@pytest.mark.parametrize("name", ["echo", "datagrams"])
def test_more_jobs_than_files(name):
    with origin_process(sockets=True) as origin:
        url = origin.places[name]
        section = url.partition(":")[0]
        command = [sys.executable, "-c", FEW_FILES, section, url]
        environment = {"PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# As parts of a batch


async def test_jobs_of_all_sockets_in_one_batch(tmp_path):
    async with (
        raw_server(saying(TEXT, until_gone=False)) as stream,
        serving_datagrams(DatagramServer(lambda data: data + b"!")) as datagrams,
    ):
        jobs = [
            {"url": f"tcp://127.0.0.1:{stream.port}", "body": "", "receive": {"delimiter": "\r\n"}},
            {"url": f"udp://127.0.0.1:{datagrams.port}", "body": {"hex": "68656c6c6f"}},
        ]
        records = await run_batch(tmp_path, jobs)
    by_scheme = {record["url"][:3]: record for record in records}
    assert {record["outcome"] for record in records} == {"ok"}
    assert by_scheme["tcp"]["body"] == TEXT.decode()
    assert by_scheme["udp"]["body"] == "hello!"
    assert all("status" not in record or record["status"] is None for record in records)


async def test_every_transport_stores_bodies_in_files_of_one_folder(tmp_path):
    async with (
        raw_server(saying(b"by tcp", until_gone=False)) as stream,
        serving_datagrams(DatagramServer(lambda _: b"by udp")) as datagrams,
    ):
        urls = [f"tcp://127.0.0.1:{stream.port}", f"udp://127.0.0.1:{datagrams.port}"]
        body = {"store": "file", "path": str(tmp_path / "bodies/{sha256}")}
        records = await run_batch(tmp_path, urls, body=body)
    assert {(tmp_path / record["body_path"]).read_text() for record in records} == {"by tcp", "by udp"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"receive": {"length": 3, "quiet": "1s"}}, "has length and quiet; one of them says when an answer is whole"),
        ({"receive": {"delimiter": ""}}, "receive.delimiter is empty"),
        ({"receive": {"delimiter": {"hex": "0g"}}}, "receive.delimiter"),
        ({"receive": {"messages": 3}}, "messages"),
    ],
)
def test_a_wrong_section_says_what_to_write(section, message):
    config = {"sources": [{"type": "inline", "jobs": []}], "sinks": [{"type": "stdout"}], "tcp": section}
    with pytest.raises(ValueError, match="tcp") as caught:
        Config.model_validate(config)
    assert message in json.dumps(caught.value.errors(include_url=False), default=str)
