"""From an answer to the job of the next page, without any server."""

from __future__ import annotations

import json

import msgspec
import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job
from fetcher.model import Job, Outcome, Receive, Result
from fetcher.pagination import PaginationSettings, Paginator
from fetcher.pagination.queries import parameter, with_parameter
from fetcher.settings import RequestSettings

URL = "https://a.test/items?q=x"


def paginator(request=None, **section):
    made = Paginator(PaginationSettings.model_validate(section), RequestSettings.model_validate(request or {}))
    made.check()
    return made


def job(url=URL, **fields):
    return msgspec.structs.replace(make_job("0-12", url), **fields)


def answer(document=None, *, link=None, **fields):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = [] if link is None else [("Link", link)]
    known = {"status": 200, "outcome": Outcome.OK, "headers": headers, "body": body}
    return Result(batch="b", job_id="0-12", url=URL, attempts=1, **known | fields)


def after(pages, this, document=None, **fields):
    return pages.following(this, answer(document, **fields))


def url_after(pages, this, document=None, **fields):
    following = after(pages, this, document, **fields)
    return None if following.job is None else following.job.url


def why(pages, this, document=None, **fields):
    with pytest.raises(FetchError) as caught:
        after(pages, this, document, **fields)
    assert caught.value.kind is ErrorKind.BAD_PAGINATION
    return caught.value.message


LINKED = paginator(next="link")
CURSOR = paginator(cursor={"json": "meta.next", "param": "after"})
POSTED = paginator(cursor={"json": "next", "in": "json"})
WHOLE = paginator(cursor={"url": "paging.next"})


# What a page's job is made of


def test_a_page_is_a_job_that_asks_as_the_first_did_under_an_id_of_its_own():
    given = Job(
        id="0-12",
        url=URL,
        host="a.test",
        method="REPORT",
        headers=[("authorization", "Bearer s"), ("accept", "x/y")],
        body=b"{}",
        receive=Receive(length=1),
        priority=7,
        timeout=3.0,
        verify=False,
        checksum="md5:" + "0" * 32,
        meta={"row": 1},
        key="mine",
        attempts=2,
        first_started_at=5.0,
    )
    second = after(LINKED, given, link="</items?page=2>; rel=next").job
    assert second is not None
    changed = {"id", "url", "checksum", "parent", "page", "key", "attempts", "first_started_at"}
    for field in set(Job.__struct_fields__) - changed:
        assert getattr(second, field) == getattr(given, field), field
    assert (second.id, second.parent, second.page) == ("0-12~2", "0-12", 2)
    assert (second.attempts, second.first_started_at, second.checksum) == (0, None, None)
    assert second.headers is not given.headers
    third = after(LINKED, second, link="</items?page=3>; rel=next").job
    assert third is not None
    assert (third.id, third.parent, third.page) == ("0-12~3", "0-12", 3)
    assert len({given.key, second.key, third.key}) == 3


def test_the_same_page_always_has_the_same_key():
    keys = {after(LINKED, job(), link=f"</items?page={n}>; rel=next").job.key for n in range(3)}
    assert len(keys) == 1


def test_what_did_not_end_well_has_no_next_page():
    following = after(LINKED, job(), link="</2>; rel=next", outcome=Outcome.FAILED)
    assert (following.job, following.has_more) == (None, False)


def test_the_bound_is_of_pages_and_its_last_one_says_that_there_are_more():
    bounded = paginator(next="link", max_pages=2)
    second = after(bounded, job(), link="</2>; rel=next")
    assert second.has_more
    last = after(bounded, second.job, link="</3>; rel=next")
    assert (last.job, last.has_more) == (None, True)
    assert not after(bounded, second.job).has_more


# Links


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("<?page=2>; rel=next", "https://a.test/items?page=2"),
        ("<other/2>; rel=next", "https://a.test/other/2"),
        ("<https://a.test/x#part>; rel=next", "https://a.test/x"),
        ("<https://A.test:443/x>; rel=next", "https://A.test/x"),
        ('</2>; rel=next; anchor=""', "https://a.test/2"),
        ('</2>; rel=next; anchor="/items?q=x"', "https://a.test/2"),
        ('</2>; rel=next; anchor="#part"', None),
        ('</2>; rel=next; anchor="/another"', None),
        ("</2>; rel=next, </2>; rel=next", "https://a.test/2"),
        ("</2>; rel=prev", None),
        ("nothing that could be read", None),
    ],
)
def test_a_link_is_relative_to_the_page(link, url):
    assert url_after(LINKED, job(), link=link) == url


