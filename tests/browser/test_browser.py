"""What needs a page of its own in a real Chromium: cameras, a collection, a screen reader,
Chinese."""

from __future__ import annotations

import json

import pytest

from tests.browser.conftest import SIZES
from tests.browser.pages import open_tab, wait_for_size

pytestmark = pytest.mark.browser


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
def test_a_camera_gives_a_picture_or_a_clip(open_page, size):
    page = open_page(size)
    page.evaluate(CAMERA)
    for kind, presses in (
        ("image", ["capture photo"]),
        ("video", ["start recording", "stop recording"]),
    ):
        page.locator(f"#kind input[value={kind}]").check()
        uploader = page.locator(f"#upload-{kind}")
        uploader.get_by_role("button", name="Capture from camera").click()
        for title in ("grant webcam access", *presses):
            uploader.get_by_title(title).locator("visible=true").last.click()
            page.wait_for_timeout(700)  # of live image
        wait_for_size(page, 320, 240)
        assert page.evaluate("window.asked.splice(0)") == [
            {"video": {"facingMode": "environment"}, "audio": False}
        ]
        tiles = page.locator("#strip .tile")
        tiles.nth(1).wait_for() if kind == "video" else tiles.first.wait_for(state="detached")


def test_page_speaks_chinese(open_page):
    page = open_page(locale="zh-CN")
    page.locator("#run-find", has_text="查找").wait_for()
    assert "区域" in page.locator("#region").inner_text()
    said = page.locator("#card-find").inner_text()
    assert any(verdict in said for verdict in ("找到", "不确定", "没有"))
    assert not any(verdict in said for verdict in ("found", "unsure", "probably"))


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
