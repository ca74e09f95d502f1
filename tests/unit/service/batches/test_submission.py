"""What a submitted config may do, and that everything else is refused with its line and field before it is read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import fetcher
from fetcher.config import ConfigProblems, fingerprint
from fetcher.service.batches import territory
from fetcher.service.batches.submission import Rules
from fetcher.service.batches.territory import Search, Territory
from fetcher.service.loading import load_service
from fetcher.service.settings import ServiceConfig

URL = "http://example.org/"
UNGUARDED = ["objectstore", "postgres"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


def rules(environ=None, *, http=None, **service):
    config = ServiceConfig.model_validate(
        {"service": {"state_dir": "state/service", "files": "."} | service, "http": http or {}}
    )
    return Rules(config, {} if environ is None else environ)


def load(text, folder, given=None, **more):
    return (given or rules()).load(text, "mine.yaml", folder / "state/service/batches/b", **more)


def refused(text, folder, given=None, **more):
    with pytest.raises(ConfigProblems) as caught:
        load(text, folder, given, **more)
    return caught.value.problems


def test_a_config_of_a_run_becomes_one_of_the_service(folder):
    config = load(
        f"sources: ['{URL}', in.csv]\nsinks: [out.jsonl]\npriority: 3\nqueue: {{type: sqlite, path: q.db, lease: 5s}}\n"
        "shutdown_timeout: 1h\n",
        folder,
    )
    assert config.name == "mine"
    assert config.priority == 3
    assert [sink.path for sink in config.sinks] == ["out.jsonl", f"{folder}/state/service/batches/b/results.jsonl"]
    assert config.sinks[-1].name == "results"
    assert (config.queue.path, config.queue.lease) == (f"{folder}/state/service/batches/b/queue.db", 5.0)
    assert config.shutdown_timeout == 10.0


@pytest.mark.parametrize("queue", ["queue: memory\n", "queue: {type: memory, capacity: 5}\n", ""])
def test_a_queue_survives_the_process_whatever_is_asked_for(folder, queue):
    assert load(f"sources: ['{URL}']\n{queue}", folder).queue.type == "sqlite"


def test_sinks_may_be_left_out_and_a_name_that_is_taken_is_left(folder):
    assert len(load(f"sources: ['{URL}']\n", folder).sinks) == 1
    config = load(f"sources: ['{URL}']\nsinks: [{{type: file, path: o.jsonl, name: results}}]\n", folder)
    assert [sink.name for sink in config.sinks] == ["results", None]


def test_it_is_the_same_batch_at_every_load(folder):
    text = f"sources: ['{URL}', upload]\n"
    upload = folder / "x.csv"
    first = load(text, folder, upload=upload)
    assert fingerprint(first) == fingerprint(load(text, folder, upload=upload))


# Uploads


def test_an_upload_is_a_source_of_its_own(folder):
    config = load("name: a\n", folder, upload=folder / "given.CSV.gz")
    assert [source.path for source in config.sources] == [f"{folder}/state/service/batches/b/urls.csv.gz"]
    config = load(f"sources: ['{URL}']\n", folder, upload=folder / "given.txt", moved=False)
    assert config.sources[-1].path == str(folder / "given.txt")


@pytest.mark.parametrize("source", ["upload", "{type: file, path: upload}", "{path: upload, type: file, column: link}"])
def test_a_source_may_name_it(folder, source):
    config = load(f"sources: [{source}, '{URL}']\n", folder, upload=folder / "given.csv")
    assert [getattr(source, "path", None) for source in config.sources] == [
        f"{folder}/state/service/batches/b/urls.csv",
        None,
    ]
    assert config.sources[0].column == ("link" if "column" in source else "url")


def test_without_sources_and_without_an_upload_there_is_nothing_to_fetch(folder):
    assert refused("name: a\n", folder) == ["mine.yaml: sources: is missing"]


# The environment


def test_only_the_variables_that_are_named_are_there(folder):
    environ = {"KEY": "k", "SECRET": "s", "FETCHER_DEADLINE": "1s"}
    text = f"sources: ['{URL}']\nrequest:\n  headers:\n    x-key: ${{KEY}}\n    x-secret: ${{SECRET}}\n"
    (problem,) = refused(text, folder, rules(environ, env=["KEY"]))
    assert problem.startswith("mine.yaml:5: request.headers.x-secret: the variable SECRET is not there for batches; ")
    allowed = load(text, folder, rules(environ, env=["KEY", "SECRET", "FETCHER_DEADLINE"]))
    assert allowed.request.headers == {"x-key": "k", "x-secret": "s"}
    assert allowed.deadline is None


AUTH = "http:\n  auth:\n    - {{type: bearer, hosts: [example.org], token: {{{place}}}}}\n"


def test_secrets_are_read_from_where_batches_may_read(folder, monkeypatch):
    monkeypatch.setenv("KEY", "k")
    monkeypatch.setenv("OTHER", "o")
    (folder / "data" / "token").write_text("t\n")
    text = f"sources: ['{URL}']\n" + AUTH
    given = rules(env=["KEY"], files="data")
    for place, secret in [("env: KEY", "k"), ("file: data/token", "t")]:
        assert load(text.format(place=place), folder, given).http.auth[0].token.get_secret_value() == secret
    assert refused(text.format(place="env: OTHER"), folder, given) == [
        "mine.yaml:4: http.auth.0.token: the variable OTHER is not there for batches; service.env can change that"
    ]
    (problem,) = refused(text.format(place="file: /etc/hostname"), folder, given)
    assert "mine.yaml:4: http.auth.0.token: lies outside of service.files (data); " in problem
    os.mkfifo(folder / "data" / "pipe")
    (problem,) = refused(text.format(place="file: data/pipe"), folder, given)
    assert problem.endswith("its file 'data/pipe' can not be read: it is no regular file")


@pytest.mark.parametrize(
    ("part", "variable"),
    [
        ("s3://bucket/x.csv", "AWS_SECRET_ACCESS_KEY"),
        ("gs://bucket/x.csv", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("{type: postgres, dsn: 'postgresql://db/x', query: select 1, order: id}", "PGPASSWORD"),
    ],
)
def test_credentials_that_a_part_finds_by_itself_are_not_there_either(folder, part, variable):
    text = f"name: a\nsources:\n  - {part}\n"
    (problem,) = refused(text, folder, rules({variable: "x"}, unguarded=UNGUARDED))
    assert problem == (
        f"mine.yaml:3: sources.0: would use {variable} of the service's environment, which service.env can allow"
    )
    assert load(text, folder, rules({variable: "x"}, env=[variable], unguarded=UNGUARDED))
    assert load(text, folder, rules({}, unguarded=UNGUARDED))


# Files


REFRESHING = (
    "type: oauth2, hosts: [x.org], token_url: 'https://x.org/t', client_id: c, grant: refresh_token, refresh_token: r"
)
OUTSIDE = [
    ("sources: [/etc/passwd]", "sources.0.path"),
    ("sources: [../x.csv]", "sources.0.path"),
    ("sources: [data/../../x.csv]", "sources.0.path"),
    ("sources: [link/x.csv]", "sources.0.path"),
    ("sources: ['linked*/*.csv']", "sources.0.path"),
    ("sources: ['data/*.csv']", "sources.0.path"),
    ("sources: [{type: file, path: [data/a.csv, /etc/passwd]}]", "sources.0.path.1"),
    ("sources: [{type: sqlite, path: /tmp/x.db, query: select 1, order: id}]", "sources.0.path"),
    ("sources: [{type: sitemap, location: /etc/sitemap.xml}]", "sources.0.location"),
    ("sinks: [/tmp/out.jsonl]", "sinks.0.path"),
    ("sinks: [{type: sqlite, path: link/x.db}]", "sinks.0.path"),
    ("sinks: ['file:///tmp/out.jsonl']", "sinks.0.path"),
    ("sinks: [{type: webhook, url: 'https://x.org/', rejected: /tmp/x}]", "sinks.0.rejected"),
    ("sinks: [{type: webhook, url: 'https://x.org/', ca_file: /etc/ssl/x.pem}]", "sinks.0.ca_file"),
    ("body: {store: file, path: '/tmp/{sha256}'}", "body.path"),
    ("body: {store: file, path: 'link/{sha256}'}", "body.path"),
    ("body: {store: file, work: /tmp/work}", "body.work"),
    ("http: {cache: {path: /tmp/cache.db}}", "http.cache.path"),
    ("request: {upload_dir: /etc}", "request.upload_dir"),
    ("request: {upload_dir: link}", "request.upload_dir"),
    ("request: {upload_dir: data/..}", "request.upload_dir"),
    ("request: {upload_dir: state/service/batches/other}", "request.upload_dir"),
    (f"http: {{auth: [{{{REFRESHING}, keep: /tmp/token}}]}}", "http.auth.0.keep"),
    (f"http: {{auth: [{{{REFRESHING}, keep: link/token}}]}}", "http.auth.0.keep"),
    (f"websocket: {{auth: [{{{REFRESHING}, keep: /tmp/token}}]}}", "websocket.auth.0.keep"),
    ("sources: [{type: file, path: 'x://../../etc/passwd'}]", "sources.0.path"),
    ("sources: [{type: file, path: 'http://../../etc/passwd'}]", "sources.0.path"),
    ("sources: [{type: file, path: 'linked*/{a}*.csv'}]", "sources.0.path"),
    ("sources: [{type: sqlite, path: 's3://../../x.db', query: select 1, order: id}]", "sources.0.path"),
    ("sources: [{type: sitemap, location: 's3://../../x.xml'}]", "sources.0.location"),
    ("sinks: [{type: file, path: 's3://../../out.jsonl'}]", "sinks.0.path"),
    ("sinks: [{type: file, path: 'file:///tmp/../../../out.jsonl'}]", "sinks.0.path"),
    ("sinks: ['file:///tmp/%2e%2e/out.jsonl']", "sinks.0.path"),
    ("sources: [state/service/service.db]", "sources.0.path"),
    ("sources: [state/service/batches/other/urls.csv]", "sources.0.path"),
    ("sinks: [state/service/batches/other/results.jsonl]", "sinks.0.path"),
]


@pytest.mark.parametrize(("line", "field"), OUTSIDE)
def test_paths_lead_nowhere_else(folder, line, field):
    (folder / "link").symlink_to("/etc")
    (folder / "linked").mkdir()
    (folder / "linked" / "{a}x.csv").symlink_to("/etc/hostname")
    for place in (folder / "linked", folder / "data"):
        (place / "hidden.csv").symlink_to("/etc/hostname")
    text = line + "\n" if line.startswith("sources") else f"{line}\nsources: ['{URL}']\n"
    problem = refused(text, folder)[0]
    assert problem.startswith(f"mine.yaml:1: {field}: ")
    assert "lies " in problem or "may not have .. in it" in problem


def test_paths_within_are_fine_relative_absolute_or_of_other_machines(folder):
    text = (
        f"sources: [data/a.csv, '{folder}/data/b.csv', 'data/*.txt', s3://bucket/x.csv, '{URL}']\n"
        "sinks: [out/x.jsonl, s3://bucket/out/x.jsonl]\nbody: {store: file, path: 'bodies/{host}/{sha256}'}\n"
        f"http: {{cache: true, auth: [{{{REFRESHING}, keep: data/token}}]}}\n"
        "request: {headers: {path: /etc/passwd}}\n"
    )
    config = load(text, folder, rules(unguarded=UNGUARDED))
    assert config.body.work.endswith("/b")
    assert config.http.cache.path == "state/service/cache.db"


def test_files_may_be_a_folder_below(folder):
    given = rules(files="data")
    assert load("sources: [data/a.csv]\n", folder, given)
    (problem,) = refused("sources: [a.csv]\n", folder, given)
    assert problem == (
        "mine.yaml:1: sources.0.path: lies outside of service.files (data); paths are relative to the service's "
        "working folder"
    )
    for body in ("file", "{store: file, durability: fsync}"):
        config = load(f"sources: [data/a.csv]\nbody: {body}\n", folder, given)
        assert config.body.path.startswith("data/bodies/")
        assert config.body.work.startswith("data/bodies/.partial/")
    (problem,) = refused("sources: [data/a.csv]\nbody: {store: file, path: 'out/{sha256}'}\n", folder, given)[:1]
    assert "mine.yaml:2: body.path: lies outside" in problem


@pytest.mark.parametrize(
    "line", ["sources: ['-']", "sinks: ['-']\nsources: ['http://x.org/']", "sources: [{type: file, path: '-'}]"]
)
def test_the_standard_streams_are_the_services(folder, line):
    (problem,) = refused(line + "\n", folder)
    assert "standard input and output are not there for batches of a service; name a file" in problem


# Code, connections, guard


def test_code_is_run_only_where_that_is_allowed(folder):
    text = f"sources: ['{URL}']\nstages:\n  - {{type: python, function: 'mine:f'}}\n"
    assert refused(text, folder) == [
        "mine.yaml:3: stages.0: runs code in the service, which service.python does not allow"
    ]
    assert load(text, folder, rules(python=True))


def test_what_is_about_connections_is_the_services(folder):
    text = f"sources: ['{URL}']\nhttp:\n  robots: obey\n  guard: false\n  tls: {{verify: false}}\n"
    problems = refused(text, folder)
    assert [problem.partition(": is the service's")[0] for problem in problems] == [
        "mine.yaml:4: http.guard",
        "mine.yaml:5: http.tls",
    ]
    config = load(
        f"sources: ['{URL}']\nhttp: {{robots: obey}}\n", folder, rules(http={"user_agent": "us", "keep_alive": 3})
    )
    assert (config.http.robots, config.http.user_agent, config.http.keep_alive) == ("obey", "us", 3.0)
    assert config.http.guard is not None


@pytest.mark.parametrize("guard", ["false", "{allow: [10.0.0.0/8]}"])
def test_no_part_gets_around_the_guard(folder, guard):
    parts = (
        "sources:\n  - {{type: sitemap, location: 'https://x.org/s.xml'{0}}}\n"
        "sinks: [{{type: webhook, url: 'https://x.org/'{0}}}]\n"
    )
    given = rules(http={"guard": {"allow": ["10.0.0.0/8"]}})
    config = load(parts.format(""), folder, given)
    assert config.http.guard is not None
    assert not {"guard"} & (config.sources[0].model_fields_set | config.sinks[0].model_fields_set)  # it is that of http
    assert load(parts.format(", guard: true"), folder, given).sinks[0].guard is not None
    problems = refused(parts.format(f", guard: {guard}"), folder, given)
    advice = "guard: is the service's: set it in the config of the service, as http.guard"
    assert problems == [f"mine.yaml:2: sources.0.{advice}", f"mine.yaml:3: sinks.0.{advice}"]
    assert load(parts.format(f", guard: {guard}"), folder, rules(http={"guard": False}))


# What the service itself goes by


KEPT = [
    "sinks: [{0: file, path: mine/service.yaml, format: csv, if_exists: append}]",
    "sinks: [{0: sqlite, path: mine/service.yaml}]",
    "sinks: [mine/to-config.csv]",
    "sinks: [{0: file, path: mine/token, format: jsonl}]",
    "sinks: [{0: file, path: mine/ca.pem, format: jsonl}]",
    "sinks: [{0: file, path: mine/nightly.yaml, format: jsonl}]",
    "sinks: [drop/inbox/x.csv]",
    "sinks: [{0: file, path: data/module.py, format: jsonl}]",
    "sinks: [{0: file, path: data/module.PY, format: jsonl}]",
    "body: {store: file, path: 'mine/{path}/{sha256}'}",
    "body: {store: file, path: '{host}/{sha256}'}",
    "body: {store: file, path: 'state/{path}/{sha256}'}",
    "body: {store: file, path: 'data/{sha256}.py'}",
    "sinks: [{0: webhook, url: 'https://x.org/', rejected: mine/service.yaml}]",
    "http: {cache: {path: mine/service.yaml}}",
    f"http: {{auth: [{{{REFRESHING}, keep: mine/token}}]}}",
    "http: {auth: [{0: bearer, hosts: [x.org], token: {file: mine/token}}]}",
    "sources: [mine/service.yaml]",
    "request: {upload_dir: mine}",
    "sources: ['mine/*']",
    "sources: [{0: sqlite, path: mine/token, query: select 1, order: id}]",
]


@pytest.mark.parametrize("line", KEPT)
def test_no_batch_touches_what_decides_what_it_may_do(folder, line):
    for name, content in {"service.yaml": CONFIG, "token": "t" * 43, "ca.pem": "x", "nightly.yaml": "{}"}.items():
        (folder / "mine").mkdir(exist_ok=True)
        (folder / "mine" / name).write_text(content)
    (folder / "mine/to-config.csv").symlink_to("service.yaml")
    given = Rules(load_service("mine/service.yaml"), {})
    sources = "" if line.startswith("sources") else f"sources: ['{URL}']\n"
    text = line.replace("{0:", "{type:") + f"\n{sources}"
    problem = refused(text, folder, given)[0]
    assert "lies where the service keeps" in problem or "called like code" in problem or "may come to lie" in problem
    assert load(f"sources: ['{URL}']\nsinks: [mine/other.csv, data/x.jsonl]\n", folder, given)


CONFIG = """
service:
  files: .
  state_dir: state/service
  watch: drop
  tokens: [{name: me, token: {file: mine/token}}]
