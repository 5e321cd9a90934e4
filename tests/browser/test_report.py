"""The report of `x2vlm inspect` in a browser without a network."""

import pytest

from tests.tree import ROOT
from x2vlm.cli import main

pytestmark = pytest.mark.browser


def test_a_report_opens_offline(browser, tmp_path):
    out = tmp_path / "report"
    folder = str(ROOT / "assets" / "mini")
    options = ["--limit", "4", "--checkpoint", folder, "--faithfulness", "1", "--out", str(out)]
    assert main(["inspect", "stickers", *options]) == 0
    context = browser.new_context(offline=True, viewport={"width": 390, "height": 844})
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(f"file://{out}.html")
    assert page.locator("h1").inner_text() == "mini on stickers"
    assert "boxes with IoU" in page.locator("#accuracy").inner_text()
    images = page.locator("img")
    assert images.count() >= 4
    for number in range(images.count()):
        assert images.nth(number).evaluate("image => image.complete && image.naturalWidth > 0")
    assert problems == []
    context.close()
