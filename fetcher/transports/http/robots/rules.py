"""What a robots.txt says to us (RFC 9309). Pure: from bytes to rules.

``protego`` reads the rules. It is given the groups that are for our product token or for everybody and nothing else,
for its cost is the number of names times the number of rules, which a hostile file of 500 KiB makes hundreds of
millions. So a group is ours if its name is our token, not if it begins like it (RFC 9309, section 2.2.1).
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING
from urllib.parse import quote

from protego import Protego

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZE = 500 * 1024
"""How many bytes are read; what is behind them is ignored (section 2.5)."""
SHORTEST = 60.0
LONGEST = 86_400.0
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"[\r\n]+")
_USER_AGENT = re.compile(rb"user[- ]?agent[ \t]*(?:[: \t][ \t]*(.*))?$", re.IGNORECASE)
# With the misspellings that protego takes for what was meant.
_RULE = re.compile(
    rb"(?:allow|disallow|dissallow|dissalow|disalow|diasllow|disallaw|crawl[- ]delay)[ \t]*(?=[: \t]|$)", re.IGNORECASE
)
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_COMPATIBLE = re.compile(r"\(compatible;\s*([A-Za-z0-9_-]+)")
_ASCII = string.ascii_letters + string.digits + string.punctuation + " \t"
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,10})", re.IGNORECASE)
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:cache|store)(?:$|[,\s=])", re.IGNORECASE)


class Rules:
    """What we may fetch of an origin. ``crawl_delay`` is in seconds; ``size`` is that of the text behind it."""

    __slots__ = ("_parsed", "_token", "crawl_delay", "size")

    def __init__(self, text: str, token: str) -> None:
        """Parse the groups that ``relevant`` found; without any, everything is allowed."""
        self._parsed = Protego.parse(text) if text else None
        self._token = token
        self.crawl_delay = None if self._parsed is None else self._parsed.crawl_delay(token)
        self.size = len(text)

    def allows(self, url: str) -> bool:
        """Whether a URL of the origin may be fetched. The longest rule that matches decides (section 2.2.2)."""
        return self._parsed is None or self._parsed.can_fetch(url, self._token)


ALL_ALLOWED = Rules("", "")


def product_token(user_agent: str) -> str:
    """Return the name in a User-Agent by which robots.txt calls us, in lower case; empty if there is none.

    It is the first word, or what stands behind ``(compatible;`` where a browser is put first.
    """
    found = _COMPATIBLE.search(user_agent)
    if found is not None:
        return found[1].lower()
    return _leading_token(user_agent)


def relevant(data: bytes, token: str, *, whole: bool = True) -> str:
    """Return the rules of those groups that are for the token or for everybody, as ASCII text.

    Other bytes stand percent-encoded, which is how they are matched whatever their charset. If the file is not
    ``whole``, its last line is not either: half a rule could say much more than the rule.
    """
    if not whole:
        data = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1]
    return "\n".join(_kept(data.removeprefix(_BOM), {token, "*"}))


def _kept(data: bytes, names: set[str]) -> Iterator[str]:
    ours = naming = False
    for raw in _LINE_END.split(data):
        line = raw.partition(b"#")[0].strip()
        agent = _USER_AGENT.match(line)
        if agent is not None:
            # Several names in a row share the group that follows.
            ours = ours and naming
            naming = True
            name = _name(agent[1] or b"")
            if name and name in names:
                ours = True
                yield f"User-agent: {name}"
        elif _RULE.match(line):
            naming = False
            if ours:
                yield quote(line, safe=_ASCII)


def _name(value: bytes) -> str:
    text = value.decode("latin-1").strip()
    return "*" if text[:1] == "*" and not text[1:].strip("* \t") else _leading_token(text)


def _leading_token(text: str) -> str:
    found = _TOKEN.match(text)
    return found[0].lower() if found is not None else ""


def lifetime(cache_control: str | None) -> float:
    """Return for how many seconds a robots.txt is used: a day, or what its ``max-age`` says if that is shorter.

    It is never less than ``SHORTEST``, or it would be fetched once more for each URL (section 2.4).
    """
    if cache_control is None:
        return LONGEST
    if _NOT_KEPT.search(cache_control):
        return SHORTEST
    age = _MAX_AGE.search(cache_control)
    return LONGEST if age is None else min(max(float(age[1]), SHORTEST), LONGEST)
