"""What job a row becomes, in every source that has rows; and in those that have URLs alone."""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from fetcher.config import fingerprint, load
from fetcher.errors import ConfigError, ErrorKind
from fetcher.model import FormPart, Receive
from fetcher.registry import config_class
from fetcher.sources.row_jobs import JobTemplate, RowMaker

ROWS = [{"city": "Köln", "n": 1, "url": "http://own.test/1"}, {"city": "a/b", "n": 2, "url": "http://own.test/2"}]


def write_csv(path, rows):
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines))
    return {"type": "file", "path": str(path)}


def write_jsonl(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return {"type": "file", "path": str(path)}


def write_parquet(path, rows):
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return {"type": "file", "path": str(path)}


def write_sqlite(path, rows):
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE rows ({', '.join(rows[0])})")
        places = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO rows VALUES ({places})", [tuple(row.values()) for row in rows])
    return {"type": "sqlite", "path": str(path), "query": "SELECT * FROM rows"}


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet, "sqlite": write_sqlite}


@pytest.fixture(params=WRITERS)
def rows_as(request, tmp_path):
    """A function that writes rows as a source has them, and returns its config; ``.kind`` says which source."""

    def write(rows):
        return WRITERS[request.param](tmp_path / f"rows.{request.param}", rows)

    write.kind = request.param
    return write


def built(config, **job):
    if job:
        config = config | {"job": job}
    return config_class("sources", config["type"]).model_validate(config).build()


async def jobs_of(config, **job):
    source = built(config, **job)
    source.check()
    return [made async for chunk in source.read(None) for made in chunk.jobs]


async def test_a_row_becomes_a_whole_request(rows_as):
    jobs = await jobs_of(
        rows_as(ROWS),
        url="https://api.test/{city}?n={n}",
        method="put",
        headers={"x-n": "<{n}>"},
        params={"q": "{city}", "all": ["{n}", "x"]},
        json={"city": "{row.city}", "n": "{n}", "text": "{n} in {city}", "fixed": [1, None]},
        auth={"username": "u{n}", "password": "{{p}}"},
        priority="{n}",
        timeout="{n}s",
        verify=False,
        key="{city}-{n}",
    )
    number = "1" if rows_as.kind == "csv" else 1
    assert [job.url for job in jobs] == [
        "https://api.test/K%C3%B6ln?n=1&q=K%C3%B6ln&all=1&all=x",
        "https://api.test/a%2Fb?n=2&q=a%2Fb&all=2&all=x",
    ]
    first = jobs[0]
    assert json.loads(first.body) == {"city": "Köln", "n": number, "text": "1 in Köln", "fixed": [1, None]}
    assert first.headers == [
        ("x-n", "<1>"),
        ("Authorization", "Basic dTE6e3B9"),
        ("content-type", "application/json"),
    ]
    assert (first.method, first.priority, first.timeout, first.verify) == ("PUT", 1, 1.0, False)
    assert first.key == "Köln-1"
    meta = {"city": "Köln", "n": number, "url": "http://own.test/1"}
    if rows_as.kind == "sqlite":
        del meta["url"]  # a column called like the key of a job
    assert first.meta == meta


async def test_without_a_url_of_its_own_it_is_in_the_column(rows_as):
    jobs = await jobs_of(rows_as(ROWS), form={"v": "{city}"}, params={"same": "{url}"})
    assert jobs[0].url == "http://own.test/1?same=http%3A%2F%2Fown.test%2F1"
    assert jobs[1].body == b"v=a%2Fb"
    assert "url" not in jobs[0].meta


async def test_what_stays_as_it_is_needs_no_places(rows_as):
    (first, second) = await jobs_of(rows_as(ROWS), body={"hex": "00ff"}, headers={"x": "{{y}}"})
    assert first.body == second.body == b"\x00\xff"
    assert first.headers == [("x", "{y}")]


async def test_a_row_that_fills_no_place_is_rejected_and_the_others_are_not(rows_as):
    rows = [{"city": "", "n": 1}, {"city": "b", "n": 2}]
    bad, good = await jobs_of(rows_as(rows), url="http://api.test/{city}")
    assert bad.rejected.kind == ErrorKind.INVALID_ROW
    assert "'city' makes a segment of the path" in bad.rejected.message
    assert bad.meta["n"] in {1, "1"}
    assert good.url == "http://api.test/b"


async def test_a_column_that_is_not_there(rows_as):
    config = rows_as(ROWS)
    if rows_as.kind == "jsonl":
        jobs = await jobs_of(config, url="http://api.test/{town}")
        assert jobs[0].rejected.message == f"{config['path']}:1: has no 'town'; it has city, n, url"
        return
    with pytest.raises(ConfigError, match="'town'"):
        await jobs_of(config, url="http://api.test/{town}")


