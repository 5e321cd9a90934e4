"""The page in a real Chromium: tabs, images and videos, desktop and phone, three languages."""

from __future__ import annotations

import json
import zipfile

import pytest

from tests.browser.conftest import SIZES
from tests.browser.pages import (
    TOP,
    link,
    open_tab,
    source,
    upload,
    wait_for_change,
    wait_for_size,
)

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("size", list(SIZES))
def test_first_paint_is_a_finished_example(open_page, size):
    page = open_page(size)
    assert page.locator("#card-find .verdict").count() >= 2
    assert page.locator("#canvas img").get_attribute("alt")
    assert page.locator(".stale").count() == 0
    whole = "document.documentElement"
    assert page.evaluate(f"{whole}.scrollWidth <= {whole}.clientWidth")


def test_on_a_phone_image_field_and_button_are_within_two_folds(open_page):
    page = open_page("phone")
    order = ["#canvas", "#tabs [role=tablist]", "#phrases", "#run-find", "#card-find"]
    tops = [page.locator(part).first.evaluate(TOP) for part in order]
    assert tops == sorted(tops)
    assert tops[3] < 2 * 844
    assert not page.locator(".back").is_visible()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.locator(".back").wait_for()
    page.locator(".back").click()
    page.locator(".back").wait_for(state="hidden")
    for part in ("#run-find", "#new-scene", "#stop", ".pick.word", "#tab-find-button"):
        box = page.locator(part).first.bounding_box()
        assert box["height"] >= 44, part
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, part


def test_on_a_phone_no_tab_is_wider_than_the_window(open_page):
    page = open_page("phone")
    for tab in ("find", "describe", "ask", "inspect", "match", "compare", "collection", "about"):
        open_tab(page, tab)
        page.locator("#choices").wait_for(state="attached")
        page.wait_for_timeout(300)  # until the stage has followed
        assert page.evaluate("window.innerWidth") == SIZES["phone"]["viewport"]["width"], tab


def test_the_stage_keeps_its_result_in_tabs_that_ask_nothing(open_page):
    page = open_page()
    page.locator("#choices", has_text="a unicorn").wait_for()
    before = source(page)
    for tab in ("collection", "about"):
        open_tab(page, tab)
    assert source(page) == before


def test_an_upload_through_every_tab(open_page, picture_file):
    page = open_page()
    upload(page, "image", picture_file)
    page.wait_for_function(
        "document.querySelector('#phrases textarea').value.includes('a small dog')"
    )
    page.locator("#phrases textarea").fill("a red car; a unicorn")
    page.keyboard.press("Control+Enter")
    page.locator("#card-find .verdict.absent").wait_for()
    open_tab(page, "ask")
    page.locator("#question textarea, #question input").first.fill("what color is the car?")
    page.keyboard.press("Enter")
    page.locator("#card-ask .a", has_text="red").wait_for()
    open_tab(page, "compare")
    page.locator("#run-compare").click()
    page.locator("#card-compare", has_text="Correlation").wait_for()
    open_tab(page, "about")
    page.locator("#about", has_text="arXiv:2211.12402").wait_for()


def test_the_stage_follows_the_tab(open_page):
    page = open_page()
    page.locator("#choices", has_text="a unicorn").wait_for()
    open_tab(page, "describe")
    page.locator("#choices .word", has_text="grass").wait_for()
    assert "unicorn" not in page.locator("#choices").inner_text()
    before = source(page)
    page.locator("#card-describe .word", has_text="grass").click()
    wait_for_change(page, before)
    page.locator("#choices .word[aria-pressed=true]", has_text="grass").wait_for()


