from __future__ import annotations

import asyncio
import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ConfigError, SourceError
from fetcher.sources import sitemap as module
from fetcher.sources.sitemap import SitemapConfig
from fetcher.sources.sitemap_file import SitemapError, SitemapFile

NS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def urlset(*locations):
    return f"<urlset {NS}>{''.join(f'<url><loc>{loc}</loc></url>' for loc in locations)}</urlset>"


def index(*locations):
    entries = "".join(f"<sitemap><loc>{loc}</loc></sitemap>" for loc in locations)
    return f"<sitemapindex {NS}>{entries}</sitemapindex>"


def source(location, **settings):
    return SitemapConfig(location=str(location), **settings).build()


async def chunks_of(location, position=None, **settings):
    return [chunk async for chunk in source(location, **settings).read(position)]


async def jobs_of(location, position=None, **settings):
    return [job for chunk in await chunks_of(location, position, **settings) for job in chunk.jobs]


async def plain(location, position=None, **settings):
    return [(job.id, job.url) for job in await jobs_of(location, position, **settings)]


# One file


def entries(data, max_size=10_000_000, block=7, **options):
    pieces = [data[start : start + block] for start in range(0, len(data), block)]
    found = SitemapFile(pieces, max_size, **options)
    found.begin()
    return found, list(found.entries())


def test_what_a_sitemap_says():
    data = f"""\ufeff
        <?xml version="1.0" encoding="UTF-8"?>
        <!DOCTYPE urlset><!-- a comment -->
        <urlset {NS} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
          <url>
            <loc> http://a.test/?a=1&amp;b=2 </loc><lastmod>2026-01-02</lastmod>
            <image:image><image:loc>http://a.test/no.png</image:loc></image:image>
            <image:loc>http://a.test/no.png</image:loc>
            <changefreq>daily</changefreq><priority>0.5</priority><other><loc>http://a.test/no</loc></other>
          </url>
          <url><loc><![CDATA[http://a.test/é]]></loc></url>
          <url><lastmod>2026</lastmod></url>
          <loc>http://a.test/no</loc>
        </urlset>""".replace("\n        ", "\n").replace("\ufeff\n", "\ufeff")
    found, every = entries(data.encode())
    assert not found.is_index
    assert [entry.loc for entry in every] == ["http://a.test/?a=1&b=2", "http://a.test/é", ""]
    assert every[0].meta == {"lastmod": "2026-01-02", "changefreq": "daily", "priority": "0.5"}
    assert (every[1].meta, every[2].meta) == (None, {"lastmod": "2026"})


def test_a_sitemap_without_a_namespace_and_in_another_encoding():
    data = '<?xml version="1.0" encoding="ISO-8859-1"?><urlset><url><loc>http://a.test/é</loc></url></urlset>'
    assert [entry.loc for entry in entries(data.encode("latin-1"))[1]] == ["http://a.test/é"]


def test_text_with_a_url_a_line():
    found, every = entries(b"\xef\xbb\xbfhttp://a.test/1\r\n\r\n http://a.test/2\nhttp://a.test/\xff\nhttp://a.test/3")
    assert not found.is_index
    assert [(entry.loc, entry.wrong) for entry in every] == [
        ("http://a.test/1", None),
        ("http://a.test/2", None),
        ("http://a.test/\\xff", "not valid UTF-8"),
        ("http://a.test/3", None),
    ]


def test_the_sitemaps_of_a_robots_txt():
    data = b"User-agent: *\nDisallow: /\nSITEMAP : http://a.test/1.xml # one\n#Sitemap: no\nsitemap:/2.xml\nSitemap:\n"
    found, every = entries(data, robots=True)
    assert found.is_index
    assert [entry.loc for entry in every] == ["http://a.test/1.xml", "/2.xml"]
    assert entries(b"", robots=True)[1] == []


