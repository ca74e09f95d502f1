"""The HTML report in a real browser: the plots are there, nothing is asked for, nothing complains."""

import pytest
from browser.chromium import chromium
from playwright.sync_api import expect

from fetcher.histogram import bucket_of
from fetcher.load import page
from fetcher.load.measurement import Report, Round, Setting, machine
from fetcher.load.plan import Plan

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PLOTS = ("throughput", "latency", "distribution")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Write the report of three settings, with a target and an error that would break out of the page."""
    settings = [
        Setting(concurrency, [round_of(concurrency, share) for share in (1.0, 0.9, 1.1)])
        for concurrency in (1, 10, 100)
    ]
    report = Report(
        target=f"http://127.0.0.1/{HOSTILE}", date="2026-01-01T00:00:00+00:00", machine=machine(),
        loop="closed loop", plan=Plan(concurrencies=(1, 10, 100)), settings=settings, notes=[HOSTILE],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.render(report, report), encoding="utf-8")
    return path.as_uri()


def round_of(concurrency, share):
    latency = {bucket_of(0.01 * (1 + step / 10) * (1 + concurrency / 50)): 10 * (8 - step) for step in range(8)}
    return Round(
        concurrency=concurrency, seconds=1.0, requests=360, ok=350, answered=360.0 * concurrency * share,
        errors={"http_5xx": 10}, messages={"http_5xx": HOSTILE}, latency=latency, slowest=0.1, peak_rss=50_000_000,
    )  # fmt: skip


@pytest.fixture
def opened(browser, address, request):
    """Open the report with the given width and colours; note what it asks for and complains of."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    shown = context.new_page()
    complaints, requests = [], []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda asked: requests.append(asked.url))
    shown.goto(address)
    expect(shown.locator(".plot .main-svg .scatterlayer .trace")).to_have_count(8)
    yield shown
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    context.close()


BOTH = pytest.mark.parametrize("opened", [(1280, "light"), (390, "dark")], indirect=True, ids=["desktop", "phone"])


@BOTH
def test_the_plots_have_their_data(opened):
    for name, traces in zip(PLOTS, (1, 4, 3), strict=True):
        lines = opened.locator(f"#{name} .scatterlayer .trace path.js-line")
        assert lines.count() == traces
        assert all(len(lines.nth(index).get_attribute("d")) > 20 for index in range(traces))
    assert opened.locator("#throughput .errorbar").count() == 3
    assert opened.locator("#throughput .point").count() == 3
    assert opened.locator("#distribution .legendtext").all_text_contents() == [
        "1 in flight", "10 in flight", "100 in flight",
    ]  # fmt: skip


@BOTH
def test_what_a_target_says_is_text(opened):
    assert opened.title().startswith("fetcher bench: http://127.0.0.1/</script>")
    assert opened.locator("img").count() == 0
    assert HOSTILE in opened.locator("h1").inner_text()
    assert HOSTILE in opened.locator(".errors td").last.inner_text()


@BOTH
def test_the_page_is_as_wide_as_the_screen_and_wide_tables_scroll(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert opened.locator("tbody th").first.inner_text() == "1"


@BOTH
def test_the_plots_follow_the_colours_of_the_page(opened):
    label = opened.locator("#latency .xtick text").first
    seen = set()
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        colour = opened.evaluate("getComputedStyle(document.body).color")
        expect(label).to_have_css("fill", colour)
        seen.add(colour)
    assert len(seen) == 2


@BOTH
def test_a_name_in_the_legend_hides_its_line(opened):
    opened.locator("#latency .legendtoggle").first.click()
    expect(opened.locator("#latency .scatterlayer .trace path.js-line")).to_have_count(3)
