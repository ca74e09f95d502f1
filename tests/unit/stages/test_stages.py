"""Each stage by itself: what it makes of a record, and that it leaves the one that it was given alone."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec
import pytest
from pydantic import TypeAdapter

from fetcher.errors import ConfigError, MissingExtraError
from fetcher.model import Outcome, Redirect, Result
from fetcher.registry import config_class, parts

HTML = """<html><head><title> A  title </title></head><body>
<h1>One <b>two</b></h1><a href="/a">x</a><a href='/b'>y</a><a>z</a><p>
"""


def record(**fields):
    given = {"batch": "b", "job_id": "1", "url": "u", "outcome": Outcome.OK, "attempts": 1, "status": 200}
    return Result(**given | fields)


def stage(type_, **settings):
    made = TypeAdapter(config_class("stages", type_)).validate_python({"type": type_} | settings).build()
    made.check()
    return made


def test_where():
    kept = stage("where", expr="status == 200")
    assert kept.apply(record()) is not None
    assert kept.apply(record(status=404)) is None


def test_select_and_drop():
    given = record(body=b"x", headers=[("A", "b")], meta={"a": 1})
    fewer = stage("select", fields=["meta"]).apply(given)
    assert (fewer.body, fewer.headers, fewer.status, fewer.meta) == (None, None, None, {"a": 1})
    assert (fewer.job_id, fewer.url, fewer.outcome) == ("1", "u", "ok")
    assert stage("select", drop=["body"]).apply(given).headers == [("A", "b")]
    assert given.body == b"x"


def test_decode():
    given = record(body="é".encode("latin-1"), content_type="text/html; charset=latin1", extracted={"x": 1})
    found = stage("decode").apply(given)
    assert found.extracted == {"x": 1, "text": "é", "charset": "windows-1252"}
    assert (found.body, given.extracted) == (given.body, {"x": 1})
    lossy = stage("decode", keep_body=False).apply(record(body=b"\xff", content_type="text/html; charset=utf-8"))
    assert lossy.extracted == {"text": "\ufffd", "charset": "utf-8", "lossy": True}
    assert lossy.body is None
    assert stage("decode").apply(record()) == record()


def test_extract_from_json():
    rules = {"first": "items[0].name", "all": "items[*].name", "none": "nothing.here", "n": "length(items)"}
    looked = stage("extract", json=rules)
    body = b'\xef\xbb\xbf{"items": [{"name": "a"}, {"name": "b"}]}'
    expected = {"first": "a", "all": ["a", "b"], "none": None, "n": 2}
    assert looked.apply(record(body=body)).extracted == expected
    for result in (record(), record(body=b""), record(body=b"x", outcome=Outcome.FAILED)):
        assert looked.apply(result) is result
    for bad in (b"<html>", b'{"items": 5}', b"[" * 5000, b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            looked.apply(record(body=bad))


def test_extract_from_html():
    rules = {
        "title": "title",
        "h1": "h1",
        "link": "a::attr(href)",
        "links": {"selector": "a", "attr": "href", "all": True},
        "texts": {"selector": "a", "all": True},
        "none": "h7",
    }
    found = stage("extract", css=rules).apply(record(body=HTML.encode(), content_type="text/html", extracted={"k": 1}))
    assert found.extracted == {
        "k": 1,
        "title": "A title",
        "h1": "One two",
        "link": "/a",
        "links": ["/a", "/b"],
        "texts": ["x", "y", "z"],
        "none": None,
    }
    for odd in (b"\x00\xff<<<>>", b"<a" * 10_000, b"no html at all"):
        assert stage("extract", css=rules).apply(record(body=odd)).extracted["none"] is None


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"json": {"x": "a["}}, r"^stage extract: x: 'a\[' is no JMESPath: "),
        ({"css": {"x": "a[["}}, r"^stage extract: x: 'a\[\[' is no CSS selector$"),
    ],
)
def test_what_can_not_be_looked_for_is_refused_before_any_fetch(rules, message):
    with pytest.raises(ConfigError, match=message):
        stage("extract", **rules)


@pytest.mark.parametrize(
    ("rules", "package"), [({"json": {"x": "a"}}, "jmespath"), ({"css": {"x": "a"}}, "selectolax")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch, rules, package):
    for name in [name for name in sys.modules if name.startswith(package)] + [package, f"{package}.lexbor"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=rf"stage extract needs {package}.*pip install 'jmespath>=.* 'selectolax>="
    ):
        stage("extract", **rules)


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Write a module of the user's into the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_functions.py").write_text(
        "import asyncio\n"
        "from datetime import datetime\n"
        "def same(result): return result\n"
        "def drop(result): return None\n"
        "def change(result):\n"
        "    result.meta['seen'] = True\n"
        "    result.extracted = {'at': datetime(2026, 1, 1), 'tags': {1}, 2: 'two'}\n"
        "    return result\n"
        "def fail(result): raise KeyError('x')\n"
        "def other(result):\n    result.job_id = 'other'\n    return result\n"
        "def text(result): return 'text'\n"
        "def wrong(result):\n    result.status = 'two hundred'\n    return result\n"
        "def kind(result):\n    result.error_kind = 'my own'\n    return result\n"
        "def strange(result):\n    result.extracted = {'x': object()}\n    return result\n"
        "async def later(result):\n    await asyncio.sleep(0)\n    return result\n"
        "async def never(result):\n    await asyncio.Event().wait()\n"
        "class Callable:\n    async def __call__(self, result): return result\n"
        "instance = Callable()\n"
        "number = 5\n"
    )
    yield lambda name, **settings: stage("python", function=f"my_functions:{name}", **settings)
    sys.modules.pop("my_functions", None)


def test_a_function_gets_a_copy_and_returns_what_goes_on(functions):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    given = record(
        meta={"a": 1}, body=b"\x00\xff", headers=[("A", "b")], redirects=[Redirect("u", 301, "v")], started_at=moment
    )
    assert functions("same").apply(given) == given
    assert functions("drop").apply(given) is None
    changed = functions("change").apply(given)
    assert changed.meta == {"a": 1, "seen": True}
    assert changed.extracted == {"at": "2026-01-01T00:00:00", "tags": [1], "2": "two"}
    assert (changed.body, changed.headers, changed.started_at) == (given.body, given.headers, moment)
    assert (given.meta, given.extracted) == ({"a": 1}, None)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("fail", KeyError),
        ("other", ValueError),
        ("text", ValueError),
        ("wrong", msgspec.ValidationError),
        ("kind", msgspec.ValidationError),
        ("strange", TypeError),
    ],
)
def test_what_no_sink_could_take_is_refused(functions, name, error):
    with pytest.raises(error):
        functions(name).apply(record())


async def test_async_functions(functions):
    for name in ("later", "instance"):
        made = functions(name, concurrency=3)
        assert made.concurrency == 3
        assert await made.apply(record()) == record()
    with pytest.raises(ValueError, match=r"my_functions:never took longer than 0\.01 s"):
        await functions("never", timeout="10ms").apply(record())
    assert functions("same", concurrency=3).concurrency == 0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nowhere:x", "stage python: nowhere:x can not be imported: ModuleNotFoundError"),
        ("my_functions:nothing", "stage python: my_functions:nothing can not be imported: AttributeError"),
        ("my_functions:number", "stage python: my_functions:number is no function"),
        ("broken:x", "stage python: broken:x can not be imported: ZeroDivisionError"),
        ("leaving:x", "stage python: leaving:x can not be imported: it ends the process when it is imported"),
    ],
)
def test_a_function_that_is_not_there_is_a_fault_of_the_config(functions, tmp_path, function, message):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError) as refused:
        stage("python", function=function)
    assert str(refused.value).startswith(message)
    assert refused.value.exit_code == 78


def test_every_stage_is_here():
    assert set(parts("stages")) == {"where", "select", "decode", "extract", "python"}