@given(
    layers=st.integers(0, 2),
    block=st.integers(1, 300),
    members=st.integers(1, 3),
    locations=st.lists(st.integers(0, 999).map("http://a.test/{}".format), max_size=50),
)
def test_gzip_is_told_by_its_bytes(layers, block, members, locations):
    data = urlset(*locations).encode()
    for _ in range(layers):
        cuts = [len(data) * number // members for number in range(members + 1)]
        data = b"".join(gzip.compress(data[start:end]) for start, end in pairwise(cuts))
    assert [entry.loc for entry in entries(data, block=block)[1]] == locations


BILLION = "<!DOCTYPE l [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><urlset><url><loc>&b;</loc></url></urlset>"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"<html><body>Not found</body></html>", "neither a sitemap nor an index of them: its root is <html>"),
        (BILLION.encode(), "declares entities of its own"),
        (b"<!DOCTYPE x [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><urlset>&x;</urlset>", "declares entities"),
        (b"<urlset><url></urlset>", "is not well-formed XML"),
        (urlset("http://a.test/")[:-9].encode(), "is not well-formed XML"),
        (b"<urlset>" + b"<a>" * 100, "nested deeper than 32 levels"),
        (gzip.compress(urlset("http://a.test/").encode())[:-9], "is damaged: its end is missing"),
        (gzip.compress(urlset("http://a.test/").encode())[:-8] + bytes(8), "is damaged"),
        (gzip.compress(bytes(1_000_000)), "is larger than max_size, which is 100000 bytes"),
        (gzip.compress(gzip.compress(b" " * 10_000_000)), "is larger than max_size"),
        (gzip.compress(gzip.compress(b"") * 5_500), "is larger than max_size"),
        (b"<urlset>" + b"<url/>" * 100_000, "is larger than max_size"),
    ],
)
def test_what_is_no_sitemap(data, message):
    with pytest.raises(SitemapError, match=message):
        entries(data, max_size=100_000, block=1000)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("layers", [0, 1])
def test_empty_gzip_members_are_bounded(layers):
    data = gzip.compress(b"") * 2_000_000
    for _ in range(layers):
        data = gzip.compress(data)
    with pytest.raises(SitemapError, match="consists of more than 10000 gzip members"):
        entries(data, max_size=50_000_000, block=65_536)


