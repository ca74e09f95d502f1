"""Bodies as text: which charset it is, and what is lost."""

from __future__ import annotations

import pytest

from fetcher.answers import contents
from fetcher.answers.contents import body_of, text_of
from fetcher.model import Outcome, Result

WORDS = "Grüße, naïve café"


def record(**fields):
    return Result(batch="b", job_id="1", url="u", outcome=Outcome.OK, attempts=1, **fields)


@pytest.mark.parametrize(
    ("body", "content_type", "charset"),
    [
        (WORDS.encode(), None, "utf-8"),
        (WORDS.encode(), "text/html", "utf-8"),
        (b"\xef\xbb\xbf" + WORDS.encode(), "text/html; charset=iso-8859-1", "utf-8"),
        (b"\xff\xfe" + WORDS.encode("utf-16-le"), None, "utf-16-le"),
        (b"\xfe\xff" + WORDS.encode("utf-16-be"), None, "utf-16-be"),
        (WORDS.encode("latin-1"), "text/html; charset=iso-8859-1", "windows-1252"),
        ((WORDS + "€").encode("cp1252"), "text/html; charset=ISO-8859-1", "windows-1252"),
        ("привет".encode("koi8-r"), 'text/html; charset="KOI8-R"', "koi8-r"),
        (b"<meta charset=koi8-r>" + "привет".encode("koi8-r"), "text/html", "koi8-r"),
        (b'<meta http-equiv=x content="text/html; charset=koi8-r">' + "я".encode("koi8-r"), None, "koi8-r"),
        (b'<?xml version="1.0" encoding="koi8-r"?>' + "я".encode("koi8-r"), "text/xml", "koi8-r"),
        (b"<meta charset=utf-16>" + WORDS.encode(), None, "utf-8"),
        ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", "shift_jis"),
        (WORDS.encode(), "text/html; charset=nonsense", "utf-8"),
        (b"+AGE-", "text/html; charset=utf-7", "utf-8"),
        (b"abc", "text/html; charset=base64", "utf-8"),
        (b"abc", "text/html; charset=unicode_escape", "utf-8"),
        (b"", None, "utf-8"),
    ],
)
def test_the_charset_that_it_is(body, content_type, charset):
    found = text_of(body, content_type)
    assert (found.charset, found.lossy) == (charset, False)
    assert "\ufffd" not in found.text
    if "Gr".encode(charset.replace("windows-", "cp")) in body:
        assert WORDS in found.text


@pytest.mark.parametrize(
    ("body", "content_type", "charset"),
    [
        (WORDS.encode("latin-1"), "text/html; charset=utf-8", "utf-8"),
        (WORDS.encode("latin-1"), None, "windows-1252"),
        (b"\xff\xfea", None, "utf-16-le"),
        (b"\x81\xff\x00", "text/plain; charset=shift_jis", "shift_jis"),
    ],
)
def test_what_is_wrong_or_guessed_says_so(body, content_type, charset):
    found = text_of(body, content_type)
    assert (found.charset, found.lossy) == (charset, True)


def test_a_body_is_in_the_record_or_in_its_file(tmp_path, monkeypatch):
    path = tmp_path / "body"
    path.write_bytes(b"from a file")
    assert body_of(record()) is None
    assert body_of(record(body=b"inline")) == b"inline"
    assert body_of(record(body_path=str(path))) == b"from a file"
    with pytest.raises(ValueError, match="still coded as br"):
        body_of(record(body=b"x", content_encoding="br"))
    with pytest.raises(FileNotFoundError):
        body_of(record(body_path=str(path) + "x"))
    monkeypatch.setattr(contents, "_MOST", 5)
    with pytest.raises(ValueError, match="11 bytes"):
        body_of(record(body_path=str(path)))
