"""Rows F14 to F19 of the faults: what a TLS connection is trusted with, on both event loops."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import encrypted_key, expired, self_signed, serving, without_intermediate, write_authority
from raw_server import answering, ok, raw_server, saying
from tls_server import answering_and_ending
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.jobs.objects import job_from_mapping
from fetcher.sources.inline import JobConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer

    from fetcher.interfaces import Transport
    from fetcher.model import Job

BOTH_LOOPS = True
RESOLVE = {"*.test": "127.0.0.1"}
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it?"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    return write_authority(authority, tmp_path)


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest, ca_file: str) -> Any:
    """A function that opens a transport which trusts the authority, with the given keys of ``http.tls``."""

    def make(sections: dict[str, Any] | None = None, **tls: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, resolve=RESOLVE, tls={"ca_file": ca_file} | tls, **(sections or {}))

    return make


async def failure(transport: Transport, wanted: Job) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value


# F14, F15: certificates


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("tls_expired", "certificate has expired"),
        ("tls_hostname", "Hostname mismatch"),
        ("tls_self_signed", "self-signed certificate"),
        ("tls_untrusted", "unable to get local issuer certificate"),
    ],
)
async def test_f14_a_bad_certificate_has_its_kind_and_nothing_is_sent(opened, authority, tmp_path, kind, reason):
    context = {
        "tls_expired": lambda: serving(expired(authority, "good.test")),
        "tls_hostname": lambda: serving(authority.issue_cert("other.test")),
        "tls_self_signed": lambda: self_signed("good.test", tmp_path),
        "tls_untrusted": lambda: serving(trustme.CA().issue_cert("good.test")),
    }[kind]()
    async with raw_server(saying(ok()), tls=context) as server, opened() as transport:
        error = await failure(transport, job(server.url(host="good.test")))
    assert (error.kind, error.sent) == (ErrorKind(kind), False)
    assert error.message.startswith("the certificate of good.test")
    assert reason.lower() in error.message.lower()


async def test_f14_a_bad_certificate_is_not_tried_again_with_less(opened, authority):
    context = serving(trustme.CA().issue_cert("good.test"))
    async with raw_server(saying(ok()), tls=context) as server, opened() as transport:
        await failure(transport, job(server.url(host="good.test")))
        # Connections are counted when their handshake is done.
        assert server.connections == 0


async def test_f15_an_incomplete_chain_is_untrusted_and_says_why(opened, authority, tmp_path):
    context = without_intermediate(authority, "good.test", tmp_path)
    async with raw_server(saying(ok()), tls=context) as server, opened() as transport:
        error = await failure(transport, job(server.url(host="good.test")))
    assert error.kind is ErrorKind.TLS_UNTRUSTED
    assert "unable to get local issuer certificate" in error.message
    assert "intermediate" in error.message


async def test_f15_a_whole_chain_is_trusted(opened, authority):
    context = serving(authority.create_child_ca().issue_cert("good.test"))
    async with raw_server(saying(ok()), tls=context) as server, opened() as transport:
        assert (await transport.fetch(job(server.url(host="good.test")))).status == 200


# F16, F17: no TLS at all


async def test_f16_a_handshake_that_stalls(opened):
    async def script(peer: Peer) -> None:
        await peer.gone()

    timeout = {"request": {"timeout": {"connect": 0.1, "read": 30, "total": 60}}}
    async with raw_server(script) as server, opened(timeout) as transport:
        error = await failure(transport, job(f"https://127.0.0.1:{server.port}/"))
    assert (error.kind, error.sent) == (ErrorKind.TLS_TIMEOUT, False)


async def test_f17_plain_http_on_a_tls_port(opened):
    async def script(peer: Peer) -> None:
        await peer.receive(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(f"https://127.0.0.1:{server.port}/"))
    assert (error.kind, error.sent) == (ErrorKind.TLS_PROTOCOL, False)


async def test_f17_tls_on_a_plain_port(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"\x15\x03\x03\x00\x02\x02\x46")  # a fatal alert, as OpenSSL sends it
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.NOT_HTTP


# F18: how it ends


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_f18_an_end_without_close_notify_is_no_end_of_a_body(opened, authority, version):
    context = serving(authority.issue_cert("good.test"), maximum_version=version)
    with answering_and_ending(context, UNTIL_CLOSED, politely=False) as port:
        async with opened() as transport:
            error = await failure(transport, job(f"https://good.test:{port}/"))
    assert (error.kind, error.status) == (ErrorKind.BODY_INCOMPLETE, 200)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_f18_an_end_with_close_notify_is_one(opened, authority, version):
    context = serving(authority.issue_cert("good.test"), maximum_version=version)
    with answering_and_ending(context, UNTIL_CLOSED, politely=True) as port:
        async with opened() as transport:
            response = await transport.fetch(job(f"https://good.test:{port}/"))
    assert (response.body, response.length_unknown) == (b"all of it?", True)


async def test_f18_a_body_with_a_length_needs_no_close_notify(opened, authority):
    context = serving(authority.issue_cert("good.test"))
    with answering_and_ending(context, ok(b"whole"), politely=False) as port:
        async with opened() as transport:
            assert (await transport.fetch(job(f"https://good.test:{port}/"))).body == b"whole"


# F19: what may be configured


@pytest.mark.parametrize(
    "certificate", [lambda ca: expired(ca, "good.test"), lambda _: trustme.CA().issue_cert("other.test")]
)
async def test_f19_a_job_may_take_any_certificate_and_its_record_says_so(opened, authority, certificate):
    context = serving(certificate(authority))
    async with raw_server(answering(ok()), tls=context) as server, opened() as transport:
        response = await transport.fetch(job(server.url(host="good.test"), verify=False))
    assert (response.status, response.verified) == (200, False)


async def test_f19_a_connection_that_was_not_checked_is_for_no_other_job(opened):
    context = serving(trustme.CA().issue_cert("good.test"))
    async with raw_server(answering(ok(), ok(), ok()), tls=context) as server, opened() as transport:
        url = server.url(host="good.test")
        assert not (await transport.fetch(job(url, verify=False))).verified
        assert not (await transport.fetch(job(url, verify=False))).verified
        assert server.connections == 1
        assert (await failure(transport, job(url))).kind is ErrorKind.TLS_UNTRUSTED


async def test_f19_a_batch_may_take_any_certificate_and_a_job_of_it_none_but_good_ones(opened):
    context = serving(trustme.CA().issue_cert("good.test"))
    async with raw_server(answering(ok()), tls=context) as server, opened(verify=False) as transport:
        url = server.url(host="good.test")
        assert not (await transport.fetch(job(url))).verified
        assert (await failure(transport, job(url, verify=True))).kind is ErrorKind.TLS_UNTRUSTED


async def test_f19_a_redirect_of_an_unchecked_job_is_unchecked_and_says_so(opened):
    context = serving(trustme.CA().issue_cert("good.test"))
    async with raw_server(answering(ok()), tls=context) as target, opened() as transport:
        to = target.url(host="good.test")
        moved = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw_server(answering(moved), tls=context) as first:
            response = await transport.fetch(job(first.url(host="good.test"), verify=False))
    assert (response.final_url, response.verified) == (to, False)


async def test_f19_what_was_checked_is_recorded_as_such(opened, authority):
    context = serving(authority.issue_cert("good.test"))
    async with raw_server(answering(ok()), tls=context) as server, opened() as transport:
        assert (await transport.fetch(job(server.url(host="good.test")))).verified


def test_f19_a_rows_verify_is_a_switch():
    assert job_from_mapping("1", {"url": "https://a.test", "verify": False}).verify is False
    assert job_from_mapping("1", {"url": "https://a.test"}).verify is None
    assert JobConfig.model_validate({"url": "https://a.test", "verify": False}).to_job("1").verify is False
    refused = job_from_mapping("1", {"url": "https://a.test", "verify": "no"}).rejected
    assert refused is not None
    assert refused.message == "verify is not true or false"


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[int]:
    """Take part in one handshake that fails, and say why; yield the port. An event loop only hangs up."""

    def serve() -> None:
        accepted, _ = listening.accept()
        with accepted, pytest.raises(ssl.SSLError):
            context.wrap_socket(accepted, server_side=True)
        refused.set()

    refused = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()
    assert refused.is_set()


@pytest.mark.parametrize(
    ("minimum", "spoken"), [(None, ssl.TLSVersion.TLSv1_1), (1.3, ssl.TLSVersion.TLSv1_2), ("1.3", None)]
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_f19_nothing_older_than_tls_1_2_or_what_the_config_says(opened, authority, minimum, spoken):
    tls = {} if minimum is None else {"minimum_version": minimum}
    context = serving(authority.issue_cert("good.test"))
    if spoken is None:
        async with raw_server(answering(ok()), tls=context) as server, opened(**tls) as transport:
            assert (await transport.fetch(job(server.url(host="good.test")))).status == 200
        return
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = spoken
    with refusing(context) as port:
        async with opened(**tls) as transport:
            error = await failure(transport, job(f"https://good.test:{port}/"))
    assert error.kind is ErrorKind.TLS_PROTOCOL
    assert "version" in error.message


def asking_for_certificates(authority: trustme.CA) -> ssl.SSLContext:
    context = serving(authority.issue_cert("good.test"), verify_mode=ssl.CERT_REQUIRED)
    authority.configure_trust(context)
    return context


async def test_f19_a_client_certificate_is_shown(opened, authority, tmp_path):
    certificate, key = encrypted_key(authority.issue_cert("client.test"), "open sesame", tmp_path)
    options = {"client_cert": certificate, "client_key": key, "client_key_password": "open sesame"}
    async with raw_server(answering(ok(), ok()), tls=asking_for_certificates(authority)) as server:
        url = server.url(host="good.test")
        async with opened(**options) as transport:
            assert (await transport.fetch(job(url))).status == 200
            assert (await transport.fetch(job(url, verify=False))).status == 200
        async with opened() as transport:
            # Under TLS 1.3 the client has done its part before the server refuses it.
            refused = await failure(transport, job(url))
    assert refused.kind in {ErrorKind.TLS_PROTOCOL, ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED}


async def broken(opened: Callable[..., AbstractAsyncContextManager[Transport]], **tls: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        async with opened(**tls):
            pass
    assert caught.value.exit_code == 78
    return str(caught.value)


async def test_f19_files_that_can_not_be_used_are_named(opened, authority, tmp_path):
    certificate, key = encrypted_key(authority.issue_cert("client.test"), "open sesame", tmp_path)
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    missing = str(tmp_path / "missing.pem")
    pair = f"http.tls.client_cert {certificate!r} with client_key {key!r} can not be used: "
    assert await broken(opened, ca_file=missing) == (
        f"http.tls.ca_file {missing!r} can not be used: no such file or directory"
    )
    assert await broken(opened, ca_file=str(text)) == (
        f"http.tls.ca_file {str(text)!r} can not be used: there is no certificate in it"
    )
    assert await broken(opened, client_cert=missing) == (
        f"http.tls.client_cert {missing!r} can not be used: no such file or directory"
    )
    wrong = await broken(opened, client_cert=certificate, client_key=key, client_key_password="secret@wrong")
    assert wrong.startswith(pair)
    assert "secret@wrong" not in wrong
    # And OpenSSL does not ask for it on the terminal.
    assert (await broken(opened, client_cert=certificate, client_key=key)).startswith(pair)
    other = tmp_path / "other.key"
    authority.issue_cert("other.test").private_key_pem.write_to_path(other)
    assert "key values mismatch" in await broken(opened, client_cert=certificate, client_key=str(other))
