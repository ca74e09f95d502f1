"""Digest access authentication (RFC 7616): challenges in, ``Authorization`` out."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from fetcher.transports.http.origins import origin_and_target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fetcher.transports.http.exchange import Answer, Hop
    from fetcher.transports.http.tracing import HopTrace

_ALGORITHMS = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
_SESSION = "-SESS"
_MOST_ORIGINS = 4096
_LONGEST_FIELD = 4096
# One challenge after another: a scheme, or a parameter of the scheme before it (RFC 9110, section 11.6.1). No two
# repetitions that stand side by side match the same, so that a field which does not fit costs one look at each byte.
_PART = re.compile(
    r"""[\s,]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))"""
    r"""|([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s+|$|(?=,)))"""
)


class Challenge(msgspec.Struct, frozen=True):
    """What a server wants to be proved, and by which hash. ``qop`` is the one to use; nothing is that of RFC 2069."""

    realm: str
    nonce: str
    algorithm: str
    qop: str = ""
    opaque: str | None = None
    stale: bool = False
    userhash: bool = False


def challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the digest challenges of ``WWW-Authenticate`` fields that can be answered, in their order.

    A field of more than 4 KiB is not read: there is nothing so long to say in one.
    """
    short = [value for value in values if len(value) <= _LONGEST_FIELD]
    found = [_challenge(parameters) for value in short for name, parameters in _schemes(value) if name == "digest"]
    return [challenge for challenge in found if challenge is not None]


def _schemes(value: str) -> list[tuple[str, dict[str, str]]]:
    schemes: list[tuple[str, dict[str, str]]] = []
    at = 0
    while part := _PART.match(value, at):
        name, quoted, token, scheme = part.groups()
        if scheme is not None:
            schemes.append((scheme.lower(), {}))
        elif schemes:
            text = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            schemes[-1][1].setdefault(name.lower(), text)
        at = part.end()
    return schemes


def _challenge(parameters: Mapping[str, str]) -> Challenge | None:
    algorithm = parameters.get("algorithm", "MD5")
    offered = [qop.strip().lower() for qop in parameters.get("qop", "").split(",") if qop.strip()]
    qop = next((known for known in ("auth", "auth-int") if known in offered), "")
    if (
        not parameters.get("nonce")
        or algorithm.upper().removesuffix(_SESSION) not in _ALGORITHMS
        or (offered and not qop)
        # What goes back in quotes must not end them.
        or not all(value.isprintable() for value in parameters.values())
    ):
        return None
    return Challenge(
        realm=parameters.get("realm", ""),
        nonce=parameters["nonce"],
        algorithm=algorithm,
        qop=qop,
        opaque=parameters.get("opaque"),
        stale=parameters.get("stale", "").lower() == "true",
        userhash=parameters.get("userhash", "").lower() == "true",
    )


class Question(msgspec.Struct, frozen=True):
    """The request that is to be proved: its method, its target (path and query) and its body."""

    method: str
    target: str
    body: bytes = b""


def answer_to(challenge: Challenge, username: str, password: str, question: Question, count: int, cnonce: str) -> str:
    """Return the ``Authorization`` that answers a challenge for the ``count``-th time (RFC 7616, section 3.4)."""
    hashed = _hasher(challenge.algorithm)
    secret = hashed(f"{username}:{challenge.realm}:{password}")
    if challenge.algorithm.upper().endswith(_SESSION):
        secret = hashed(f"{secret}:{challenge.nonce}:{cnonce}")
    request = f"{question.method}:{question.target}"
    if challenge.qop == "auth-int":
        request += f":{hashed(question.body)}"
    numbered = f"{count:08x}"
    between = f"{numbered}:{cnonce}:{challenge.qop}:" if challenge.qop else ""
    response = hashed(f"{secret}:{challenge.nonce}:{between}{hashed(request)}")
    name = hashed(f"{username}:{challenge.realm}") if challenge.userhash else username
    parts = [_user(name), _quoted("realm", challenge.realm), _quoted("nonce", challenge.nonce)]
    parts += [_quoted("uri", question.target), f"algorithm={challenge.algorithm}", _quoted("response", response)]
    if challenge.qop:
        parts += [f"qop={challenge.qop}", f"nc={numbered}"]
    if challenge.qop or challenge.algorithm.upper().endswith(_SESSION):
        parts.append(_quoted("cnonce", cnonce))
    if challenge.opaque is not None:
        parts.append(_quoted("opaque", challenge.opaque))
    if challenge.userhash:
        parts.append("userhash=true")
    return "Digest " + ", ".join(parts)


def _hasher(algorithm: str) -> Callable[[str | bytes], str]:
    name = _ALGORITHMS[algorithm.upper().removesuffix(_SESSION)]

    def hashed(data: str | bytes) -> str:
        raw = data.encode() if isinstance(data, str) else data
        return hashlib.new(name, raw, usedforsecurity=False).hexdigest()

    return hashed


def _quoted(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'


def _user(name: str) -> str:
    return _quoted("username", name) if name.isascii() else f"username*=UTF-8''{quote(name, safe='')}"


class _Session:
    """A challenge that is answered again and again, each time under the next number."""

    __slots__ = ("challenge", "cnonce", "count")

    def __init__(self, challenge: Challenge) -> None:
        self.challenge = challenge
        self.cnonce = secrets.token_hex(16)
        self.count = 0


class DigestScheme:
    """Answers the last challenge of each origin, in advance once there was one. Bounded: the oldest goes first."""

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._password = password
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def authorization(self, hop: Hop, trace: HopTrace) -> str | None:  # noqa: ARG002
        """Return the answer to the challenge of the hop's origin; None if there was none yet."""
        origin, target = origin_and_target(hop.url)
        session = self._sessions.get(origin)
        if session is None:
            return None
        session.count += 1
        question = Question(hop.method, target, hop.body or b"")
        return answer_to(session.challenge, self._username, self._password, question, session.count, session.cnonce)

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:
        """Keep the new challenge. It is worth an answer unless one to it was just refused."""
        found = challenges([value for name, value in answer.headers if name.lower() == "www-authenticate"])
        if not found:
            return False
        challenge = found[0]
        if sent is not None and not challenge.stale and _quoted("nonce", challenge.nonce) in sent:
            return False
        origin, _ = origin_and_target(hop.url)
        self._sessions.pop(origin, None)
        self._sessions[origin] = _Session(challenge)
        if len(self._sessions) > _MOST_ORIGINS:
            self._sessions.popitem(last=False)
        return True

    async def close(self) -> None:
        """Nothing is under way."""
