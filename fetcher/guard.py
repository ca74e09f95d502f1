"""Which addresses a request may go to. Pure: an address and a port come in, a reason against them comes out.

    address -> what it carries (an IPv4 address within an IPv6 one) -> metadata? -> allowed? -> special purpose?

It is asked about the address that is connected to, whatever name, redirect or spelling led there: see ``outbound.py``.
What is not known to be a public address is refused. ``ipaddress.is_global`` alone would not do: it takes NAT64, 6to4,
ISATAP, multicast, and public addresses that only a cloud's own machines reach for places like any other.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Annotated

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA IPv4 Special-Purpose Address Registry, https://www.iana.org/assignments/iana-ipv4-special-registry, less what it
# calls globally reachable; and multicast, https://www.iana.org/assignments/multicast-addresses.
_SPECIAL_IPV4 = {
    "0.0.0.0/8": "this host or this network, RFC 791",
    "10.0.0.0/8": "private, RFC 1918",
    "100.64.0.0/10": "shared by the customers of a provider, RFC 6598",
    "127.0.0.0/8": "loopback, RFC 1122",
    "169.254.0.0/16": "link-local, RFC 3927",
    "172.16.0.0/12": "private, RFC 1918",
    "192.0.0.0/24": "protocol assignments, RFC 6890",
    "192.0.2.0/24": "documentation, RFC 5737",
    "192.88.99.0/24": "6to4 relays, RFC 7526",
    "192.168.0.0/16": "private, RFC 1918",
    "198.18.0.0/15": "benchmarks, RFC 2544",
    "198.51.100.0/24": "documentation, RFC 5737",
    "203.0.113.0/24": "documentation, RFC 5737",
    "224.0.0.0/4": "multicast, RFC 5771",
    "255.255.255.255/32": "broadcast, RFC 919",
    "240.0.0.0/4": "reserved, RFC 1112",
}
# IANA IPv6 Special-Purpose Address Registry, https://www.iana.org/assignments/iana-ipv6-special-registry. The last two
# are what is no global unicast address: all but 2000::/3 (https://www.iana.org/assignments/ipv6-address-space).
_SPECIAL_IPV6 = {
    "::/128": "unspecified, RFC 4291",
    "::1/128": "loopback, RFC 4291",
    "::/96": "IPv4-compatible, RFC 4291",
    "64:ff9b:1::/48": "NAT64 of a network of its own, RFC 8215",
    "100::/64": "discarded, RFC 6666",
    "2001::/32": "Teredo, RFC 4380",
    "2001::/23": "protocol assignments, RFC 2928",
    "2001:db8::/32": "documentation, RFC 3849",
    "3fff::/20": "documentation, RFC 9637",
    "5f00::/16": "segment routing, RFC 9602",
    "fc00::/7": "private, RFC 4193",
    "fe80::/10": "link-local, RFC 4291",
    "fec0::/10": "site-local, RFC 3879",
    "ff00::/8": "multicast, RFC 4291",
    "::/3": "not assigned, RFC 4291",
    "4000::/2": "not assigned, RFC 4291",
    "8000::/1": "not assigned, RFC 4291",
}
_SPECIAL: dict[Network, str] = {ip_network(text): why for text, why in (_SPECIAL_IPV4 | _SPECIAL_IPV6).items()}
# Where clouds tell their machines secrets, some of them at public addresses.
_METADATA: dict[Address, str] = {
    ip_address(text): f"metadata of {cloud}"
    for text, cloud in {
        "169.254.169.254": "a cloud's machine",
        "169.254.170.2": "an Amazon ECS task",
        "169.254.170.23": "an Amazon EKS pod",
        "168.63.129.16": "an Azure machine",
        "100.100.100.200": "an Alibaba Cloud machine",
        "192.0.0.192": "an Oracle Cloud machine",
        "fd00:ec2::254": "an Amazon EC2 machine",
        "fd00:ec2::23": "an Amazon EKS pod",
        "fd20:ce::254": "a Google Cloud machine",
    }.items()
}
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
_IPV4 = 0xFFFF_FFFF
_PORTS_SHOWN = 8


class Guard(msgspec.Struct, frozen=True):
    """What a request may reach: public addresses, and those that ``allow`` has; no ``ports`` are all of them.

    An address of a cloud's metadata is only allowed by itself, not by a network around it.
    """

    allow: tuple[Network, ...] = ()
    ports: frozenset[int] | None = None

    def refusal(self, address: str) -> str | None:
        """Return why an address (of a socket, so it may have a zone) must not be connected to; None if it may."""
        return _refusal(self.allow, address)

    def port_refusal(self, port: int) -> str | None:
        """Return why a port must not be asked for; None if it may."""
        if self.ports is None or port in self.ports:
            return None
        shown = sorted(self.ports)[:_PORTS_SHOWN]
        more = ", ..." if len(shown) < len(self.ports) else ""
        return f"port {port} is not one of http.guard.ports ({', '.join(map(str, shown))}{more})"


@lru_cache(4096)
def _refusal(allow: tuple[Network, ...], address: str) -> str | None:
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address[:80]!r} is no address"
    for carried in _carried(ip):
        rule = _rule(carried, allow)
        if rule is not None:
            meant = str(carried) if carried == ip else f"{ip}, which leads to {carried},"
            how = carried if carried in _METADATA else f"{carried} or its network"
            return f"{meant} is blocked ({rule}); http.guard.allow with {how} would allow it"
    return None


def _rule(ip: Address, allow: Iterable[Network]) -> str | None:
    """Return which rule forbids an address, None if there is none."""
    if ip in _METADATA:
        exact = any(network.network_address == ip and network.num_addresses == 1 for network in allow)
        return None if exact else _METADATA[ip]
    if any(ip in network for network in allow):
        return None
    return next((f"{network}: {why}" for network, why in _SPECIAL.items() if ip in network), None)


def _carried(ip: Address) -> Iterator[Address]:
    """Yield every address that packets to this one may end at: itself, and IPv4 addresses that are within it.

    An IPv4-mapped address is nothing but its IPv4 address, and a NAT64 of the well-known prefix (RFC 6052) is
    asked for by whoever has IPv6 alone.
    """
    if isinstance(ip, IPv4Address):
        yield ip
    elif ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped
    elif ip in _NAT64:
        yield _last(ip)
    else:
        yield ip
        yield from _within(ip)


def _within(ip: IPv6Address) -> Iterator[IPv4Address]:
    if ip.sixtofour is not None:  # RFC 3056
        yield ip.sixtofour
    if ip.teredo is not None:  # RFC 4380: the server and the client
        yield from ip.teredo
    if (int(ip) >> 32) & _IPV4 in _ISATAP:  # RFC 5214, whatever the prefix
        yield _last(ip)
    compatible = ip in _COMPATIBLE and int(ip) > 1  # not :: and ::1
    if compatible or ip in _LOCAL_NAT64 or ip in _TRANSLATED:
        yield _last(ip)


def _last(ip: IPv6Address) -> IPv4Address:
    return IPv4Address(int(ip) & _IPV4)


def _network(text: str) -> str:
    """Refuse what is no network, and one that could never match."""
    try:
        network = ip_network(text)
    except ValueError:
        raise PydanticCustomError("network", "should be an address or a network such as 10.0.0.0/8") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise PydanticCustomError("network", "should be written as the IPv4 address that it is")
    return text


class GuardSettings(Settings):
    """Which addresses may be fetched from besides public ones."""

    allow: list[Annotated[str, AfterValidator(_network)]] = Field(default=[])
    """Addresses and networks (CIDR) that may be reached although they are not public. The metadata address of a
    cloud has to be named by itself."""
    ports: list[Annotated[int, Field(ge=1, le=65_535)]] | None = Field(default=None, min_length=1)
    """The only ports that a URL may name; all of them if this is not given."""

    def build(self) -> Guard:
        """Return the guard."""
        ports = None if self.ports is None else frozenset(self.ports)
        return Guard(tuple(ip_network(text) for text in self.allow), ports)


def _switch(value: object) -> object:
    """Read ``true`` as a guard without exceptions, and ``false`` as none."""
    if value is None or isinstance(value, GuardSettings | dict):
        return value
    words = {"true": True, "false": False}
    switch = words.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(switch, bool):
        raise PydanticCustomError("guard", "should be true, false, or a mapping with allow and ports")
    return GuardSettings() if switch else None


GuardSwitch = Annotated[
    GuardSettings | None, BeforeValidator(_switch, json_schema_input_type=bool | GuardSettings | None)
]


def guarded(part: Settings, guard: GuardSettings | None) -> Settings:
    """Return a part that makes requests of its own as a guard allows, unless it says something else of that."""
    if guard is None or "guard" not in type(part).model_fields or "guard" in part.model_fields_set:
        return part
    return part.model_copy(update={"guard": guard})
