"""F70 to F79: places that a request must not reach. A server at every address of this machine counts who came in."""

from __future__ import annotations

import aiohttp
import pytest
from dns_server import dns_server
from open_doors import open_doors
from proxy_process import proxy_process
from raw_server import ok
from transport_factories import HTTP_EXCHANGES, http_transport, job
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.guard import Guard, GuardSettings
from fetcher.jobs.intake import make_job
from fetcher.outbound import CheckedConnector, guarded_session
from fetcher.transports.http.exchange import Hop, Lane
from fetcher.transports.http.tracing import HopTrace

ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.1"
NAMES = {"good.test": ALLOWED, "bad.test": FORBIDDEN}
METADATA = ("169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200")


@pytest.fixture(params=HTTP_EXCHANGES)
def exchange(request):
    return request.param


async def fetch_refused(transport, url):
    with pytest.raises(FetchError) as caught:
        await transport.fetch(job(url))
    return caught.value


def bracketed(address):
    return f"[{address}]" if ":" in address else address


def redirecting(location):
    """Answer the path ``/go`` by a redirect, and any other by 200."""

    def answer(head):
        if head.startswith(b"GET /go "):
            return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        return ok()

    return answer


# F70


@pytest.mark.parametrize("target", ["127.0.0.1", "bad.test", "[::ffff:127.0.0.1]", "0x7f.1"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_f70_a_proxy_is_not_asked_for_a_blocked_target(exchange, target, scheme):
    async with open_doors() as doors:
        lane = Lane(proxy=URL(f"http://{ALLOWED}:{doors.port}"))
        async with http_transport(exchange, resolve=NAMES, guard={"allow": [ALLOWED]}) as transport:
            url = make_job("1", f"{scheme}://{target}:81/").url
            with pytest.raises(FetchError) as caught:
                await _send(transport, url, lane)
        assert caught.value.kind is ErrorKind.BLOCKED
        assert not caught.value.sent
        assert not doors.entered


async def test_f70_a_proxy_itself_has_to_be_allowed(exchange):
    async with open_doors() as doors:
        lane = Lane(proxy=URL(f"http://{FORBIDDEN}:{doors.port}"))
        async with http_transport(exchange, resolve=NAMES, guard={"allow": [ALLOWED]}) as transport:
            with pytest.raises(FetchError) as caught:
                await _send(transport, "http://good.test/", lane)
            assert caught.value.kind is ErrorKind.BLOCKED
            assert not doors.entered
        async with http_transport(exchange, resolve=NAMES, guard={"allow": [ALLOWED, FORBIDDEN]}) as transport:
            answer = await _send(transport, "http://good.test/", lane)
            answer.close()
        assert doors.entered == {FORBIDDEN: 1}


async def test_f70_the_addresses_for_a_proxy_that_takes_addresses_are_the_checked_ones(exchange):
    async with dns_server(mixed=[FORBIDDEN, ALLOWED]) as dns:
        settings = {"servers": [dns.address]}
        async with http_transport(exchange, dns=settings, guard={"allow": [ALLOWED]}) as transport:
            connector = transport._session.connector
            assert await connector.check_target("mixed.test", 80) == [ALLOWED]
            with pytest.raises(FetchError, match="blocked"):
                await connector.check_target("127.0.0.1", 80)


@pytest.fixture(scope="module")
def proxy():
    with proxy_process() as running:
        yield running


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_f70_a_real_proxy_connects_to_nothing_that_is_blocked(proxy, scheme):
    guard = {"allow": ["127.0.0.1", ALLOWED]}
    names = {"good.test": ALLOWED, "inner.test": "127.0.0.3"}
    async with open_doors() as doors:
        # A proxy of HTTP resolves names by itself, and knows none of these; one of SOCKS is given what was checked.
        good = ALLOWED if scheme == "http" else "good.test"
        settings = {"proxy": proxy.url(scheme), "resolve": names}
        async with http_transport("connection", **settings, guard=guard) as transport:
            assert (await transport.fetch(job(f"http://{good}:{doors.port}/"))).status == 200
            for inner in ("127.0.0.3", "inner.test", "[::ffff:127.0.0.3]"):
                error = await fetch_refused(transport, f"http://{inner}:{doors.port}/")
                assert error.kind is ErrorKind.BLOCKED
                assert not error.sent
        assert doors.entered == {ALLOWED: 1}
        async with http_transport("connection", **settings) as transport:
            await transport.fetch(job(f"http://127.0.0.3:{doors.port}/"))
        assert doors.entered["127.0.0.3"] == 1


async def _send(transport, url, lane):
    hop = Hop("GET", url, transport._headers, None, transport._timeout, lane)
    return await transport._means.exchange.send(hop, HopTrace())


# F71 to F74: spellings

NUMBERS = [
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "017700000001",
    "0177.0.0.1",
    "127.1",
    "127.0.1",
    "0x7f.0.0x0.01",
    "127.0.0.1.",
    "00000000000000000000000000000177.0.0.1",
]
FULLWIDTH = {code: code - 0x20 + 0xFF00 for code in range(0x21, 0x7F)}
CIRCLED = {ord("0"): 0x24EA} | {ord("1") + index: 0x2460 + index for index in range(9)}
BOLD = {ord("0") + index: 0x1D7CE + index for index in range(10)}
IDEOGRAPHIC_FULL_STOP = {ord("."): 0x3002}
OTHER_DIGITS = [
    "127.0.0.1".translate(FULLWIDTH),
    "127.0.0.1".translate(CIRCLED),
    "127.0.0.1".translate(BOLD),
    "127.0.0.1".translate(IDEOGRAPHIC_FULL_STOP),
    "0x7f.1".translate(IDEOGRAPHIC_FULL_STOP),
    "0x7f.1".translate(FULLWIDTH),
    "2130706433".translate(FULLWIDTH),
]


async def check_spelling(exchange, spelling):
    """Without a guard the spelling leads to 127.0.0.1, and its record says so; with one nobody comes in."""
    async with open_doors() as doors:
        made = make_job("1", f"http://{spelling}:{doors.port}/x")
        assert made.rejected is None
        assert (made.url, made.host) == (f"http://127.0.0.1:{doors.port}/x", "127.0.0.1")
        async with http_transport(exchange) as transport:
            await transport.fetch(made)
        assert doors.entered == {"127.0.0.1": 1}
        assert doors.hosts == [f"127.0.0.1:{doors.port}"]
        async with http_transport(exchange, guard=True) as transport:
            error = await fetch_refused(transport, made.url)
            assert error.kind is ErrorKind.BLOCKED
            assert not error.sent
            assert "127.0.0.0/8: loopback" in error.message
            assert "http.guard.allow" in error.message
        assert doors.entered == {"127.0.0.1": 1}


@pytest.mark.parametrize("spelling", NUMBERS)
async def test_f71_a_number_is_the_ipv4_address_that_it_means(exchange, spelling):
    await check_spelling(exchange, spelling)


@pytest.mark.parametrize("spelling", NUMBERS)
async def test_f71_a_number_that_came_past_the_intake_leads_nowhere(exchange, spelling):
    async with open_doors() as doors, dns_server() as dns:
        async with http_transport(exchange, dns={"servers": [dns.address]}, guard=True) as transport:
            error = await fetch_refused(transport, f"http://{spelling}:{doors.port}/")
        assert error.kind in {ErrorKind.BLOCKED, ErrorKind.INVALID_URL, ErrorKind.DNS_NOT_FOUND}
        assert not error.sent
        assert not doors.entered


@pytest.mark.parametrize("host", ["1.2.3.4.5", "0x100000000", "256.1", "1.2.3.256", "08.1", "127.0.0.0x1g.1", "a.0x4"])
def test_f71_a_number_that_is_no_ipv4_address_is_no_host(host):
    made = make_job("1", f"http://{host}/")
    assert made.rejected.kind is ErrorKind.INVALID_URL
    assert "ends in a number" in made.rejected.message or "too large" in made.rejected.message


@pytest.mark.parametrize("spelling", OTHER_DIGITS)
async def test_f73_digits_of_other_alphabets_are_digits(exchange, spelling):
    await check_spelling(exchange, spelling)


@pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:7f00:1"])
async def test_f72_an_ipv4_mapped_address_is_its_ipv4_address(exchange, address):
    async with open_doors() as doors:
        url = f"http://[{address}]:{doors.port}/"
        async with http_transport(exchange) as transport:
            await transport.fetch(job(url))
        assert doors.entered == {"127.0.0.1": 1}  # it does lead there
        async with http_transport(exchange, guard={"allow": [ALLOWED]}) as transport:
            assert (await fetch_refused(transport, url)).kind is ErrorKind.BLOCKED
            await transport.fetch(job(f"http://[::ffff:{ALLOWED}]:{doors.port}/"))
        assert doors.entered == {"127.0.0.1": 1, ALLOWED: 1}


@pytest.mark.parametrize(
    "address",
    [
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::1",
        "2001:0:808:808:0:0:80ff:fffe",
        "fe80::1%lo",
        "::1%1",
        "2606:4700::5efe:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "fec0::1",
        "fc00::1",
    ],
)
async def test_f72_an_address_within_another_is_unwrapped(exchange, address):
    async with http_transport(exchange, resolve={"a.test": address}, guard=True) as transport:
        for host in ("a.test", f"[{address.replace('%', '%25')}]"):
            error = await fetch_refused(transport, f"http://{host}/")
            assert error.kind is ErrorKind.BLOCKED
            assert not error.sent


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1"])
async def test_f74_addresses_of_nobody_or_of_everybody_are_blocked(exchange, address):
    async with open_doors() as doors:
        async with http_transport(exchange, guard=True) as transport:
            error = await fetch_refused(transport, f"http://{bracketed(address)}:{doors.port}/")
        assert error.kind is ErrorKind.BLOCKED
        assert not error.sent
        assert not doors.entered


async def test_f74_the_unspecified_address_would_have_been_this_machine(exchange):
    async with open_doors() as doors, http_transport(exchange) as transport:
        await transport.fetch(job(f"http://0.0.0.0:{doors.port}/"))
        assert sum(doors.entered.values()) == 1


# F75

TRICKS = [
    ("http://good.test:{port}@127.0.0.1:{port}/", "127.0.0.1"),
    ("http://good.test%00@127.0.0.1:{port}/", "127.0.0.1"),
    ("http://good.test%2f@127.0.0.1:{port}/", "127.0.0.1"),
    ("http://127.0.0.1:{port}@good.test:{port}/", "good.test"),
    ("http://127.0.0.1%2f@good.test:{port}/", "good.test"),
    ("http://good.test:{port}#@127.0.0.1:{port}/", "good.test"),
    ("http://good.test:{port}?@127.0.0.1:{port}/", "good.test"),
    ("http://good.test:{port}/@127.0.0.1:{port}/", "good.test"),
    ("http://good.test:{port}/\\@127.0.0.1:{port}/", "good.test"),
    ("http://127.0.0.1:{port}\\@good.test:{port}/", None),
    ("http://good.test:{port}\\@127.0.0.1:{port}/", None),
    ("http://good.test\\.127.0.0.1:{port}/", None),
    ("http:\\\\127.0.0.1:{port}/", None),
    ("http:/\\127.0.0.1:{port}/", None),
    ("http:///127.0.0.1:{port}/", None),
    ("http:127.0.0.1:{port}/", None),
    ("http://good.test\t@127.0.0.1:{port}/", None),
    ("http://127.0.0.1\r\n@good.test:{port}/", None),
    ("http://%31%32%37.0.0.1:{port}/", None),
    ("http://127.0.0.1%00.good.test:{port}/", None),
]


@pytest.mark.parametrize(("trick", "host"), TRICKS)
async def test_f75_the_host_that_is_checked_is_connected_to(exchange, trick, host):
    async with open_doors() as doors:
        made = make_job("1", trick.format(port=doors.port))
        if host is None:
            assert made.rejected.kind is ErrorKind.INVALID_URL
            return
        assert made.host == host
        async with http_transport(exchange, resolve=NAMES) as transport:
            await transport.fetch(made)
        assert doors.entered == {NAMES.get(host, host): 1}
        assert doors.hosts == [f"{host}:{doors.port}"]
        async with http_transport(exchange, resolve=NAMES, guard={"allow": [ALLOWED]}) as transport:
            if host == "good.test":
                await transport.fetch(made)
            else:
                assert (await fetch_refused(transport, made.url)).kind is ErrorKind.BLOCKED
        assert doors.entered[FORBIDDEN] == (host != "good.test")


# F76


@pytest.mark.parametrize("allow", [[], ["0.0.0.0/0", "::/0"]])
@pytest.mark.parametrize("address", METADATA)
async def test_f76_no_network_that_is_allowed_lets_metadata_through(exchange, address, allow):
    async with http_transport(exchange, resolve={"m.test": address}, guard={"allow": allow}) as transport:
        for host in ("m.test", bracketed(address)):
            error = await fetch_refused(transport, f"http://{host}/latest/meta-data/")
            assert error.kind is ErrorKind.BLOCKED
            assert "metadata" in error.message
            assert not error.sent


@pytest.mark.parametrize("address", METADATA)
def test_f76_metadata_is_allowed_by_its_very_address(address):
    assert GuardSettings(allow=[address]).build().refusal(address) is None


# F77

LOCATIONS = ["127.0.0.1", "bad.test", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "x@127.0.0.1"]


@pytest.mark.parametrize("host", LOCATIONS)
async def test_f77_a_redirect_is_checked_where_it_leads(exchange, host):
    async with open_doors() as doors:
        doors.answer = redirecting(f"http://{host}:{doors.port}/secret")
        start = f"http://good.test:{doors.port}/go"
        async with http_transport(exchange, resolve=NAMES) as transport:
            await transport.fetch(job(start))
        assert sum(doors.entered.values()) == 2  # it does lead somewhere
        doors.entered.clear()
        async with http_transport(exchange, resolve=NAMES, guard={"allow": [ALLOWED]}) as transport:
            error = await fetch_refused(transport, start)
        assert error.kind is ErrorKind.BLOCKED
        assert [redirect.url for redirect in error.redirects] == [start]
        assert doors.entered == {ALLOWED: 1}


async def test_f77_a_name_is_checked_by_the_addresses_that_it_has(exchange):
    async with open_doors() as doors, dns_server(four=["127.0.0.1"], six=["::1"], mapped=["::ffff:7f00:1"]) as dns:
        settings = {"servers": [dns.address]}
        for name in ("four.test", "six.test", "mapped.test"):
            url = f"http://{name}:{doors.port}/"
            async with http_transport(exchange, dns=settings, guard=True) as transport:
                error = await fetch_refused(transport, url)
            assert error.kind is ErrorKind.BLOCKED
            assert error.message.startswith(f"{name}: ")
            assert not doors.entered
        async with http_transport(exchange, dns=settings) as transport:
            await transport.fetch(job(f"http://six.test:{doors.port}/"))
        assert doors.entered == {"::1": 1}


async def test_f77_a_connection_that_came_past_the_names_is_stopped_at_its_socket(exchange, monkeypatch):
    async def unchecked(self, host, port, traces=None):
        return await super(CheckedConnector, self)._resolve_host(host, port, traces)

    monkeypatch.setattr(CheckedConnector, "_resolve_host", unchecked)
    async with open_doors() as doors:
        async with http_transport(exchange, resolve=NAMES, guard=True) as transport:
            error = await fetch_refused(transport, f"http://bad.test:{doors.port}/")
        assert error.kind is ErrorKind.BLOCKED
        assert not error.sent
        assert not doors.entered


# F78


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
async def test_f78_a_session_for_sinks_posts_to_nobody_who_is_blocked(host):
    async with open_doors() as doors:
        url = f"http://{host}:{doors.port}/hook"
        async with guarded_session(Guard()) as session:
            with pytest.raises(FetchError) as caught:
                await session.post(url, data=b"secret")
        assert caught.value.kind is ErrorKind.BLOCKED
        assert not doors.entered
        async with aiohttp.ClientSession() as session, session.post(url) as response:
            assert response.status == 200
        assert sum(doors.entered.values()) == 1


async def test_f78_a_session_for_sinks_follows_no_redirect_to_a_blocked_address():
    async with open_doors() as doors:
        doors.answer = redirecting(f"http://{FORBIDDEN}:{doors.port}/secret")
        async with guarded_session(GuardSettings(allow=[ALLOWED]).build()) as session:
            with pytest.raises(FetchError) as caught:
                await session.get(f"http://{ALLOWED}:{doors.port}/go")
        assert caught.value.kind is ErrorKind.BLOCKED
        assert doors.entered == {ALLOWED: 1}


async def test_f78_a_session_for_sinks_asks_no_proxy_of_the_environment(monkeypatch):
    async with open_doors() as doors:
        monkeypatch.setenv("http_proxy", f"http://{ALLOWED}:{doors.port}")
        async with guarded_session(GuardSettings(allow=[ALLOWED]).build()) as session:
            with pytest.raises(FetchError):
                await session.get("http://127.0.0.1/")
        assert not doors.entered


# F79


async def test_f79_only_the_ports_of_the_list_are_connected_to(exchange):
    async with open_doors() as doors:
        url = f"http://{ALLOWED}:{doors.port}/"
        async with http_transport(exchange, guard={"allow": [ALLOWED], "ports": [80, 443]}) as transport:
            error = await fetch_refused(transport, url)
            assert error.kind is ErrorKind.BLOCKED
            assert f"port {doors.port} is not one of http.guard.ports (80, 443)" in error.message
            assert not error.sent
        assert not doors.entered
        async with http_transport(exchange, guard={"allow": [ALLOWED], "ports": [doors.port]}) as transport:
            await transport.fetch(job(url))
        assert doors.entered == {ALLOWED: 1}


async def test_f79_a_port_is_checked_on_every_hop(exchange):
    async with open_doors() as other, open_doors(redirecting(f"http://{ALLOWED}:{other.port}/")) as doors:
        async with http_transport(exchange, guard={"allow": [ALLOWED], "ports": [doors.port]}) as transport:
            error = await fetch_refused(transport, f"http://{ALLOWED}:{doors.port}/go")
        assert error.kind is ErrorKind.BLOCKED
        assert doors.entered == {ALLOWED: 1}
        assert not other.entered
