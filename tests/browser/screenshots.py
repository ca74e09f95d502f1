"""Pictures of the page, wide and narrow, light and dark: ``python -m tests.browser.screenshots OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.chromium import CHROMIUM, FLAGS
from tests.browser.scenery import empty, history, snapshot
from tests.browser.stage import stage

WIDTHS = {"desktop": 1280, "phone": 375}


def main(out: Path) -> None:
    """Write the pictures into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with stage(snapshot, history()) as full, stage(empty, history(0)) as nothing:
            for width, pixels in WIDTHS.items():
                for scheme in ("light", "dark"):
                    context = browser.new_context(viewport={"width": pixels, "height": 900}, color_scheme=scheme)
                    page = context.new_page()
                    for name, url in (("full", full.url), ("empty", nothing.url)):
                        page.goto(url)
                        page.locator("#state[data-tone=good]").wait_for()
                        page.screenshot(path=out / f"{name}-{width}-{scheme}.png", full_page=True)
                    page.goto(full.url)
                    page.locator(".name").first.click()
                    page.locator(".detail").first.screenshot(path=out / f"detail-{width}-{scheme}.png")
                    page.locator("#submit").click()
                    page.screenshot(path=out / f"submit-{width}-{scheme}.png")
                    context.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
