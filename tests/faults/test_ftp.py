"""ftp and ftps: F1 to F19, F55 to F65 as far as they apply, and what only an FTP server can do wrong."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import expired, self_signed, serving, without_intermediate, write_authority
from dns_server import dns_server
from dnslib import RCODE
from ftp_script import Session, ftp_script
from raw_server import Peer, raw_server, unused_port
from transport_factories import failure, socket_transport

from fetcher.engine.retry import Attempt, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fetcher.model import Job

BOTH_LOOPS = True
ENDLESS = b"x" * 65_536


def job(url: str, **fields: Any) -> Job:
    made = make_job("test", url)
    assert made.rejected is None, made.rejected
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def retried(error: FetchError) -> bool:
    attempt = Attempt(number=1, age=0.0, method="RETR", kind=error.kind, sent=error.sent)
    return decide(RetrySettings(), attempt, lambda: 0.5) is not None


def opened(**sections: Any) -> Any:
    return socket_transport("ftp", **sections)


async def failed(url: str, *, fields: dict[str, Any] | None = None, **sections: Any) -> FetchError:
    async with opened(**sections) as transport:
        return await failure(transport, job(url, **(fields or {})))


# F1 to F6: names


async def test_f01_a_name_of_an_ftp_server_that_does_not_exist_is_not_asked_for_again():
    async with dns_server() as dns:
        error = await failed("ftp://nothing.test/file", http={"dns": {"servers": [dns.address]}})
    assert error.kind is ErrorKind.DNS_NOT_FOUND
    assert "nothing.test" in error.message
    assert not retried(error)


async def test_f02_a_failing_name_server_is_a_reason_to_try_ftp_again():
    async with dns_server(broken=RCODE.SERVFAIL) as dns:
        servers = {"servers": [dns.address], "timeout": "100ms", "tries": 1}
        error = await failed("ftp://broken.test/file", http={"dns": servers})
    assert error.kind is ErrorKind.DNS_FAILURE
    assert retried(error)


async def test_f04_an_ftp_server_is_only_asked_at_addresses_that_are_allowed():
    async with (
        ftp_script(host="127.0.0.2") as server,
        dns_server(mixed=["10.1.2.3", "127.0.0.2"]) as dns,
    ):
        http = {"dns": {"servers": [dns.address]}, "guard": {"allow": ["127.0.0.2"]}}
        async with opened(http=http) as transport:
            server.host = "127.0.0.2"
            response = await transport.fetch(job(server.url(host="mixed.test")))
    assert response.remote_ip == "127.0.0.2"


async def test_f05_the_data_come_from_whom_the_commands_went_to_whatever_the_name_means_by_then():
    addresses = iter([["127.0.0.1"], ["127.0.0.1"]])

    async def changing(_: int) -> list[str]:
        return next(addresses, ["127.0.0.9"])

    async with (
        ftp_script() as server,
        dns_server(changing=changing) as dns,
        opened(http={"dns": {"servers": [dns.address], "cache": 0}}) as transport,
    ):
        response = await transport.fetch(job(server.url(host="changing.test")))
    assert response.body == b"hello"


# F7 to F13: connections


async def test_f07_a_refused_control_connection():
    error = await failed(f"ftp://127.0.0.1:{unused_port()}/file")
    assert error.kind is ErrorKind.CONNECT_REFUSED
    assert not error.sent
    assert retried(error)


async def test_f07_a_refused_data_connection():
    async with ftp_script(EPSV=f"229 come (|||{unused_port()}|)") as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.CONNECT_REFUSED
    assert retried(error)


@contextmanager
def blackhole() -> Iterator[int]:
    """Listen and accept nobody, with a full queue, so that a SYN is not answered."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_f08_a_data_connection_that_nobody_takes_is_a_connect_timeout():
    with blackhole() as port:
        async with ftp_script(EPSV=f"229 come (|||{port}|)") as server:
            error = await failed(server.url(), request={"timeout": {"connect": 0.3}})
            await gone(server)
    assert error.kind is ErrorKind.CONNECT_TIMEOUT


@pytest.mark.parametrize("command", ["USER", "TYPE", "EPSV", "RETR"])
async def test_f09_a_reset_before_the_data(command):
    async def reset(session: Session, _: str) -> None:
        session.peer.reset()

    async with ftp_script(**{command: reset}) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.CONNECTION_RESET
    assert retried(error)


