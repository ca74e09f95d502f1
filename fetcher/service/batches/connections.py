"""Which connections submitted batches may make that the guard does not see, and what they may say of them.

Drivers of databases and stores take files of this machine for passwords, certificates and accounts. Batches write what
they need into their config, or name where it is kept, so that a driver has nothing to read by itself.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from fetcher.config.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fetcher.config.problems import KeyPath
    from fetcher.settings import Settings

_NO_FILE = f"{os.devnull}/none"  # the driver warns of one that is there and is none
UNSEEN = frozenset({"email", "nats", "objectstore", "postgres", "redis"})
"""Types of parts whose drivers connect by themselves."""
STORES = frozenset({"s3", "gs", "az"})
"""Schemes of objects in a store."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PREFIX = re.compile(r"(aws|google|azure_storage|azure)_")
_PARAMETERS = frozenset(
    {"application_name", "search_path", "sslmode", "sslnegotiation", "target_session_attrs"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "statement_timeout", "lock_timeout"}
)
_OPTIONS = frozenset(
    {"access_key_id", "secret_access_key", "session_token", "token", "region", "default_region", "endpoint"}
    | {"endpoint_url", "base_url", "virtual_hosted_style_request", "skip_signature", "allow_http", "request_payer"}
    | {"service_account_key", "account_name", "account_key", "access_key", "sas_token", "sas_key"}
    | {"client_id", "client_secret", "tenant_id", "storage_account_name", "storage_account_key"}
)


def schemes(part: Settings) -> set[str]:
    """Return the schemes of the paths of a part, in lower case."""
    paths = getattr(part, "path", None)
    named = [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []
    return {found[1].lower() for path in named if (found := _SCHEME.match(str(path)))}


def driver_of(part: Settings) -> str | None:
    """Return the type under which a part connects where the guard does not see it, None if it does not."""
    kind, found = getattr(part, "type", None), schemes(part)
    if kind == "file":
        return "objectstore" if found & STORES else None
    if kind == "objectstore" and found == {"file"}:
        return None
    return kind if kind in UNSEEN else None


def problems(path: KeyPath, part: Settings, *, guarded: bool, unguarded: frozenset[str]) -> Iterator[Problem]:
    """Yield what a batch may not have of a part: its connections, or what it says of them."""
    driver = driver_of(part)
    if driver is None:
        return
    if guarded and driver not in unguarded:
        kind = getattr(part, "type", "")
        words = "its connections are not seen by the guard, which is on; service.unguarded may allow it"
        named = driver if driver == kind else f"{driver} ({', '.join(sorted(schemes(part) & STORES))})"
        yield Problem((*path, "type"), f"{named}: {words}")
    dsn = getattr(part, "dsn", None)
    if isinstance(dsn, SecretStr):
        words_of_dsn = _of_dsn(dsn.get_secret_value())
        if words_of_dsn is not None:
            yield Problem((*path, "dsn"), words_of_dsn)
    if driver == "objectstore":
        for name in getattr(part, "options", {}):
            if _PREFIX.sub("", name.lower(), count=1) not in _OPTIONS:
                yield Problem((*path, "options"), f"{name[:100]} is not there for batches, as it may be a file's")


def without_password_file(part: Settings) -> Settings:
    """Return a part whose driver does not look for a file of passwords (``~/.pgpass``) in the service's home."""
    dsn = getattr(part, "dsn", None)
    if not isinstance(dsn, SecretStr):
        return part
    text = dsn.get_secret_value()
    closed = f"{text}{'&' if urlsplit(text).query else '?' if '?' not in text else ''}passfile={_NO_FILE}"
    return part.model_copy(update={"dsn": SecretStr(closed)})


def _of_dsn(dsn: str) -> str | None:
    """Say what in the address of a database may not be there, None if nothing is. Shows no values."""
    url = urlsplit(dsn)
    hosts = url.netloc.rpartition("@")[2].split(",")
    if url.netloc.count("@") > 1 or not all(hosts) or any("/" in unquote(host) for host in hosts):
        return "should name its host before the database, and no socket of this machine"
    named = [name for name, _ in parse_qsl(url.query, keep_blank_values=True)]
    unknown = sorted({name for name in named if name not in _PARAMETERS})
    if unknown:
        known = ", ".join(sorted(_PARAMETERS))
        return f"has {', '.join(unknown)[:200]}, which batches may not set; they may set {known}"
    return None
