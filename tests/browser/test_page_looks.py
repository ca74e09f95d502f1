"""How the page looks, and whether everybody can use it: on a stage with everything on it."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.chromium import chromium, opened
from browser.scenery import empty, history, snapshot
from browser.stage import stage
from playwright.sync_api import expect

SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def full():
    with stage(snapshot, history()) as shown:
        yield shown.url


@pytest.fixture(scope="module")
def nothing():
    with stage(empty, history(0)) as shown:
        yield shown.url


def findings(page):
    """Return what axe finds that is serious."""
    violations = Axe().run(page).response["violations"]
    return [
        (each["id"], [node["target"] for node in each["nodes"]]) for each in violations if each["impact"] in SERIOUS
    ]


def is_wide(page):
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_is_no_serious_accessibility_finding(browser, full, scheme):
    # A check from outside: axe is put into the page by the browser, which the policy of the page would not allow.
    with opened(browser, full, scheme=scheme, bypass_csp=True) as page:
        page.locator(".name").nth(1).click()
        expect(page.locator(".detail tbody tr").first).to_be_visible()
        assert findings(page) == []
        page.locator("#submit").click()
        page.locator("#new [type=submit]").click()
        expect(page.locator("#new-wrong")).to_be_visible()
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Cancel ").first.click()
        assert findings(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light")])
def test_a_newcomer_is_told_what_to_do(browser, nothing, width, scheme):
    with opened(browser, nothing, width=width, scheme=scheme, bypass_csp=True) as page:
        expect(page.locator("#nothing")).to_be_visible()
        expect(page.locator("#curl")).to_contain_text(f"{nothing}v1/batches")
        assert not is_wide(page)
        assert findings(page) == []
        page.locator("#submit-first").click()
        expect(page.locator("#new")).to_be_visible()


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(browser, full, width):
    with opened(browser, full, width=width) as page:
        expect(page.locator(".name")).to_have_count(7)
        for name in page.locator(".name").all():
            name.click()
        expect(page.locator(".detail tbody tr").first).to_be_visible()
        assert not is_wide(page)
        page.locator("#submit").click()
        assert not is_wide(page)


def test_the_theme_is_that_of_the_system_until_somebody_chooses(browser, full):
    with opened(browser, full, scheme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(ground)
        button = page.locator("#theme")
        button.click()
        expect(button).to_have_text("Theme: light")
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        expect(button).to_have_text("Theme: light")
        assert page.evaluate(ground) == light
        button.click()
        expect(button).to_have_text("Theme: dark")
        assert page.evaluate(ground) == dark


def test_the_focus_stays_where_it_is_while_the_page_changes(browser):
    seconds = iter(range(10_000))
    with stage(lambda: snapshot(next(seconds)), history(), beat=0.05) as shown, opened(browser, shown.url) as page:
        button = page.get_by_role("button", name="Pause ").nth(1)
        button.focus()
        figures = page.locator(".batch .numbers").nth(1)
        for _ in range(3):
            expect(figures).not_to_have_text(figures.inner_text())
        expect(button).to_be_focused()


def test_a_question_is_answered_by_no_on_escape(browser, full):
    with opened(browser, full) as page:
        page.get_by_role("button", name="Delete ").first.click()
        expect(page.locator("#sure")).to_be_visible()
        expect(page.locator("#sure-no")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#sure")).to_be_hidden()
        expect(page.locator("#said")).to_be_hidden()


def test_a_chart_tells_its_values_where_the_pointer_is(browser, full):
    with opened(browser, full) as page:
        plot = page.locator(".plot").nth(2)
        box = plot.bounding_box()
        plot.hover(position={"x": box["width"] * 0.6, "y": 50})
        expect(plot.locator(".tip")).to_contain_text("p99")
        assert page.locator("#charts svg[role=img]").first.get_attribute("aria-label").startswith("Throughput: ")


PIECES = r"['retry: 1\n\neve', 'nt: a\nda', 'ta: {1}\n', '\n:\n\ndata: 2\n\nevent: b']"
CALLS = [
    ("text", "visible('a\\u202eb\\u0000\\ud800')", "a\\u202eb\\x00\\ud800"),
    ("text", "visible('\\u00fc \\u{1f600}')", "\u00fc \U0001f600"),
    ("text", "shortened('http://h.test/' + 'x'.repeat(100) + '/end', 30)", "http://h.test/xxxxxx\u2026xxxxx/end"),
    ("text", "[0, 0.42, 8.14, 512, 12400, 1234567].map(number)", ["0", "0.42", "8.1", "512", "12,400", "1.2M"]),
    ("text", "[0.4, 18, 250, 7500, null].map(clock)", ["0.4 s", "18 s", "4 min 10 s", "2 h 5 min", "\u2013"]),
    ("text", "clock(200000)", "2 d 7 h"),
    ("text", "[0, 0.0042, 0.25, 1.5, null].map(brief)", ["0", "4.2 ms", "250 ms", "1.50 s", "\u2013"]),
    ("text", "[0, 1023, 1536, 5 * 1024 ** 3].map(size)", ["0 B", "1,023 B", "1.5 KiB", "5.0 GiB"]),
    # A batch that lacks one job of a million is not done.
    ("text", "[0.999999, 1, 0.001, 0].map(share)", ["99 %", "100 %", "<1 %", "0 %"]),
    ("charts", "[0, 3, 977, 1.58, 0.084].map((value) => ceiling(value))", [1, 3, 1000, 1.6, 0.1]),
    ("charts", "ceiling(17 * 1024 ** 2, 1024) / 1024 ** 2", 20),
    (
        "stream",
        f"((all) => {PIECES}.map((piece) => all.push(piece)))(new Parser())",
        [[], [], [], [["a", "{1}"], ["message", "2"]]],
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def calm(browser, full):
    with opened(browser, full) as page:
        yield page


@pytest.mark.parametrize(("module", "call", "expected"), CALLS, ids=[call[:40] for _, call, _ in CALLS])
def test_numbers_foreign_text_and_events_are_written_as_they_should(calm, module, call, expected):
    names = "{visible, shortened, number, clock, brief, size, share, ceiling, Parser}"
    assert calm.evaluate(f"import('/static/{module}.js').then(({names}) => {call})") == expected