http: {tls: {ca_file: mine/ca.pem}}
schedules: [{name: nightly, every: 1h, batch: mine/nightly.yaml}]
"""


def test_no_batch_touches_the_code_of_the_service(folder):
    prefix = os.path.realpath(sys.prefix)
    given = rules(files="/")
    for path in (f"{prefix}/x.csv", f"{Path(fetcher.__file__).parent}/x.csv"):
        (problem,) = refused(f"sources: ['{URL}']\nsinks: ['{path}']\n", folder, given)
        assert "sinks.0.path: lies where the service keeps" in problem


def test_by_default_batches_have_a_folder_of_their_own(folder):
    settings = ServiceConfig()
    assert settings.service.files == "files"
    Territory(settings).make()
    assert (folder / "files").is_dir()
    assert load(f"sources: ['{URL}']\nsinks: [files/out.jsonl]\n", folder, Rules(settings, {}))
    (problem,) = refused(f"sources: ['{URL}']\nsinks: [out.jsonl]\n", folder, Rules(settings, {}))
    assert "lies outside of service.files (files); " in problem
    assert str(folder) not in problem
    (folder / "taken").write_text("")
    with pytest.raises(ConfigProblems, match=r"service\.files: taken: can not be made: File exists"):
        Territory(ServiceConfig.model_validate({"service": {"files": "taken"}})).make()


def test_jobs_send_files_of_where_batches_may_read_and_of_nowhere_else(folder):
    start = "sources: [{type: file, path: files/x.csv, job: {url: 'http://a.test/', "
    sent = start + "multipart: [{name: f, path: '/etc/{x}'}]}}]\n"
    # The service's own folder has its state; what jobs name is looked for in one of theirs.
    assert load(sent, folder).request.upload_dir == "./uploads"
    assert load(sent, folder, rules(files="files")).request.upload_dir == "files/uploads"
    assert load(f"{sent}request: {{upload_dir: data}}\n", folder).request.upload_dir == "data"
    (problem,) = refused(f"{sent}request: {{upload_dir: .}}\n", folder)
    assert problem.startswith("mine.yaml:2: request.upload_dir: may come to lie where the service keeps its")
    (problem,) = refused(start + "auth: {token: {file: /etc/hostname}}}}]\n", folder)
    assert problem.startswith("mine.yaml:1: sources.0.job.auth.token: lies outside of service.files")


# Patterns


def test_a_pattern_goes_down_once(folder):
    assert load("sources: ['data/**/*.csv']\n", folder)
    (problem,) = refused("sources: ['data/**/**/**/nothing.txt']\n", folder)
    assert problem == "mine.yaml:1: sources.0.path: may have ** in it once"


def test_patterns_look_at_so_much_and_no_more(folder, monkeypatch):
    deep = folder / "data" / "a" / "b"
    deep.mkdir(parents=True)
    for number in range(20):
        (deep / f"{number}.csv").write_text("")
    search = Search(entries=30)
    assert search.objection("data/*.csv") is None  # which does not go down
    assert search.objection("data/**/none.txt") is None
    assert "has too many files to look through" in search.objection("data/*/*/*.csv")
    assert "has too many files to look through" in Search(seconds=-1).objection("data/**/none.txt")
    monkeypatch.setattr(territory, "_MOST_MATCHES", 19)
    (problem,) = refused("sources: ['data/**/*.csv']\n", folder)
    assert "sources.0.path: matches more than 19 files" in problem
    assert len(refused("sources: ['data/a/b/1*.csv', 'data/a/b/?.csv']\n", folder)) == 1


def test_a_folder_of_parts_leads_nowhere_else(folder):
    (folder / "data" / "x.parquet").symlink_to("/etc/hostname")
    (problem,) = refused("sources: [{type: file, path: data, format: parquet}]\n", folder)
    assert "sources.0.path: lies outside" in problem


# Connections that the guard does not see


DRIVERS = {
    "redis": "sinks: [{type: redis, url: 'redis://x.org', stream: s}]",
    "nats": "sinks: [{type: nats, servers: ['nats://x.org'], stream: s, subject: s}]",
    "email": "sinks: [{type: email, host: x.org, sender: a@x.org, to: [b@x.org]}]",
    "postgres": "sinks: [{type: postgres, dsn: 'postgresql://x.org/d', table: t}]",
    "objectstore": "sinks: ['s3://bucket/x.jsonl']",
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_guard_is_not_gone_around(folder, driver):
    text = f"{DRIVERS[driver]}\nsources: ['{URL}']\n"
    (problem,) = refused(text, folder)
    words = "its connections are not seen by the guard, which is on; service.unguarded may allow it"
    assert problem == f"mine.yaml:1: sinks.0.type: {driver}: {words}"
    assert load(text, folder, rules(unguarded=[driver]))
    assert load(text, folder, rules(http={"guard": False}))
    others = [other for other in DRIVERS if other != driver]
    assert refused(text, folder, rules(unguarded=others))


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("s3://bucket/x.csv", "objectstore (s3)"),
        ("{type: file, path: [data/a.csv, 'az://c/x.csv']}", "objectstore (az)"),
        ("{type: postgres, dsn: 'postgresql://x.org/d', query: select 1, order: id}", "postgres"),
    ],
)
def test_nor_by_sources(folder, source, named):
    problems = refused(f"sources: [{source}]\n", folder)
    assert problems[0].startswith(f"mine.yaml:1: sources.0.type: {named}: its connections are not seen by the guard")


def test_an_objectstore_that_is_a_folder_connects_to_nothing(folder):
    assert load(f"sources: ['{URL}']\nsinks: ['file://{folder}/data/x.jsonl']\n", folder)


# What drivers read by themselves


@pytest.mark.parametrize(
    "rest",
    [
        *("x.org/d?passfile=/etc/x", "x.org/d?sslcert=a&sslkey=b", "x.org/d?sslrootcert=/etc/x"),
        *("x.org/d?sslcrl=/etc/x", "x.org/d?service=s", "x.org/d?servicefile=/etc/x", "x.org/d?host=/run"),
        *("/d", "%2Frun%2Fpostgresql/d", "x.org,%2Frun/d", "u@%2Frun@x.org/d", "x.org/d?PASSFILE=x"),
        "x.org/d?passfile=",
    ],
)
def test_the_address_of_a_database_names_no_files(folder, rest):
    dsn = f"postgresql://{rest}"
    given = rules(unguarded=UNGUARDED)
    for text in (
        f"sources: [{{type: postgres, dsn: '{dsn}', query: select 1, order: id}}]\n",
        f"sources: ['{URL}']\nsinks: [{{type: postgres, dsn: '{dsn}', table: t}}]\n",
    ):
        (problem,) = refused(text, folder, given)
        assert "0.dsn: has " in problem or "0.dsn: should name its host" in problem


def test_no_file_of_passwords_is_looked_for(folder):
    given = rules(unguarded=UNGUARDED)
    for dsn, joined in [("postgresql://u@x.org/d", "?"), ("postgresql://u@x.org/d?sslmode=require", "&")]:
        config = load(f"sources: ['{URL}']\nsinks: [{{type: postgres, dsn: '{dsn}', table: t}}]\n", folder, given)
        assert config.sinks[0].dsn.get_secret_value() == f"{dsn}{joined}passfile={os.devnull}/none"
        assert "passfile" not in config.sinks[0].identity


@pytest.mark.parametrize(
    "name", ["google_service_account", "google_application_credentials", "azure_federated_token_file"]
)
def test_the_options_of_a_store_name_no_files(folder, name):
    given = rules(unguarded=UNGUARDED)
    text = f"sinks: [{{type: objectstore, path: 'gs://b/x.jsonl', options: {{{name}: /etc/x}}}}]\nsources: ['{URL}']\n"
    (problem,) = refused(text, folder, given)
    assert problem == f"mine.yaml:1: sinks.0.options: {name} is not there for batches, as it may be a file's"
    for known in ("AWS_ACCESS_KEY_ID", "region", "endpoint"):
        assert load(text.replace(name, known), folder, given)


# Problems


def test_everything_that_is_wrong_is_told_at_once(folder):
    problems = refused("sources: [/etc/passwd, '-']\nsinks: [{type: sqlite, path: ../x.db}]\n", folder)
    assert len(problems) == 3
    problems = refused("requst: {}\nsources: 5\nsinks: nothing\n", folder)
    assert [problem.split(": ")[1] for problem in problems] == ["requst", "sources", "sinks"]


@pytest.mark.parametrize("text", ["", "[]", "a: [", "5", "sources: null", "sources: {}\nsinks: null", "\x00", "{}"])
def test_what_is_no_config_at_all_is_refused(folder, text):
    assert refused(text, folder)
    if text != "{}":
        assert refused(text, folder, upload=folder / "x.csv")


def test_a_retry_appends_to_what_the_first_time_has_written(folder):
    config = load(
        f"sources: ['{URL}']\nsinks: [a.jsonl, {{type: file, path: b.jsonl, if_exists: replace}}]\n", folder, again=True
    )
    assert [sink.if_exists for sink in config.sinks] == ["append", "replace", "replace"]


def test_each_variable_that_is_not_there_is_told_by_its_name(folder):
    told = refused(f"sources: ['{URL}?${{ONE}}&${{TWO}}']\n", folder)
    assert [line.partition("the variable ")[2].partition(" ")[0] for line in told] == ["ONE", "TWO"]
    assert all("is not there for batches; service.env can let them have it" in line for line in told)
