"""The header Link, as RFC 8288, section 3 and appendix B.2, has it read."""

from __future__ import annotations

import pytest

from fetcher.pagination.links import links_of, parse_links


def next_of(field):
    return [link.target for link in parse_links(field).found if "next" in link.relations]


@pytest.mark.parametrize(
    ("field", "targets"),
    [
        ('<http://a.test/?page=2>; rel="next"', ["http://a.test/?page=2"]),
        ("</two>;rel=next", ["/two"]),
        ('</last>; rel="last", </two>; rel="next", </one>; rel="prev first"', ["/two"]),
        ('</two>; rel="prefetch NEXT  last"', ["/two"]),
        ('</two>; title="a, b; rel=\\"prev\\" <x>"; rel=next', ["/two"]),
        ("</two> ; REL = next ; title = x", ["/two"]),
        ('</two>; rel="next";', ["/two"]),
        ("</a,b;c>; rel=next", ["/a,b;c"]),
        (" , ,</two>; rel=next,, </three>; rel=last ,", ["/two"]),
        ("<>; rel=next", [""]),
        ('</two>; rel="next', ["/two"]),
        ("</one>; title*=UTF-8'en'n%c3%a4chste; rel=\"next\"", ["/one"]),
        ('</two>; rel=next; =x; ;;; a="b"', ["/two"]),
    ],
)
def test_a_next_link_is_found_however_it_is_written(field, targets):
    assert next_of(field) == targets


@pytest.mark.parametrize(
    "field",
    [
        "",
        "</one>",
        "</one>; rel",
        '</one>; rel=""',
        "</one>; rel=nextpage",
        '</one>; title="rel=next"',
        '</one>; rel=prev; rel="next"',  # only the first counts
        '</one>; rev="next"',
        '</one>; rel="http://example.org/next"',
    ],
)
def test_what_is_no_next_link_is_none(field):
    assert next_of(field) == []


def test_an_anchor_says_what_the_link_is_of():
    first, second = parse_links('</2>; rel=next; anchor="#part"; anchor="/x", </3>; rel=next').found
    assert (first.anchor, second.anchor) == ("#part", None)


@pytest.mark.parametrize(
    ("field", "targets", "rest"),
    [
        ("/two; rel=next", [], "/two; rel=next"),
        ("</one>; rel=prev, two; rel=next", [], "two; rel=next"),
        ("</two>; rel=next x, </three>; rel=last", ["/two"], ""),
        ('</one>; rel="prev"x, </two>; rel=next', [], "x, </two>; rel=next"),
        ("</two; rel=next", [], "</two; rel=next"),
    ],
)
def test_reading_ends_where_no_link_begins(field, targets, rest):
    links = parse_links(field)
    assert (next_of(field), links.rest) == ([target for target in targets if "next" in links.found[0].relations], rest)


def test_every_field_of_an_answer_is_read_and_bytes_are_kept():
    headers = [("Date", "x"), ("link", "</1>; rel=prev"), ("LINK", "</\xc3\xa4\xff>; rel=next")]
    first, second = links_of(headers)
    assert [link.target for link in (*first.found, *second.found)] == ["/1", "/ä\udcff"]


def test_a_long_hostile_field_is_read_in_no_time():
    for field in ("<" * 100_000, '<a>; rel="' + "\\" * 100_000, "<a>;" + " ;" * 50_000, "," * 200_000):
        parse_links(field)
