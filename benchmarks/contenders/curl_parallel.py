"""``curl -Z`` with a config file of all URLs: no Python at all. Its start and its reading count with the rest."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks.contenders import Fetched, UnableError, metered, peak_rss

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.contenders import Task

_MOST = 300  # at a time, before curl 8.16
_MANY = (8, 16)
_LOOK_SECONDS = 0.02


def fetch(task: Task) -> Fetched:
    """Let curl fetch every URL and report status and size of each."""
    curl = shutil.which("curl")
    if curl is None:
        raise UnableError("missing: apt install curl")
    if task.concurrency > _MOST and _version(curl) < _MANY:
        raise UnableError(f"this curl has no more than {_MOST} in flight")
    report = task.folder / "report.txt"
    with report.open("wb") as out, metered(resource.RUSAGE_CHILDREN) as fetched:
        process = subprocess.Popen([curl, "--config", str(_config(task))], stdout=out)
        while process.poll() is None:
            with suppress(IndexError):  # between its last look and its end it has no memory
                fetched.max_rss = max(fetched.max_rss, peak_rss(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK_SECONDS)
    if process.returncode:
        sys.stderr.write(f"curl: exit code {process.returncode}\n")
    for line in report.read_text(encoding="ascii").splitlines():
        status, size = line.split()
        if status == "200":
            fetched.add(int(size))
    return fetched


def _config(task: Task) -> Path:
    lines = ["parallel", "parallel-immediate", f"parallel-max = {task.concurrency}", "silent", "show-error"]
    lines += ["no-progress-meter"]
    lines += [r'write-out = "%{http_code} %{size_download}\n"']
    if task.ca:
        lines += [f'cacert = "{task.ca}"', "no-sessionid"]
    lines += [f'url = "{url}"\noutput = "/dev/null"' for url in task.read()]
    path = task.folder / "curl.conf"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _version(curl: str) -> tuple[int, ...]:
    said = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"curl (\d+)\.(\d+)", said)
    return tuple(int(number) for number in found.groups()) if found else (0, 0)
