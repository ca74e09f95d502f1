"""The table of faults and their tests: ``python tests/faults/table.py`` writes README.md beside it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
README = HERE / "README.md"
_NAME = re.compile(r"test_f(\d+)_(\w+)")

ROWS: dict[str, dict[int, str]] = {
    "Names": {
        1: "NXDOMAIN",
        2: "SERVFAIL, or a name server that does not answer",
        3: "a slow name server for one host",
        4: "allowed and blocked addresses in one answer",
        5: "an answer that changes between two connections",
        6: "an international, over-long or invalid name",
    },
    "TCP": {
        7: "connection refused",
        8: "a SYN that is never answered",
        9: "a reset before the head",
        10: "a reset in the middle of the body",
        11: "IPv6 dead, IPv4 alive",
        12: "a keep-alive connection closed just as it is reused",
        13: "a response that nobody asked for, on an idle connection",
    },
    "TLS": {
        14: "a certificate that is expired, self-signed, for another host, of an unknown root",
        15: "an incomplete chain",
        16: "a handshake that stalls",
        17: "plain HTTP on a TLS port, and the reverse",
        18: "the end of the connection without close_notify and without a length",
        19: "verification switched off",
    },
    "HTTP/1.1 framing": {
        20: "a body shorter than its Content-Length",
        21: "a body that ends with its connection",
        22: "Content-Length twice",
        23: "Transfer-Encoding together with Content-Length",
        24: "a bad or unfinished chunk",
        25: "bare LF, obs-fold",
        26: "not HTTP at all",
        27: "an empty reply",
        28: "a flood of interim responses",
        29: "101 that was not asked for",
        30: "204, 304 or HEAD with a body",
        31: "what can not be parsed",
        32: "bytes after a complete response",
    },
    "Header fields and cookies": {
        33: "large and many fields",
        34: "a megabyte of fields",
        35: "bytes that are not UTF-8",
        36: "duplicate fields",
        37: "a flood of cookies",
        38: "cookies of another batch",
        39: "a cookie for a public suffix",
    },
    "Redirects": {
        40: "a loop",
        41: "more redirects than allowed",
        42: "a redirect to file:, ftp:, data:, javascript:",
        43: "Location missing or garbage",
        44: "Location with raw bytes",
        45: "301, 302, 303, 307, 308 and what they do to method and body",
        46: "a redirect from https to http",
        47: "a redirect to another origin",
    },
    "Codings and bodies": {
        48: "a coded body that ends early",
        49: "a wrong checksum in a coding",
        50: "garbage after a coded body",
        51: "several codings, unknown codings",
        52: "a decompression bomb",
        53: "thousands of empty members",
        54: "an unknown or wrong charset",
        55: "an endless body",
        56: "a body over the cap",
    },
    "Time and retries": {
        57: "a head that does not come",
        58: "a drip of bytes",
        59: "a job that waits for a slot",
        60: "429 or 503 with Retry-After in seconds",
        61: "Retry-After as a date",
        62: "Retry-After huge, negative, garbage",
        63: "a failed POST",
        64: "many failures at once",
        65: "a job that fails again and again",
    },
    "Robots and proxies": {
        66: "robots.txt that is not there, or can not be had",
        67: "robots.txt that is long, redirected, slow",
        68: "a proxy that refuses, wants credentials, or is dead",
        69: "credentials for a proxy",
        70: "blocked addresses through a proxy",
    },
    "Addresses that must not be reached": {
        71: "decimal, octal, hexadecimal, short spellings of IPv4",
        72: "IPv4 within IPv6, zones",
        73: "digits of other alphabets",
        74: "unspecified, broadcast, multicast",
        75: "userinfo and backslash tricks",
        76: "metadata services of clouds",
        77: "a redirect or a name that leads there",
        78: "sinks that somebody else configures",
        79: "ports outside the allowed list",
    },
    "The service": {
        108: "an API without a token",
        109: "hostile URLs and messages on the page",
        110: "an API that is flooded, slow clients, deep JSON, huge bodies",
        111: "a million hosts",
        112: "pages of other sites that call the API",
    },
}


def tests() -> dict[int, list[tuple[str, str]]]:
    """Return, for each row, its tests as file name and test name, in their order."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name := _NAME.fullmatch(node.name)):
                found[int(name[1])].append((path.name, name[2]))
    return found


def render() -> str:
    """Return the README."""
    found = tests()
    lines = [
        "# Faults, and the tests that make them happen",
        "",
        "Made from the names of the tests by `python tests/faults/table.py`. Each test makes its fault happen for real",
        "on loopback: raw sockets, real TLS, a name server and proxies in this folder's helpers.",
    ]
    for section, rows in ROWS.items():
        lines += ["", f"## {section}", "", "| row | fault | what happens |", "|---|---|---|"]
        for number, fault in rows.items():
            cells = "<br>".join(f"[{_words(name)}]({file})" for file, name in found.get(number, []))
            lines.append(f"| F{number} | {fault} | {cells} |")
    return "\n".join(lines) + "\n"


def _words(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    README.write_text(render())
