"""What people are told to install."""

import pytest

from fetcher import extras
from fetcher.errors import MissingExtraError
from fetcher.extras import is_installed, load_extra, requirements


def declare(monkeypatch, *lines):
    monkeypatch.setattr(extras, "requires", lambda name: list(lines))


def test_the_packages_of_an_extra_are_named_and_not_the_extra(monkeypatch):
    declare(
        monkeypatch,
        "aiohttp>=3",
        "no-such-driver>=2.1; extra == 'tea'",
        "other[x]<3 ; python_version < '4' and extra == \"tea\"",
        "third; extra == 'teapot'",
    )
    with pytest.raises(MissingExtraError) as missing:
        load_extra("no_such_driver.client", "tea", "the sink tea")
    assert str(missing.value) == (
        "the sink tea needs no_such_driver, which is not installed; "
        "install it with: pip install 'no-such-driver>=2.1' 'other[x]<3'"
    )
    assert not is_installed("tea")


def test_without_an_installation_the_module_is_named(monkeypatch):
    def requires(name):
        raise extras.PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", requires)
    with pytest.raises(MissingExtraError, match=r"install it with: pip install no_such_driver$"):
        load_extra("no_such_driver", "tea", "the sink tea")


def test_what_is_installed_is_seen(monkeypatch):
    declare(monkeypatch, "pytest[x]>=1; extra == 'tea'")
    assert requirements("tea") == ["pytest[x]>=1"]
    assert is_installed("tea")