def test_a_link_is_relative_to_where_the_page_was_in_the_end():
    assert url_after(LINKED, job(), link="<2>; rel=next", final_url="https://a.test/v2/items/") == (
        "https://a.test/v2/items/2"
    )


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("</2>; rel=next, </3>; rel=next", "names several next pages"),
        ("</1>; rel=prev, /2; rel=next", "can not be read from here on: '/2; rel=next'"),
        ("<ftp://a.test/>; rel=next", "a next page to ftp: is not followed"),
        ("<javascript:alert(1)>; rel=next", "nothing here fetches javascript:"),
        ("<http://>; rel=next", "has no host"),
        ("<http://[::x]/>; rel=next", "points to"),
        ("<>; rel=next", "is this page itself"),
        ("</items?q=x>; rel=next", "is this page itself"),
    ],
)
def test_a_next_page_that_is_not_to_be_had_is_said_so(link, said):
    assert said in why(LINKED, job(), link=link)


def test_a_page_that_leads_to_where_it_was_redirected_to_is_itself():
    assert "is this page itself" in why(LINKED, job(), link="</b>; rel=next", final_url="https://a.test/b")


def test_no_password_that_a_server_sends_is_used_or_shown():
    found = after(LINKED, job(), link="<https://me:secret@a.test/2>; rel=next").job
    assert (found.url, found.headers) == ("https://a.test/2", [])
    assert "secret" not in why(LINKED, job(), link="<ftp://me:secret@a.test/2>; rel=next")


# Origins

SECRETS = [("Authorization", "s"), ("cookie", "s"), ("X-Key", "s"), ("Host", "a.test"), ("Accept", "all")]


@pytest.mark.parametrize(
    ("here", "link", "kept"),
    [
        ("https://a.test/1", "</2>", True),
        ("https://a.test/1", "<https://a.test:443/2>", True),
        ("https://a.test/1", "<https://b.test/2>", False),
        ("https://a.test/1", "<https://a.test:8443/2>", False),
        ("https://a.test/1", "<http://a.test/2>", False),
        ("https://b.test/1", "</2>", False),  # it was redirected there
        ("https://b.test/1", "<https://a.test/2>", False),  # and would come back
    ],
)
def test_secrets_stay_with_their_origin(here, link, kept):
    linked = paginator(next="link", request={"secret_headers": ["x-key"]})
    given = job("https://a.test/1", headers=SECRETS)
    second = after(linked, given, link=f"{link}; rel=next", final_url=here).job
    assert second.headers == (SECRETS if kept else [("Accept", "all")])
    assert second.foreign is not kept
    third = after(linked, second, link="<https://a.test/3>; rel=next").job
    assert third.foreign is not kept


def test_a_page_that_we_number_ourselves_is_of_the_jobs_own_origin_wherever_it_was_redirected_to():
    given = job(headers=SECRETS)
    second = after(CURSOR, given, {"meta": {"next": "c"}}, final_url="https://b.test/").job
    assert (second.headers, second.foreign) == (SECRETS, False)


def test_a_downgrade_is_refused_where_redirects_are():
    linked = paginator(next="link", request={"downgrade": "refuse"})
    assert "request.downgrade: refuse" in why(linked, job(), link="<http://a.test/2>; rel=next")
    assert after(linked, job("http://a.test/"), link="<http://a.test/2>; rel=next").job is not None


# Cursors


@pytest.mark.parametrize("end", [{}, {"meta": None}, {"meta": {"next": None}}, {"meta": {"next": ""}}, []])
def test_no_cursor_is_the_end(end):
    following = after(CURSOR, job(), end)
    assert (following.job, following.has_more) == (None, False)
    assert not after(CURSOR, job(), {"meta": {"next": False}}).has_more


@pytest.mark.parametrize(
    ("cursor", "written"),
    [
        ("abc", "abc"),
        ("a&b=c d/é", "a%26b%3Dc%20d%2F%C3%A9"),
        (17, "17"),
        (0, "0"),
        (1.5, "1.5"),
        (20.0, "20"),
        (1e18, "1" + "0" * 18),
        (-0.0, "0"),
    ],
)
def test_a_cursor_is_data_and_nothing_else(cursor, written):
    assert url_after(CURSOR, job(), {"meta": {"next": cursor}}) == f"{URL}&after={written}"


def test_a_cursor_takes_the_place_of_the_one_before():
    assert url_after(CURSOR, job(URL + "&after=1&z=%20+&after=2"), {"meta": {"next": "3"}}) == f"{URL}&after=3&z=%20+"


