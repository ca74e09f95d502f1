"""The page of the service in a real browser: what it shows of a real service, and what its buttons do."""

from __future__ import annotations

import re

import pytest
from browser.chromium import chromium, opened
from browser.service import service
from origin_process import origin_process
from playwright.sync_api import expect

from fetcher.service.settings import hash_token

RUNNING = re.compile("running")
TOKEN = "a-token-that-is-long-enough-to-be-one"
# What Chromium itself notes down of a connection that is refused or cut off, or of an answer that is no success.
OF_NETWORK = ("Failed to load resource", "net::ERR_")


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def origin():
    with origin_process() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with service(tmp_path_factory.mktemp("service")) as found:
        yield found


@pytest.fixture
def page(browser, served):
    with opened(browser, served.url) as found:
        expect(found.locator("#state")).to_have_text(re.compile("ready"))
        yield found


def slow(origin, name, jobs=3000):
    """Return the config of a batch that takes many seconds."""
    return {
        "name": name,
        "sources": [{"type": "template", "url": f"{origin.url}/delay/0.05/bytes/64?n={{1..{jobs}}}"}],
        "limits": {"per_host": {"concurrency": 4}},
    }


def row(page, batch_id):
    return page.locator(".batch", has=page.locator(f"[id='batch-{batch_id}']"))


def ended(page, batch_id):
    """Return how many jobs have ended, as the page says."""
    text = row(page, batch_id).locator(".numbers dd").first.inner_text()
    return int(text.split(" of ")[0].replace(",", ""))


def test_a_running_batch_moves_and_the_buttons_pause_resume_and_cancel_it(page, served, origin):
    batch_id = served.submit(slow(origin, "moves"))
    pill = row(page, batch_id).locator(".title .pill")
    expect(pill).to_have_text(RUNNING)
    expect(row(page, batch_id).get_by_role("progressbar")).to_have_attribute(
        "aria-valuetext", re.compile(r"[1-9]\d* jobs")
    )
    before = ended(page, batch_id)
    page.wait_for_function(
        "([id, before]) => parseInt(document.getElementById('batch-' + id).parentElement.querySelector('dd')"
        ".textContent.replace(',', '')) > before",
        arg=[batch_id, before],
    )
    expect(page.locator("#hosts tbody th").first).to_have_text("127.0.0.1")
    expect(page.locator("#charts .line[d*=L]").first).to_be_attached()

    page.get_by_role("button", name=f"Pause {batch_id}").click()
    expect(pill).to_have_text(re.compile("paused"))
    assert served.batch(batch_id)["state"] == "paused"

    page.get_by_role("button", name=f"Resume {batch_id}").click()
    expect(pill).to_have_text(RUNNING)

    page.get_by_role("button", name=f"Cancel {batch_id}").click()
    question = page.get_by_role("dialog", name=re.compile("Cancel"))
    question.get_by_role("button", name="Go back").click()
    expect(question).to_be_hidden()
    expect(pill).to_have_text(RUNNING)

    page.get_by_role("button", name=f"Cancel {batch_id}").click()
    question.get_by_role("button", name="Cancel it").click()
    expect(pill).to_have_text(re.compile("cancelled"))
    assert served.batch(batch_id)["state"] == "cancelled"


def test_urls_are_submitted_watched_retried_and_deleted(page, served, origin):
    page.get_by_role("button", name="New batch").first.click()
    form = page.get_by_role("dialog", name="New batch")
    form.get_by_label("URLs", exact=True).fill(f"{origin.url}/bytes/10\n{origin.url}/status/404\n")
    form.get_by_label("Name").fill("pasted")
    form.get_by_role("button", name="Submit").click()
    expect(form).to_be_hidden()
    name = page.get_by_role("button", name="pasted", exact=True)
    expect(name).to_be_visible()
    batch_id = page.locator(".batch", has=name).locator(".detail").get_attribute("id").removeprefix("batch-")
    expect(row(page, batch_id).locator(".title .pill")).to_have_text(re.compile("done"))

    name.click()
    detail = row(page, batch_id).locator(".detail")
    expect(detail.get_by_role("row", name=re.compile("http_4xx"))).to_contain_text("/status/404")
    expect(detail).to_contain_text("2xx 1, 4xx 1")
    expect(page.locator("#failed li").first).to_contain_text("/status/404")
    with page.expect_download() as download:
        detail.get_by_role("link", name="Results").click()
    assert len(download.value.path().read_bytes().splitlines()) == 2

    page.get_by_role("button", name=f"Retry {batch_id}").click()
    expect(page.locator("#said")).to_contain_text("is tried again as pasted")
    expect(page.get_by_role("button", name="pasted", exact=True)).to_have_count(2)

    page.get_by_role("button", name=f"Delete {batch_id}").click()
    page.get_by_role("button", name="Delete it").click()
    expect(row(page, batch_id)).to_have_count(0)


