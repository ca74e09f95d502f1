from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.guard import Guard, GuardSettings

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.31.196.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2001:4860:4860::8888",
    "2001:200::1",
    "2a00::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2606:4700::5efe:8.8.8.8",
]
NOT_PUBLIC = [
    ("0.0.0.0", "this host"),
    ("0.255.255.255", "this host"),
    ("10.0.0.0", "private"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "customers"),
    ("100.127.255.255", "customers"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("169.254.0.1", "link-local"),
    ("172.16.0.0", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "protocol assignments"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4"),
    ("192.168.255.255", "private"),
    ("198.18.0.0", "benchmarks"),
    ("198.19.255.255", "benchmarks"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::8.8.8.8", "IPv4-compatible"),
    ("::ffff:0:8.8.8.8", "not assigned"),
    ("64:ff9b:1::1", "NAT64"),
    ("100::1", "discarded"),
    ("2001::1", "Teredo"),
    ("2001:1::1", "protocol assignments"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("4000::1", "not assigned"),
    ("5f00::1", "segment routing"),
    ("fc00::1", "private"),
    ("fdff::1", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("fe00::1", "not assigned"),
]
WITHIN = [
    ("::ffff:10.0.0.1", "10.0.0.1"),
    ("64:ff9b::10.0.0.1", "10.0.0.1"),
    ("2002:a00:1::", "10.0.0.1"),
    ("2606:4700::5efe:10.0.0.1", "10.0.0.1"),
    ("2606:4700::200:5efe:10.0.0.1", "10.0.0.1"),
]
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "192.0.0.192"]


def allowing(*networks):
    return GuardSettings(allow=list(networks)).build()


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address):
    assert Guard().refusal(address) is None


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC)
def test_addresses_for_special_purposes_may_not(address, why):
    refusal = Guard().refusal(address)
    assert why in refusal
    assert "http.guard.allow" in refusal


@pytest.mark.parametrize(("address", "inner"), WITHIN)
def test_what_an_address_carries_is_what_counts(address, inner):
    ip = str(ipaddress.ip_address(address))
    assert Guard().refusal(address) == (
        f"{ip}, which leads to {inner}, is blocked (10.0.0.0/8: private, RFC 1918); "
        f"http.guard.allow with {inner} or its network would allow it"
    )
    assert allowing("10.0.0.0/8").refusal(address) is None


def test_a_teredo_address_carries_its_server_and_its_client():
    guard = allowing("2001::/32")
    assert "127.0.0.1" in guard.refusal("2001:0:7f00:1::f7f7:f7f7")
    assert "127.0.0.1" in guard.refusal("2001:0:808:808::80ff:fffe")
    assert guard.refusal("2001:0:808:808::f7f7:f7f7") is None


def test_an_allowed_nat64_prefix_does_not_allow_what_it_carries():
    guard = allowing("64:ff9b:1::/48")
    assert guard.refusal("64:ff9b:1::8.8.8.8") is None
    assert "10.0.0.1" in guard.refusal("64:ff9b:1::10.0.0.1")
    assert "metadata" in guard.refusal("64:ff9b:1::169.254.169.254")


@pytest.mark.parametrize("address", METADATA)
def test_metadata_is_only_allowed_by_itself(address):
    network = "169.254.0.0/16" if "." in address else "fd00::/8"
    assert "metadata" in Guard().refusal(address)
    assert "metadata" in allowing(network, "0.0.0.0/0", "::/0").refusal(address)
    assert allowing(address).refusal(address) is None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.1.0.0/16", "10.1.2.3", "10.2.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
        ("::1", "::1", "fc00::1"),
        ("fd00::/8", "fd12::1", "fc00::1"),
    ],
)
def test_what_is_allowed_may_be_reached_and_nothing_beside_it(network, inside, outside):
    guard = allowing(network)
    assert guard.refusal(inside) is None
    assert guard.refusal(outside)


@pytest.mark.parametrize("text", ["", "localhost", "0x7f.1", "127.1", "1.2.3.4.5", "%", "::1::"])
def test_what_is_no_address_may_not_be_reached(text):
    assert "is no address" in Guard().refusal(text)


def test_ports():
    assert Guard().port_refusal(25) is None
    guard = GuardSettings(ports=[443, 80]).build()
    assert guard.port_refusal(80) is None
    assert guard.port_refusal(25) == "port 25 is not one of http.guard.ports (80, 443)"
    many = GuardSettings(ports=list(range(1, 100))).build()
    assert many.port_refusal(100).endswith("(1, 2, 3, 4, 5, 6, 7, 8, ...)")


@pytest.mark.parametrize(
    "settings",
    [
        {"allow": ["10.0.0.1/8"]},
        {"allow": ["localhost"]},
        {"allow": ["::ffff:10.0.0.0/104"]},
        {"allow": "10.0.0.0/8"},
        {"ports": []},
        {"ports": [0]},
        {"ports": [65536]},
        {"port": [80]},
    ],
)
def test_settings_that_could_not_mean_what_they_say(settings):
    with pytest.raises(ValidationError):
        GuardSettings.model_validate(settings)


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_is_public_that_python_takes_for_another(ip):
    """Ours is the stricter of the two but for what the registry calls globally reachable."""
    if Guard().refusal(str(ip)) is None:
        assert ip.is_global
        assert not ip.is_multicast


@given(st.ip_addresses(v=6))
def test_no_ipv6_address_is_public_that_python_takes_for_another(ip):
    if Guard().refusal(str(ip)) is None:
        assert ip.is_global or ip.ipv4_mapped
        assert not ip.is_multicast


@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"), st.integers(0, 2**64))
def test_no_way_of_writing_an_inner_address_into_another_is_public(ip, prefix):
    number = int(ip)
    routing = (0x2606_4700 << 96) | ((prefix & 0xFFFF_FFFF) << 64)
    for within in (
        (0xFFFF << 32) | number,
        number,
        (0x64_FF9B << 96) | number,
        (0x64_FF9B_0001 << 80) | number,
        (0x2002 << 112) | (number << 80) | prefix,
        (0x2001_0000 << 96) | (number << 64) | (prefix & 0xFFFF_FFFF),
        (0x2001_0000 << 96) | (0x0808_0808 << 64) | (number ^ 0xFFFF_FFFF),
        routing | (0x5EFE << 32) | number,
        routing | (0x0200_5EFE << 32) | number,
    ):
        assert Guard().refusal(str(ipaddress.IPv6Address(within))), ipaddress.IPv6Address(within)