@pytest.mark.timeout(30)
def test_a_line_that_does_not_end_is_bounded():
    found, every = entries("http://a.test/é".encode() * 3_000_000 + b"\nhttp://a.test/2", 50_000_000, 65_536)
    assert not found.is_index
    assert [entry.loc for entry in every[1:]] == ["http://a.test/2"]
    assert (every[0].wrong, 65_536 < len(every[0].loc) < 400_000) == (None, True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("block", [1, 2, 65_536])
def test_a_sitemap_may_be_in_utf_16(encoding, block):
    data = f'<?xml version="1.0"?>{urlset("http://a.test/é")}'.encode(encoding)
    assert [entry.loc for entry in entries(data, block=block)[1]] == ["http://a.test/é"]


def test_nobody_goes_on_reading_what_is_no_longer_wanted():
    stopped = threading.Event()
    found = SitemapFile(iter([urlset("http://a.test/1")[:-9].encode(), *[b"<url/>"] * 1000]), 10**9, stopped=stopped)
    found.begin()
    stopped.set()
    with pytest.raises(SitemapError, match="no longer wanted"):
        list(found.entries())


def test_a_long_location_is_bounded():
    (entry,) = entries(urlset("http://a.test/" + "x" * 1_000_000).encode(), block=1000)[1]
    assert 65_536 < len(entry.loc) < 200_000


# On this machine


async def test_a_bad_location_is_a_rejected_job(tmp_path):
    (tmp_path / "s.xml").write_text(urlset("http://a.test/1", "nope", "", "http://a.test/" + "x" * 70_000))
    jobs = await jobs_of(tmp_path / "s.xml")
    assert [(job.id, job.rejected is None) for job in jobs] == [("1", True), ("2", False), ("3", False), ("4", False)]
    assert all(msgspec.json.encode(job) for job in jobs)


async def test_an_index_stays_in_its_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.xml").write_text(urlset("http://a.test/1"))
    (tmp_path / "out.xml").write_text(urlset("http://a.test/no"))
    bad = ["../out.xml", str(tmp_path / "out.xml"), "file:///etc/passwd", "ftp://a.test/x", "none.xml", ""]
    (tmp_path / "in" / "index.xml").write_text(index("a.xml", *bad))
    jobs = await jobs_of(tmp_path / "in" / "index.xml")
    assert [job.id for job in jobs] == ["1-1", "2", "3", "4", "5", "6", "7"]
    assert [job.rejected is None for job in jobs] == [True] + [False] * 6
    assert jobs[1].rejected.message == "the sitemap is neither at a http URL nor beside its index"
    assert jobs[5].rejected.message.startswith("the sitemap can not be opened: No such file")


async def test_indexes_of_indexes_are_bounded(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.xml").write_text(index(f"{number + 1}.xml", "0.xml"))
    (tmp_path / "5.xml").write_text(urlset("http://a.test/"))
    jobs = await jobs_of(tmp_path / "0.xml", max_depth=5)
    assert [job.id for job in jobs if job.rejected is None] == ["1-1-1-1-1-1"]
    assert {job.rejected.message for job in jobs if job.rejected} == {
        "the sitemap is an index that leads back to itself"
    }
    jobs = await jobs_of(tmp_path / "0.xml", max_depth=3)
    assert "the sitemap is an index behind 3 others, which is max_depth" in {
        job.rejected.message for job in jobs if job.rejected
    }


async def test_a_sitemap_that_breaks_off_is_a_row_of_its_index(tmp_path):
    (tmp_path / "a.xml").write_text(urlset("http://a.test/1")[:-9])
    (tmp_path / "b.xml").write_text(urlset("http://a.test/2"))
    (tmp_path / "index.xml").write_text(index("a.xml", "b.xml"))
    jobs = await jobs_of(tmp_path / "index.xml")
    assert [(job.id, job.rejected is None) for job in jobs] == [("1", False), ("2-1", True)]
    with pytest.raises(SourceError, match=r"a\.xml: is not well-formed XML"):
        await jobs_of(tmp_path / "a.xml")


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_resuming_anywhere_is_reading_on(tmp_path, monkeypatch, depth):
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    for name in "abc":
        (tmp_path / f"{name}.xml").write_text(urlset(*(f"http://{name}.test/{n}" for n in range(8))))
    (tmp_path / "inner.xml").write_text(index("b.xml", "none.xml", "c.xml"))
    (tmp_path / "outer.xml").write_text(index("a.xml", "inner.xml", "a.xml"))
    location = tmp_path / {1: "a.xml", 2: "inner.xml", 3: "outer.xml"}[depth]
    chunks = await chunks_of(location)
    assert len(chunks) == {1: 3, 2: 7, 3: 13}[depth]
    for number, chunk in enumerate(chunks, 1):
        assert await chunks_of(location, chunk.position) == chunks[number:]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ("a.xml", urlset("http://a.test/0")),
        ("a.xml", urlset(*(f"http://a.test/{n}" for n in range(9)))),
        ("index.xml", index("b.xml", "a.xml")),
        ("index.xml", index()),
    ],
)
async def test_changes_before_the_position_are_noticed(tmp_path, monkeypatch, changed, text):
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    for name in "ab":
        (tmp_path / f"{name}.xml").write_text(urlset(*(f"http://{name}.test/{n + 1}" for n in range(8))))
    (tmp_path / "index.xml").write_text(index("a.xml", "b.xml"))
    position = (await chunks_of(tmp_path / "index.xml"))[1].position
    (tmp_path / changed).write_text(text)
    with pytest.raises(SourceError, match="changed since the batch was started, which stands after entry 1-6"):
        await jobs_of(tmp_path / "index.xml", position)


