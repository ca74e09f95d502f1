"""What may be loaded, and what is loaded."""

import asyncio

import pytest

from fetcher.config import load
from fetcher.errors import ConfigError, RefusedError, UnreachableError
from fetcher.load.plan import Spec
from fetcher.load.target import Target, config_of, is_own, vet
from fetcher.load.tuning import advise
from fetcher.origin import Origin, OriginConfig


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "fd00::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
    ],
)
def test_own_addresses(address):
    assert is_own(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "100.64.0.1",
        "224.0.0.1",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ],
)
def test_addresses_of_others(address):
    assert not is_own(address)


async def test_all_addresses_of_a_host_have_to_be_own(monkeypatch):
    async def resolve(_self, host, *_):
        return [{"host": "10.0.0.1"}, {"host": "93.184.216.34"}] if host == "mixed.test" else [{"host": "10.0.0.1"}]

    monkeypatch.setattr("fetcher.load.target.MappingResolver.resolve", resolve)
    await vet({"inner.test"}, {})
    with pytest.raises(RefusedError, match=r"mixed\.test \(93\.184\.216\.34\) is not .* --i-may-load-this-host"):
        await vet({"inner.test", "mixed.test"}, {})


async def test_the_config_resolves_names():
    await vet({"shop.example.org"}, {"*.example.org": "127.0.0.1"})
    with pytest.raises(RefusedError):
        await vet({"shop.example.org"}, {"*.example.org": "8.8.8.8"})


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "https://[2606:4700::1111]/x", "http://user:secret@8.8.4.4/"])
async def test_a_public_target_is_refused_before_anything_is_sent(url):
    target = Target(config_of(url), url)
    with pytest.raises(RefusedError) as caught:
        await target.open()
    assert "say so with --i-may-load-this-host" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 2


async def test_with_consent_nothing_is_looked_up_and_redirects_are_followed():
    target = Target(config_of("http://8.8.8.8/"), "", consent=True)
    await target.open()
    assert target.config.request.max_redirects == 5
    assert not target.notes


async def test_without_consent_redirects_are_not_followed():
    origin = Origin(OriginConfig())
    await origin.start()
    try:
        url = f"{origin.url}/redirect-to?url=http://8.8.8.8/"
        target = Target(config_of(url), url)
        await target.open()
        spec = Spec(concurrency=1, requests=2, warm_up=0.0)
        measured = await target.run(spec, asyncio.Event()).measure()
        assert measured.errors == {"http_3xx": 2}
        assert any("redirects are not followed" in note for note in target.notes)
    finally:
        await origin.close()


async def test_a_name_without_address_is_told(monkeypatch):
    async def resolve(*_):
        raise OSError(None, "Domain name not found")

    monkeypatch.setattr("fetcher.load.target.MappingResolver.resolve", resolve)
    with pytest.raises(UnreachableError, match=r"nowhere\.test: has no address .*http\.resolve"):
        await vet({"nowhere.test"}, {})


async def test_passwords_are_in_no_label():
    url = "http://user:secret@127.0.0.1:1/x"
    target = Target(config_of(url), url)
    await target.open()
    assert target.label == "http://127.0.0.1:1/x"
    assert target.jobs[0].headers[0][0] == "Authorization"


async def test_jobs_come_from_all_sources_and_rows_that_can_not_be_fetched_are_left_out(tmp_path):
    (tmp_path / "urls.txt").write_text("http://127.0.0.1/a\nftp://127.0.0.1/\nhttp://127.0.0.1/b\n")
    config = load(
        None, [f'sources=["{tmp_path}/urls.txt", "http://127.0.0.1/{{1..3}}"]', 'sinks=["-"]', "request.method=POST"]
    )
    target = Target(config, "x")
    await target.open()
    assert [job.url.rpartition("/")[2] for job in target.jobs] == ["a", "b", "1", "2", "3"]
    assert any(note.startswith("1 rows") for note in target.notes)
    assert any("POST requests are sent again" in note for note in target.notes)


async def test_nothing_to_fetch(tmp_path):
    (tmp_path / "urls.txt").write_text("ftp://127.0.0.1/\n")
    target = Target(load(None, [f'sources=["{tmp_path}/urls.txt"]', 'sinks=["-"]']), "x.yaml")
    with pytest.raises(
        ConfigError, match=r"x\.yaml: has no job that can be fetched \(only http and https are measured"
    ):
        await target.open()


def limits(**given):
    return load(
        None, ['sources=["a"]', 'sinks=["-"]', *(f"limits.{key}={value}" for key, value in given.items())]
    ).limits


async def jobs(*hosts):
    listed = ", ".join(f'"http://{host}/"' for host in hosts)
    target = Target(config_of("http://x/", [f"sources=[{listed}]"]), "", consent=True)
    await target.open()
    return target.jobs


async def test_the_limit_of_a_host_is_raised_to_its_share_of_the_knee():
    one = await jobs("a.test")
    assert advise(64, one, limits()).limits == {
        ("limits", "concurrency"): 64,
        ("limits", "per_host", "concurrency"): 64,
    }
    two = await jobs("a.test", "a.test", "a.test", "b.test")
    assert advise(64, two, limits()).limits[("limits", "per_host", "concurrency")] == 48
    assert advise(8, one, limits()).limits == {("limits", "concurrency"): 8}


async def test_what_else_holds_a_host_back_is_said():
    one = await jobs("a.test")
    held = advise(64, one, limits(**{"per_host.rate": "10/s"}))
    assert "a.test is also held to 10 requests/s" in held.remarks[0]
    named = advise(64, one, limits(hosts='{"a.test": {concurrency: 2}}'))
    assert named.limits == {("limits", "concurrency"): 64}
    assert named.remarks == ["limits.hosts allows a.test only 2 in flight; the knee needs 64"]
