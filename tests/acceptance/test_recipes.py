"""Every recipe of docs/recipes.md is run: against the origin, and against real servers of what else it names."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import obstore
import pytest
from backports import zstd
from origin_process import origin_process

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
RECIPES = {
    name: (text, flag == ", run")
    for name, flag, text in re.findall(r"<!-- recipe: (\w+)(, run)? -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
}


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


@pytest.fixture
def recipe(origin, tmp_path):
    """Run a recipe in a folder of its own, with overrides of where its servers are."""

    def run(name, environ=None, **overrides):
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPES[name][0].replace("127.0.0.1:8900", f"127.0.0.1:{origin.port}"))
        flags = [part for key, value in overrides.items() for part in ("-s", f"{key.replace('__', '.')}={value}")]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FETCHER_", "AWS_"))}
        return subprocess.run(
            [sys.executable, "-m", "fetcher", "run", path.name, *flags],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=kept | (environ or {}),
        )

    return run


def done(ran, code=0):
    assert ran.returncode == code, ran.stderr
    assert "all accounted for" in ran.stderr


def test_every_config_of_the_page_is_a_recipe_and_has_a_test():
    assert len(RECIPES) == PAGE.count("```yaml") > 8
    others = {name for name, (_, runs) in RECIPES.items() if not runs}
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for name in others if f"def test_the_recipe_{name}" not in tests] == []


@pytest.mark.parametrize("name", [name for name, (_, runs) in RECIPES.items() if runs])
def test_recipe(name, recipe, tmp_path):
    done(recipe(name))
    assert any((tmp_path / "out").iterdir())


def test_the_recipe_fields_has_three_fields(recipe, tmp_path, origin):
    done(recipe("fields"))
    with (tmp_path / "out/values.csv").open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["url", "extracted.path", "extracted.agent"]
    assert len(found) == 101
    assert sorted(row[1] for row in found[1:]) == sorted(f"/json/{n}" for n in range(1, 101))
    assert all(row[2].startswith("fetcher/") for row in found[1:])


def test_the_recipe_sitemap(recipe, tmp_path, origin):
    entries = "".join(f"<url><loc>http://127.0.0.1:{origin.port}/bytes/{n}</loc></url>" for n in range(5))
    xml = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'
    (tmp_path / "sitemap.xml").write_text(xml)
    done(recipe("sitemap", sources__0__location="sitemap.xml"))
    assert zstd.decompress((tmp_path / "out/pages.jsonl.zst").read_bytes()).count(b"\n") == 5


async def test_the_recipe_postgres(recipe, postgres, origin):
    async with postgres.connect() as admin:
        await admin.execute("CREATE DATABASE shop")
    try:
        async with postgres.connect("shop") as shop:
            await shop.execute("CREATE TABLE pages (id int, url text)")
            url = f"http://127.0.0.1:{origin.port}/bytes/10?i="
            await shop.execute(f"INSERT INTO pages SELECT i, '{url}' || i FROM generate_series(1, 30) i")
            done(recipe("postgres", {"DATABASE_URL": postgres.dsn_of("shop")}))
            assert await shop.fetchval("SELECT count(*) FROM results WHERE status = 200 AND meta->>'id' <> ''") == 30
    finally:
        async with postgres.connect() as admin:
            await admin.execute("DROP DATABASE shop")


def object_lines(s3, bucket, folder):
    """Return the records that are in the objects of a folder."""
    store = s3.store(bucket)
    keys = [meta["path"] for page in obstore.list(store, folder) for meta in page]
    objects = [zstd.decompress(bytes(obstore.get(store, key).bytes())) for key in keys]
    return [json.loads(line) for data in objects for line in data.splitlines()]


def test_the_recipe_objects(recipe, s3, origin):
    s3.create("bucket")
    try:
        for part in range(2):
            rows = [f"http://127.0.0.1:{origin.port}/bytes/10?i={part}{n}" for n in range(10)]
            s3.put("bucket", f"in/{part}.csv.gz", gzip.compress("\n".join(["url", *rows]).encode()))
        names = {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        names |= {"region": "AWS_REGION", "endpoint": "AWS_ENDPOINT"}
        done(recipe("objects", {name: s3.options[option] for option, name in names.items()}))
        assert len(object_lines(s3, "bucket", "pages/pages.jsonl.zst")) == 20
    finally:
        s3.reset()


def test_the_recipe_minio(recipe, s3, origin, tmp_path):
    s3.create("bucket")
    (tmp_path / "urls.txt").write_text(f"http://127.0.0.1:{origin.port}/bytes/10\n")
    try:
        keys = {"MINIO_USER": "key", "MINIO_PASSWORD": "secret"}
        done(recipe("minio", keys, sinks__0__options__endpoint=s3.endpoint))
        assert len(object_lines(s3, "bucket", "pages/pages.jsonl.zst")) == 1
    finally:
        s3.reset()


async def test_the_recipe_streams(recipe, webhook, redis, nats, smtp, origin, tmp_path):
    for server in (webhook, smtp):
        server.reset()
    base = f"http://127.0.0.1:{origin.port}"
    (tmp_path / "urls.txt").write_text(f"{base}/bytes/10\n{base}/bytes/11\n{base}/status/404\n")
    passwords = {"REDIS_PASSWORD": redis.password, "NATS_PASSWORD": nats.password, "SMTP_PASSWORD": smtp.password}
    places = {
        "sinks__1__url": webhook.url,
        "sinks__2__url": redis.url,
        "sinks__3__servers__0": nats.url,
        "sinks__3__username": nats.username,
        "sinks__4__host": "localhost",
        "sinks__4__port": smtp.port,
        "sinks__4__username": smtp.username,
        "sinks__4__ca_file": smtp.ca_file,
    }
    try:
        done(recipe("streams", passwords | {"HOOK_SECRET": "x"}, **places), code=3)
        assert len((tmp_path / "out/pages.jsonl").read_text().splitlines()) == 3
        assert len(webhook.records) == 3
        with redis.client() as client:
            assert client.xlen("pages") == 3
        assert len([message async for message in nats.messages("PAGES")]) == 3
        assert len(smtp.messages) == 1
    finally:
        with redis.client() as client:
            client.delete("pages")
        async with nats.connection() as (_, jetstream):
            for info in await jetstream.streams_info():
                await jetstream.delete_stream(info.config.name)
