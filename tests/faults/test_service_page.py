"""What servers and users say is shown as text: by the page of the service, in a real browser."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from browser.chromium import chromium, opened
from browser.scenery import history, snapshot
from browser.service import service
from browser.stage import stage
from origin_process import origin_process
from playwright.sync_api import expect

from fetcher.service.models import Snapshot

if TYPE_CHECKING:
    from playwright.sync_api import Page

INJECTED = "<img src=x onerror=\"document.title='owned'\">\"'><script>document.title='owned'</script>"
COMPACT = "<svg/onload=document.title='owned'>"
UNSEEN = "\x1b[31m\u202egnp.exe\u2066\x00"
SHOWN = "\\x1b[31m\\u202egnp.exe\\u2066\\x00"
# What is one of few words is no place for anything else.
WORDS = {"state", "origin", "breaker", "at", "created_at", "started_at", "finished_at"}
OF_NETWORK = ("Failed to load resource",)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with service(tmp_path_factory.mktemp("service")) as found:
        yield found


def hostile(value: Any, name: str = "") -> Any:
    """Return the same with every text, and every key that is not a field, followed by what should do nothing."""
    match value:
        case str() if name not in WORDS:
            return value[:20] + INJECTED + UNSEEN
        case dict() if name in {"statuses", "dead_letters"}:
            return {key + INJECTED: each for key, each in (value or {"2xx": 1}).items()}
        case dict():
            return {key: hostile(each, key) for key, each in value.items()}
        case list():
            return [hostile(each, name) for each in value]
    return value


def is_harmless(page: Page) -> bool:
    """Tell whether nothing became an element, and nothing ran."""
    scripts = [script.get_attribute("src") for script in page.locator("script").all()]
    return (
        scripts == ["static/theme.js", "static/app.js"]
        and page.locator("img, iframe, object, embed").count() == 0
        and "owned" not in page.title()
        and page.locator("[onerror]").count() == 0
    )


def test_f109_whatever_the_service_says_the_page_shows_as_text(browser):
    scene = Snapshot.model_validate(hostile(json.loads(snapshot().model_dump_json())))
    with stage(lambda: scene, history()) as shown, opened(browser, shown.url) as page:
        expect(page.locator("#state")).to_contain_text("ready")
        expect(page.locator(".name")).to_have_count(len(scene.batches))
        for name in page.locator(".name").all():
            name.click()
        for place in (
            "#trouble li",
            ".batch .reason",
            ".detail .url",
            ".detail .message",
            ".detail .facts",
            "#hosts tbody th",
            "#sinks tbody",
            "#failed .url",
            "#failed .message",
            "#verdict",
            "#bounds",
            "#about",
        ):
            expect(page.locator(place).filter(has_text="<img src=x").first).to_be_visible()
        titles = page.locator("[title*=onerror]")
        assert titles.count() > 5
        assert is_harmless(page)
        text = page.locator("body").inner_text()
        assert SHOWN in text
        assert not re.search("[\x00\x1b\u202e\u2066]", text)


def test_f109_urls_and_errors_of_a_real_batch_are_text(browser, served):
    with origin_process() as origin:
        urls = [
            f"{origin.url}/status/404?q={COMPACT}",
            f"{origin.url}/redirect-to?status=302&url=javascript:document.title='owned'//{COMPACT}",
            f"javascript:document.title='owned'//{COMPACT}",
            f"http://{INJECTED}/{UNSEEN[:-1]}",
        ]
        batch_id = served.submit(urls)
        with opened(browser, served.url) as page:
            batch = page.locator(".batch", has=page.locator(f"[id='batch-{batch_id}']"))
            expect(batch.locator(".title .pill")).to_contain_text("done")
            batch.locator(".name").click()
            expect(batch.locator(".detail tbody")).to_contain_text(INJECTED[:40])
            expect(batch.locator(".detail tbody")).to_contain_text("javascript:document.title='owned'")
            expect(page.locator("#failed .url", has_text=f"404?q={COMPACT}")).to_have_count(1)
            expect(page.locator("#failed .message", has_text="javascript:")).to_have_count(1)
            assert is_harmless(page)
            assert not re.search("[\x1b\u202e\u2066]", page.locator("body").inner_text())


def test_f109_what_is_wrong_with_a_config_is_text(browser, served):
    with opened(browser, served.url, tolerates=OF_NETWORK) as page:
        page.get_by_role("button", name="New batch").first.click()
        form = page.get_by_role("dialog", name="New batch")
        form.get_by_label("A config (YAML)").check()
        form.get_by_label("Config", exact=True).fill(json.dumps({INJECTED: UNSEEN, "sources": [INJECTED]}))
        form.get_by_role("button", name="Submit").click()
        expect(form.get_by_role("alert")).to_contain_text("<img src=x onerror=")
        assert is_harmless(page)
