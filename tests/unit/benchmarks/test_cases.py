"""Every case at a tiny size and every contender once, so that one that is broken is noticed. No time is asserted."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from benchmarks import __main__ as program
from benchmarks.cases import all_cases
from benchmarks.contest import BARE, peer_names
from benchmarks.outputs import OUTPUTS
from benchmarks.variants import VARIANTS

# What of a case is asked for, and the labels of all tables' rows. Heavy peers start slowly: they are in one case.
LIGHT = ["blocking_socket", "curl_parallel", "fetcher_batch", "http_client", "httpx", "pycurl_multi", "pyreqwest"]
FEW = ["blocking_socket", "fetcher_batch", "pycurl_multi"]
THREADED = ["socket_threads", "fetcher_batch"]
GRID = ["0", "2", "5", "10", "20", "50", "100"]
CASES = {
    "small": ([], [peer_names()]),
    "fresh": (FEW, [[BARE, *FEW]]),
    "tls": ([*LIGHT, "requests_threads"], [[BARE, *LIGHT, "requests_threads"]] * 2),
    "latency": (
        THREADED,
        [[BARE, *THREADED, f"socket_threads, {level:,} threads"] for level in (20, 200, 1000)] + [GRID],
    ),
    "large": (FEW, [[BARE, *FEW]]),
    "engine": ([], [["bare_aiohttp", "fetcher_null"]]),
    "end_to_end": ([], [["bare_aiohttp", "fetcher_run", "fetcher_batch"]]),
    "scale": ([], [["fetcher_null 2", "fetcher_null 20", "fetcher_null 200", "fetcher_run 2", "fetcher_run 20"]]),
    "hardening": ([], [list(VARIANTS)]),
    "sinks": ([], [list(OUTPUTS)]),
    "service": ([], [["fetcher_run", "fetcher_service", "watched", "two batches"]]),
    "hosts": ([], [[f"{name}, {order}" for name in ("steep", "flat") for order in ("random", "sorted")]]),
}
REQUESTS = {"large": 2, "latency": 100}


def test_every_case_is_tested():
    assert set(CASES) == set(all_cases())


@pytest.mark.parametrize("case", CASES)
def test_case(case, tmp_path, capsys):
    peers, rows = CASES[case]
    file, page = tmp_path / "report.json", tmp_path / "report.html"
    arguments = [case, "--repeat", "1", "--requests", str(REQUESTS.get(case, 200)), "--concurrency", "20"]
    arguments += ["--peers", ",".join(peers)] if peers else []
    assert program.main([*arguments, "--json", str(file), "--html", str(page)]) == 0
    report = json.loads(file.read_bytes())["report"]
    assert [sorted(row[0] for row in table["rows"]) for table in report["tables"]] == [
        sorted(expected) for expected in rows
    ]
    assert all(len(row) == len(table["columns"]) for table in report["tables"] for row in table["rows"])
    assert all(sample["fetched"]["count"] > 0 for sample in report["samples"])
    assert report["broken"] == {}
    _check_missing(report)
    output = capsys.readouterr().out
    assert all(f"│ {label} " in output for labels in rows for label in labels)
    assert all(word in output for word in ("CPython", "aiohttp 3", "core"))
    _check_page(page.read_text(), report)


def _check_missing(report):
    missing = {name: why for name, why in report["missing"].items() if "pip install" in why}
    assert not (missing and os.environ.get("CI")), "the bench extra has to be installed where CI is set"
    if shutil.which("curl"):
        assert "curl_parallel" not in report["missing"]
    rows = {row[0]: row[1] for table in report["tables"] for row in table["rows"]}
    assert all(rows[name] == why for name, why in report["missing"].items())
    assert all(rows.values())


def _check_page(page, report):
    assert page.count('class="plotly-graph-div"') == len(report["charts"])
    assert all(table["title"] in page for table in report["tables"])
    assert 'src="' not in page.partition("</script>")[2]
