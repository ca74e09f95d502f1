from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.transports.http.robots.rules import LONGEST, MAX_SIZE, SHORTEST, Rules, lifetime, product_token, relevant


def rules(text, token="fetcher", *, whole=True):
    data = text if isinstance(text, bytes) else text.encode()
    return Rules(relevant(data, token, whole=whole), token)


def allows(text, path, token="fetcher"):
    return rules(text, token).allows(f"http://a.test{path}")


@pytest.mark.parametrize(
    ("user_agent", "token"),
    [
        ("fetcher/0.1", "fetcher"),
        ("FooBot", "foobot"),
        ("My_Bot-2/1.0 (+http://a.test/)", "my_bot-2"),
        ("Mozilla/5.0 (compatible; FooBot/2.1; +http://a.test/bot.html)", "foobot"),
        ("Mozilla/5.0 (X11; Linux)", "mozilla"),
        ("", ""),
        ("(no name)", ""),
    ],
)
def test_the_name_that_we_go_by(user_agent, token):
    assert product_token(user_agent) == token


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("User-agent: *\nDisallow: /a", "/a/b", False),
        ("User-agent: *\nDisallow: /a", "/b", True),
        ("User-agent: *\nDisallow: /", "/", False),
        ("User-agent: *\nDisallow:", "/a", True),
        ("", "/a", True),
        ("\n\n# nothing\n", "/a", True),
        ("Disallow: /a", "/a", True),
        # The longest match decides, and Allow where both are equally long.
        ("User-agent: *\nDisallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("User-agent: *\nAllow: /a\nDisallow: /a/b", "/a/b/c", False),
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),
        # Wildcards
        ("User-agent: *\nDisallow: /*.gif$", "/x/y.gif", False),
        ("User-agent: *\nDisallow: /*.gif$", "/x/y.gif?z", True),
        ("User-agent: *\nDisallow: /*?secret", "/x?secret=1", False),
        # A group of our own stands in for the one of all.
        ("User-agent: *\nDisallow: /\n\nUser-agent: Fetcher\nDisallow: /a", "/b", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Fetcher\nDisallow: /a", "/a", False),
        ("User-agent: fetcher/2.0\nDisallow: /a", "/a", False),
        ("User-agent: other\nUser-agent: fetcher\nDisallow: /a", "/a", False),
        ("User-agent: fetcher\nUser-agent: other\nDisallow: /a", "/a", False),
        ("User-agent: fetcher\nDisallow: /a\nUser-agent: other\nDisallow: /b", "/b", True),
        ("User-agent: fetcher\nDisallow: /a\nUser-agent: other\nDisallow: /\nUser-agent: fetcher\nDisallow: /b",
         "/b", False),
        ("User-agent: fetcher\nSitemap: http://a.test/s\nUser-agent: other\nDisallow: /a", "/a", False),
        # A name that ours begins with is another's.
        ("User-agent: fetch\nDisallow: /", "/a", True),
        ("User-agent: fetcher-images\nDisallow: /", "/a", True),
        # How files are written
        ("User-agent: *\r\nDisallow: /a\r\n", "/a", False),
        ("User-agent: *\rDisallow: /a\r", "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /a", "/a", False),
        ("  user-AGENT :  *  # all\n\tDISALLOW:/a # this\n", "/a", False),
        ("User-agent: *\nDisallow /a", "/a", False),
        ("User-agent: *\nDissallow: /a", "/a", False),
        ("User-agent: *\nDisallow: /caf\u00e9", "/caf%C3%A9", False),
        ("User-agent: *\nDisallow: /caf%c3%a9", "/caf%C3%A9", False),
        (b"User-agent: *\nDisallow: /caf\xe9", "/caf%E9", False),
        ("User-agent: *\nDisallow: /a\u2028b", "/a", True),
        ("User-agent: *\nDisallow: /a\u00e0", "/a", True),
        ("<!doctype html>\n<p>User-agent: *</p>\n<p>Disallow: /</p>", "/a", True),
        ("User-agent: *\nDisallow: /", "/robots.txt", True),
        ("User-agent: *\nDisallow: //x", "//x", False),
    ],
)  # fmt: skip
def test_what_may_be_fetched(text, path, allowed):
    assert allows(text, path) is allowed


def test_without_a_name_only_the_group_of_all_counts():
    text = "User-agent:\nDisallow: /a\nUser-agent: *\nDisallow: /b"
    assert (allows(text, "/a", token=""), allows(text, "/b", token="")) == (True, False)


@pytest.mark.parametrize(
    ("line", "seconds"), [("2", 2.0), ("0.5", 0.5), ("x", None), ("-1", None), ("inf", None), ("nan", None), ("", None)]
)
def test_crawl_delay(line, seconds):
    assert rules(f"User-agent: *\nCrawl-delay: {line}\nDisallow: /a").crawl_delay == seconds
    assert rules(f"User-agent: other\nCrawl-delay: {line}").crawl_delay is None


def test_the_last_line_of_a_part_does_not_count():
    part = "User-agent: *\nDisallow: /a\nDisallow: /"
    assert rules(part, whole=False).allows("http://a.test/b")
    assert not rules(part, whole=False).allows("http://a.test/a")
    assert not rules(part).allows("http://a.test/b")
    assert rules("User-agent: * Disallow: /", whole=False).allows("http://a.test/b")


def test_a_file_of_many_names_and_many_rules_is_read_in_no_time():
    """The product of both would take minutes and gigabytes."""
    names = "".join(f"User-agent: bot{number}\n" for number in range(12_000))
    text = (names + "User-agent: fetcher\n" + "Disallow: /x\n" * 20_000)[:MAX_SIZE]
    started = time.process_time()
    assert not rules(text).allows("http://a.test/x")
    assert time.process_time() - started < 10


@given(st.binary(max_size=300), st.sampled_from(["fetcher", ""]))
def test_any_bytes_are_a_file(data, token):
    assert rules(b"User-agent: *\n" + data, token).allows("http://a.test/robots.txt")
    rules(b"User-agent: *\nDisallow: " + data, token).allows("http://a.test/%E9?a=b//c")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, LONGEST),
        ("", LONGEST),
        ("public", LONGEST),
        ("max-age=3600", 3600.0),
        ("public, Max-Age = 7200", 7200.0),
        ('max-age="900"', 900.0),
        ("max-age=9999999999", LONGEST),
        ("max-age=0", SHORTEST),
        ("no-cache", SHORTEST),
        ("private, no-store, max-age=3600", SHORTEST),
        ("s-max-age=5", LONGEST),
        ("max-age=soon", LONGEST),
    ],
)
def test_for_how_long_it_holds(value, seconds):
    assert lifetime(value) == seconds
