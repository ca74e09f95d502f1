"""What can not be meant in a config though every value by itself is fine.

A contradiction is only what somebody wrote: a default that another setting makes meaningless is none.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any

from fetcher.config.problems import dotted
from fetcher.errors import ErrorKind
from fetcher.jobs.intake import RowError, check_headers
from fetcher.sink_settings import title_of, titled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetcher.config.model import Config
    from fetcher.config.problems import KeyPath
    from fetcher.engine.hosts.limiter import LimitSettings
    from fetcher.settings import Settings, TimeoutSettings

# Where it is, what is wrong, and the value that is shown behind a sentence that starts with "should".
Contradiction = tuple["KeyPath", str, Any]
_PATTERN = re.compile(r"[a-z0-9_.*?:-]+")
_STATUSES = range(100, 600)
_UNPROXIED = re.compile(r"(ftps?|tcp|tls|udp)://", re.IGNORECASE)
_OF_FILES = ("path", "inline_max", "range", "durability", "work")


def contradictions(config: Config) -> list[Contradiction]:
    """Return everything that contradicts something else."""
    return [
        *_paths(config),
        *_places(config),
        *_standard_streams(config),
        *_sink_names(config),
        *_limits(config.limits),
        *_breaker(config),
        *_host_patterns("limits", "hosts", config.limits.hosts),
        *_timeouts(config.request.timeout),
        *_headers(config.request.headers),
        *_http(config.http),
        *_unproxied(config),
        *_body(config),
        *_retry(config),
        *_expect(config),
        *_pagination(config),
    ]


def _paths(config: Config) -> Iterator[Contradiction]:
    """Nothing may be written to a file that something else reads or writes."""
    used: dict[str, str] = {}
    for at, path in _files(config):
        file = os.path.realpath(path)
        other = used.setdefault(file, dotted(at[:-1]))
        reads_twice = at[0] == "sources" and other.startswith("sources")
        if other != dotted(at[:-1]) and not reads_twice:
            yield at, f"is the same file as that of {other}; give each its own", path


def _files(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield each file that is named or has a name by default, and where."""
    for at, part in [
        *_parts("sources", config.sources),
        (("queue",), config.queue),
        *_parts("sinks", config.sinks),
        (("http", "cache"), getattr(config.http, "cache", None)),
    ]:
        named = getattr(part, "path", None)
        for path in named if isinstance(named, list) else [named]:
            if isinstance(path, str) and path != "-" and "://" not in path:
                yield (*at, "path"), path
    for index, (at, sink) in enumerate(_parts("sinks", config.sinks), 1):
        rejected = getattr(titled(sink, title_of(sink, index), config.name), "rejected", None)
        if isinstance(rejected, str):
            yield (*at, "rejected"), rejected


def _places(config: Config) -> Iterator[Contradiction]:
    """Nor may two sinks write to one place elsewhere; of what is posted, headers may say where it belongs."""
    used: dict[str, str] = {}
    for at, sink in _parts("sinks", config.sinks):
        place = getattr(sink, "identity", None) or ""
        if "://" not in place or hasattr(sink, "headers"):
            continue
        other = used.setdefault(place, dotted(at))
        if other != dotted(at):
            yield at, f"writes to the same place as {other}; give each its own, or leave one of them out", None


def _parts(key: str, parts: Sequence[Settings]) -> list[tuple[KeyPath, Settings]]:
    return [((key, index), part) for index, part in enumerate(parts)]


def _standard_streams(config: Config) -> Iterator[Contradiction]:
    readers = [at for at, part in _parts("sources", config.sources) if getattr(part, "path", None) == "-"]
    writers = [at for at, part in _parts("sinks", config.sinks) if getattr(part, "type", None) == "stdout"]
    for at in readers[1:]:
        yield at, f"stdin can be read once, and {dotted(readers[0])} reads it", None
    for at in writers[1:]:
        yield at, f"stdout has one writer, and {dotted(writers[0])} is it", None
    for at, part in _parts("sinks", config.sinks):
        if getattr(part, "path", None) == "-":
            yield (*at, "path"), "- is stdout, which is the sink {type: stdout}; a file named - is ./-", None


