"""How clients of object stores are made, and what is refused before one is."""

import pytest
from pydantic import SecretStr

from fetcher.errors import ConfigError
from fetcher.sinks.objectstore import ObjectStoreConfig
from fetcher.sources import objects
from fetcher.stores import StorePanicError, client, no_panics

KEYS = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}


def made(scheme="s3", environ=None, **options):
    secret = {name: SecretStr(value) for name, value in options.items()}
    return client(scheme, "b", secret, user="this test", environ=environ or {})


@pytest.mark.parametrize(
    "value", ["127.0.0.1:9000", "minio", "ftp://a", "http://[::", "http://a b", "http://", "//a:1"]
)
@pytest.mark.parametrize("name", ["endpoint", "endpoint_url", "aws_endpoint", "AWS_ENDPOINT_URL"])
def test_an_endpoint_that_is_no_url_is_refused_without_showing_it(name, value):
    with pytest.raises(ConfigError, match=rf"s3://b: options\.{name} should be a URL with its scheme") as refused:
        made(**{name: value})
    assert value not in str(refused.value).partition("such as")[0]


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ("s3", "AWS_ENDPOINT"),
        ("s3", "AWS_ENDPOINT_URL_S3"),
        ("gs", "GOOGLE_BASE_URL"),
        ("az", "AZURE_STORAGE_ENDPOINT"),
    ],
)
def test_an_endpoint_of_the_environment_is_refused_by_its_name(scheme, name):
    with pytest.raises(ConfigError, match=f"the environment variable {name} should be a URL"):
        made(scheme, {name: "127.0.0.1:9000"})


@pytest.mark.parametrize(
    ("options", "environ", "allowed"),
    [
        ({}, {}, False),
        ({"endpoint": "https://a"}, {}, False),
        ({"endpoint": "http://a:9000"}, {}, True),
        ({"endpoint": "HTTP://a"}, {}, True),
        ({}, {"AWS_ENDPOINT_URL": "http://a"}, True),
        ({"allow_http": "true"}, {}, True),
        ({"aws_allow_http": "true"}, {}, True),
        ({}, {"AWS_ALLOW_HTTP": "true"}, True),
        ({}, {"AWS_ALLOW_HTTP": "false"}, False),
        ({"allow_http": "false"}, {"AWS_ALLOW_HTTP": "true"}, False),
        ({"endpoint": "http://a:9000", "allow_http": "true"}, {"AWS_ALLOW_HTTP": "false"}, True),
    ],
)
def test_plain_http_is_allowed_where_somebody_says_so(options, environ, allowed):
    store = made(environ=environ, **KEYS, **options)
    assert (store.client_options or {}).get("allow_http") == ("true" if allowed else None)


def test_an_endpoint_of_http_that_may_not_be_used_is_a_contradiction():
    with pytest.raises(ConfigError, match=r"s3://b: options\.endpoint is an http:// URL, and allow_http says no"):
        made(endpoint="http://a", allow_http="false")


class PanicException(BaseException):
    pass


def test_a_panic_of_the_driver_is_an_error_like_others():
    with pytest.raises(StorePanicError, match="the driver has failed: request valid"), no_panics():
        raise PanicException("request valid")
    with pytest.raises(KeyboardInterrupt), no_panics():
        raise KeyboardInterrupt


async def test_a_sink_whose_store_panics_says_so(monkeypatch):
    one = ObjectStoreConfig.model_validate({"path": "s3://b/a.jsonl", "options": KEYS}).build()

    def panics(*_):
        raise PanicException("no such thing")

    monkeypatch.setattr(one, "_names", panics)
    with pytest.raises(ConfigError, match=r"s3://b/a\.jsonl: this was not to be expected: the driver has failed"):
        await one.check(None, resume=False)
    await one.close()


def test_a_source_refuses_an_endpoint_without_a_scheme(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT", "127.0.0.1:9000")
    with pytest.raises(ConfigError, match="the environment variable AWS_ENDPOINT should be a URL"):
        objects.StoredObject("s3://b/urls.txt", {})
