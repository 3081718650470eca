"""Pages opened in a headless Chromium of the system's, for the self-tests of the report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> Optional[str]:
    """Return the path of Chromium: $CONFORMANCE_CHROMIUM, else the first on the PATH, or None."""
    asked = os.environ.get("CONFORMANCE_CHROMIUM")
    return asked or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a running browser (Playwright's), which is closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox: containers seldom allow one, and the page is our own.
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(path: Path, **options: Any) -> Iterator[Any]:
    """Give the file opened in a browser of its own; options: those of Playwright's new_page."""
    with chromium() as browser:
        page = browser.new_page(**options)
        page.goto(path.resolve().as_uri())
        yield page
