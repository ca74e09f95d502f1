"""Addresses of PostgreSQL databases: how they are written, and what may be shown of them where no password may be.

See https://www.postgresql.org/docs/current/libpq-connect.html, connection URIs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from pydantic import SecretStr

_PORT = 5432
_HOST = re.compile(r"([^\[\]:]*|\[[0-9A-Fa-f:.]+(?:%.*)?\])(?::(?!0+$)(\d{1,5}))?")


def check_dsn(dsn: SecretStr) -> SecretStr:
    """Return what is a usable address; refuse any other, without showing it, as there is a password in it.

    What has a ``/``, ``?`` or ``#`` in its password, or an ``@`` behind one of these, would be read as if a part of the
    password was the host or the database, and is told to everybody.
    """
    text = dsn.get_secret_value()
    try:
        url = urlsplit(text)
        usable = url.scheme in {"postgres", "postgresql"} and all(map(_HOST.fullmatch, _hosts(url)))
        usable = usable and "@" not in url.path + url.query and not url.fragment and url.path.count("/") <= 1
    except ValueError:
        usable = False
    if not usable:
        words = (
            "should be a URL such as postgresql://user:password@host:5432/database "
            "(in user and password, write @ as %40, / as %2F, ? as %3F and # as %23)"
        )
        raise PydanticCustomError("dsn", words)
    return dsn


def place_of(dsn: str) -> str:
    """Return which database an address means, without who asks for it: ``postgresql://host:5432/database``."""
    url = urlsplit(dsn)
    parameters = {name: values[-1] for name, values in parse_qs(url.query).items()}
    hosts = []
    for text in _hosts(url):
        match = _HOST.fullmatch(text)
        host, port = match.groups() if match else (text, None)
        host = host.lower() or parameters.get("host") or "localhost"
        hosts.append(f"{host}:{port or parameters.get('port') or _PORT}")
    return f"postgresql://{','.join(hosts)}/{url.path[1:] or parameters.get('dbname', '')}"


def _hosts(url: SplitResult) -> list[str]:
    """Return the servers with their ports; there may be several, of which one is the primary."""
    return url.netloc.rpartition("@")[2].split(",")