def test_changed_inputs_dim_the_result_and_the_stage(open_page):
    page = open_page()
    page.locator("#card-find .verdict").first.wait_for()
    page.locator("#phrases textarea").fill("")
    page.locator("#phrases textarea").press_sequentially("a zebra", delay=100)
    page.locator("#note-find .stale").wait_for()
    assert float(page.locator("#canvas img").evaluate("e => getComputedStyle(e).opacity")) < 1
    page.locator("#run-find").click()
    page.locator("#card-find", has_text="a zebra").wait_for()
    page.locator("#note-find .stale").wait_for(state="detached")


def test_a_hand_over_runs(open_page):
    page = open_page()
    open_tab(page, "describe")
    page.locator("#describe-to-find").click()
    page.locator("#tab-find-button[aria-selected=true]").wait_for()
    page.locator("#card-find", has_text="the grass").wait_for()
    page.locator("#choices", has_text="the grass").wait_for()


def test_a_drawn_region_is_told_and_obeyed(open_page):
    page = open_page()
    open_tab(page, "ask")
    page.locator("#canvas").scroll_into_view_if_needed()
    frame = page.locator("#canvas img").bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 0.25, frame["y"] + frame["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.75, frame["y"] + frame["height"] * 0.5, steps=5)
    page.mouse.up()
    page.locator("#note-ask .region-on").wait_for()
    assert page.locator(".x2-region").is_visible()
    page.locator("#run-ask").click()
    page.locator("#card-ask", has_text="cut-out").wait_for()


def test_a_video_shows_its_frames_and_its_curve(open_page, clip_file):
    page = open_page()
    upload(page, "video", clip_file)
    before = source(page)
    page.locator("#strip .tile").nth(3).click()
    wait_for_change(page, before)
    open_tab(page, "match")
    page.locator("#over-time").click()
    page.locator("#match-curve [data-pick='frame:0']").wait_for()


def test_results_are_downloaded_and_linked(open_page):
    page = open_page()
    page.locator("#data button").first.click()
    page.locator("#make-files").click()
    page.locator("#files a").first.wait_for()
    with page.expect_download() as download:
        page.locator("#files a").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "methods.txt" in archive.namelist()
        assert json.loads(archive.read("scene.json"))["task"] == "ground"
    page.locator("#phrases textarea").fill("a zebra")
    page.goto(link(page))
    page.locator("#card-find", has_text="a zebra").wait_for()


def test_a_missing_image_marks_the_uploader_until_there_is_one(open_page, picture_file):
    page = open_page()
    page.locator("#upload-image .icon-button-wrapper button").first.click()
    page.locator("#legend .empty").wait_for()
    page.locator("#run-find").click()
    page.locator("#source-note .wrong").wait_for()
    assert "[" not in page.locator("#source-note").inner_text()
    page.locator("#upload-image input[type=file]").set_input_files(str(picture_file))
    page.locator("#source-note .wrong").wait_for(state="detached")


def test_an_empty_field_is_marked_until_it_is_mended(open_page):
    page = open_page()
    page.locator("#phrases textarea").fill("")
    page.locator("#run-find").click()
    marked = page.locator("#phrases", has_text="No phrase given")
    marked.wait_for()
    page.locator("#phrases textarea").fill("a dog")
    marked.wait_for(state="detached")


CAMERA = """() => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 320, height: 240});
  const paint = () => {
    canvas.getContext('2d').fillStyle = `hsl(${performance.now() % 360} 80% 50%)`;
    canvas.getContext('2d').fillRect(0, 0, 320, 240);
  };
  setInterval(paint, 40);
  window.asked = [];
  navigator.mediaDevices.getUserMedia = async (wanted) => (window.asked.push(wanted),
  canvas.captureStream(25));
  navigator.mediaDevices.enumerateDevices = async () => [{kind: 'videoinput', deviceId: 'one',
  label: 'camera'}];
}"""


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize(
    "kind, presses",
    [("image", ["capture photo"]), ("video", ["start recording", "stop recording"])],
)
def test_a_camera_gives_a_picture_or_a_clip(open_page, size, kind, presses):
    page = open_page(size)
    page.evaluate(CAMERA)
    page.locator(f"#kind input[value={kind}]").check()
    uploader = page.locator(f"#upload-{kind}")
    uploader.get_by_role("button", name="Capture from camera").click()
    for title in ("grant webcam access", *presses):
        uploader.get_by_title(title).locator("visible=true").last.click()
        page.wait_for_timeout(1000)  # of live image
    wait_for_size(page, 320, 240)
    assert page.evaluate("window.asked") == [
        {"video": {"facingMode": "environment"}, "audio": False}
    ]
    if kind == "video":
        page.locator("#strip .tile").nth(1).wait_for()


WORDS = (
    ("ko-KR", "찾기", "영역", ("있음", "불확실", "없음")),
    ("zh-CN", "查找", "区域", ("找到", "不确定", "没有")),
)


@pytest.mark.parametrize("locale, find, region, verdicts", WORDS)
def test_page_speaks_the_visitors_language(open_page, locale, find, region, verdicts):
    page = open_page(locale=locale)
    page.locator("#run-find", has_text=find).wait_for()
    assert region in page.locator("#region").inner_text()
    said = page.locator("#card-find").inner_text()
    assert any(verdict in said for verdict in verdicts)
    assert not any(verdict in said for verdict in ("found", "unsure", "probably"))


def test_focus_never_goes_where_nobody_sees_it(open_page):
    page = open_page()
    for _ in range(25):
        page.keyboard.press("Tab")
        box = page.evaluate(
            "(() => { const b = document.activeElement.getBoundingClientRect();"
            " return [b.right, b.width] })()"
        )
        assert box[0] > 0


def test_a_collection_is_searched_described_and_downloaded(open_page, picture_file, phone_photos):
    page = open_page()
    open_tab(page, "collection")
    page.locator("#collection-files input[type=file]").set_input_files(
        [str(picture_file), str(phone_photos[1])]
    )
    page.locator("#collection-files", has_text="picture").wait_for()
    page.locator("#collection-query textarea, #collection-query input").first.fill("a dog")
    page.locator("#run-collection").click()
    rows = page.locator("#card-collection tbody tr")
    rows.nth(1).wait_for()
    scores = [float(row.locator(".num").first.inner_text()) for row in rows.all()]
    assert scores == sorted(scores, reverse=True)
    page.locator("#describe-all").click()
    page.locator("#card-collection", has_text="a red car and a small dog").wait_for()
    with page.expect_download() as download:
        page.locator("#collection-downloads a[href*='.jsonl']").first.click()
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["name"] for line in lines} == {"picture.png", "phone1.png"}