async def test_null_drops_a_param_and_is_null_in_json(tmp_path):
    config = write_jsonl(tmp_path / "rows.jsonl", [{"a": None}])
    url = "http://api.test/"
    (job,) = await jobs_of(config, url=url, params={"a": "{a}", "b": 1}, json={"a": "{a}"})
    assert (job.url, job.body) == ("http://api.test/?b=1", b'{"a":null}')
    for said in ({"headers": {"a": "{a}"}}, {"body": "{a}"}, {"params": {"a": "x{a}"}}, {"key": "{a}"}):
        (job,) = await jobs_of(config, url=url, **said)
        assert "'a' is null" in job.rejected.message


async def test_files_and_sockets(tmp_path):
    config = write_jsonl(tmp_path / "rows.jsonl", [{"f": "a.pdf", "h": "h.test", "p": 7, "k": "x"}])
    parts = [{"name": "{k}", "value": "{p}"}, {"name": "f", "path": "in/{f}", "content_type": "application/{k}"}]
    (job,) = await jobs_of(config, url="http://api.test/", multipart=parts)
    assert job.parts == [FormPart("x", value="7"), FormPart("f", path="in/a.pdf", content_type="application/x")]
    (job,) = await jobs_of(config, url="tcp://{h}:{p}", body="GET {k}\r\n", receive={"delimiter": "\r\n"})
    assert (job.url, job.body, job.receive) == ("tcp://h.test:7", b"GET x\r\n", Receive(delimiter=b"\r\n"))


async def test_a_database_has_types_that_json_has_not(tmp_path):
    config = write_sqlite(tmp_path / "rows.db", [{"id": 1, "data": b"\x00\xff", "body": "own", "method": "PATCH"}])
    (job,) = await jobs_of(config, url="http://api.test/{id}", body="{data}")
    assert (job.body, job.method) == (b"\x00\xff", "PATCH")
    (job,) = await jobs_of(config, url="http://api.test/{id}", json={"was": "{body}"}, method="PUT")
    assert (job.body, job.method) == (b'{"was":"own"}', "PUT")
    (job,) = await jobs_of(config, url="http://api.test/{id}", key="{id}")
    assert (job.body, job.key, job.meta) == (b"own", "1", {"id": 1, "data": "AP8="})
    (job,) = await jobs_of(config, url="http://api.test/{data}")
    assert "'data' is binary" in job.rejected.message


async def test_times_of_a_table_are_written_as_iso_8601(tmp_path):
    config = write_parquet(tmp_path / "rows.parquet", [{"at": dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)}])
    (job,) = await jobs_of(config, url="http://api.test/", params={"at": "{at}"})
    assert job.url == "http://api.test/?at=2026-01-02T03%3A04%3A00Z"


async def test_columns_of_the_source_still_count(tmp_path):
    config = write_jsonl(tmp_path / "rows.jsonl", [{"id": 1, "rank": "5"}, {"id": 2}])
    config |= {"key": "id", "priority": "rank"}
    first, second = await jobs_of(config, url="http://api.test/")
    assert (first.key, first.priority, second.key, second.priority) == ("1", 5, "2", 0)


async def test_sources_of_urls_take_what_is_the_same_for_all(tmp_path):
    (tmp_path / "urls.txt").write_text("http://a.test/1\n")
    (tmp_path / "urls.jsonl").write_text('"http://a.test/1"\n')
    xml = "<urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'><url><loc>http://a.test/1</loc></url></urlset>"
    (tmp_path / "map.xml").write_text(xml)
    for config in (
        {"type": "file", "path": str(tmp_path / "urls.txt")},
        {"type": "file", "path": str(tmp_path / "urls.jsonl")},
        {"type": "sitemap", "location": str(tmp_path / "map.xml")},
        {"type": "template", "url": "http://a.test/{1..1}"},
    ):
        (job,) = await jobs_of(config, params={"a": 1}, headers={"x": "y"}, timeout=2)
        assert (job.url, job.headers, job.timeout) == ("http://a.test/1?a=1", [("x", "y")], 2.0)
    (job,) = await jobs_of({"type": "file", "path": str(tmp_path / "urls.jsonl")}, params={"a": "{a}"})
    assert "has no 'a'" in job.rejected.message


# What is refused before anything is read


