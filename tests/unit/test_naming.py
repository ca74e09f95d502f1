from __future__ import annotations

import pytest

from fetcher.naming import Named, NameTemplate, distinct

NAMED = Named("0-7", "example.org", "http://example.org/A/b.Html?q=1", "text/html; charset=utf-8", "ab12" * 16)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("out/{sha256}", f"out/{'ab12' * 16}"),
        ("out/{sha256:2}/{sha256:40}", f"out/ab/{'ab12' * 10}"),
        ("out/{host}/{path}-{job_id}{ext}", "out/example.org/a_b.html-0-7.html"),
        ("/srv/{job_id}", "/srv/0-7"),
        ("{job_id}", "0-7"),
        ("../x/{host:7}.{job_id}", "../x/example.0-7"),
        ("./{ext}", "_.html"),
    ],
)
def test_fills_a_template(template, path):
    assert NameTemplate(template).render(NAMED) == path


@pytest.mark.parametrize(
    ("template", "folder"),
    [("out/{sha256}", "out"), ("{sha256}", "."), ("/{sha256}", "/"), ("a/b{host}/{sha256}", "a"), ("./{host}", ".")],
)
def test_knows_the_folder_of_all_its_files(template, folder):
    assert NameTemplate(template).folder == folder


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", "should end in the name of a file"),
        ("out/", "should end in the name of a file"),
        ("out/x", "has no placeholder"),
        ("out/{x}", "stands for nothing"),
        ("out/{}", "stands for nothing"),
        ("out/{sha256:0}", "stands for nothing"),
        ("out/{sha256", "a brace without its other half"),
        ("out/}{sha256}", "a brace without its other half"),
        ("out/{sha256}/../x", "has . or .. behind a placeholder"),
        ("out/{sha256}/./x", "has . or .. behind a placeholder"),
        ("out\0/{sha256}", "NUL"),
    ],
)
def test_refuses_what_is_no_template(template, message):
    with pytest.raises(ValueError, match=message):
        NameTemplate(template)


@pytest.mark.parametrize(
    ("template", "unique"),
    [
        ("{sha256}", True),
        ("{sha256:32}", True),
        ("{sha256:31}", False),
        ("{batch}/{job_id}", True),
        ("{batch}/{job_id:9}", False),
        ("{job_id}", False),
        ("{batch}{host}{path}{ext}", False),
    ],
)
def test_knows_whether_other_bodies_have_other_names(template, unique):
    if unique:
        NameTemplate(template).check_unique()
    else:
        with pytest.raises(ValueError, match="could give two jobs the same file"):
            NameTemplate(template).check_unique()


def test_the_batch_is_filled_in_beforehand():
    template = NameTemplate("out/{batch}/{batch:2}-{job_id}")
    assert template.of_batch("shop.1") == "out/shop.1/sh-{job_id}"
    assert template.of_batch("Shop") == f"out/{distinct('Shop')}/sh-{{job_id}}"


@pytest.mark.parametrize("value", ["a", "0-1", "a.b_c-d", "x" * 80])
def test_plain_values_stay_as_they_are(value):
    assert distinct(value) == value


@pytest.mark.parametrize("value", ["A", "a b", "a/b", "..", ".a", "a.", "", "x" * 81, "\ud800", "a~"])
def test_other_values_are_told_apart_by_a_hash_that_no_plain_value_has(value):
    made = distinct(value)
    assert "~" in made
    assert distinct(made) != made


@pytest.mark.parametrize(
    ("content_type", "extension"),
    [
        ("text/html", ".html"),
        ("TEXT/HTML ; x", ".html"),
        ("image/png", ".png"),
        ("x/y", ""),
        (None, ""),
        ("../..", ""),
    ],
)
def test_an_extension_is_that_of_the_content_type(content_type, extension):
    named = NAMED._replace(content_type=content_type)
    assert NameTemplate("{job_id}{ext}").render(named) == f"0-7{extension}"