@pytest.mark.parametrize("cursor", [True, ["a"], {"a": 1}])
def test_a_cursor_that_is_none_is_said_so_without_its_value(cursor):
    said = why(CURSOR, job(), {"meta": {"next": cursor}})
    assert said.startswith("the next page: pagination.cursor.json (meta.next) is ")


def test_the_same_cursor_again_is_the_page_itself():
    assert "is this page itself" in why(CURSOR, job(URL + "&after=c"), {"meta": {"next": "c"}})


def test_a_cursor_in_the_body_of_the_request():
    first = job(method="POST", body=b'{"query": "x", "cursor": null}', headers=[("Content-Type", "application/json")])
    second = after(POSTED, first, {"next": "c2"}).job
    assert json.loads(second.body) == {"query": "x", "cursor": "c2"}
    assert (second.url, second.method, second.headers) == (first.url, "POST", first.headers)
    bare = after(POSTED, job(), {"next": 2.0}).job
    assert (bare.method, bare.body) == ("GET", b'{"cursor":2}')
    assert bare.headers == [("content-type", "application/json")]
    assert "is no JSON object" in why(POSTED, job(body=b"a=b"), {"next": "c"})
    assert "is no JSON object" in why(POSTED, job(body=b"[]"), {"next": "c"})
    assert "is this page itself" in why(POSTED, job(body=b'{"cursor":"c"}'), {"next": "c"})


def test_a_url_in_the_body():
    assert url_after(WHOLE, job(), {"paging": {"next": "?page=2"}}) == "https://a.test/items?page=2"
    assert url_after(WHOLE, job(), {"paging": {}}) is None
    assert after(WHOLE, job(headers=SECRETS), {"paging": {"next": "https://b.test/"}}).job.foreign
    assert "is a number, and should be text" in why(WHOLE, job(), {"paging": {"next": 2}})
    assert "points to" in why(WHOLE, job(), {"paging": {"next": "file:///etc/passwd"}})
    assert "points to" in why(WHOLE, job(), {"paging": {"next": "http://a\x00b/"}})


# Page numbers


def test_the_first_page_says_that_it_is():
    given = job()
    pages = paginator(page={"items": "data"})
    pages.begin(given)
    assert given.url == f"{URL}&page=1"
    pages.begin(given)
    assert given.url == f"{URL}&page=1"
    elsewhere = make_job("1", "tcp://a.test:7")
    pages.begin(elsewhere)
    assert elsewhere.url == "tcp://a.test:7"
    rejected = make_job("1", "no url")
    pages.begin(rejected)
    assert rejected.url == "no url"


def test_pages_are_numbered_until_one_has_no_items():
    pages = paginator(page={"param": "p", "first": 0, "items": "data"})
    assert url_after(pages, job(), {"data": [1]}) == f"{URL}&p=1"
    assert url_after(pages, job(URL + "&p=7"), {"data": {"a": 1}}) == f"{URL}&p=8"
    for end in ({"data": []}, {"data": None}, {}):
        assert url_after(pages, job(page=2), end) is None
    assert url_after(pages, job(), {"data": []}) is None
    assert "(data) is text, and should be a list" in why(pages, job(), {"data": "x"})
    assert "the parameter p of the URL is 'x', which is no number" in why(pages, job(URL + "&p=x"), {"data": [1]})


@pytest.mark.parametrize("form", ["page", "offset"])
@pytest.mark.parametrize("document", [{"data": [1]}, {"itemz": None}, [1]])
def test_a_path_that_leads_nowhere_on_a_first_page_is_no_end(form, document):
    for section in ({"items": "itemz"}, {"items": "itemz", "total": "n"}):
        said = why(paginator(**{form: section}), job(), document)
        assert f"pagination.{form}.items (itemz) is not in the first page, or null" in said
        assert "[] would be the end" in said
        assert url_after(paginator(**{form: section}), job(page=2), document) is None


@pytest.mark.parametrize(("form", "second"), [("page", 2), ("offset", 1)])
def test_an_api_that_has_null_for_nothing_can_be_read(form, second):
    said = why(paginator(**{form: {"items": "data", "total": "n"}}), job(), {"data": None, "n": 3})
    assert "is not in the first page" in said
    assert url_after(paginator(**{form: {"items": "data", "total": "n"}}), job(), {"data": None, "n": 0}) is None
    pages = paginator(**{form: {"items": "data || `[]`"} | ({"limit": 1} if form == "offset" else {})})
    assert url_after(pages, job(), {"data": None}) is None
    assert url_after(pages, job(), {"data": [1]}) == f"{URL}&{form}={second}"


