"""Servers that tests share. Each is started when a test first asks for it, and stopped at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.httpbin import HttpbinServer
    from servers.nats import NatsServer
    from servers.postgres import PostgresServer
    from servers.redis import RedisServer
    from servers.s3 import S3Server
    from servers.smtp import SmtpServer
    from servers.webhook import WebhookServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start a PostgreSQL server. Who stops it starts it again."""
    from servers.postgres import postgres_server  # noqa: PLC0415  asyncpg, for tests that need it

    yield from postgres_server()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Start an S3 server. Who stops it starts it again."""
    from servers.s3 import s3_server  # noqa: PLC0415  a second of imports, for tests that need it

    yield from s3_server()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """Start a Redis server. Who stops it starts it again."""
    from servers.redis import redis_server  # noqa: PLC0415  nothing is started, nor imported, that is not asked for

    yield from redis_server()


@pytest.fixture(scope="session")
def nats() -> Iterator[NatsServer]:
    """Start a NATS server with JetStream. Who stops it starts it again."""
    from servers.nats import nats_server  # noqa: PLC0415  nothing is started, nor imported, that is not asked for

    yield from nats_server()


@pytest.fixture(scope="session")
def smtp() -> Iterator[SmtpServer]:
    """Start an SMTP server. Who stops it starts it again."""
    from servers.smtp import smtp_server  # noqa: PLC0415  nothing is started, nor imported, that is not asked for

    yield from smtp_server()


@pytest.fixture(scope="session")
def webhook() -> Iterator[WebhookServer]:
    """Start a receiver of webhooks. Who stops it starts it again."""
    from servers.webhook import webhook_server  # noqa: PLC0415  nothing is started, nor imported, that is not asked for

    yield from webhook_server()


@pytest.fixture(scope="session")
def httpbin() -> Iterator[HttpbinServer]:
    """Start httpbin."""
    from servers.httpbin import httpbin_server  # noqa: PLC0415  nothing is started, nor imported, that is not asked for

    yield from httpbin_server()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long without doing much, so that all the others run beside it."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name what is compressed by that alone: gzip puts the time into its bytes, and the names of tests have to stay."""
    return "gzip" if isinstance(val, bytes) and b"\x1f\x8b" in val else None