def _sink_names(config: Config) -> Iterator[Contradiction]:
    """Figures, messages and dead letters are told apart by the names of sinks."""
    names: dict[str, tuple[KeyPath, Settings]] = {}
    for index, (at, part) in enumerate(_parts("sinks", config.sinks), 1):
        earlier, other = names.setdefault(title_of(part, index), (at, part))
        if earlier == at:
            continue
        if getattr(part, "name", None) is None:
            yield (*earlier, "name"), f"is what {dotted(at)} is called by default; give one of them another", None
        elif getattr(other, "name", None) is None:
            yield (*at, "name"), f"is what {dotted(earlier)} is called by default; give one of them another", None
        else:
            yield (*at, "name"), f"is the name of {dotted(earlier)}, too; give each its own", None


def _limits(limits: LimitSettings) -> Iterator[Contradiction]:
    named: list[tuple[KeyPath, Any]] = [(("limits", "per_host"), limits.per_host)]
    named += [(("limits", "hosts", name), host) for name, host in limits.hosts.items()]
    for at, host in named:
        if "concurrency" in host.model_fields_set and host.concurrency > limits.most:
            message = f"should be at most limits.concurrency, which is {limits.most}"
            yield (*at, "concurrency"), message, host.concurrency


def _breaker(config: Config) -> Iterator[Contradiction]:
    breaker = config.limits.breaker
    if breaker == "off":
        return
    if breaker.host_down == "wait" and config.deadline is None:
        message = "waits for a dead host for ever, as the run has no deadline; set deadline, or host_down: skip"
        yield ("limits", "breaker", "host_down"), message, None
    if "pause" in breaker.model_fields_set and breaker.pause > breaker.max_pause:
        message = f"is {breaker.pause:g}s, which limits.breaker.max_pause ({breaker.max_pause:g}s) never lets it reach"
        yield ("limits", "breaker", "pause"), message, None


def _host_patterns(section: str, key: str, patterns: dict[str, Any]) -> Iterator[Contradiction]:
    """A pattern that no host can match, or only hosts that an earlier one takes, was meant in another way."""
    earlier: list[str] = []
    seen: dict[str, str] = {}
    for name in patterns:
        pattern = name.lower()
        why = _never_matches(pattern)
        if pattern in seen:
            why = f"is the same host as {seen[pattern]}"
        # A star takes a star or a question mark of the other pattern for a character like any other.
        wider = next((other for other in earlier if fnmatchcase(pattern, other)), None)
        if wider is not None and _is_pattern(pattern):
            why = f"is never reached, because {wider} stands before it and matches the same hosts; put it first"
        if why is not None:
            yield (section, key, name), why, None
        seen[pattern] = name
        if "*" in pattern and "?" not in pattern:
            earlier.append(pattern)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _never_matches(pattern: str) -> str | None:
    if "/" in pattern:
        return "never matches, because a host is a name without scheme and path; write api.example.org"
    if pattern.startswith("["):
        return "never matches, because an IPv6 address is written without brackets here"
    if pattern.count(":") == 1:
        return "never matches, because a host is a name without its port"
    if not pattern.isascii():
        return "never matches, because hosts are compared in their ASCII form; write it as xn--..."
    if pattern.endswith(".") or pattern.startswith(".") or not _PATTERN.fullmatch(pattern):
        return "never matches, because this is no host name; write api.example.org or *.example.org"
    return None


def _timeouts(timeout: TimeoutSettings) -> Iterator[Contradiction]:
    for phase in ("connect", "read"):
        seconds = getattr(timeout, phase)
        if phase in timeout.model_fields_set and seconds > timeout.total:
            message = f"is {seconds:g}s, which request.timeout.total ({timeout.total:g}s) never lets it reach"
            yield ("request", "timeout", phase), message, None


def _headers(headers: dict[str, str]) -> Iterator[Contradiction]:
    seen: dict[str, str] = {}
    for name, value in headers.items():
        try:
            check_headers({name: value})
        except RowError as error:
            yield ("request", "headers", name), str(error), None
        if name.lower() in seen:
            yield ("request", "headers", name), f"is the same header as {seen[name.lower()]}", None
        seen[name.lower()] = name