def test_what_is_wrong_with_a_config_is_said_where_it_was_entered(browser, served):
    with opened(browser, served.url, tolerates=OF_NETWORK) as page:
        page.get_by_role("button", name="New batch").first.click()
        form = page.get_by_role("dialog", name="New batch")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_role("alert")).to_have_text("Enter at least one URL.")
        form.get_by_label("A config (YAML)").check()
        form.get_by_label("Config", exact=True).fill("name: wrong\nsources: [a.txt]\nlimts: {concurrency: 4}\n")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_role("alert").locator("li").first).to_contain_text("did you mean 'limits'")
        page.keyboard.press("Escape")
        expect(form).to_be_hidden()


def test_a_file_is_submitted_as_what_its_name_says(page, served, origin, tmp_path):
    urls = tmp_path / "listed.csv"
    urls.write_text(f"url,shop\n{origin.url}/bytes/1,one\n{origin.url}/bytes/2,two\n")
    page.get_by_role("button", name="New batch").first.click()
    form = page.get_by_role("dialog", name="New batch")
    form.get_by_label("A file").check()
    form.locator("input[type=file]").set_input_files(urls)
    form.get_by_label("Name").fill("from-a-file")
    form.get_by_role("button", name="Submit").click()
    expect(form).to_be_hidden()
    batch = page.locator(".batch", has=page.get_by_role("button", name="from-a-file", exact=True))
    expect(batch.locator(".title .pill")).to_have_text(re.compile("done"))
    expect(batch.locator(".numbers")).to_contain_text("2 of 2")


def test_a_batch_is_paused_by_keyboard_alone(page, served, origin):
    batch_id = served.submit(slow(origin, "by-keyboard"))
    expect(row(page, batch_id).locator(".title .pill")).to_have_text(RUNNING)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the batches")
    page.keyboard.press("Enter")
    wanted = page.get_by_role("button", name=f"Pause {batch_id}")
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("(button) => button === document.activeElement"):
            break
    expect(wanted).to_be_focused()
    assert wanted.evaluate("(button) => getComputedStyle(button).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(row(page, batch_id).locator(".title .pill")).to_have_text(re.compile("paused"))
    # The button is gone, and its place is not lost.
    expect(page.get_by_role("button", name=f"Resume {batch_id}")).to_be_focused()


def test_the_page_connects_anew_when_the_service_is_back(browser, origin, tmp_path):
    with service(tmp_path) as served, opened(browser, served.url, tolerates=OF_NETWORK) as page:
        expect(page.locator("#nothing")).to_be_visible()
        expect(page.locator("#curl")).to_contain_text(f"{served.url}v1/batches")
        batch_id = served.submit(slow(origin, "survives"))
        expect(row(page, batch_id).locator(".title .pill")).to_have_text(RUNNING)
        served.stop()
        expect(page.locator("#lost")).to_be_visible()
        expect(page.locator("#state")).to_contain_text("disconnected")
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#lost")).to_contain_text("Trying again")
        served.start()
        expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
        expect(row(page, batch_id).locator(".title .pill")).to_have_text(RUNNING)


def test_a_token_is_asked_for_used_and_kept_for_this_tab(browser, tmp_path):
    tokens = [{"name": "reader", "hash": hash_token(TOKEN), "scopes": ["read"]}]
    with service(tmp_path, tokens=tokens) as served, opened(browser, served.url, tolerates=OF_NETWORK) as page:
        prompt = page.get_by_role("dialog", name="A token is needed")
        prompt.get_by_label("Token").fill("another-token")
        prompt.get_by_role("button", name="Use it").click()
        expect(prompt.get_by_role("alert")).to_contain_text("token")
        prompt.get_by_label("Token").fill(TOKEN)
        prompt.get_by_role("button", name="Use it").click()
        expect(prompt).to_be_hidden()
        expect(page.locator("#state")).to_contain_text("ready")
        page.reload()
        expect(page.locator("#state")).to_contain_text("ready")
        # It may look, but not submit.
        page.get_by_role("button", name="New batch").first.click()
        form = page.get_by_role("dialog", name="New batch")
        form.get_by_label("URLs", exact=True).fill("http://127.0.0.1/")
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_role("alert")).to_contain_text("scope")
        assert page.evaluate("document.cookie + JSON.stringify(localStorage)").find(TOKEN) == -1
