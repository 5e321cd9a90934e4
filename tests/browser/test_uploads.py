"""What becomes of stage, tabs and uploader when one image follows another, in a real Chromium."""

from __future__ import annotations

import time

import pytest

from app.view import redraw
from tests.browser.test_browser import open_tab

pytestmark = pytest.mark.browser


def empty_uploader(page) -> None:
    page.locator("#upload-image .icon-button-wrapper button").first.click()
    page.locator("#upload-image input[type=file]").wait_for(state="attached")


def choose(page, path, kind: str = "image") -> None:
    page.locator(f"#upload-{kind} input[type=file]").set_input_files(str(path))


def test_the_last_of_two_uploads_counts(open_page, served, picture_file, phone_photos, monkeypatch):
    """While the first is still being looked at."""
    page = open_page()
    empty_uploader(page)
    page.locator("#twin .empty").wait_for()
    monkeypatch.setattr(served.stub, "delay", 3.0)
    begun = len(served.stub.calls)
    choose(page, picture_file)
    page.locator("#upload-image img").wait_for()
    while len(served.stub.calls) == begun:
        page.wait_for_timeout(50)
    empty_uploader(page)
    choose(page, phone_photos[1])
    page.locator("#twin", has_text="200 × 300").wait_for()
    page.wait_for_timeout(1000)
    assert "200 × 300" in page.locator("#twin").inner_text()
    assert page.locator("#upload-image img").count() == 1
    assert page.locator(".toast-body").count() == 0


def test_a_refused_file_leaves_the_uploader(open_page, tmp_path):
    page = open_page()
    empty_uploader(page)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"%PDF-1.4 not a picture")
    choose(page, bad)
    page.locator(".toast-body", has_text="bad.png").wait_for()
    page.locator("#upload-image input[type=file]").wait_for(state="attached")
    page.locator("#run-find").click()
    page.locator("#phrases", has_text="Add a picture").wait_for()


def test_a_new_picture_comes_without_the_region_and_the_link_of_the_one_before(
    open_page, picture_file
):
    page = open_page()
    page.locator("#region button").first.click()
    fields = page.locator("#region input[type=number]")
    for place, value in enumerate((310, 210, 330, 230)):
        fields.nth(place).fill(str(value))
    page.locator(".x2-region").wait_for()
    page.locator("#data button").first.click()
    page.locator("#make-files").click()
    page.locator("#files a").first.wait_for()
    page.locator("#copy-link").click()
    page.locator("#link").wait_for()
    empty_uploader(page)
    choose(page, picture_file)
    page.locator("#twin", has_text="300 × 200").wait_for()
    for gone in (".x2-region", "#files", "#link"):
        page.locator(gone).wait_for(state="hidden")
    page.locator("#run-find").click()
    page.locator("#findings .verdict").first.wait_for()
    page.locator("#copy-link").click()
    page.locator("#data", has_text="never put into a link").wait_for()
    assert not page.locator("#link").is_visible()


def test_a_lost_session_is_told_and_not_answered_about_the_example(open_page, served):
    page = open_page()
    page.locator("#phrases textarea").fill("a zebra")
    page.locator("#run-find").click()  # on the example that the page is painted with
    page.locator("#twin", has_text="a zebra").wait_for()
    for session in served.demo.state_holder.session_data.values():
        session.state_data.clear()
    asked = len(served.stub.calls)
    page.locator("#run-find").click()
    page.locator("#phrases", has_text="Add a picture").wait_for()
    open_tab(page, "describe")
    page.locator("#run-describe").click()
    page.locator(".toast-body", has_text="Add a picture").wait_for()
    assert len(served.stub.calls) == asked


def test_the_last_of_two_quick_words_is_shown(open_page, monkeypatch):
    """The second is chosen while the first is being drawn."""
    page = open_page()
    words = page.locator("#words .token")
    last = words.nth(2).inner_text().strip()
    monkeypatch.setattr("app.viewing.redraw", lambda *args: time.sleep(0.5) or redraw(*args))
    words.nth(1).click()
    page.wait_for_timeout(100)
    words.nth(2).click()
    page.locator("#twin", has_text=f"“{last}”").wait_for()


def test_the_number_of_frames_is_changed(open_page, clip_file):
    page = open_page()
    page.locator("#kind input[value=video]").check()
    page.locator("#upload-video").wait_for()
    choose(page, clip_file, "video")
    page.locator("#strip .thumbnail-item").nth(3).wait_for()
    page.locator("#frames input[type=number]").fill("2")
    page.keyboard.press("Tab")
    page.locator("#use-frames").click()
    page.locator("#strip .thumbnail-item").nth(2).wait_for(state="detached")
    assert page.locator("#strip .thumbnail-item").count() == 2