def _http(http: Any) -> Iterator[Contradiction]:
    try:
        check_headers({"user-agent": http.user_agent})
    except RowError as error:
        yield ("http", "user_agent"), str(error), None
    yield from _host_patterns("http", "resolve", http.resolve)


def _unproxied(config: Config) -> Iterator[Contradiction]:
    """Where there are proxies, nothing goes round them that was not named, and there are URLs that no proxy takes."""
    proxy = getattr(config.http, "proxy", None)
    # What the environment has for proxies is that of whoever runs it.
    if proxy is None or proxy.no_proxy or any(url.get_secret_value() == "env" for url in proxy.urls):
        return
    for at, source in _parts("sources", config.sources):
        found = ((path, match[1]) for path, url in _urls(source) if (match := _UNPROXIED.match(url)))
        for path, scheme in islice(found, 1):  # one of a source is enough; a list may have a hundred thousand
            message = f"would be blocked: {scheme.lower()}: URLs do not go by http.proxy"
            yield (*at, *path), f"{message}; name its host in http.proxy.no_proxy to fetch it directly", None


def _urls(source: Settings) -> Iterator[tuple[KeyPath, str]]:
    """Yield the URLs that a source has in the config itself, or how they begin, and where."""
    for index, job in enumerate(getattr(source, "jobs", ())):
        yield ("jobs", index, "url"), job.url
    for path, part in ((("url",), source), (("job", "url"), getattr(source, "job", None))):
        if isinstance(url := getattr(part, "url", None), str):
            yield path, url


def _body(config: Config) -> Iterator[Contradiction]:
    body = config.body
    if body.store != "file":
        for name in _OF_FILES:
            if getattr(body, name) != type(body).model_fields[name].default:
                yield ("body", name), f"means nothing with store: {body.store}; it is for store: file", None
        return
    if body.inline_max >= body.max_size and "inline_max" in body.model_fields_set:
        message = f"leaves nothing for files, as body.max_size is {body.max_size} bytes"
        yield ("body", "inline_max"), message, None
    if body.range == "resume" and config.request.method.upper() != "GET":
        message = f"is for GET requests, and request.method is {config.request.method}"
        yield ("body", "range"), message, None


def _retry(config: Config) -> Iterator[Contradiction]:
    retry = config.retry
    if "backoff" in retry.model_fields_set and retry.backoff > retry.max_backoff:
        message = f"is {retry.backoff:g}s, which retry.max_backoff ({retry.max_backoff:g}s) never lets it reach"
        yield ("retry", "backoff"), message, None
    for status in sorted(retry.statuses - set(_STATUSES)):
        yield ("retry", "statuses"), f"has {status}, which is no HTTP status (100 to 599)", None
    for method in sorted(method for method in retry.methods if method != method.upper()):
        yield (
            ("retry", "methods"),
            f"has {method!r}, but methods are compared in upper case; write {method.upper()}",
            None,
        )


def _expect(config: Config) -> Iterator[Contradiction]:
    expect = config.expect
    if expect is None:
        return
    for name in expect.of_body:
        if config.body.store != "inline":
            message = f"looks at bodies, and with body.store: {config.body.store} they are not in the records"
            yield ("expect", name), f"{message}; write body: inline", None
        if config.request.method.upper() == "HEAD":
            yield ("expect", name), "looks at bodies, and request.method is HEAD, which asks for none", None
    if not expect.retry and ErrorKind.UNEXPECTED in config.retry.errors:
        yield ("expect", "retry"), "is false, but retry.errors has unexpected; leave out one of them", None


def _pagination(config: Config) -> Iterator[Contradiction]:
    name = None if config.pagination is None else config.pagination.of_body
    if name is None:
        return
    if config.body.store != "inline":
        message = f"looks at bodies, and with body.store: {config.body.store} they are not in the records"
        yield ("pagination", name), f"{message}; write body: inline", None
    if config.request.method.upper() == "HEAD":
        yield ("pagination", name), "looks at bodies, and request.method is HEAD, which asks for none", None
