from __future__ import annotations

import pytest

from fetcher.config.document import parse
from fetcher.config.loading import load_text
from fetcher.config.model import Config
from fetcher.config.overlay import not_of_batch, overlaid
from fetcher.config.problems import ConfigProblems
from fetcher.transports.http.transport import HttpConfig

# About connections, which all batches of a service share. A new key has to be put on one of the two sides.
OF_SERVICE = {
    "resolve",
    "dns",
    "guard",
    "exchange",
    "max_header_size",
    "max_headers",
    "keep_alive",
    "tls",
    "proxy",
}
SHORT = "sources: [urls.txt]\nsinks: [out.jsonl]\n"


def submitted(http: str) -> Config:
    return load_text(Config, f"{SHORT}http:\n{http}", "b.yaml", environ={}, check=not_of_batch)


def test_each_key_is_the_services_or_the_batchs():
    assert set(HttpConfig.model_fields) == OF_SERVICE | HttpConfig.PER_BATCH
    assert not OF_SERVICE & HttpConfig.PER_BATCH


@pytest.mark.parametrize("key", sorted(OF_SERVICE))
@pytest.mark.parametrize("value", ["null", "{}", "true"])
def test_what_is_about_connections_is_refused_in_a_batch(key, value):
    with pytest.raises(ConfigProblems) as caught:
        submitted(f"  user_agent: me\n  {key}: {value}\n")
    assert caught.value.problems == [f"b.yaml:5: http.{key}: is the service's: set it in the config of the service"]


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ConfigProblems) as caught:
        submitted("  tls: {verify: maybe}\n  gard: true\n  robots: perhaps\n  guard: false\n")
    assert [problem.partition(":")[2][:16] for problem in caught.value.problems] == [
        "4: http.tls: is ",
        "5: http.gard: un",
        "6: http.robots: ",
        "7: http.guard: i",
    ]


@pytest.mark.parametrize("http", ["http:\n", "http: text\n", "", "http: [1]\n"])
def test_a_section_without_keys_is_not_its_business(http):
    assert not_of_batch(parse(SHORT + http, "b.yaml", {})) == []


def test_what_a_batch_says_goes_over_what_the_service_says():
    service = HttpConfig.model_validate(
        {"user_agent": "service/1", "robots": "obey", "cookies": True, "guard": True, "tls": {"verify": False}}
    )
    own = submitted("  user_agent: batch/1\n  cookies: false\n  cache: true\n").http
    http = overlaid(service, own)
    assert (http.user_agent, http.cookies, http.cache.path) == ("batch/1", False, "state/cache.db")
    assert (http.robots, http.guard, http.tls) == (service.robots, service.guard, service.tls)
    assert overlaid(service, HttpConfig()) == service


def test_what_slipped_by_is_ignored():
    service = HttpConfig.model_validate({"guard": True})
    own = HttpConfig.model_validate({"guard": False, "resolve": {"a.test": "127.0.0.1"}, "robots": "obey"})
    assert overlaid(service, own) == service.model_copy(update={"robots": "obey"})
