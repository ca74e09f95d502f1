"""Clients of object stores (through obstore), for whoever reads or writes there.

What the driver answers with a panic, or with words that help nobody, is refused before it is asked.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fetcher.errors import ConfigError
from fetcher.extras import load_extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import SecretStr

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#]*)?", re.IGNORECASE)
# How the names of options begin in the environment, and may begin in a config.
_PREFIXES = {"s3": ("aws_",), "gs": ("google_",), "az": ("azure_storage_", "azure_")}
_ENDPOINTS = frozenset({"endpoint", "endpoint_url", "endpoint_url_s3", "base_url"})
_ALLOW_HTTP = "allow_http"
_YES = frozenset({"1", "true", "on", "yes", "y", "t"})


class StorePanicError(Exception):
    """The driver has failed in a way that is a fault of its own, or of what it was given."""


@contextmanager
def no_panics() -> Iterator[None]:
    """Raise StorePanicError for a panic of the driver, which is no Exception and would end the process."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise StorePanicError(f"the driver has failed: {str(error)[:200]}") from error


def client(
    scheme: str,
    bucket: str,
    options: Mapping[str, SecretStr],
    *,
    user: str,
    environ: Mapping[str, str] = os.environ,
    **settings: Any,
) -> Any:
    """Return a client of a bucket, which connects when it is asked for something; ``user`` is who needs it.

    ``scheme`` is ``s3``, ``gs`` or ``az``. Plain http is allowed to an endpoint that is written with ``http://``.
    Raises ConfigError for an endpoint that is no URL, MissingExtraError without obstore, and what obstore raises for
    options that it does not know.
    """
    stores = load_extra("obstore.store", "objectstore", user)
    create = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}[scheme]
    given = {name: value.get_secret_value() for name, value in options.items()}
    allowed = _allows_http(scheme, f"{scheme}://{bucket}", given, environ)
    known = {name: value for name, value in given.items() if _short(scheme, name) != _ALLOW_HTTP}
    settings["client_options"] = settings.get("client_options", {}) | ({_ALLOW_HTTP: True} if allowed else {})
    with no_panics():
        return create(bucket, config=known, **settings)


def _allows_http(scheme: str, place: str, given: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Tell whether requests may be plain http: as is said, or else as an endpoint is written."""
    prefixes = _PREFIXES[scheme]
    around = {name: value for name, value in environ.items() if name.lower().startswith(prefixes) and value}
    said: bool | None = None
    plain: list[str] = []
    # What is said in the options counts more than what is said around them, and so comes last.
    for settings, title in ((around, "the environment variable {}"), (given, "options.{}")):
        for name, value in settings.items():
            short = _short(scheme, name)
            if short == _ALLOW_HTTP:
                said = value.strip().lower() in _YES
            elif short in _ENDPOINTS:
                _check_endpoint(f"{place}: {title.format(name)}", value)
                plain += [title.format(name)] if value.lower().startswith("http:") else []
    if said is False and plain:
        raise ConfigError(
            f"{place}: {plain[0]} is an http:// URL, and allow_http says no; set it to true, or use https"
        )
    return bool(plain) if said is None else said


def _check_endpoint(title: str, value: str) -> None:
    """Raise ConfigError for what is no URL, without what was given: anything may be a secret here."""
    if not _URL.fullmatch(value):
        raise ConfigError(f"{title} should be a URL with its scheme, such as http://127.0.0.1:9000")


def _short(scheme: str, name: str) -> str:
    """Return the name of an option as the driver knows it, in lower case and without the prefix of its store."""
    lower = name.lower()
    prefix = next((prefix for prefix in _PREFIXES[scheme] if lower.startswith(prefix)), "")
    return lower.removeprefix(prefix)
