"""The system's browser, for tests that look at pages as people do."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

# Its own browser would be downloaded from elsewhere: the system's is what customers have.
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM: Final = next(filter(None, map(shutil.which, NAMES)), None)
MISSING: Final = CHROMIUM is None and not os.environ.get("BROWSER_REQUIRED")
FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser, closed at the end."""
    assert CHROMIUM is not None, "BROWSER_REQUIRED is set, and there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, patience_ms: int, *allowed: str) -> Iterator[Page]:
    """An operator's page in which no script may fail, and which may load nothing but from
    addresses that begin with these.

    Raises:
        AssertionError: at the end, where something of this was broken.
    """
    broken: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900}, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(patience_ms)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda line: broken.append(line.text) if "Policy" in line.text else None)
    page.on("request", lambda asked: asked.url.startswith(allowed) or broken.append(asked.url))
    expect.set_options(timeout=patience_ms)
    yield page
    context.close()
    assert broken == []
