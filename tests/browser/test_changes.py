"""What becomes of the page when images, models, sessions, languages and load change."""

from __future__ import annotations

import time

import pytest

from app import limits
from app.view_events import picked
from tests.browser.pages import (
    choose,
    empty_uploader,
    link,
    open_tab,
    source,
    upload,
    wait_for_change,
    wait_for_size,
)

pytestmark = pytest.mark.browser


def test_phone_photos_get_the_boxes_of_their_upright_twin(open_page, phone_photos):
    page = open_page()
    found = []
    for path in phone_photos.values():
        upload(page, "image", path)
        wait_for_size(page, 200, 300)
        page.locator("#phrases textarea").fill("a red car")
        page.locator("#run-find").click()
        page.locator("#card-find tbody tr").first.wait_for()
        found.append(page.locator("#card-find tbody").inner_text())
    assert found == found[:1] * 4


def test_the_last_of_two_uploads_counts(open_page, served, picture_file, phone_photos, monkeypatch):
    """While the first is still being looked at."""
    page = open_page()
    empty_uploader(page)
    page.locator("#legend .empty").wait_for()
    monkeypatch.setattr(served.stub, "delay", 0.7)
    begun = len(served.stub.calls)
    choose(page, picture_file)
    page.locator("#upload-image img").wait_for()
    while len(served.stub.calls) == begun:
        page.wait_for_timeout(50)
    empty_uploader(page)
    choose(page, phone_photos[1])
    wait_for_size(page, 200, 300)
    page.wait_for_timeout(1000)
    wait_for_size(page, 200, 300)
    assert page.locator("#upload-image img").count() == 1
    assert page.locator(".toast-body").count() == 0


def test_a_refused_file_leaves_the_uploader(open_page, tmp_path):
    page = open_page()
    empty_uploader(page)
    page.locator("#legend .empty").wait_for()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"%PDF-1.4 not a picture")
    choose(page, bad)
    page.locator(".toast-body", has_text="bad.png").wait_for()
    page.locator("#upload-image input[type=file]").wait_for(state="attached")
    page.locator("#run-find").click()
    page.locator("#source-note .wrong").wait_for()


@pytest.mark.parametrize("locale, sentence", [("ko-KR", "읽을 수 없는"), ("zh-CN", "无法读取")])
def test_a_refusal_is_a_sentence_in_the_visitors_language(open_page, tmp_path, locale, sentence):
    page = open_page(locale=locale)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"%PDF-1.4 not a picture")
    empty_uploader(page)
    choose(page, bad)
    toast = page.locator(".toast-body", has_text=sentence)
    toast.wait_for()
    assert "[" not in toast.inner_text() and str(tmp_path) not in toast.inner_text()


def test_a_new_image_comes_without_the_region_and_the_files_of_the_one_before(
    open_page, picture_file
):
    page = open_page()
    page.locator("#region button").first.click()
    fields = page.locator("#region input[type=number]")
    for place, value in enumerate((310, 210, 330, 230)):
        fields.nth(place).fill(str(value))
    page.keyboard.press("Tab")
    page.locator(".x2-region").wait_for()
    link(page)
    page.locator("#make-files").click()
    page.locator("#files a").first.wait_for()
    upload(page, "image", picture_file)
    wait_for_size(page, 300, 200)
    for gone in (".x2-region", "#files", "#link", "#region-on"):
        page.locator(gone).wait_for(state="hidden")


def test_a_link_reopens_an_upload_with_its_text_and_its_result(open_page, picture_file):
    page = open_page()
    upload(page, "image", picture_file)
    wait_for_size(page, 300, 200)
    page.locator("#phrases textarea").fill("a zebra")
    page.locator("#run-find").click()
    page.locator("#card-find", has_text="a zebra").wait_for()
    found = page.locator("#card-find tbody").inner_text()
    address = link(page)
    assert "picture" not in address
    page.goto(address)
    page.locator("#card-find", has_text="a zebra").wait_for()
    assert page.locator("#card-find tbody").inner_text() == found


