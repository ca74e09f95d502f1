"""``fetcher demo``: the main job on a simulated web, in a folder that can be looked at afterwards."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fetcher.cli.run import run_batch
from fetcher.config import load
from fetcher.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTS = 60
_CONFIG = """\
# Written by `fetcher demo`, whose server has ended with it. To fetch the same URLs again, start one on that port
#   fetcher origin --port {port}
# and then, in another terminal (--fresh takes the place of the output that is there)
#   {command}
name: demo
sources:
  - {{type: file, path: {urls}}}
limits: {{concurrency: 100, per_host: {{concurrency: 8}}}}
retry: {{attempts: 4, backoff: 50ms}}
http: {{resolve: {{"*.test": 127.0.0.1}}}}
body: none
queue: {{type: sqlite, path: {queue}}}
sinks: [{sink}]
max_failures: 5%
"""
# What one page in so many is like; the rest are plain. Every kind of trouble has to show up in the summary.
_TROUBLE = {
    37: "/flaky/2/bytes/512",
    53: "/redirect/3",
    71: "/delay/0.3/bytes/512",
    97: "/status/404",
    151: "/status/500",
    211: "/truncated/2048",
    263: "/gzip/20000",
    307: "/reset/1/bytes/256",
}


def demo(*, urls: int = 12_000, folder: Path = Path("out/demo")) -> int:
    """Fetch a simulated web of 60 hosts, some of them slow, flaky or broken, from a server on this machine.

    Parameters
    ----------
    urls
        How many URLs.
    folder
        Where the input, the config and the results are put.
    """
    with _origin() as port:
        _write(folder, urls, port)
        sys.stderr.write(f"fetching {urls:,} URLs of {HOSTS} simulated hosts; the config is {folder}/demo.yaml\n")
        return run_batch(load(folder / "demo.yaml"), fresh=True)


@contextlib.contextmanager
def _origin() -> Iterator[int]:
    """Run a test origin in a process of its own and yield its port."""
    command = [sys.executable, "-m", "fetcher", "origin", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  our own program
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield int(line.rsplit(":", 1)[1])
        finally:
            process.terminate()


def _write(folder: Path, urls: int, port: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "demo.yaml").write_text(_config(folder, port), encoding="utf-8")
        with (folder / "urls.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["url", "page"])
            rows.writerows([f"http://site{n % HOSTS:02}.test:{port}{_path(n)}", n] for n in range(urls))
    except OSError as error:
        raise ConfigError(f"{folder}: can not be written: {error.strerror}; give another --folder") from error


def _config(folder: Path, port: int) -> str:
    """Write the config. A JSON string is a YAML string as well, whatever stands in a path; ${ would name a variable."""

    def quoted(name: str) -> str:
        return json.dumps(str(folder / name)).replace("${", "$${")

    return _CONFIG.format(
        port=port,
        command=shlex.join(["fetcher", "run", "--fresh", str(folder / "demo.yaml")]).replace("\n", " "),
        urls=quoted("urls.csv"),
        queue=quoted("demo.db"),
        sink=quoted("pages.jsonl"),
    )


def _path(n: int) -> str:
    path = next((path for every, path in _TROUBLE.items() if n % every == every - 1), "/bytes/1024")
    return f"{path}?page={n}"
