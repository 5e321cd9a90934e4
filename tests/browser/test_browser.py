"""The page in a real Chromium: every tab, with an image and a video, on desktop and phone, in three
languages."""

from __future__ import annotations

import json

import pytest

from app import limits

pytestmark = pytest.mark.browser
SIZES = ("desktop", "phone")


def source(page) -> str:
    return page.locator("#canvas img").get_attribute("src")


def wait_for_change(page, before: str) -> str:
    page.wait_for_function(
        "before => document.querySelector('#canvas img').src !== before", arg=before
    )
    return source(page)


def open_tab(page, name: str) -> None:
    """A tab by its button, or through the menu that holds what does not fit on a phone."""
    button = page.locator(f"#tab-{name}-button")
    if not button.is_visible():
        page.get_by_role("button", name="More tabs").click()
        button = page.locator("#tabs .overflow-dropdown button", has_text=name.capitalize())
    button.click()
    page.locator(f"#tab-{name}").wait_for()


def upload(page, kind: str, path) -> None:
    before = source(page)
    page.locator(f"#kind input[value={kind}]").check()
    uploader = page.locator(f"#upload-{kind}")
    uploader.wait_for()
    uploader.locator("input[type=file]").set_input_files(str(path))
    page.wait_for_function(
        "before => { const src = document.querySelector('#canvas img').src; return "
        "src.startsWith('data') && src !== before }",
        arg=before,
    )


