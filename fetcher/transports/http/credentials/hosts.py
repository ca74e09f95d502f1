"""The hosts that credentials are for.

A host has many ports, which may be those of other people's servers. An entry that names no port is for the usual one of
http or https, and for that of the job's own URL; a redirect to any other gets nothing.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from hashlib import sha256

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from fetcher.budgets import Budget, BudgetRule
from fetcher.references import origin_of
from fetcher.settings import Settings
from fetcher.transports.http.origins import host_of

_USUAL_PORTS = {"http": 80, "https": 443}
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT = 65_535
_BRACKETED = re.compile(r"\[([^\]]*:[^\]]*)\](?::(.*))?")
# What says who is asking beside the secrets.
_WHO = ("type", "username", "client_id", "token_url")


class AuthSettings(Settings):
    """Credentials, and the hosts that they are for."""

    hosts: list[str] = Field(min_length=1)
    """Names or patterns (``*.example.org``), with a port (``example.org:8443``, ``*:*``) or without one, which is for
    the usual port and for the one in a job's own URL, but for no other that a redirect leads to. The first entry that
    matches is the one; ``*`` is every host there is. IPv6 addresses with a port stand in brackets."""
    insecure: bool = False
    """``true`` sends them over http, too, where everybody on the way can read them. Otherwise such a request goes
    without."""
    budget: Budget = ()
    """How many requests all of these hosts together are sent with them, retries included: ``[10/s, 600/m, 50000/d]``,
    in any such window of time. Batches of a service that use the same credentials share it."""

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not _is_host(host):
                words = f"{host[:60]!r} is no host; write its name, or name:port, without scheme and path"
                raise PydanticCustomError("host", "{words}", {"words": words})
        return [host.lower() for host in hosts]

    @property
    def identity(self) -> str:
        """A hash of what shows who is asking, the secret included, wherever it is sent and how."""
        known = {name: getattr(self, name, None) for name in sorted(type(self).model_fields)}
        proof = {name: value.get_secret_value() for name, value in known.items() if isinstance(value, SecretStr)}
        proof |= {name: str(known[name]) for name in _WHO if known.get(name) is not None}
        return sha256(json.dumps(proof, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()

    def rule(self) -> BudgetRule:
        """Return what requests with these credentials have to keep to together."""
        named = [host_and_port(host) for host in self.hosts]
        anywhere = [host for host, port in named if port in {None, "*"}]
        return BudgetRule(self.identity, anywhere, [host for host, _ in named if host not in anywhere], self.budget)


class HostPatterns:
    """Tells which URLs the credentials of an entry are for."""

    def __init__(self, hosts: list[str]) -> None:
        self._patterns = [host_and_port(host) for host in hosts]

    def match(self, url: str, *, own: bool) -> bool:
        """Return whether they are for a URL; ``own`` if that is of the origin that the job asks for."""
        scheme, _, port = origin_of(url)
        host = host_of(url)
        usual = own or port == _USUAL_PORTS.get(scheme)
        return any(
            fnmatchcase(host, pattern) and (usual if wanted is None else wanted in {"*", str(port)})
            for pattern, wanted in self._patterns
        )


def host_and_port(entry: str) -> tuple[str, str | None]:
    """Split an entry of ``hosts``. A port of None is none; more than one colon without brackets is IPv6."""
    if (bracketed := _BRACKETED.fullmatch(entry)) is not None:
        return bracketed[1], bracketed[2]
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, None


def _is_host(entry: str) -> bool:
    host, port = host_and_port(entry)
    usable = port is None or port == "*" or (_PORT.fullmatch(port) is not None and int(port) <= _LAST_PORT)
    return bool(host) and "/" not in host and "]:" not in host and usable
