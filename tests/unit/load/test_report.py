"""Figures of several rounds, the report that holds them, its page, and its comparison with another."""

import html
import json
import re

import pytest

from fetcher.errors import ConfigError, MissingExtraError
from fetcher.histogram import bucket_of
from fetcher.load import page
from fetcher.load.comparison import check_comparable, compare, differences
from fetcher.load.measurement import Report, Round, Setting, Spread, held, machine
from fetcher.load.plan import Plan

HOSTILE = "<script>alert(1)</script>\"'&</title>"


def round_of(concurrency, rate, latency=0.01, **more):
    figures = {"requests": int(rate), "ok": int(rate), "answered": rate, "good": rate, "slowest": latency * 1.01}
    return Round(concurrency=concurrency, seconds=1.0, latency={bucket_of(latency): int(rate)}, **(figures | more))


def report_of(*settings, rate=None, target="http://127.0.0.1/"):
    plan = Plan(concurrencies=tuple(one.concurrency for one in settings), rate=rate)
    return Report(
        target=target, date="2026-01-01T00:00:00+00:00", machine=machine(),
        loop="closed loop" if rate is None else "open loop", plan=plan, settings=list(settings), notes=[HOSTILE],
    )  # fmt: skip


def test_a_setting_is_the_median_of_its_rounds():
    setting = Setting(10, [round_of(10, 100), round_of(10, 300, 0.02), round_of(10, 110)])
    assert setting.throughput == Spread(110, 100, 300)
    assert setting.requests == 510
    assert setting.quantile(0.1) == pytest.approx(0.01, rel=0.02)
    assert setting.quantile(0.9) == pytest.approx(0.02, rel=0.02)
    assert setting.quantile(1.0) <= setting.slowest


def test_no_percentile_is_above_the_slowest():
    setting = Setting(1, [round_of(1, 5, 0.01, slowest=0.00999)])
    assert setting.quantile(0.99) <= 0.00999


def test_a_setting_without_anything_has_figures_too():
    setting = Setting(1, [Round(concurrency=1, seconds=0.0)])
    assert setting.summary()["latency"] == {"p50": None, "p95": None, "p99": None, "max": None}
    page.render(report_of(setting))


def test_json_holds_everything_and_is_read_again():
    errors = {"errors": {"http_5xx": 3}, "messages": {"http_5xx": HOSTILE}}
    report = report_of(Setting(10, [round_of(10, 100, **errors), round_of(10, 90)]))
    data = json.loads(report.dump())
    assert data["machine"]["python"]
    assert data["settings"][0]["summary"]["throughput"] == {"median": 95.0, "low": 90.0, "high": 100.0}
    assert data["settings"][0]["rounds"][0]["errors"] == {"http_5xx": 3}
    again = Report.load(report.dump(), "x")
    assert again == report


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"target": 5}', b"\xff", b"null"])
def test_what_is_no_report_is_told(content):
    with pytest.raises(ConfigError, match=r"old\.json: is no report of fetcher bench"):
        Report.load(content, "old.json")


def test_a_report_of_another_version_is_told():
    report = report_of()
    report.schema_version = 99
    with pytest.raises(ConfigError, match="schema 99, this one reads 1"):
        Report.load(report.dump(), "old.json")


def test_ratios_have_their_spread():
    new = report_of(Setting(10, [round_of(10, 200), round_of(10, 220)]), Setting(50, [round_of(50, 1)]))
    old = report_of(Setting(10, [round_of(10, 100), round_of(10, 110)]))
    (found,) = compare(new, old)
    assert found.throughput.ratio == pytest.approx(2.0)
    assert (found.throughput.low, found.throughput.high) == (pytest.approx(200 / 110), pytest.approx(2.2))
    assert found.throughput.certain
    assert not found.p99.certain


def test_what_can_not_be_compared_is_refused_before_measuring():
    old = report_of(Setting(10, [round_of(10, 100)]))
    check_comparable(Plan(concurrencies=(10, 20)), old)
    with pytest.raises(ConfigError, match="no concurrency is in both; the older report has 10"):
        check_comparable(Plan(concurrencies=(11,)), old)
    with pytest.raises(ConfigError, match="an open loop at 5/s with a closed loop"):
        check_comparable(Plan(concurrencies=(10,), rate=5.0), old)


def test_what_else_differs_is_named():
    new, old = report_of(), report_of(target="http://127.0.0.2/")
    old.machine["python"] = "2.7"
    assert differences(new, old)[0].startswith("the targets differ: http://127.0.0.1/ now")
    assert any(line.startswith("python differs") for line in differences(new, old))


def test_a_rate_is_held_or_not():
    report = report_of(Setting(1, [round_of(1, 98, achieved_rate=98.0)]), rate=100.0)
    assert not held(report, report.settings[0])
    assert held(report, Setting(1, [round_of(1, 99, achieved_rate=99.5)]))


def test_the_page_escapes_what_a_target_says_and_asks_for_nothing():
    errors = {"errors": {"http_5xx": 3}, "messages": {"http_5xx": HOSTILE}}
    report = report_of(Setting(10, [round_of(10, 100, **errors)]), target=f"http://127.0.0.1/{HOSTILE}")
    text = page.render(report, report)
    assert HOSTILE not in text
    assert html.escape(HOSTILE) in text
    outside = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)=\"(?!data:)", outside)


def test_the_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("fetcher.load.page.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'plotly>="):
        page.check()