@pytest.mark.parametrize("position", ["", "x", '{"at":[],"crc":0}', '{"at":[-1],"crc":0}', '{"at":[1,1],"crc":0}'])
async def test_a_position_of_something_else(tmp_path, position):
    (tmp_path / "s.xml").write_text(urlset("http://a.test/"))
    with pytest.raises(SourceError):
        await jobs_of(tmp_path / "s.xml", position)


def test_check_finds_what_is_no_sitemap(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.xml: can not be opened: No such file"):
        source(tmp_path / "no.xml").check()
    (tmp_path / "s.xml").write_text("<html/>")
    with pytest.raises(ConfigError, match="its root is <html>"):
        source(tmp_path / "s.xml").check()


# From a server


@contextmanager
def site(pages):
    """Serve paths: bytes, or a status, or a list of answers one after the other. Yields the URL and what was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            answer = pages.get(self.path, 404)
            answer = answer.pop(0) if isinstance(answer, list) else answer
            headers = {}
            if isinstance(answer, tuple):
                answer, headers = answer[0], dict(answer[1])
            self.send_response(answer if isinstance(answer, int) else headers.pop("status", 200))
            body = b"" if isinstance(answer, int) else answer
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_from_a_robots_txt_over_an_index_to_packed_sitemaps():
    packed = gzip.compress(urlset("http://a.test/1").encode())
    pages = {
        "/robots.txt": b"Sitemap: /index.xml\n",
        "/index.xml": index("a.xml.gz", "/b.xml", "/moved", "/gone", "file:///etc/passwd").encode(),
        "/a.xml.gz": (gzip.compress(packed), {"content-encoding": "gzip", "content-type": "application/gzip"}),
        "/b.xml": (b"", {"content-length": "0"}),
        "/moved": (b"", {"status": 301, "location": "/c.txt"}),
        "/c.txt": b"http://a.test/3\n",
    }
    with site(pages) as (url, asked):
        source(f"{url}/robots.txt").check()
        jobs = await jobs_of(f"{url}/robots.txt", headers={"x-key": "hush"})
    assert [(job.id, job.rejected.message if job.rejected else job.url) for job in jobs] == [
        ("1-1-1", "http://a.test/1"),
        ("1-2", "the sitemap is empty"),
        ("1-3-1", "http://a.test/3"),
        ("1-4", "the sitemap was answered with status 404"),
        ("1-5", "the sitemap is neither at a http URL nor beside its index"),
    ]
    assert {headers.get("x-key") for path, headers in asked[1:]} == {"hush"}
    assert {headers["accept-encoding"] for _, headers in asked} == {"gzip"}


async def test_headers_go_to_one_origin_alone():
    here = {"/c.xml": urlset("http://a.test/1").encode()}
    with site(here) as (other, asked_there):
        pages = {
            "/index.xml": index("/a.xml", f"{other}/c.xml").encode(),
            "/a.xml": (b"", {"status": 302, "location": f"{other}/c.xml"}),
        }
        with site(pages) as (url, asked):
            jobs = await jobs_of(f"{url}/index.xml", headers={"x-key": "hush"})
    assert [job.id for job in jobs] == ["1-1", "2-1"]
    assert [headers.get("x-key") for _, headers in asked] == ["hush"] * 2
    assert [headers.get("x-key") for _, headers in asked_there] == [None] * 2


async def test_redirects_lead_to_http_and_are_bounded():
    pages = {
        "/loop": (b"", {"status": 302, "location": "/loop"}),
        "/file": (b"", {"status": 302, "location": "file:///etc/passwd"}),
        "/port": (b"", {"status": 302, "location": "http://a.test:99999/"}),
    }
    with site(pages) as (url, _):
        for path, message in {"/loop": "more than 5 times", "/file": "no http URL", "/port": "is no URL"}.items():
            with pytest.raises(ConfigError, match=message):
                source(f"{url}{path}", headers={"x-key": "hush"}).check()


async def test_a_server_that_is_busy_is_asked_again(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    short = (urlset("http://a.test/1").encode(), {"content-length": "100000"})
    with site({"/s.xml": [503, short, urlset("http://a.test/1").encode()]}) as (url, asked):
        assert await plain(f"{url}/s.xml") == [("1", "http://a.test/1")]
        assert len(asked) == 3


async def test_a_server_that_stays_busy_ends_the_reading_to_be_resumed(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0, 0.0))
    pages = {
        "/index.xml": index("/a.xml", "/b.xml", "/c.xml").encode(),
        "/a.xml": urlset("http://a.test/1").encode(),
        "/b.xml": [500, 429, 503, urlset("http://a.test/2").encode()],
        "/c.xml": urlset("http://a.test/3").encode(),
    }
    with site(pages) as (url, _):
        found, position = [], None
        with pytest.raises(SourceError, match=r"/b\.xml: was answered with status 503; resume the batch"):  # noqa: PT012
            async for chunk in source(f"{url}/index.xml").read(None):
                found += chunk.jobs
                position = chunk.position
        found += await jobs_of(f"{url}/index.xml", position)
    assert [(job.id, job.url) for job in found] == [(f"{n}-1", f"http://a.test/{n}") for n in (1, 2, 3)]


async def test_what_a_server_may_not_send():
    pages = {
        "/br.xml": (b"x", {"content-encoding": "br"}),
        "/large.xml": b"<urlset>" + b" " * 10_000,
        "/bomb.xml": gzip.compress(b" " * 10_000_000),
    }
    with site(pages) as (url, _):
        for path, message in {
            "/br.xml": "came in the coding 'br'",
            "/large.xml": "is larger than max_size",
            "/bomb.xml": "is larger than max_size",
            "/none.xml": "was answered with status 404",
        }.items():
            with pytest.raises(ConfigError, match=message):
                source(f"{url}{path}", max_size=5_000).check()


async def test_nobody_there(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", (0.0,))
    with pytest.raises(ConfigError, match=r"http://\*\*\*@127\.0\.0\.1:9/s\.xml: can not be fetched") as caught:
        source("http://me:hush@127.0.0.1:9/s.xml").check()
    assert "hush" not in str(caught.value)


async def test_a_guard_keeps_sitemaps_to_public_addresses():
    with site({"/s.xml": urlset("http://a.test/1").encode()}) as (url, asked):
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1 is blocked"):
            source(f"{url}/s.xml", guard=True).check()
        assert asked == []
        assert await plain(f"{url}/s.xml", guard={"allow": ["127.0.0.1"]}) == [("1", "http://a.test/1")]


async def test_a_large_sitemap_is_on_disk_while_it_is_read(monkeypatch):
    monkeypatch.setattr(module, "_IN_MEMORY", 1000)
    data = urlset(*(f"http://a.test/{n}" for n in range(50_000))).encode()
    with site({"/s.xml": data}) as (url, asked):
        jobs = await jobs_of(f"{url}/s.xml")
    assert len(jobs) == 50_000
    assert len(asked) == 1


async def test_a_reading_that_is_cancelled_in_a_download_ends():
    arrived = threading.Event()
    leave = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", "10")
            self.end_headers()
            arrived.set()
            leave.wait(10)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        reading = asyncio.create_task(jobs_of(f"http://127.0.0.1:{server.server_port}/s.xml"))
        await asyncio.to_thread(arrived.wait, 5)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(reading, 5)
    finally:
        leave.set()
        server.shutdown()
        server.server_close()
        thread.join()


async def test_no_message_shows_what_may_be_a_key(monkeypatch):
    monkeypatch.setattr(module, "_PAUSES", ())

    async def garbage(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"this is no HTTP\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(garbage, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        place = f"http://127.0.0.1:{port}/sitemap.xml"
        with pytest.raises(SourceError, match=r"can not be fetched: .*HTTP") as caught:
            await jobs_of(f"{place}?key=hunter2")
    assert str(caught.value).startswith(f"{place}?...: ")
    assert "hunter2" not in str(caught.value)
