"""The section pagination: which forms there are, and what each needs."""

from __future__ import annotations

import sys

import pytest
from pydantic import ValidationError

from fetcher.config import Config
from fetcher.config.model import fingerprint
from fetcher.errors import MissingExtraError
from fetcher.pagination import PaginationSettings, Paginator
from fetcher.settings import RequestSettings

BATCH = {"sources": ["http://a.test/"], "sinks": ["-"]}


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({}, "needs one of next: link, cursor, page and offset; it has none"),
        ({"next": "link", "page": {"items": "a"}}, "it has next and page"),
        ({"next": "body"}, "Input should be 'link'"),
        ({"cursor": {}}, "needs either json, a path to the cursor, or url, a path to a URL"),
        ({"cursor": {"json": "a", "url": "b"}}, "needs either json"),
        ({"cursor": {"url": "b", "param": "c"}}, "has param or in, which are for json"),
        ({"page": {}}, "would never end; it needs items, a path to the items of a page, or total"),
        ({"offset": {"limit": 5}}, "total, one to the number of all items"),
        ({"offset": {"limit": 0, "items": "a"}}, "greater than or equal to 1"),
        ({"next": "link", "max_pages": 0}, "greater than or equal to 1"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_to_write(section, why):
    with pytest.raises(ValidationError, match=why):
        PaginationSettings.model_validate(section)


@pytest.mark.parametrize(
    ("section", "of_body"),
    [
        ({"next": "link"}, None),
        ({"cursor": {"json": "next"}}, "cursor"),
        ({"page": {"items": "data"}}, "page"),
        ({"offset": {"total": "total"}}, "offset"),
    ],
)
def test_only_a_link_does_without_bodies(section, of_body):
    assert PaginationSettings.model_validate(section).of_body == of_body
    Config.model_validate(BATCH | {"pagination": section})
    for body in ("none", "file"):
        if of_body is None:
            Config.model_validate(BATCH | {"pagination": section, "body": body})
        else:
            with pytest.raises(ValidationError, match=rf"looks at bodies, and with body.store: {body}"):
                Config.model_validate(BATCH | {"pagination": section, "body": body})


def test_head_has_no_body_to_look_at():
    with pytest.raises(ValidationError, match="HEAD, which asks for none"):
        Config.model_validate(BATCH | {"pagination": {"page": {"items": "a"}}, "request": {"method": "head"}})


def test_a_path_that_is_no_jmespath_is_named():
    for form in ({"page": {"items": "data["}}, {"offset": {"total": "data["}}, {"cursor": {"url": "data["}}):
        with pytest.raises(ValidationError, match=r"'data\[' is no JMESPath: Incomplete expression"):
            PaginationSettings.model_validate(form)


def test_without_the_library_it_is_the_check_that_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "jmespath", None)
    settings = PaginationSettings.model_validate({"page": {"items": "data["}})
    with pytest.raises(MissingExtraError, match=r"pagination\.page\.items needs jmespath"):
        Paginator(settings, RequestSettings()).check()


def test_which_pages_there_are_is_part_of_what_a_run_is_known_by():
    plain = Config.model_validate(BATCH)
    paged = Config.model_validate(BATCH | {"pagination": {"next": "link"}})
    bounded = Config.model_validate(BATCH | {"pagination": {"next": "link", "max_pages": 3}})
    assert len({fingerprint(config) for config in (plain, paged, bounded)}) == 3
