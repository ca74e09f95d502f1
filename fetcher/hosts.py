"""What the host of a URL stands for, if it is a number (WHATWG URL Standard, section 3.5).

``0x7f.1``, ``0177.0.0.1``, ``2130706433`` and ``127.1`` are all 127.0.0.1 to a browser and to most C libraries. Who
compares hosts has to see what is connected to.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

_DECIMAL = re.compile(r"[0-9]+")
_HEXADECIMAL = re.compile(r"0[xX][0-9A-Fa-f]*")
_OCTAL = re.compile(r"0[0-7]*")
_BITS = 32
_MOST_PARTS = 4
_LONGEST = 64  # of a part; more digits than any number within 32 bits has, leading zeros aside


def ends_in_number(host: str) -> bool:
    """Return whether a host, with or without the dot at its end, is to be read as an IPv4 address."""
    last = host.removesuffix(".").rpartition(".")[2]
    return bool(_DECIMAL.fullmatch(last) or _HEXADECIMAL.fullmatch(last))


def ipv4_address(host: str) -> str:
    """Return the address, with four decimal parts, that a host which ends in a number is.

    Raises ValueError if it is none: more than four parts, one that is no number, or one that is too large.
    """
    shown = host[:_LONGEST]
    parts = host.removesuffix(".").split(".")
    if len(parts) > _MOST_PARTS:
        raise ValueError(f"its host {shown!r} ends in a number, but has more than four parts")
    *firsts, last = [_number(part, shown) for part in parts]
    room = _BITS - 8 * len(firsts)
    if any(number > 0xFF for number in firsts) or last >= 1 << room:  # noqa: PLR2004  an octet
        raise ValueError(f"its host {shown!r} is a number too large for an IPv4 address")
    value = last
    for index, number in enumerate(firsts):
        value |= number << (24 - 8 * index)
    return str(IPv4Address(value))


def _number(part: str, shown: str) -> int:
    """Read a part: ``0x`` begins a hexadecimal number, ``0`` an octal one. Nothing behind ``0x`` is 0."""
    if len(part) <= _LONGEST:
        if _HEXADECIMAL.fullmatch(part):
            return int(part[2:] or "0", 16)
        if _OCTAL.fullmatch(part):
            return int(part, 8)
        if _DECIMAL.fullmatch(part) and part[0] != "0":
            return int(part)
    raise ValueError(f"its host {shown!r} ends in a number, but is no IPv4 address")