@pytest.mark.parametrize(("first", "total", "last"), [(1, 3, 3), (0, 3, 2), (1, "3", 3), (1, 3.0, 3), (1, 0, 1)])
def test_pages_are_numbered_up_to_their_number(first, total, last):
    pages = paginator(page={"first": first, "total": "pages"})
    assert url_after(pages, job(URL + f"&page={last}"), {"pages": total}) is None
    if last > first:
        assert url_after(pages, job(URL + f"&page={last - 1}"), {"pages": total}) == f"{URL}&page={last}"


@pytest.mark.parametrize("total", [None, "many", -1, 1.5, True, []])
def test_a_number_of_pages_that_is_none_is_said_so(total):
    assert "should be a whole number" in why(paginator(page={"total": "pages"}), job(), {"pages": total})


def test_where_a_total_is_missing_the_items_say_where_the_end_is():
    pages = paginator(page={"total": "pages", "items": "data"})
    assert url_after(pages, job(), {"data": [1]}) == f"{URL}&page=2"
    assert url_after(pages, job(), {"data": [], "pages": 9}) is None


# Offsets


def test_the_first_page_asks_for_as_many_as_the_others():
    given = job()
    paginator(offset={"items": "data", "limit": 50, "limit_param": "n"}).begin(given)
    assert given.url == f"{URL}&offset=0&n=50"


@pytest.mark.parametrize(
    ("section", "document", "then"),
    [
        ({"items": "data"}, {"data": [1, 2]}, 12),
        ({"items": "data"}, {"data": [1]}, None),
        ({"items": "data"}, {"data": []}, None),
        ({"items": "data"}, {"data": [1, 2, 3]}, 13),  # more than were asked for
        ({"items": "data", "total": "n"}, {"data": [1], "n": 12}, 11),  # fewer, and yet there are more
        ({"items": "data", "total": "n"}, {"data": [1, 2], "n": 12}, None),
        ({"items": "data", "total": "n"}, {"data": [], "n": 99}, None),
        ({"items": "data", "total": "n"}, {"data": [1, 2]}, 12),
        ({"total": "n"}, {"n": 13}, 12),
        ({"total": "n"}, {"n": 12}, None),
    ],
)
def test_the_next_page_begins_after_the_items_that_came(section, document, then):
    pages = paginator(offset=section | {"limit": 2})
    assert url_after(pages, job(URL + "&offset=10"), document) == (None if then is None else f"{URL}&offset={then}")


def test_a_limit_in_the_url_is_the_one_that_holds():
    pages = paginator(offset={"items": "data", "limit": 100, "limit_param": "n"})
    assert url_after(pages, job(URL + "&n=2"), {"data": [1, 2]}) == f"{URL}&n=2&offset=2"


# Bodies


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"document": b"<html>"}, "the body is not JSON"),
        ({"document": b"\xff"}, "the body is not JSON"),
        ({"document": b"[" * 100_000 + b"]" * 100_000}, "the body is not JSON: maximum recursion depth"),
        ({"body": b""}, "there is no body"),
        ({"body": None}, "there is no body"),
        ({"document": b'{"data": [1', "truncated": True}, "was cut at body.max_size"),
        ({"document": [], "content_encoding": "zz"}, "still coded as 'zz'"),
    ],
)
def test_a_body_that_can_not_be_read_ends_the_listing_and_says_why(fields, said):
    assert said in why(paginator(page={"items": "data"}), job(), **fields)


def test_an_expression_that_can_not_be_applied_is_named():
    assert "pagination.page.items (length(data))" in why(paginator(page={"items": "length(data)"}), job(), {"data": 1})


def test_no_content_is_the_end():
    assert not after(paginator(page={"items": "data"}), job(), status=204, body=None).has_more


def test_a_byte_order_mark_is_no_part_of_it():
    assert url_after(CURSOR, job(), b'\xef\xbb\xbf{"meta": {"next": "c"}}') == f"{URL}&after=c"


# Parameters


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("http://a/", None),
        ("http://a/?", None),
        ("http://a/?page", ""),
        ("http://a/?x=page=1&page=2&page=3", "2"),
        ("http://a/?%70age=a+b%26", "a b&"),
        ("http://a/page=1", None),
    ],
)
def test_the_value_of_a_parameter(url, value):
    assert parameter(url, "page") == value


@pytest.mark.parametrize(
    ("url", "made"),
    [
        ("http://a/", "http://a/?page=2"),
        ("http://a/?", "http://a/?page=2"),
        ("http://a/?q=%7e+~&&page=1&r", "http://a/?q=%7e+~&&page=2&r"),
        ("http://a/?q", "http://a/?q&page=2"),
    ],
)
def test_a_parameter_is_set_and_all_else_stays(url, made):
    assert with_parameter(url, "page", "2") == made
