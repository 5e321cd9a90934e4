"""A real Chromium before the served app; everything here is skipped where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

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
from tests.browser.pages import Visitor

SIZES = {
    "desktop": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


@pytest.fixture(scope="module")
def browser():
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(chromium())
        except LookupError as missing:
            pytest.skip(str(missing))
        yield found


@pytest.fixture(scope="module")
def windows(browser) -> dict[tuple[str, str], Any]:
    """(size, locale) -> the browser's context, in which each page after the first finds the app's
    programs in the cache."""
    return {}


@pytest.fixture(scope="module")
def visit(browser, windows, served):  # noqa: F811
    """Open the app; gives the page, and fails at the end when its console told of an error."""

    @contextlib.contextmanager
    def visit(size: str = "desktop", locale: str = "en-US", query: str = "") -> Iterator[Any]:
        if (size, locale) not in windows:
            window = browser.new_context(**SIZES[size], locale=locale, accept_downloads=True)
            window.set_default_timeout(30_000)
            windows[size, locale] = window
        page, errors = windows[size, locale].new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.address + query)
        page.locator("#canvas img[src^=data]").wait_for()
        page.locator("#status .model", has_text="stub").wait_for()
        # A busy page fills its fields after the stage, and would overwrite what a test types.
        page.evaluate("() => new Promise(done => requestIdleCallback(done, {timeout: 5000}))")
        yield page
        page.close()
        assert errors == []

    return visit


@pytest.fixture
def open_page(visit):
    """`visit` for the time of a test."""
    with contextlib.ExitStack() as pages:
        yield lambda *where, **how: pages.enter_context(visit(*where, **how))


VISITS = [
    pytest.param(("desktop", "en-US"), id="desktop-en"),
    pytest.param(("phone", "ko-KR"), id="phone-ko"),
    pytest.param(("desktop", "ko-KR"), id="desktop-ko", marks=pytest.mark.slow),
    pytest.param(("phone", "en-US"), id="phone-en", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=VISITS)
def visitor(request, visit):
    """One visit for all the tests of a file: at each size and in each language, and by default
    without those two of the four pairs that are marked slow."""
    size, locale = request.param
    with visit(size, locale) as page:
        yield Visitor(page, size, locale[:2])
