"""What a proxy's URL says, and which targets need no proxy. Pure: text in, decisions out."""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from urllib.parse import unquote_to_bytes

import msgspec
from yarl import URL

from fetcher.errors import suggestion

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_FORWARDING = frozenset({"http", "https"})


class ProxyAddress(msgspec.Struct, frozen=True):
    """Where a proxy is, and what it is told. ``url`` has no user and password; ``shown`` is it as text."""

    url: URL
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"ProxyAddress({self.shown})"

    @property
    def shown(self) -> str:
        """The proxy as a message or a record names it."""
        return str(self.url).removesuffix("/")

    @property
    def forwards(self) -> bool:
        """Whether it takes requests for http as they are, where SOCKS only passes bytes on."""
        return self.url.scheme in _FORWARDING

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """The credentials as ``Proxy-Authorization`` (RFC 9110, section 11.7.2); none if there are none."""
        if not self.username:
            return ()
        credentials = b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        return (("Proxy-Authorization", f"Basic {credentials}"),)


def parse_proxy(text: str) -> ProxyAddress:
    """Read the URL of a proxy. Raises ValueError, whose words do not quote it: it may have a password."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        raise ValueError("is not the URL of a proxy; write http://, https://, socks5:// or socks5h:// before its host")
    if scheme.lower() not in _DEFAULT_PORTS:
        kinds = ", ".join(_DEFAULT_PORTS)
        raise ValueError(f"no such kind of proxy {scheme[:20]!r}{suggestion(scheme, _DEFAULT_PORTS)} ({kinds})")
    try:
        url = URL(text)
        port = url.port or _DEFAULT_PORTS[url.scheme]
    except ValueError:
        raise ValueError("is not the URL of a proxy; it is written scheme://user:password@host:port") from None
    if not url.raw_host or url.raw_path not in {"", "/"} or url.raw_query_string or url.raw_fragment:
        raise ValueError(
            "is not the URL of a proxy, which ends with the port; in a password, / ? # @ are written %2F %3F %23 %40"
        )
    username, password = _text(url.raw_user), _text(url.raw_password)
    return ProxyAddress(URL.build(scheme=url.scheme, host=url.host or "", port=port), username, password)


def _text(part: str | None) -> str:
    return unquote_to_bytes(part or "").decode("utf-8", "replace")


class Exemptions:
    """Targets that are asked directly: ``example.org`` (and below it), ``10.0.0.0/8``, ``::1``, ``*`` for all.

    Raises ValueError for what is none of these.
    """

    def __init__(self, patterns: list[str]) -> None:
        self._all = "*" in patterns
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for pattern in patterns:
            self._add(pattern.strip().lower())

    def _add(self, pattern: str) -> None:
        bare = pattern.strip("[]")
        if "/" in bare or ":" in bare or bare.replace(".", "").isdigit():
            try:
                self._networks.append(ipaddress.ip_network(bare, strict=False))
            except ValueError:
                raise ValueError(
                    f"{pattern[:60]!r} is no host without its port, no address, and no network such as 10.0.0.0/8"
                ) from None
        elif pattern != "*":
            self._names.add(bare.removeprefix("*").strip("."))

    def cover(self, host: str) -> bool:
        """Return whether a host, in lower case and without brackets, needs no proxy."""
        if self._all:
            return True
        if self._names and any(name in self._names for name in _and_above(host)):
            return True
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False  # a name: what it means, the proxy finds out
        return any(address in network for network in self._networks)


def _and_above(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[depth:]) for depth in range(len(labels))]