def test_a_link_reopens_scene_and_tab(open_page):
    page = open_page(query="?kind=image&scene=4321&tab=ask")
    page.locator("#tab-ask-button[aria-selected=true]").wait_for()
    page.locator("#truth table").wait_for(state="attached")
    page.locator("#card-ask .a").wait_for()


def test_a_lost_session_is_told_and_not_answered_about_the_example(open_page, served):
    page = open_page()
    page.locator("#phrases textarea").fill("a zebra")
    page.locator("#run-find").click()
    page.locator("#card-find", has_text="a zebra").wait_for()
    for session in served.demo.state_holder.session_data.values():
        session.state_data.clear()
    asked = len(served.stub.calls)
    page.locator("#run-find").click()
    page.locator("#source-note .wrong").wait_for()
    assert len(served.stub.calls) == asked


def test_the_last_of_two_quick_choices_is_shown(open_page, monkeypatch):
    """The second is made while the first is being drawn."""
    page = open_page()
    page.locator("#choices", has_text="a unicorn").wait_for()
    monkeypatch.setattr("app.view_events.picked", lambda *args: time.sleep(0.5) or picked(*args))
    parts = page.locator("#choices .word:not(.layer)")
    last = parts.nth(2).inner_text().strip()
    parts.nth(1).click()
    page.wait_for_timeout(100)
    parts.nth(2).click()
    page.locator("#legend", has_text=f"“{last}”").wait_for()


def test_the_number_of_frames_is_changed(open_page, clip_file):
    page = open_page()
    upload(page, "video", clip_file)
    page.locator("#strip .tile").nth(3).wait_for()
    page.locator("#frames input[type=number]").fill("2")
    page.keyboard.press("Tab")
    page.locator("#use-frames").click()
    page.locator("#strip .tile").nth(2).wait_for(state="detached")
    assert page.locator("#strip .tile").count() == 2


def test_language_is_switched_on_the_page(open_page):
    page = open_page()
    assert "found" in page.locator("#canvas img").get_attribute("alt")
    page.locator("footer button", has_text="Settings").click()
    page.get_by_role("combobox", name="Language").click()
    page.get_by_role("option", name="한국어").click()
    page.locator("#run-find", has_text="찾기").wait_for()
    page.mouse.click(5, 5)  # beside the settings, which closes them
    before = source(page)
    page.locator("#choices .word:not(.layer)").nth(2).click()
    wait_for_change(page, before)
    assert "있음" in page.locator("#canvas img").get_attribute("alt")


def test_stages_of_work_are_shown(open_page, served, monkeypatch):
    page = open_page()
    monkeypatch.setattr(served.stub, "delay", 1.0)
    open_tab(page, "describe")
    page.locator("#run-describe").click()
    page.locator("#tab-describe .progress-level", has_text="Writing").wait_for()
    page.locator("#tab-describe .progress-level").wait_for(state="detached")
    assert page.locator("#card-describe table").is_visible()


@pytest.mark.parametrize(
    "where, what, sentence",
    [("limits", "JOBS_A_SESSION", "작업 수를 넘었습니다"), ("queue", "max_size", "붐빕니다")],
)
def test_busy_is_told_in_the_visitors_language(
    open_page, served, monkeypatch, where, what, sentence
):
    page = open_page(locale="ko-KR")
    monkeypatch.setattr(limits if where == "limits" else served.demo._queue, what, 0)
    page.locator("#run-find").click()
    page.locator(".toast-body", has_text=sentence).wait_for()


def test_a_tab_that_the_model_lacks_is_grey_and_says_why(open_page, served, monkeypatch):
    monkeypatch.setitem(served.stub.missing, "caption", "This checkpoint has no decoder.")
    page = open_page()
    page.locator("#lacks", has_text="no decoder").wait_for()
    assert page.locator("#tab-describe-button").is_disabled()
    assert page.locator("#tab-ask-button").is_enabled()