@pytest.mark.parametrize(
    ("job", "where", "message"),
    [
        ({"url": "http://a.test/{x"}, ("job", "url"), "has no partner"),
        ({"url": "{url}"}, ("job", "url"), "leave it out, and set column to its name"),
        ({"url": "http://a b/"}, ("job",), "contains a space or a control character"),
        ({"url": "gopher://a/{x}"}, ("job",), "nothing here fetches gopher: URLs"),
        ({"method": "G T"}, ("job",), "is not a token"),
        ({"headers": {"te": "{x}"}}, ("job",), "belongs to the connection"),
        ({"headers": {"x": "a\nb"}}, ("job",), "contains CR, LF"),
        ({"params": {"a": "{}"}}, ("job", "params"), "a: '{}' at character 1 is no place"),
        ({"json": {"a": ["{"]}}, ("job", "json"), "a.0: the '{' at character 1 has no partner"),
        ({"json": 1, "form": {}}, ("job",), "has both json and form"),
        ({"url": "{scheme}://a/x", "json": {}, "form": {}}, ("job",), "has both json and form"),
        ({"url": "{scheme}://a:{port}/x", "priority": 2**40}, ("job",), "priority is not a whole number"),
        ({"receive": {"delimiter": "x", "length": 2}}, ("job", "receive"), "has delimiter and length; one of them"),
        ({"multipart": [{"name": "a"}]}, ("job",), "has neither value and path"),
        ({"body": "a={x}"}, ("job",), "body has a place within other text; write json or form"),
        ({"body": "a={x}", "url": "http://a.test/"}, ("job",), "write json or form, which encode what fills it"),
        ({"body": {"hex": "{x}"}}, ("job",), "body.hex is not hex"),
        ({"auth": {"token": "{x y}"}}, ("job", "auth", "token"), "has a brace that is no place"),
        ({"auth": {"username": "x"}}, ("job",), "auth is not {username: ..., password: ...}"),
        ({"url": "tcp://{h}:{p}", "params": {"a": 1}}, ("job",), "has params, which means nothing for tcp: URLs"),
        ({"url": "http://a.test/", "receive": {"length": 1}}, ("job",), "has receive, which means nothing for http:"),
        ({"receive": {"len": 1}}, ("job", "receive", "len"), "Extra inputs"),
        ({"priority": 2**40}, ("job",), "priority is not a whole number"),
        ({"timeout": "soon"}, ("job",), "timeout should be a duration"),
        ({"meta": {}}, ("job", "meta"), "Extra inputs"),
    ],
)
def test_mistakes_are_found_at_load_with_their_place(job, where, message):
    with pytest.raises(ValidationError) as caught:
        built({"type": "file", "path": "rows.csv"}, **job)
    first = caught.value.errors()[0]
    assert first["loc"][: len(where)] == where
    assert message in first["msg"]


@pytest.mark.parametrize(
    ("config", "job", "message"),
    [
        ({"type": "file", "path": "x.txt"}, {"params": {"a": "{a}"}}, "job has the place {a}, and txt has no columns"),
        ({"type": "file", "path": "x.txt"}, {"url": "http://a/"}, "job.url means nothing in txt"),
        ({"type": "template", "url": "http://a/{1..2}"}, {"headers": {"x": "{a}"}}, "job has the place {a}"),
        ({"type": "sitemap", "location": "x.xml"}, {"url": "http://a/{a}"}, "job.url means nothing"),
        ({"type": "file", "path": "x.csv", "key": "a"}, {"key": "{b}"}, "has both key and job.key"),
        ({"type": "file", "path": "x.csv", "priority": "a"}, {"priority": 0}, "has both priority and job.priority"),
        ({"type": "file", "path": "x.csv", "column": "a"}, {"url": "http://a/"}, "has both column and job.url"),
    ],
)
def test_what_contradicts_the_source(config, job, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        built(config, **job)


def test_a_template_whose_scheme_only_rows_have_is_good():
    maker = RowMaker(JobTemplate.model_validate({"url": "{scheme}://{host}:{port}/x", "method": "GET"}))
    job = maker.job("1", {"scheme": "https", "host": "a.test", "port": 8443})
    assert (job.url, job.rejected) == ("https://a.test:8443/x", None)
    rejected = maker.job("2", {"scheme": "1", "host": "a.test", "port": 1}).rejected
    assert rejected.message == "'scheme' is no scheme: '1'"


# Secrets, and resuming


async def test_secrets_are_read_and_are_no_templates(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSWORD", "a{b}}c")
    (tmp_path / "token").write_text("top-{secret}\n")
    config = write_jsonl(tmp_path / "rows.jsonl", [{"user": "jo"}])
    auth = {"username": "{user}", "password": {"env": "PASSWORD"}}
    (job,) = await jobs_of(config, url="http://api.test/", auth=auth)
    assert job.headers == [("Authorization", "Basic am86YXtifX1j")]
    (job,) = await jobs_of(config, url="http://api.test/", auth={"token": {"file": str(tmp_path / "token")}})
    assert job.headers == [("Authorization", "Bearer top-{secret}")]
    made = config_class("sources", "file").model_validate(config | {"job": {"auth": {"token": "written-secret"}}})
    assert "written-secret" not in repr(made) + str(made) + made.model_dump_json()
    inline = {"jobs": [{"url": "http://a.test/", "auth": {"username": "u", "password": {"env": "PASSWORD"}}}]}
    made = config_class("sources", "inline").model_validate(inline)
    assert "a{b}}c" not in repr(made) + made.model_dump_json()
    assert (await jobs_of({"type": "inline", **inline}))[0].headers == [("Authorization", "Basic dTphe2J9fWM=")]


def test_a_batch_with_another_template_is_another_batch(tmp_path):
    def printed(job):
        path = tmp_path / "c.yaml"
        source = {"type": "file", "path": "x.csv", "job": job}
        path.write_text(json.dumps({"name": "c", "sources": [source], "sinks": ["out.jsonl"]}))
        return fingerprint(load(str(path)))

    url = "http://a.test/{x}"
    assert printed({"url": url}) == printed({"url": url})
    assert len({printed(job) for job in ({"url": url}, {"url": url + "y"}, {"url": url, "json": {"a": "{x}"}})}) == 3
