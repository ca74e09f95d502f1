"""The browser of the browser tests: Debian's, headless, with nothing to say to anybody else."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
_NOTE_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser. CI has to have it; elsewhere its tests are skipped without it."""
    if shutil.which(CHROMIUM) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to have {CHROMIUM}: apt-get install chromium")
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, width: int = 1280, scheme: Any = "light", **more: Any) -> Iterator[Page]:
    """Open a page and see to it that it does nothing that it should not.

    It complains of nothing (but of what ``tolerates`` names), asks nobody else, opens no dialog, and its policy is
    never in its way.
    """
    tolerates = more.pop("tolerates", ())
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
    context.add_init_script(_NOTE_VIOLATIONS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else wrong.append(asked.url))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(url)
        yield page
        assert page.evaluate("window.violations") == []
        assert [text for text in wrong if not any(each in text for each in tolerates)] == []
    finally:
        context.close()