@pytest.mark.parametrize("size", SIZES)
def test_first_paint_is_a_finished_example(open_page, size):
    page = open_page(size)
    assert page.locator("#findings .verdict").count() >= 2
    assert page.locator("#twin .twin").inner_text().strip()
    assert page.locator("#canvas img").get_attribute("alt")
    for whole in ("document.documentElement", "document.querySelector('#findings .card')"):
        assert page.evaluate(f"{whole}.scrollWidth <= {whole}.clientWidth"), f"{whole} is cut off"


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_through_every_tab(open_page, size, picture_file):
    page = open_page(size)
    upload(page, "image", picture_file)
    assert "300 × 200" in page.locator("#twin").inner_text()
    open_tab(page, "describe")
    page.locator("#run-describe").click()
    page.locator("#captions table").wait_for()
    open_tab(page, "ask")
    page.locator("#question textarea, #question input").first.fill("what color is the car?")
    page.keyboard.press("Enter")
    page.locator("#answer .a", has_text="red").wait_for()
    open_tab(page, "find")
    page.locator("#phrases textarea").fill("a red car; a unicorn")
    page.locator("#run-find").click()
    page.locator("#findings .verdict.absent").wait_for()
    open_tab(page, "inspect")
    page.locator("#inspect-text textarea, #inspect-text input").first.fill("a small dog")
    page.locator("#run-inspect").click()
    page.locator("#map-numbers", has_text="Entropy").wait_for()
    page.locator("#deletion").click()
    page.locator("#faithfulness svg").wait_for()
    page.locator("#compare").click()
    page.locator("#compared", has_text="random").wait_for()
    open_tab(page, "match")
    page.locator("#texts textarea").fill("a dog\na cat\na car")
    page.locator("#run-match").click()
    page.locator("#matches tbody tr").nth(2).wait_for()
    open_tab(page, "about")
    assert "gradio_client" in page.locator("#about").inner_text()
    page.locator("#new-scene").click()
    page.locator("#truth table").wait_for()
    assert (
        page.locator("#faithfulness svg").count() == 0
        and page.locator("#compared .note").count() == 0
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_clip_shows_its_frames_and_its_curve(open_page, size, clip_file):
    page = open_page(size)
    upload(page, "video", clip_file)
    page.locator("#strip .thumbnail-item").nth(3).wait_for()
    before = source(page)
    page.locator("#strip .thumbnail-item").nth(3).click()
    wait_for_change(page, before)
    open_tab(page, "find")
    page.locator("#phrases textarea").fill("a dog")
    page.locator("#annotate").click()
    page.locator("#annotated video").wait_for()
    page.wait_for_function("document.querySelector('#annotated video').readyState > 0")
    open_tab(page, "match")
    page.locator("#texts textarea").fill("a dog")
    page.locator("#over-time").click()
    point = page.locator("#match-curve [data-k='0']")
    point.wait_for()
    before = source(page)
    point.click()
    wait_for_change(page, before)


def test_phone_photos_get_the_boxes_of_their_upright_twin(open_page, phone_photos):
    page = open_page()
    page.locator("#phrases textarea").fill("a red car")
    found = []
    for path in phone_photos.values():
        upload(page, "image", path)
        page.locator("#findings .empty").wait_for()
        assert "200 × 300" in page.locator("#twin").inner_text()
        page.locator("#run-find").click()
        page.locator("#findings tbody tr").wait_for()
        found.append(page.locator("#findings tbody").inner_text())
        page.locator("#upload-image .icon-button-wrapper button").first.click()
        page.locator("#twin .empty").wait_for()
    assert found == found[:1] * 4


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


@pytest.mark.parametrize("size", SIZES)
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
    page.locator("#twin", has_text="320 × 240").wait_for()
    assert page.evaluate("window.asked") == [
        {"video": {"facingMode": "environment"}, "audio": False}
    ]
    if kind == "video":
        page.locator("#strip .thumbnail-item").nth(1).wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_a_word_shows_its_map_without_the_model(open_page, size, served):
    page = open_page(size)
    asked, before = len(served.stub.calls), source(page)
    page.locator("#words .token").nth(2).click()
    after = wait_for_change(page, before)
    page.locator("#words .token").nth(1).focus()
    page.keyboard.press("Enter")
    wait_for_change(page, after)
    page.locator("#layers input[type=radio]").nth(1).check()
    page.locator("#view button").first.click()
    before = source(page)
    page.locator("#show input[value=heat], #show input[type=checkbox]").last.uncheck()
    wait_for_change(page, before)
    assert len(served.stub.calls) == asked


def test_a_drawn_region_is_described_and_asked(open_page):
    page = open_page()
    page.locator("#region button").first.click()
    page.locator("#canvas").scroll_into_view_if_needed()
    frame = page.locator("#canvas img").bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 0.25, frame["y"] + frame["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.75, frame["y"] + frame["height"] * 0.5, steps=5)
    page.mouse.up()
    page.wait_for_function(
        "[...document.querySelectorAll('#region input[type=number]')].every(side => side.value > 0)"
    )
    sides = [
        float(field.input_value()) for field in page.locator("#region input[type=number]").all()
    ]
    assert sides == pytest.approx([112, 112, 336, 224], abs=4)
    assert page.locator(".x2-region").is_visible()
    page.locator("#describe-region").click()
    page.locator("#tab-describe-button[aria-selected=true]").wait_for()
    page.locator("#captions table").wait_for()
    page.locator("#ask-region").click()
    page.locator("#tab-ask-button[aria-selected=true]").wait_for()
    page.locator("#answer", has_text="cut-out").wait_for()


def test_a_typed_region_is_drawn(open_page):
    page = open_page()
    page.locator("#region button").first.click()
    fields = page.locator("#region input[type=number]")
    for place, value in enumerate(
        (10, 20, 200, 100)
    ):  # by place: each waits until the opened part holds it
        fields.nth(place).fill(str(value))
    page.locator(".x2-region").wait_for()


def test_results_are_downloaded_and_linked(open_page, tmp_path):
    page = open_page()
    page.locator("#data button").first.click()
    page.locator("#make-files").click()
    page.locator("#files a").nth(4).wait_for()
    names = {}
    for link in page.locator("#files a").all():
        with page.expect_download() as download:
            link.click()
        names[download.value.suggested_filename] = download.value.path()
    assert {name.split(".", 1)[1] for name in names} == {"png", "json", "csv", "coco.json", "npz"}
    kept = json.loads(
        next(path for name, path in names.items() if name == "scene.json").read_text()
    )
    assert kept["task"] == "ground" and len(kept["results"]) >= 2
    page.locator("#copy-link").click()
    page.wait_for_function(
        "document.querySelector('#link textarea, #link input')?.value.startsWith('http')"
    )
    link = page.locator("#link textarea, #link input").first.input_value()
    assert "example=scene" in link and "tab=find" in link


def test_a_link_reopens_scene_and_tab(open_page):
    page = open_page(query="?kind=image&scene=4321&tab=ask")
    page.locator("#tab-ask-button[aria-selected=true]").wait_for()
    page.locator("#truth table").wait_for()
    page.locator("#answer .a").wait_for()


def test_a_tab_that_the_model_lacks_is_grey_and_says_why(open_page, served, monkeypatch):
    monkeypatch.setitem(served.stub.missing, "caption", "This checkpoint has no decoder.")
    page = open_page()
    page.locator("#lacks", has_text="no decoder").wait_for()
    assert (
        page.locator("#tab-describe-button").is_disabled()
        and page.locator("#tab-ask-button").is_enabled()
    )


def test_a_new_scene_stands_beside_its_truth(open_page):
    page = open_page()
    before = source(page)
    page.locator("#new-scene").click()
    wait_for_change(page, before)
    assert page.locator("#truth tr").count() >= 3
    assert page.locator("#findings .verdict").count() >= 1


@pytest.mark.parametrize("fresh", [False, True])
def test_caption_is_handed_to_find(open_page, fresh):
    """Also that of the first paint, where what was found is on the stage."""
    page = open_page()
    open_tab(page, "describe")
    if fresh:
        page.locator("#run-describe").click()
        page.locator("#layers").wait_for(state="hidden")
    page.locator("#caption-words .token", has_text="grass").wait_for()
    page.locator("#caption-to-find").click()
    page.locator("#tab-find-button[aria-selected=true]").wait_for()
    page.wait_for_function(
        "document.querySelector('#phrases textarea').value.includes('a small dog')"
    )


def test_a_word_or_answer_of_a_tab_brings_its_own_map(open_page):
    """While another tab's result is on the stage."""
    page = open_page()
    open_tab(page, "describe")
    page.locator("#caption-words .token", has_text="grass").click()
    page.locator("#twin", has_text="no map of this yet").wait_for()
    page.locator("#run-describe").click()
    page.locator("#twin", has_text="a red car and a small dog").wait_for()
    open_tab(page, "ask")
    page.locator("#run-ask").click()
    page.locator("#layers label").nth(4).wait_for()
    open_tab(page, "describe")
    page.locator("#caption-words .token", has_text="grass").click()
    page.locator("#twin", has_text="“grass”").wait_for()
    page.locator("#layers").wait_for(state="hidden")
    open_tab(page, "ask")
    page.locator("#answers .confidence-set", has_text="yes").click()
    page.locator("#layers label.selected", has_text="yes").wait_for()
    page.locator("#words .token", has_text="grass").wait_for(state="detached")


WORDS = (
    ("ko-KR", "찾기", "영역", ("있음", "불확실", "없음")),
    ("zh-CN", "查找", "区域", ("找到", "不确定", "没有")),
)


@pytest.mark.parametrize("locale, find, region, verdicts", WORDS)
def test_page_speaks_the_visitors_language(open_page, locale, find, region, verdicts):
    page = open_page(locale=locale)
    page.locator("#run-find", has_text=find).wait_for()
    assert region in page.locator("#region").inner_text()
    open_tab(page, "about")
    about = page.locator("#about").inner_text()
    assert (
        "gradio_client" in about
        and "What it cannot do" not in about
        and any(verdict in about for verdict in verdicts)
    )
    open_tab(page, "find")
    for part in ("#twin", "#findings"):
        said = page.locator(part).inner_text()
        assert any(verdict in said for verdict in verdicts)
        assert not any(verdict in said for verdict in ("found", "unsure", "probably"))


def test_language_is_switched_on_the_page(open_page):
    page = open_page()
    assert "found" in page.locator("#canvas img").get_attribute("alt")
    page.locator("footer button", has_text="Settings").click()
    page.get_by_role("combobox", name="Language").click()
    page.get_by_role("option", name="한국어").click()
    page.locator("#run-find", has_text="찾기").wait_for()
    page.mouse.click(5, 5)  # beside the settings, which closes them
    page.locator("#region button").first.click()
    page.locator("#describe-region").click()
    page.locator(".toast-body", has_text="영역이 없거나 잘못되었습니다").wait_for()
    before = source(page)
    page.locator("#words .token").nth(2).click()
    wait_for_change(page, before)
    assert "있음" in page.locator("#canvas img").get_attribute("alt")


@pytest.mark.parametrize(
    "locale, sentence", [("en-US", "bad.png"), ("ko-KR", "읽을 수 없는"), ("zh-CN", "无法读取")]
)
def test_bad_input_gets_a_sentence(open_page, tmp_path, locale, sentence):
    page = open_page(locale=locale)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"%PDF-1.4 not a picture")
    page.locator("#upload-image .icon-button-wrapper button").first.click()
    page.locator("#twin .empty").wait_for()
    page.locator("#upload-image input[type=file]").set_input_files(str(bad))
    toast = page.locator(".toast-body", has_text=sentence)
    toast.wait_for()
    assert "[image/" not in toast.inner_text()
    assert "Traceback" not in toast.inner_text() and str(tmp_path) not in toast.inner_text()


@pytest.mark.parametrize(
    "locale, sentence", [("en-US", "No phrase given"), ("ko-KR", "글이 비어 있습니다")]
)
def test_empty_field_is_marked(open_page, locale, sentence):
    page = open_page(locale=locale)
    page.locator("#phrases textarea").fill("")
    page.locator("#run-find").click()
    page.locator("#phrases", has_text=sentence).wait_for()
    assert "text/empty" not in page.locator("#phrases").inner_text()


def test_stages_of_work_are_shown(open_page, served, monkeypatch):
    page = open_page()
    monkeypatch.setattr(served.stub, "delay", 1.0)
    open_tab(page, "describe")
    page.locator("#run-describe").click()
    stage = page.locator("#captions .progress-level")
    stage.filter(has_text="Writing").wait_for()
    stage.wait_for(state="detached")
    assert page.locator("#captions table").is_visible()


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