@pytest.mark.parametrize("command", ["banner", "USER", "TYPE", "SIZE", "EPSV"])
async def test_f09_a_reset_right_behind_a_reply(command):
    replies = {"banner": "220 ready", "USER": "331 password", "TYPE": "200 fine", "SIZE": "213 5"}

    async def reset(session: Session, argument: str) -> None:
        await (session.say(replies[command]) if command in replies else session.do_epsv(argument))
        await asyncio.sleep(0)
        session.peer.reset()

    async with ftp_script(**{command: reset}) as server:
        error = await failed(server.url())
    assert error.kind in {ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED, ErrorKind.CONNECT_REFUSED}


async def test_f10_a_reset_in_the_middle_of_the_data():
    async def reset(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        await data.send(b"he")
        data.reset()

    async with ftp_script(RETR=reset) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert error.response is not None
    assert retried(error)


async def test_f12_a_connection_that_was_closed_meanwhile_is_replaced_without_a_word():
    async def closing(session: Session, argument: str) -> None:
        await session.do_retr(argument)
        session.peer.close()

    async with ftp_script(RETR=closing) as server, opened() as transport:
        for number in range(1, 4):
            assert (await transport.fetch(job(server.url()))).body == b"hello"
            assert server.sessions == number


@pytest.mark.parametrize("answer", ["421 too late", None])
async def test_f12_a_connection_that_ends_at_the_next_command_is_replaced_without_a_word(answer):
    async def once(session: Session, argument: str) -> None:
        if server.count("SIZE") == 2:
            if answer is not None:
                await session.say(answer)
            session.peer.close()
        else:
            await session.do_size(argument)

    async with ftp_script(SIZE=once) as server, opened() as transport:
        for _ in range(2):
            assert (await transport.fetch(job(server.url()))).body == b"hello"
        assert server.sessions == 2


@pytest.mark.parametrize("unasked", [b"226 again\r\n", b"421 time is up\r\n", b"hello?\r\n"])
async def test_f13_a_reply_nobody_asked_for_is_no_answer_to_the_next_command(unasked):
    sent = asyncio.Event()

    async def talkative(session: Session, argument: str) -> None:
        await session.do_retr(argument)
        await asyncio.sleep(0)
        await session.peer.send(unasked)
        sent.set()

    async with ftp_script(RETR=talkative) as server, opened() as transport:
        for number in range(1, 4):
            assert (await transport.fetch(job(server.url()))).body == b"hello"
            await sent.wait()
            sent.clear()
            await asyncio.sleep(0.01)  # let it cross the loopback
            assert server.sessions == number


async def test_f13_a_reply_too_many_between_commands_never_names_a_port():
    async with ftp_script(SIZE=b"213 5\r\n229 (|||9|)\r\n") as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BAD_ANSWER


# F14 to F19: TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    return {"resolve": {"*.test": "127.0.0.1"}, "tls": {"ca_file": write_authority(authority, tmp_path)}}


def context_of(kind: str, authority: trustme.CA, folder: Path) -> ssl.SSLContext:
    match kind:
        case "tls_expired":
            return serving(expired(authority, "good.test"))
        case "tls_hostname":
            return serving(authority.issue_cert("other.test"))
        case "tls_self_signed":
            return self_signed("good.test", folder)
    return serving(trustme.CA().issue_cert("good.test"))


@pytest.mark.parametrize("kind", ["tls_expired", "tls_hostname", "tls_self_signed", "tls_untrusted"])
async def test_f14_a_bad_certificate_is_told_no_password(authority, trusting, tmp_path, kind):
    async with ftp_script(tls=context_of(kind, authority, tmp_path)) as server:
        error = await failed(server.url(scheme="ftps", host="good.test", user="me:secret"), http=trusting)
        assert server.commands == ["AUTH TLS"]
        assert server.sessions == 1
    assert error.kind is ErrorKind(kind)
    assert error.message.startswith("the certificate of good.test")


async def test_f14_the_data_connection_shows_the_same_certificate(authority, trusting):
    context, other = serving(authority.issue_cert("good.test")), serving(authority.issue_cert("other.test"))
    # Where a session is gone on with, no certificate is shown; that proves as much.
    other.options |= ssl.OP_NO_TICKET
    other.num_tickets = 0

    async def swapped(session: Session, argument: str) -> None:
        session.server.tls = other
        await session.do_retr(argument)

    async with ftp_script(tls=context, RETR=swapped) as server:
        error = await failed(server.url(scheme="ftps", host="good.test"), http=trusting)
    assert error.kind is ErrorKind.TLS_HOSTNAME


async def test_f15_an_incomplete_chain_says_why(authority, trusting, tmp_path):
    async with ftp_script(tls=without_intermediate(authority, "good.test", tmp_path)) as server:
        error = await failed(server.url(scheme="ftps", host="good.test"), http=trusting)
    assert error.kind is ErrorKind.TLS_UNTRUSTED
    assert "intermediate" in error.message


async def test_f16_a_handshake_that_stalls(trusting):
    async def stalling(session: Session, _: str) -> None:
        await session.say("234 begin")
        await session.peer.gone()

    async with ftp_script(AUTH=stalling) as server:
        sections = {"http": trusting, "request": {"timeout": {"connect": 0.2}}}
        error = await failed(server.url(scheme="ftps", host="good.test"), **sections)
        await gone(server)
    assert error.kind is ErrorKind.TLS_TIMEOUT


async def test_f16_a_handshake_for_the_data_that_stalls(authority, trusting):
    async def stalling(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        assert session._data is not None
        await (await session._data).gone()

    async with ftp_script(tls=serving(authority.issue_cert("good.test")), RETR=stalling) as server:
        sections = {"http": trusting, "request": {"timeout": {"connect": 0.3}}}
        error = await failed(server.url(scheme="ftps", host="good.test"), **sections)
        await gone(server)
    assert error.kind is ErrorKind.TLS_TIMEOUT


async def say_it_in_the_clear(session: Session, _: str) -> None:
    await session.say("234 begin")
    await session.peer.receive(1)
    await session.say("220 not I")


@pytest.mark.parametrize("answer", ["500 what", "530 log in first", say_it_in_the_clear])
async def test_f17_a_server_without_tls_is_told_no_password(trusting, answer):
    async with ftp_script(AUTH=answer) as server:
        error = await failed(server.url(scheme="ftps", host="good.test", user="me:secret"), http=trusting)
        assert not server.count("USER")
    assert error.kind is ErrorKind.TLS_PROTOCOL


async def test_f17_a_server_that_will_not_protect_data_is_asked_for_none(authority, trusting):
    async with ftp_script(tls=serving(authority.issue_cert("good.test")), PROT="536 no") as server:
        error = await failed(server.url(scheme="ftps", host="good.test"), http=trusting)
        assert not server.count("RETR")
    assert error.kind is ErrorKind.TLS_PROTOCOL


async def test_f17_what_was_said_before_tls_is_not_believed_within_it(authority, trusting):
    async def injecting(session: Session, _: str) -> None:
        session.peer._writer.write(b"234 begin\r\n230 in already\r\n")
        await session.begin_tls()

    async with ftp_script(tls=serving(authority.issue_cert("good.test")), AUTH=injecting) as server:
        error = await failed(server.url(scheme="ftps", host="good.test", user="me:secret"), http=trusting)
        assert not server.count("USER")
    assert error.kind in {ErrorKind.BAD_ANSWER, ErrorKind.TLS_PROTOCOL}


async def test_f17_tls_at_once_on_the_port_for_it(authority, trusting, monkeypatch):
    async with ftp_script(tls=serving(authority.issue_cert("good.test")), implicit=True) as server:
        monkeypatch.setattr("fetcher.transports.ftp.targets._IMPLICIT_PORT", server.port)
        async with opened(http=trusting) as transport:
            response = await transport.fetch(job(server.url(scheme="ftps", host="good.test")))
        assert not server.count("AUTH")
    assert response.body == b"hello"
    assert response.timings.tls is not None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_f17_the_data_go_on_with_the_session_of_the_commands(authority, trusting, version):
    # Servers refuse the data otherwise (vsftpd: require_ssl_reuse), as they might be taken by somebody else.
    reused: list[bool] = []

    async def noting(session: Session, argument: str) -> None:
        await session.do_retr(argument)
        reused.append(session.data_tls.session_reused)

    context = serving(authority.issue_cert("good.test"), maximum_version=version)
    async with ftp_script(tls=context, RETR=noting) as server, opened(http=trusting) as transport:
        for _ in range(3):
            await transport.fetch(job(server.url(scheme="ftps", host="good.test")))
    assert reused == [True, True, True]


async def test_f17_data_that_are_reset_before_tls(authority, trusting):
    async def resetting(session: Session, _: str) -> None:
        assert session._data is not None
        (await session._data).reset()
        await asyncio.sleep(0.02)
        await session.say("150 here it comes")

    async with ftp_script(tls=serving(authority.issue_cert("good.test")), RETR=resetting) as server:
        error = await failed(server.url(scheme="ftps", host="good.test"), http=trusting)
    assert error.kind is ErrorKind.CONNECTION_RESET


async def test_f17_why_a_server_ends_the_handshake_for_the_data_is_told(authority, trusting):
    async def refusing(session: Session, _: str) -> None:
        await session.peer.send(b"150 here it comes\r\n522 the session has to be resumed\r\n")
        assert session._data is not None
        await asyncio.sleep(0)
        (await session._data).close()

    async with ftp_script(tls=serving(authority.issue_cert("good.test")), RETR=refusing) as server:
        error = await failed(server.url(scheme="ftps", host="good.test"), http=trusting)
    assert error.kind is ErrorKind.FTP_5XX
    assert "session has to be resumed" in error.message


@pytest.mark.parametrize("known", [True, False])
async def test_f18_data_that_end_without_an_end_of_tls_are_whole_only_if_their_size_is_known(
    authority, trusting, known
):
    async def cutting(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        await data.send(b"hello")
        # Past TLS, whose end is not said.
        transport = data._writer.transport
        sock = transport.get_extra_info("socket")
        while transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        with socket.socket(fileno=socket.dup(sock.fileno())) as bare:
            bare.shutdown(socket.SHUT_WR)
        await session.say("226 done")

    answers = {} if known else {"SIZE": "500 unknown"}
    context = serving(authority.issue_cert("good.test"))
    async with ftp_script(tls=context, RETR=cutting, **answers) as server, opened(http=trusting) as transport:
        wanted = job(server.url(scheme="ftps", host="good.test"))
        if known:
            assert (await transport.fetch(wanted)).body == b"hello"
        else:
            assert (await failure(transport, wanted)).kind is ErrorKind.BODY_INCOMPLETE


async def test_f19_without_verification_the_record_says_so_and_the_connection_is_its_own(trusting, authority):
    async with ftp_script(tls=serving(authority.issue_cert("good.test"))) as server, opened(http=trusting) as transport:
        wanted = server.url(scheme="ftps", host="good.test")
        assert not (await transport.fetch(job(wanted, verify=False))).verified
        assert (await transport.fetch(job(wanted))).verified
        assert server.sessions == 2


# F20 and others: what tells that a transfer is whole


async def test_f20_a_transfer_that_ends_too_soon_is_incomplete_whatever_the_server_says():
    async with ftp_script(SIZE="213 6") as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert "5 of 6" in error.message
    assert retried(error)


async def test_f20_a_transfer_that_goes_on_for_too_long_is_another_file():
    async with ftp_script(SIZE="213 4") as server:
        assert (await failed(server.url())).kind is ErrorKind.BODY_INCOMPLETE


async def test_f20_without_size_the_opening_reply_tells_how_much_there_is():
    async def announcing(session: Session, _: str) -> None:
        await session.say("150 Opening BINARY mode data connection for file (6 bytes).")
        await (await session.data()).send(b"hello")
        session.close_data()
        await session.say("226 done")

    async with ftp_script(SIZE="550 no", RETR=announcing) as server:
        assert (await failed(server.url())).kind is ErrorKind.BODY_INCOMPLETE


@pytest.mark.parametrize("last", ["426 broken off", "451 my disk", "550 gone", "421 closing"])
async def test_f20_a_transfer_that_is_not_confirmed_is_incomplete(last):
    async with ftp_script(RETR=lambda session, _: session.transfer(b"hello", last)) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert last.split()[0] in error.message


async def test_f20_a_server_that_goes_before_it_confirms_has_sent_nothing_whole():
    async def leaving(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        await (await session.data()).send(b"hello")
        session.close_data()
        session.peer.close()

    async with ftp_script(RETR=leaving) as server:
        assert (await failed(server.url())).kind is ErrorKind.BODY_INCOMPLETE


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\x16\x03\r\n", b"22\r\n", b"999 x\r\n"],
)
async def test_f26_what_is_no_ftp_has_a_kind(said):
    async with ftp_script(banner=said) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BAD_ANSWER
    assert error.message.isprintable()


@pytest.mark.parametrize("endless", [b"220-more\r\n", b"220-", b"x" * 1000])
async def test_f26_a_reply_without_an_end_is_bounded(endless):
    async def talking(session: Session, _: str) -> None:
        while True:
            await session.peer.send(endless * 100)

    async with ftp_script(banner=talking) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BAD_ANSWER


async def test_f26_replies_of_several_lines_are_read_to_their_end():
    banner = b"220-hello\r\n 220 is no end\r\n221 nor this\r\n220\r\n"
    async with ftp_script(banner=banner, TYPE=b"200-so\n200-or\n200 so\n") as server, opened() as transport:
        response = await transport.fetch(job(server.url()))
    assert response.body == b"hello"


@pytest.mark.parametrize("command", ["", "USER", "PASS", "TYPE", "EPSV", "RETR"])
async def test_f27_a_connection_that_is_closed_without_a_word(command):
    async def closing(session: Session, _: str) -> None:
        session.peer.close()

    async with ftp_script(banner=closing) if not command else ftp_script(**{command: closing}) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.SERVER_DISCONNECTED
    assert retried(error)


# Refusals


@pytest.mark.parametrize(("reply", "kind"), [("450 busy", "ftp_4xx"), ("550 no such file", "ftp_5xx")])
async def test_f60_a_refused_file_is_tried_again_if_that_may_help(reply, kind):
    async with ftp_script(RETR=reply) as server, opened() as transport:
        for _ in range(2):
            error = await failure(transport, job(server.url()))
            assert error.kind is ErrorKind(kind)
            assert reply in error.message
        assert server.sessions == 1
    assert retried(error) is (kind == "ftp_4xx")


@pytest.mark.parametrize("where", ["banner", "USER", "PASS", "RETR"])
async def test_f60_a_server_that_is_full_is_tried_again(where):
    async with ftp_script(**{where: "421 too many users"}) as server:
        error = await failed(server.url())
        await gone(server)
    assert error.kind is ErrorKind.FTP_4XX
    assert "too many users" in error.message
    assert retried(error)


async def test_f60_a_login_that_was_good_before_meets_a_full_server():
    async def full(session: Session, _: str) -> None:
        await session.say("230 in" if server.sessions == 1 else "530 too many connections from your address")

    waiting = asyncio.Event()

    async def slow(session: Session, argument: str) -> None:
        await waiting.wait()
        await session.do_retr(argument)

    async with ftp_script(PASS=full, RETR=slow) as server, opened() as transport:
        first = asyncio.create_task(transport.fetch(job(server.url())))
        while not server.count("RETR"):  # noqa: ASYNC110  the script has no event for it
            await asyncio.sleep(0.001)
        error = await failure(transport, job(server.url()))
        waiting.set()
        assert (await first).body == b"hello"
    assert error.kind is ErrorKind.FTP_4XX
    assert retried(error)


@pytest.mark.parametrize("reply", ["530 no", "430 no", "332 account, please", "500 what"])
async def test_f64_a_refused_login_is_not_hammered(reply):
    async with ftp_script(PASS=reply) as server, opened() as transport:
        wanted = job(server.url(user="me:secret"))
        errors = await asyncio.gather(*(failure(transport, wanted) for _ in range(10)))
        tried = server.count("PASS")
    assert {error.kind for error in errors} == {ErrorKind.AUTH_FAILED}
    assert tried == 1
    assert not retried(errors[0])
    assert all("secret" not in error.message for error in errors)


# F55 to F65: sizes and time


@pytest.mark.parametrize("overflow", ["fail", "truncate"])
async def test_f55_an_endless_file_stops_at_the_cap(overflow):
    async def endless(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        while True:
            await data.send(ENDLESS)

    body = {"max_size": "1MiB", "overflow": overflow}
    async with ftp_script(SIZE="500 unknown", RETR=endless) as server, opened(body=body) as transport:
        if overflow == "fail":
            assert (await failure(transport, job(server.url()))).kind is ErrorKind.BODY_TOO_LARGE
        else:
            response = await transport.fetch(job(server.url()))
            assert (response.truncated, response.body_size) == (True, 1024 * 1024)
        await gone(server)


async def test_f55_an_endless_listing_stops_at_the_cap():
    async def endless(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        while True:
            await data.send(b"type=file;size=1; name\r\n" * 1000)

    async with ftp_script(MLSD=endless) as server:
        error = await failed(server.url("pub/"), body={"max_size": "100KiB"})
        await gone(server)
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_f55_a_line_of_a_listing_without_an_end_is_bounded():
    async def endless(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        while True:
            await data.send(b"type=file; " + ENDLESS)

    async with ftp_script(MLSD=endless) as server:
        assert (await failed(server.url("pub/"))).kind is ErrorKind.BAD_ANSWER


async def test_f56_what_is_too_long_says_how_long():
    async with ftp_script(b"x" * 1001) as server, opened(body={"max_size": 1000}) as transport:
        error = await failure(transport, job(server.url()))
    assert error.kind is ErrorKind.BODY_TOO_LARGE
    assert error.response.content_length == 1001


@pytest.mark.parametrize("command", ["banner", "USER", "EPSV", "RETR"])
async def test_f57_silence_is_a_read_timeout(command):
    async def silent(session: Session, _: str) -> None:
        await session.peer.gone()

    async with ftp_script(**{command: silent}) as server:
        error = await failed(server.url(), request={"timeout": {"read": 0.15}})
        await gone(server)
    assert error.kind is ErrorKind.READ_TIMEOUT
    assert retried(error)


async def test_f57_a_confirmation_that_never_comes_is_a_read_timeout():
    async def silent(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        await (await session.data()).send(b"hello")
        session.close_data()
        await session.peer.gone()

    async with ftp_script(RETR=silent) as server:
        error = await failed(server.url(), request={"timeout": {"read": 0.15}})
        await gone(server)
    assert error.kind is ErrorKind.READ_TIMEOUT


async def test_f58_a_drip_is_too_slow():
    async def dripping(session: Session, _: str) -> None:
        await session.say("150 here it comes")
        data = await session.data()
        while True:
            await data.send(b"x")
            await asyncio.sleep(0.02)

    async with ftp_script(b"x" * 100_000, RETR=dripping) as server:
        error = await failed(server.url(), request={"min_rate": 1000, "min_rate_span": 0.5})
        await gone(server)
    assert error.kind is ErrorKind.TOO_SLOW


async def test_f65_no_attempt_outlasts_the_deadline_of_its_job():
    async def silent(session: Session, _: str) -> None:
        await session.peer.gone()

    async with ftp_script(EPSV=silent) as server, opened() as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url()), 0.2)
        await gone(server)
    assert caught.value.kind is ErrorKind.DEADLINE


# F76, F77: places that a server must not send anybody to


async def _nobody(peer: Peer) -> None:
    await peer.send(b"came in")


@pytest.mark.parametrize(
    "reply", ["227 come (169,254,169,254,{0},{1})", "227 come (127,0,0,3,{0},{1})", "227 =127,0,0,3,{0},{1}"]
)
async def test_f77_the_address_of_a_passive_reply_is_not_gone_to(reply):
    async def bouncing(session: Session, _: str) -> None:
        port = await session.listen()
        await session.say(reply.format(port // 256, port % 256))

    async with ftp_script(EPSV="500 unknown", PASV=bouncing) as server, opened() as transport:
        assert (await transport.fetch(job(server.url()))).body == b"hello"


async def test_f77_a_passive_reply_with_the_address_of_somebody_else_opens_no_door_there():
    async with raw_server(_nobody, host="127.0.0.3") as other:
        there = f"227 come (127,0,0,3,{other.port // 256},{other.port % 256})"
        async with ftp_script(EPSV="500 unknown", PASV=there) as server:
            error = await failed(server.url())
        assert error.kind is ErrorKind.CONNECT_REFUSED
        assert not other.connections


@pytest.mark.parametrize("port", [0, 1, 22, 25, 1023, 65_536, 99_999])
@pytest.mark.parametrize("how", ["EPSV", "PASV"])
async def test_f77_a_passive_port_of_another_service_is_not_gone_to(how, port):
    answers = {"EPSV": f"229 come (|||{port}|)"}
    if how == "PASV":
        answers = {"EPSV": "500 unknown", "PASV": f"227 come (127,0,0,1,{port // 256},{port % 256})"}
    async with ftp_script(**answers) as server:
        error = await failed(server.url())
    assert error.kind is ErrorKind.BAD_ANSWER


@pytest.mark.parametrize("said", ["229 come", "229 (||||)", "229 (|1|127.0.0.1|99|)", "229 (!!!9!)", "200 fine"])
async def test_f77_a_passive_reply_that_names_no_port(said):
    async with ftp_script(EPSV=said) as server:
        assert (await failed(server.url())).kind is ErrorKind.BAD_ANSWER


async def test_f77_a_blocked_server_hears_nothing():
    async with ftp_script() as server:
        error = await failed(server.url(), http={"guard": True})
        assert not server.sessions
    assert error.kind is ErrorKind.BLOCKED


async def test_f79_ports_that_a_url_may_name_do_not_bind_the_data():
    async with ftp_script() as server:
        http = {"guard": {"allow": ["127.0.0.0/8"], "ports": [server.port]}}
        async with opened(http=http) as transport:
            assert (await transport.fetch(job(server.url()))).body == b"hello"
        assert (await failed(f"ftp://127.0.0.1:{unused_port()}/x", http=http)).kind is ErrorKind.BLOCKED


# F100, F102: injection


@pytest.mark.parametrize("path", ["a%0D%0ADELE%20b", "a%0Ab", "a%0D", "%00", "pub%0D%0A/", "a%FF"])
async def test_f100_the_end_of_a_line_in_a_path_is_refused_before_anything_is_sent(path):
    async with ftp_script() as server:
        error = await failed(server.url(path))
        assert not server.sessions
    assert (error.kind, error.sent) == (ErrorKind.INVALID_URL, False)


@pytest.mark.parametrize("user", ["me%0D%0ADELE%20b:x", "me:x%0Ay", "me:%00"])
async def test_f100_the_end_of_a_line_in_a_login_is_refused_before_anything_is_sent(user):
    made = make_job("test", f"ftp://{user}@127.0.0.1:1/file")
    if made.rejected is not None:
        return
    async with ftp_script() as server:
        made.url = server.url()
        async with opened() as transport:
            error = await failure(transport, made)
        assert not server.sessions
    assert (error.kind, error.sent) == (ErrorKind.INVALID_ROW, False)


async def test_f100_a_method_that_is_no_command_for_data_is_refused():
    async with ftp_script() as server:
        error = await failed(server.url(), fields={"method": "DELE"})
        assert not server.sessions
    assert error.kind is ErrorKind.INVALID_ROW


async def test_f102_control_characters_of_a_reply_are_escaped():
    async with ftp_script(RETR=b"550 \x1b[31mred\x07 \xff\xe2\x80\xae\r\n") as server:
        error = await failed(server.url())
    assert error.message.isprintable()
    assert re.search(r"550 \\x1b\[31mred", error.message)


async def test_f102_a_long_reply_is_cut():
    async with ftp_script(RETR=b"550 " + b"x" * 10_000 + b"\r\n") as server:
        assert len((await failed(server.url())).message) < 300


async def test_f102_names_of_a_listing_are_data():
    lines = b'type=file;size=1; ../../etc/passwd\r\ntype=file; \x1b[31m\xff"\\\r\n'
    async with ftp_script(lines, MLSD=lambda session, _: session.transfer(lines)) as server, opened() as transport:
        response = await transport.fetch(job(server.url("pub/")))
    assert [entry["name"] for entry in json.loads(response.body)] == ["../../etc/passwd", '\x1b[31m\\xff"\\']


async def gone(server: Any) -> None:
    """Wait until the server sees nobody any more."""
    async with asyncio.timeout(10):
        while server.open:  # noqa: ASYNC110  the server may be anywhere
            await asyncio.sleep(0.005)
