"""A real Chromium before the served app; everything here is skipped where there is none."""

from __future__ import annotations

import contextlib

import pytest

from benchmarks.chromium import chromium
from tests.app.conftest import (  # noqa: F401
    clip_file,
    examples,
    phone_photos,
    picture_file,
    served,
    upload_folder,
)

SIZES = {
    "desktop": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="session")
def browser():
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(chromium())
        except LookupError as missing:
            pytest.skip(str(missing))
        yield found


@pytest.fixture
def open_page(browser, served):  # noqa: F811
    """Open the app; gives the page, and fails the test when the browser's console told of an
    error."""
    contexts, errors = [], []

    def open_it(size: str = "desktop", locale: str = "en-US", query: str = ""):
        context = browser.new_context(**SIZES[size], locale=locale, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.address + query)
        page.locator("#canvas img[src^=data]").wait_for()
        page.locator("#status .model", has_text="stub").wait_for()
        # A busy page fills its fields after the stage, and would overwrite what a test types.
        page.evaluate("() => new Promise(done => requestIdleCallback(done, {timeout: 5000}))")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []
