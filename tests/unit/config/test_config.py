from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from fetcher import registry
from fetcher.config import Config, FailureLimit, fingerprint, json_schema, load, parse_failures
from fetcher.config.document import parse
from fetcher.config.problems import _IN_WORDS, ConfigProblems, dotted, schemas_at, shown, translate
from fetcher.engine.hosts.breaker import BreakerSettings
from fetcher.errors import ConfigError
from fetcher.settings import Settings

ROOT = Path(__file__).parents[3]
BAD = ROOT / "tests" / "data" / "bad_configs"
SHORT = "sources: [urls.txt]\nsinks: [out.jsonl]\n"
FULL = """
name: quickstart
sources:
  - {type: file, path: urls.csv, column: url}         # the other columns become meta
  - {type: template, url: "http://127.0.0.1:8900/bytes/1024?i={1..10000}"}
  - {type: inline, jobs: [{url: "http://127.0.0.1:8900/json/1", method: POST, json: {a: 1}, priority: 5}]}
request:
  {method: GET, headers: {accept: text/html}, timeout: {connect: 10s, read: 30s, total: 60s},
   max_redirects: 5}
limits:
  concurrency: 100                                     # in flight, all hosts together
  per_host: {concurrency: 8, rate: 10/s, delay: 0s}
  hosts: {"api.example.org": {concurrency: 2, rate: 2/s}}
retry: {attempts: 4, backoff: 500ms, max_backoff: 30s, statuses: [429, 500, 502, 503, 504], deadline: 5m}
queue: {type: sqlite, path: state/quickstart.db}
body: {store: inline, max_size: 10MiB}                 # none | inline
http: {resolve: {"*.test": 127.0.0.1}, user_agent: "..."}
sinks:
  - {type: file, format: jsonl, path: out/quickstart.jsonl}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="x.yaml"):
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write


@pytest.fixture
def loaded(write):
    return lambda text=SHORT, *flags, **environ: load(write(text), flags, environ)


@pytest.fixture
def problems(loaded):
    def problems(text=SHORT, *flags, **environ):
        with pytest.raises(ConfigProblems) as caught:
            loaded(text, *flags, **environ)
        # pydantic's error shows the values of secrets: not even a traceback may lead to it.
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        assert not isinstance(caught.value.__context__, ValidationError)
        assert isinstance(caught.value, ConfigError)
        assert caught.value.exit_code == 78
        assert str(caught.value) == "\n".join(caught.value.problems)
        return caught.value.problems

    return problems


# What is refused


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yaml")), ids=lambda path: path.stem)
def test_bad_configs_are_refused_in_these_words(path, monkeypatch):
    monkeypatch.chdir(BAD)
    with pytest.raises(ConfigProblems) as caught:
        load(path.name, environ={})
    assert caught.value.problems == path.with_suffix(".expected").read_text("utf-8").splitlines()


def test_every_bad_config_has_its_expectation():
    configs = {path.stem for path in BAD.glob("*.yaml")}
    assert len(configs) >= 25
    assert configs == {path.stem for path in BAD.glob("*.expected")}
    assert {path.suffix for path in BAD.iterdir()} == {".yaml", ".expected"}


def test_expectations_speak_our_language():
    text = "\n".join(path.read_text("utf-8") for path in BAD.glob("*.expected"))
    for word in ("pydantic", "Input should", "Value error", "Config", "Settings", "secret@"):
        assert word not in text


def test_a_file_that_is_not_there(problems, write, tmp_path):
    write("", "here.yaml")
    for name, message in {
        "nothing.yaml": f"nothing.yaml: there is no such file; paths are relative to {tmp_path}",
        ".": ".: is a folder; name a config file in it",
        "here.yaml/x": "here.yaml/x: can not be read: Not a directory",
        "a\0b": "a\0b: can not be read: embedded null byte",
    }.items():
        with pytest.raises(ConfigProblems) as caught:
            load(name, environ={})
        assert caught.value.problems == [message]


def test_a_file_that_is_too_large(write, monkeypatch):
    monkeypatch.setattr("fetcher.config.loading.MAX_BYTES", 2**20)
    with pytest.raises(ConfigProblems, match=r"^x\.yaml: is larger than 1 MiB; put the jobs into a file of their own$"):
        load(write("#" * (2**20 + 1)), environ={})


def test_a_byte_order_mark_and_crlf_are_read_over(write):
    Path(write("")).write_bytes(b"\xef\xbb\xbf" + SHORT.replace("\n", "\r\n").encode())
    assert load("x.yaml", environ={}).name == "x"


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_lines(problems):
    text = (
        "sinks: [out.jsonl]\nlimits: {concurrency: many}\nrequst: 5\nname: ${NAME}\nname: again\n"
        "sources: [{type: flie}]\n"
    )
    assert problems(text, "body.store=all", FETCHER_RETRY__ATTEMPTS="no") == [
        "x.yaml:2: limits.concurrency: should be a whole number or auto, not 'many'",
        "x.yaml:3: requst: unknown key; did you mean 'request'?",
        "x.yaml:4: name: the variable NAME is not set; set it, or write ${NAME:default}",
        "x.yaml:5: name: is here a second time; it first stands in line 4",
        (
            "x.yaml:6: sources.0.type: no such source 'flie'; did you mean 'file'? "
            "(file, inline, postgres, sitemap, sqlite, template)"
        ),
        "FETCHER_RETRY__ATTEMPTS: should be a whole number, not 'no'",
        "-s body.store: should be 'none', 'inline' or 'file', not 'all'",
    ]


def test_text_that_is_not_utf_8_is_refused_from_outside(problems):
    assert problems(SHORT, FETCHER_SINKS="['\udcff']") == ["FETCHER_SINKS: is not UTF-8"]


def test_control_characters_in_the_user_agent(problems):
    reason = "the value of header 'user-agent' contains CR, LF, NUL or another control character"
    assert problems(SHORT + 'http: {user_agent: "a\\x01"}\n') == [f"x.yaml:3: http.user_agent: {reason}"]


def test_what_a_variable_gives_is_not_shown(problems):
    assert problems(SHORT + "limits: {concurrency: '${SECRET}'}\n", SECRET="hunter2") == [
        "x.yaml:3: limits.concurrency: should be a whole number or auto, not what ${SECRET} gives"
    ]


# What is taken


def test_two_lines_are_a_config(loaded):
    config = loaded()
    assert config.name == "x"
    assert config.sources[0].model_dump(exclude_unset=True) == {"type": "file", "path": "urls.txt"}
    assert (
        config.sinks[0].model_dump() | {"format": {"type": "jsonl", "compression": "none"}, "path": "out.jsonl"}
        == config.sinks[0].model_dump()
    )
    assert (config.queue.type, config.queue.path) == ("sqlite", "state/x.db")
    assert (config.limits.concurrency, config.limits.per_host.concurrency) == (100, 8)
    assert (config.body.store, config.dedupe, config.shutdown_timeout) == ("inline", False, 10.0)
    assert type(config.http) is registry.config_class("transports", "http")


def test_everything_can_be_said_in_full(loaded):
    config = loaded(FULL)
    assert config.name == "quickstart"
    assert [source.type for source in config.sources] == ["file", "template", "inline"]
    assert config.limits.hosts["api.example.org"].rate == 2.0
    assert config.retry.backoff == 0.5
    assert config.http.resolve == {"*.test": "127.0.0.1"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-", {"type": "file", "path": "-"}),
        ("data/urls.csv", {"type": "file", "path": "data/urls.csv"}),
        ("s3://bucket/urls.csv", {"type": "file", "path": "s3://bucket/urls.csv"}),
        ("http://h/{1..3}", {"type": "template", "url": "http://h/{1..3}"}),
        ("HTTP://h/a", {"type": "inline", "jobs": [{"url": "HTTP://h/a"}]}),
        ("https://h/a?b=c", {"type": "inline", "jobs": [{"url": "https://h/a?b=c"}]}),
    ],
)
def test_a_source_may_be_a_text(text, expected):
    config = Config.model_validate({"sources": [text], "sinks": ["out.jsonl"]})
    assert config.sources[0].model_dump(exclude_unset=True) == expected


def test_a_sink_may_be_a_text(loaded):
    config = loaded("sources: [urls.txt]\nsinks: ['-', OUT.NDJSON]\n")
    assert [sink.type for sink in config.sinks] == ["stdout", "file"]
    assert config.sinks[1].format.type == "jsonl"


def test_a_format_may_go_against_the_name(loaded):
    for written in ("jsonl", "{type: jsonl}"):
        sink = loaded(f"sources: [u.txt]\nsinks: [{{type: file, path: out.txt, format: {written}}}]\n").sinks[0]
        assert type(sink.format) is registry.config_class("formats", "jsonl")


def test_queue_and_body_may_be_texts(loaded):
    config = loaded(SHORT + "queue: memory\nbody: none\n")
    assert (config.queue.type, config.body.store) == ("memory", "none")
    assert loaded(SHORT + "queue: sqlite\nname: other").queue.path == "state/other.db"
    assert loaded(SHORT + "queue: {type: sqlite, path: /tmp/q.db}").queue.path == "/tmp/q.db"


def test_parts_may_be_given_as_objects():
    source = registry.config_class("sources", "file").model_validate({"path": "urls.txt"})
    config = Config(sources=[source], sinks=[registry.config_class("sinks", "stdout")()])
    assert config.sources == [source]
    assert config.queue.path == "state/batch.db"
    with pytest.raises(ValidationError, match="no such sink"):
        Config(sources=[source], sinks=[source.model_copy(update={"type": "template"})])


def test_switches_may_be_written_as_people_do(loaded):
    assert loaded(SHORT + "dedupe: on\n").dedupe is True
    assert loaded(SHORT + "dedupe: no\n").dedupe is False


def test_words_that_are_switches_may_be_written_as_such(loaded):
    for written, breaker, robots, ranges in ((False, "off", "ignore", "none"), (True, None, "obey", "resume")):
        switch = str(written).lower()
        text = f"limits: {{breaker: {switch}}}\nhttp: {{robots: {switch}}}\nbody: {{store: file, range: {switch}}}\n"
        config = loaded(SHORT + text)
        assert config.limits.breaker == (breaker or BreakerSettings())
        assert (config.http.robots, config.body.range) == (robots, ranges)


def test_a_rate_of_bytes_may_say_that_it_is_one(loaded):
    for written in ("1KiB/s", "1KiB", "1024", "1024/s", "'1024 /s'"):
        assert loaded(SHORT + f"request: {{min_rate: {written}}}\n").request.min_rate == 1024


def test_numbers_where_text_is_wanted_are_taken_as_they_are_written(loaded):
    config = loaded(SHORT + "name: 007\nrequest: {headers: {x-version: 1.10, x-debug: true}}\n")
    assert config.name == "007"
    assert config.request.headers == {"x-version": "1.10", "x-debug": "true"}


def test_a_batch_is_named_after_its_file(write):
    for name, expected in {
        "My batch (1).yaml": "My-batch-1-",
        ".yaml": "yaml",
        "a.b.yaml": "a.b",
        "\u65e5\u672c.yaml": "batch",
    }.items():
        assert load(write(SHORT, name), environ={}).name == expected


def test_a_default_that_another_setting_outdoes_is_no_contradiction(loaded):
    loaded(SHORT + "limits: {concurrency: 2}\nrequest: {timeout: {total: 1s}}\nretry: {max_backoff: 100ms}\n")


def test_what_goes_round_a_proxy_is_no_contradiction_where_it_may(loaded):
    for proxy in ("{urls: 'http://p.test:1', no_proxy: [a.test]}", "env"):
        loaded(f"sources: ['ftp://a.test/x']\nsinks: [out.jsonl]\nhttp: {{proxy: {proxy}}}\n")
    loaded("sources: ['ws://a.test/x', ftp.txt]\nsinks: [out.jsonl]\nhttp: {proxy: 'http://p.test:1'}\n")


def test_a_name_within_a_pattern_is_no_contradiction(loaded):
    hosts = "{'a-?.example.org': {}, '*.example.org': {}, api.example.org: {}, '::1': {}, 10.0.0.1: {}, '*': {}}"
    assert len(loaded(SHORT + f"limits: {{hosts: {hosts}}}\n").limits.hosts) == 6


def test_one_file_may_be_read_twice(loaded):
    loaded("sources: [urls.csv, {type: file, path: urls.csv, column: other}]\nsinks: [out.jsonl]\n")


# Precedence


def test_flags_win_over_the_environment_over_the_file_over_defaults(loaded):
    text = SHORT + "limits: {concurrency: 20, per_host: {concurrency: 2}}\nretry: {attempts: 2}\n"
    config = loaded(text, "limits.concurrency=40", FETCHER_LIMITS__CONCURRENCY="30", FETCHER_RETRY__ATTEMPTS="3")
    assert config.limits.concurrency == 40
    assert config.limits.per_host.concurrency == 2
    assert config.retry.attempts == 3
    assert config.retry.backoff == 0.5


def test_the_last_flag_wins(loaded):
    assert loaded(SHORT, "limits.concurrency=40", "limits.concurrency=50").limits.concurrency == 50


@pytest.mark.parametrize("name", ["FETCHER_LIMITS__PER_HOST__RATE", "fetcher_limits__per_host__rate"])
def test_variables_reach_any_depth_in_any_case(loaded, name):
    assert loaded(SHORT, **{name: "30/m", "OTHER": "x", "FETCHERY": "x"}).limits.per_host.rate == 0.5


def test_flags_reach_items_of_lists_and_keys_with_dots(loaded):
    config = loaded(
        FULL,
        "sources.0.path=other.csv",
        "sources.3=more.txt",
        'limits.hosts."api.example.org".concurrency=1',
        "limits.hosts.'b.example.org'={rate: 1/s}",
        "sinks=[a.jsonl, '-']",
        "request.headers.x-a= b=c #d: e ",
    )
    assert config.sources[0].path == "other.csv"
    assert config.sources[0].column == "url"
    assert config.sources[3].path == "more.txt"
    assert config.limits.hosts["api.example.org"].concurrency == 1
    assert config.limits.hosts["b.example.org"].rate == 1.0
    assert [sink.type for sink in config.sinks] == ["file", "stdout"]
    assert config.request.headers["x-a"] == "b=c #d: e"


def test_a_config_may_consist_of_overrides(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(None, ["sources.0=urls.txt", "sinks=['-']"], {"FETCHER_QUEUE__TYPE": "memory"})
    assert (config.name, config.queue.type) == ("batch", "memory")
    with pytest.raises(ConfigProblems) as caught:
        load(None, environ={})
    assert caught.value.problems == ["config: sources: is missing", "config: sinks: is missing"]


def test_an_override_mends_what_is_wrong_in_the_file(loaded):
    text = SHORT + "name: ${UNSET}\nlimits: {concurrency: many}\n"
    assert loaded(text, "name=good", "limits.concurrency=5").name == "good"


def test_text_from_outside_may_look_like_anything(loaded):
    for value in ("12345", "true", "@x", "a: b", "x #y", "*a", "1e3", "[a", "{"):
        quoted = f"'{value}'" if value[0] in "[{" else value
        assert loaded(SHORT, FETCHER_REQUEST__HEADERS__X_A=quoted).request.headers == {"x_a": value}


def test_a_variable_that_the_file_names_is_no_setting(loaded):
    assert loaded(
        SHORT + "request: {headers: {authorization: '${FETCHER_TOKEN}'}}\n", FETCHER_TOKEN="t"
    ).request.headers == {"authorization": "t"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("limits.concurency=5", "-s limits.concurency: unknown key; did you mean 'concurrency'?"),
        ("limits={concurency: 5}", "-s limits: limits.concurency: unknown key; did you mean 'concurrency'?"),
        ("limts.concurrency=5", "-s limts.concurrency: limts: unknown key; did you mean 'limits'?"),
        ("limits.concurrency=", "-s limits.concurrency: should be a whole number, not nothing"),
        ("sources.5=a", "-s sources.5: sources has 1 items, so 5 would leave a gap"),
        ("sources.first=a", "-s sources.first: sources is a list; name an item by its number, from 0 to 1"),
        (
            "sources.0.path=a",
            "-s sources.0.path: sources.0 is 'urls.txt', which has no keys; write it out as a mapping first",
        ),
        ("sinks=[a", "-s sinks:1: not YAML: did not find expected ',' or ']'"),
        (
            "sinks=[!x a]",
            "-s sinks: the tag '!x' is not allowed here; only !!str, !!int, !!float, !!bool and !!null are",
        ),
        ("limits", "-s limits: should be key.path=value; a key with a dot goes in quotes"),
        ("=5", "-s =5: should be key.path=value; a key with a dot goes in quotes"),
        ("limits..x=5", "-s limits..x=5: should be key.path=value; a key with a dot goes in quotes"),
    ],
)
def test_bad_flags(problems, flag, message):
    assert problems(SHORT, flag) == [message]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "FETCHER_LIMTS__CONCURRENCY",
            "5",
            "FETCHER_LIMTS__CONCURRENCY: limts: unknown key; did you mean 'limits'?",
        ),
        (
            "FETCHER_LIMITS__CONCURRENCY",
            "many",
            "FETCHER_LIMITS__CONCURRENCY: should be a whole number or auto, not 'many'",
        ),
        ("FETCHER_SINKS", "out.jsonl", "FETCHER_SINKS: should be a list, not 'out.jsonl'"),
        ("FETCHER_DEDUP", "on", "FETCHER_DEDUP: dedup: unknown key; did you mean 'dedupe'?"),
    ],
)
def test_bad_variables(problems, name, value, message):
    found = problems(SHORT, **{name: value})
    assert found == [message.replace("FETCHER_DEDUP: dedup: ", "FETCHER_DEDUP: ")]


# Secrets


class Account(Settings):
    user: str
    password: SecretStr
    tokens: tuple[SecretStr, ...] = ()
    attempts: int = 1


@pytest.mark.parametrize(
    "data",
    [
        {"user": "u", "password": 12345},
        {"user": "u", "password": ["hunter2", 12345]},
        {"user": "u", "password": "x", "tokens": [12345]},
        {"user": "u", "password": {"a": "hunter2"}},
    ],
)
def test_what_is_secret_is_never_shown(data):
    with pytest.raises(ValidationError) as caught:
        Account.model_validate(data)
    found = translate(caught.value.errors(), data, Account.model_json_schema(), {})
    assert [problem.message for problem in found] == ["should be text"]


def test_what_is_not_secret_is_shown():
    data = {"user": "u", "password": "hunter2", "attempts": "x", "pasword": "hunter2"}
    with pytest.raises(ValidationError) as caught:
        Account.model_validate(data)
    found = translate(caught.value.errors(), data, Account.model_json_schema(), {})
    assert [problem.message for problem in found] == [
        "should be a whole number, not 'x'",
        "unknown key; did you mean 'password'?",
    ]


# Parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (10**100, "a number that long"),
        (1.5, "1.5"),
        ("\x1b[31m\n", r"'\x1b[31m\n'"),
        ("x" * 100, repr("x" * 60 + "...")),
        ([1], "a list"),
        ({}, "a mapping"),
        (Path("x"), "a PosixPath"),
    ],
)
def test_values_are_shown_on_one_line(value, text):
    assert shown(value) == text


def test_paths_are_written_as_flags_take_them(loaded):
    assert dotted(("limits", "hosts", "a.b", "rate")) == 'limits.hosts."a.b".rate'
    assert dotted(("sources", 0, "\x1b")) == r"sources.0.'\x1b'"


@pytest.mark.parametrize(
    ("written", "failed", "total", "exceeded"),
    [
        (0, 0, 10, False),
        (0, 1, 10, True),
        (3, 3, 10, False),
        ("3", 4, 10, True),
        ("5%", 5, 100, False),
        ("5%", 6, 100, True),
        ("0.29%", 29, 10_000, False),
        ("0.29 %", 30, 10_000, True),
        ("100%", 10, 10, False),
        ("0%", 1, 10**9, True),
        ("5%", 0, 0, False),
    ],
)
def test_how_many_jobs_may_fail(written, failed, total, exceeded):
    limit = parse_failures(written)
    assert isinstance(limit, FailureLimit)
    assert limit.exceeded(failed, total) is exceeded
    assert parse_failures(str(limit)) == limit
    assert parse_failures(limit) is limit


@pytest.mark.parametrize("written", [-1, True, 1.5, None, "", "-5%", "101%", "5%%", "many", "\u0665"])
def test_what_is_no_number_of_failures(written):
    with pytest.raises(ValueError, match="should be a number of jobs"):
        parse_failures(written)


def test_a_config_can_be_written_out_and_read_again(loaded):
    config = loaded(FULL, "max_failures=5%")
    again = Config.model_validate(json.loads(config.model_dump_json(by_alias=True)))
    assert again.model_dump(by_alias=True) == config.model_dump(by_alias=True)


# The fingerprint


def test_the_fingerprint_is_about_jobs_only(loaded):
    first = fingerprint(loaded(FULL))
    assert len(first) == 64
    assert fingerprint(loaded(FULL, "limits.concurrency=9", "sinks=['-']", "name=other", "retry.attempts=1")) == first
    for flag in (
        "sources.0.path=other.csv",
        "sources.2.jobs.0.json={a: 2}",
        "dedupe=on",
        "sources=[urls.csv]",
    ):
        assert fingerprint(loaded(FULL, flag)) != first


def test_the_fingerprint_knows_short_and_full_as_the_same(loaded):
    full = "sources: [{path: urls.txt, type: file}]\nsinks: ['-']\n"
    assert fingerprint(loaded()) == fingerprint(loaded(full))


def test_the_fingerprint_is_the_same_in_every_process(loaded):
    first = fingerprint(loaded(FULL))
    script = "import fetcher.config as c; print(c.fingerprint(c.load('x.yaml', environ={})), c.json_schema())"
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", script]
    for seed in "12":
        environ = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout == f"{first} {json_schema()}\n"


# The JSON Schema


def test_the_schema_stands_on_its_own():
    text = json.dumps(json_schema())
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert '"$id"' not in text
    definitions = json_schema()["$defs"]
    references = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert references == set(definitions)
    assert json_schema()["required"] == ["sources", "sinks"]
    assert definitions["FileSinkConfig"]["required"] == ["type", "path"]


def test_the_schema_knows_and_describes_every_key():
    properties = json_schema()["properties"]
    assert set(properties) == set(Config.model_fields)
    for name, field in properties.items():
        target = json_schema()["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert field.get("description") or target.get("description"), name


def test_a_copy_of_the_schema_is_handed_out():
    json_schema()["properties"].clear()
    assert json_schema()["properties"]


def test_the_schema_is_walked_along_the_data():
    data = {"sources": [{"type": "file"}, {"type": "inline"}]}
    found = [
        set(node["properties"]) for node in schemas_at(json_schema(), ("sources", 1), data) if "properties" in node
    ]
    assert found == [{"type", "jobs"}]


GOOD = [
    SHORT,
    FULL,
    "sources: ['-']\nsinks: ['-']\nqueue: memory\nbody: none\nlimits: {concurrency: '${N:5}'}\n",
]
# What JSON Schema can say; contradictions, for one, it can not.
SCHEMA_REFUSES = [
    "unknown_key",
    "unknown_key_nested",
    "unknown_key_in_part",
    "missing_sections",
    "empty_lists",
    "wrong_types",
]
SCHEMA_REFUSES += [
    "out_of_bounds",
    "units",
    "unknown_type",
    "unknown_type_short",
    "no_type",
    "unknown_choice",
    "bad_name",
]


def test_the_schema_agrees_with_the_model():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    for text in GOOD:
        assert list(validator.iter_errors(parse(text, "x", None).data)) == []
    for name in SCHEMA_REFUSES:
        assert list(validator.iter_errors(parse((BAD / f"{name}.yaml").read_text(), name, None).data)), name


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name
)
def test_the_schema_takes_every_config_that_the_documents_show(page):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        assert [error.message for error in validator.iter_errors(parse(text, page.name, None).data)] == []


@pytest.mark.parametrize(
    ("job", "good"),
    [
        ({"timeout": "5s"}, True),
        ({"timeout": 5}, True),
        ({"timeout": 0.5}, True),
        ({"timeout": "${TIMEOUT}"}, True),
        ({"timeout": []}, False),
        ({"body": "text"}, True),
        ({"body": {"hex": "00"}}, True),
        ({"body": {"base64": "AA=="}}, True),
        ({"body": {"hexx": "00"}}, False),
        ({"body": {"hex": "00", "base64": "AA=="}}, False),
        ({"receive": {"delimiter": {"hex": "0d0a"}}}, True),
        ({"receive": {"delimiter": "x"}}, True),
        ({"receive": {"delimiter": {"base64": "AA=="}}}, False),
    ],
)
def test_the_schema_knows_what_a_job_may_say(job, good):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for source in (
        {"type": "inline", "jobs": [{"url": "tcp://a.test:7"} | job]},
        {"type": "file", "path": "rows.csv", "job": job},
    ):
        assert validator.is_valid({"sources": [source], "sinks": ["-"]}) is good, source


# The registry


def test_only_the_parts_that_are_named_are_imported(tmp_path):
    script = (
        "import sys, fetcher.config as c;"
        "c.Config.model_validate({'sources': ['http://h/'], 'sinks': ['-'], 'queue': 'memory'});"
        "assert 'fetcher.queues.sqlite' not in sys.modules and 'fetcher.sinks.file' not in sys.modules"
    )
    root = Path(__file__).parent.parent.parent
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)}, check=True)


def test_an_installed_part_is_as_good_as_a_built_in_one(loaded, problems, monkeypatch):
    known = registry.parts("formats") | {"plugin": f"{__name__}:PluginConfig"}
    module = type(sys)(__name__)
    module.PluginConfig, module.SUFFIXES = PluginConfig, (".plug", ".plug.gz")
    monkeypatch.setitem(sys.modules, __name__, module)
    monkeypatch.setattr(registry, "parts", lambda kind: known)
    registry.suffixes.cache_clear()
    try:
        assert registry.format_by_name("a.plug.gz") == "plugin"
        assert type(registry.Part("formats")._validate("plugin")) is PluginConfig
    finally:
        registry.suffixes.cache_clear()
        registry.config_class.cache_clear()


class PluginConfig(Settings):
    type: str = "plugin"


def test_the_patterns_that_have_words_are_those_of_configs():
    text = json.dumps(json_schema())
    assert all(json.dumps(pattern)[1:-1] in text for pattern in _IN_WORDS)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stages=[decode]", "stages.0: is a condition, as a text is; write {type: decode} for the stage of that name"),
        ("stages=[decod]", "write {type: decode} for the stage"),
        ("stages=[Extract]", "write {type: extract} for the stage"),
        ("stages=[statu]", "a record has no field 'statu'; did you mean 'status'?"),
        ("sources=[{type: sitemap, url: x}]", "sources.0.url: unknown key; did you mean 'location'?"),
        ("sinks=[out/x.db]", "sinks.0: is no file of records; write {type: sqlite, path: out/x.db} for a database"),
        ("sinks=[out/X.SQLITE3]", "write {type: sqlite, path: out/X.SQLITE3}"),
    ],
)
def test_a_text_that_was_meant_in_another_way_is_told_how_it_is_written(tmp_path, setting, said):
    (tmp_path / "a.yaml").write_text("sources: [urls.txt]\nsinks: [out.jsonl]\n")
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "a.yaml", [setting])
    assert said in str(refused.value)


@pytest.mark.parametrize("key", ["sources", "stages", "sinks"])
def test_a_list_of_parts_that_is_none_is_refused_unseen(problems, key):
    base = {"sources": "sources: [urls.txt]\n", "sinks": "sinks: [out.jsonl]\n"}
    rest = "".join(text for name, text in base.items() if name != key)
    (problem,) = problems(rest + f"{key}:\n" + "- {q: 1}\n" * 1001)
    assert problem.endswith(
        f": {key}: has 1001 items, and at most 1000 are taken; many URLs go into a file, or the jobs of one source"
    )


def test_as_many_parts_as_there_may_be_are_taken(loaded):
    assert len(loaded("sources:\n" + "- urls.txt\n" * 1000 + "sinks: [out.jsonl]\n").sources) == 1000


def test_of_very_many_problems_the_first_are_told_and_the_others_counted(problems):
    told = problems(SHORT + "".join(f"k{number}: 1\n" for number in range(5000)))
    assert len(told) == 51
    assert told[0].startswith("x.yaml:3: k0: unknown key")
    assert told[49].startswith("x.yaml:52: k49: unknown key")
    assert told[50] == "and 4,950 more"


def test_a_single_problem_more_is_told_itself():
    lines = [str(number) for number in range(52)]
    assert ConfigProblems(lines[:51]).problems == lines[:51]
    assert ConfigProblems(lines).problems == [*lines[:50], "and 2 more"]
    assert ConfigProblems(lines[:2], more=3).problems == ["0", "1", "and 3 more"]


def test_a_document_in_which_nothing_can_be_read_is_not_read_to_its_end(problems):
    told = problems("sources:\n" + "- ${NOT_SET}\n" * 100_000)
    assert told[0] == ("x.yaml:2: sources.0: the variable NOT_SET is not set; set it, or write ${NOT_SET:default}")
    assert told[50:] == ["and 951 more"]
