from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.hosts import ends_in_number, ipv4_address


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("1.2.3.4", True),
        ("1.2.3.4.", True),
        ("example.1", True),
        ("example.09", True),
        ("example.0x1f", True),
        ("example.0x", True),
        ("0", True),
        ("example.0x1g", False),
        ("example.1a", False),
        ("1.2.3.example", False),
        ("1.2.3.4..", False),
        ("", False),
        (".", False),
        ("\u0661", False),
    ],
)
def test_a_host_ends_in_a_number_if_its_last_label_is_one(host, expected):
    assert ends_in_number(host) is expected


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F.0X1", "127.0.0.1"),
        ("0177.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("1.65535", "1.0.255.255"),
        ("1.2.65535", "1.2.255.255"),
        ("2130706433", "127.0.0.1"),
        ("4294967295", "255.255.255.255"),
        ("0x.0x.0", "0.0.0.0"),
        ("0", "0.0.0.0"),
        ("000000000000000000000177.0.0.1", "127.0.0.1"),
    ],
)
def test_numbers_are_read_as_the_url_standard_says(host, address):
    assert ipv4_address(host) == address


@pytest.mark.parametrize(
    "host",
    [
        "1.2.3.4.5",
        "256.0.0.1",
        "1.2.3.256",
        "1.2.65536",
        "4294967296",
        "0x100000000",
        "08",
        "0x1g.1",
        "1..2",
        "a.1",
        ".1",
    ],
)
def test_what_is_no_ipv4_address(host):
    with pytest.raises(ValueError, match=r"ends in a number|too large"):
        ipv4_address(host)


@pytest.mark.parametrize("host", ["9" * 1_000_000, "0x" + "f" * 1_000_000, "1." * 500_000 + "1"])
def test_a_long_one_costs_nothing(host):
    with pytest.raises(ValueError, match="number") as caught:
        ipv4_address(host)
    assert len(str(caught.value)) < 200


@given(st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_that_address(ip):
    number = int(ip)
    first, rest = number >> 24, number & 0xFFFFFF
    for spelling in (str(ip), str(number), hex(number), f"0{number:o}", f"{first}.{rest}", f"{first:#x}.0{rest:o}"):
        assert ipv4_address(spelling) == str(ip)