def test_two_checkpoints_are_compared(open_page):
    page = open_page()
    open_tab(page, "compare")
    page.locator("#options-compare button").first.click()
    page.locator("#other-model input").click()
    page.get_by_role("option", name="other", exact=True).click()
    page.locator("#run-compare").click()
    page.locator("#card-compare", has_text="Correlation").wait_for()
    sides = page.locator("#card-compare .side").all_inner_texts()
    assert "stub ·" in sides[0] and "other ·" in sides[1]


def test_a_screen_reader_meets_stage_tab_field_button_result(open_page):
    page = open_page()
    page.locator("#card-find .verdict").first.wait_for()
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    known = {node["nodeId"]: node for node in nodes}
    told: list[tuple[str, str]] = []

    def read(node: dict) -> None:
        if not node.get("ignored"):
            told.append((node["role"]["value"], node.get("name", {}).get("value", "")))
        for child in node.get("childIds", ()):
            if child in known:
                read(known[child])

    read(nodes[0])
    wanted = (
        ("image", "a red car"),
        ("tab", "Find"),
        ("textbox", "Phrases"),
        ("button", "Find"),
        ("columnheader", "verdict"),
    )
    places = [
        next(k for k, (role, name) in enumerate(told) if role == kind and text in name)
        for kind, text in wanted
    ]
    assert places == sorted(places)
