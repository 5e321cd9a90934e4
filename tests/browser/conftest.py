"""A real Chromium before the served app; everything here is skipped where there is none."""

from __future__ import annotations

import shutil

import pytest

from tests.app.conftest import clip_file, examples, picture_file, served, upload_folder  # noqa: F401

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {
    "desktop": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="session")
def browser():
    program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser, served):  # noqa: F811
    """Open the app; gives the page, and fails the test when the browser's console told of an error."""
    contexts, errors = [], []

    def open_it(size: str = "desktop", locale: str = "en-US", query: str = ""):
        context = browser.new_context(**SIZES[size], locale=locale, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.address + query)
        page.locator("#canvas img[src^=data]").wait_for()
        page.locator("#head .model", has_text="stub").wait_for()
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
