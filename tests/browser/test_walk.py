"""One visit for each size and language through all that the page does: fold, tabs, upload, video,
scene, files, languages. The tests of a visit share its page, and each brings what it needs."""

from __future__ import annotations

import io
import json
import re
import zipfile

import pytest
from PIL import Image

from app.i18n import ERRORS, LOCALES
from tests.browser.conftest import SIZES
from tests.browser.pages import (
    TOP,
    link,
    open_tab,
    source,
    upload,
    wait_for_change,
    wait_for_phrases,
    wait_for_size,
)

pytestmark = pytest.mark.browser
TABS = ("find", "describe", "ask", "inspect", "match", "compare", "collection", "about")
WIDTH = "Math.max(innerWidth, document.documentElement.scrollWidth)"
CAPTION = "a red car and a small dog on the grass"  # what the stub says of every image


def fits(visitor) -> bool:
    """Whether the page is no wider than the window."""
    return visitor.page.evaluate(WIDTH) <= SIZES[visitor.size]["viewport"]["width"]


# the first minute


def test_first_paint_is_a_finished_example(visitor):
    page = visitor.page
    verdicts = page.locator("#card-find .verdict")
    assert verdicts.count() >= 2
    assert visitor.says("absent") in verdicts.nth(1).inner_text()
    page.locator(f"#canvas img[alt*='{visitor.says('absent')}']").wait_for()
    assert page.locator(".stale").count() == 0
    assert page.locator("#status").inner_text().startswith("stub")
    assert fits(visitor)


def test_image_tabs_field_button_and_result_follow_each_other(visitor):
    page = visitor.page
    order = ["#canvas", "#tabs [role=tablist]", "#phrases", "#run-find", "#card-find"]
    tops = [page.locator(part).first.evaluate(TOP) for part in order]
    assert tops[1:] == sorted(tops[1:])
    if visitor.size == "desktop":
        assert tops[3] < SIZES["desktop"]["viewport"]["height"]  # all in view at once
        return
    assert tops == sorted(tops) and tops[3] < 2 * SIZES["phone"]["viewport"]["height"]
    assert not page.locator(".back").is_visible()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.locator(".back").wait_for()
    page.locator(".back").click()
    page.locator(".back").wait_for(state="hidden")


def test_what_is_pressed_is_large_enough_and_inside_the_window(visitor):
    page, width = visitor.page, SIZES[visitor.size]["viewport"]["width"]
    least = 44 if visitor.size == "phone" else 24
    for part in ("#run-find", "#new-scene", "#stop", "#choices .pick", "#tab-find-button"):
        for one in page.locator(f"{part}:visible").all():
            box = one.bounding_box()
            assert box["height"] >= least, part
            # words go on to the right, where their row is scrolled
            assert box["x"] >= 0 and (".pick" in part or box["x"] + box["width"] <= width), part


def test_no_label_lies_over_an_image(visitor):
    label = visitor.page.locator("#upload-image label[data-testid=block-label]")
    assert label.evaluate("e => getComputedStyle(e).clipPath") == "inset(50%)"
    assert visitor.page.locator("#examples .tile span:visible").count() == 0


def test_focus_never_goes_where_nobody_sees_it(visitor):
    page = visitor.page
    page.evaluate("document.activeElement.blur(), window.scrollTo(0, 0)")
    for _ in range(25):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "(() => { const b = document.activeElement.getBoundingClientRect();"
            " return [b.left, b.right, document.activeElement.checkVisibility()] })()"
        )
        assert where[1] > 0 and where[0] < page.evaluate("innerWidth") and where[2]


def test_everything_that_the_example_offers_to_choose_has_a_map(visitor):
    page = visitor.bring_example()
    for tab in ("find", "describe", "ask", "inspect"):
        open_tab(page, tab)
        page.locator("#choices [aria-pressed=true]").first.wait_for()
        for part in page.locator(f"#card-{tab} .pick:visible").all()[1:3]:
            before = source(page)
            part.click()
            wait_for_change(page, before)
            assert page.locator("#legend .ramp").count()
    open_tab(page, "find")


def test_the_stage_follows_the_tab_and_marks_what_is_chosen(visitor):
    page = visitor.bring_example()
    open_tab(page, "find")
    page.locator("#choices", has_text="a unicorn").wait_for()
    open_tab(page, "describe")
    page.locator("#choices .word", has_text="grass").wait_for()
    assert "unicorn" not in page.locator("#choices").inner_text()
    before = source(page)
    page.locator("#card-describe .word", has_text="grass").click()
    wait_for_change(page, before)
    page.locator("#choices .word[aria-pressed=true]", has_text="grass").wait_for()
    page.locator("#legend", has_text=visitor.says("own_scale", what="grass")).wait_for()


def test_tabs_that_ask_nothing_leave_the_stage_and_none_is_wider_than_the_window(visitor):
    page = visitor.bring_example()
    open_tab(page, "find")
    page.locator("#choices", has_text="a unicorn").wait_for()
    before = source(page)
    for tab in ("collection", "about"):
        open_tab(page, tab)
        assert source(page) == before
    for tab in TABS:
        open_tab(page, tab)
        assert fits(visitor), tab


def test_candidates_show_the_score_that_ranks_them(visitor):
    page = visitor.bring_example()
    open_tab(page, "describe")
    page.locator("#card-describe th", has_text=visitor.says("ranks_by")).wait_for()
    page.locator("#card-describe", has_text=visitor.says("ranked_by")).wait_for()
    rows = page.locator("#card-describe tbody tr").all()
    scores = [float(row.locator("td").last.inner_text()) for row in rows]
    assert len(scores) > 1 and scores == sorted(scores, reverse=True)


def test_a_hand_over_runs(visitor):
    page = visitor.bring_example()
    open_tab(page, "describe")
    page.locator("#describe-to-find").click()
    page.locator("#tab-find-button[aria-selected=true]").wait_for()
    for place in ("#card-find", "#choices"):
        page.locator(place, has_text="the grass").wait_for()
    assert "the grass" in visitor.field("find").input_value()


# changed inputs, keys, stops, errors


def test_changed_inputs_dim_the_result_and_the_stage(visitor):
    page = visitor.bring_example()
    visitor.write("find", "")
    visitor.field("find").press_sequentially("a zebra", delay=100)
    page.locator("#note-find .stale", has_text=visitor.says("stale")).wait_for()
    assert float(page.locator("#canvas img").evaluate("e => getComputedStyle(e).opacity")) < 1
    page.locator("#run-find").click()
    page.locator("#card-find", has_text="a zebra").wait_for()
    page.locator("#note-find .stale").wait_for(state="detached")


@pytest.mark.parametrize("tab, text, found", [
    ("find", "a yellow kite", "a yellow kite"),
    ("ask", "what is the kite?", "what is the kite?"),
    ("match", "a kite\na tree", "a kite"),
    ("inspect", "a kite in the sky", "kite"),
])  # fmt: skip
def test_ctrl_enter_asks_and_the_page_says_so(visitor, tab, text, found):
    page = visitor.page
    visitor.write(tab, text)
    assert "Ctrl+Enter" in page.locator(f"#tab-{tab} .hint").first.inner_text()
    page.keyboard.press("Control+Enter")
    page.locator(f"#card-{tab}", has_text=found).wait_for()
    page.locator("#status", has_text=re.compile(r"\d\.\d\d")).wait_for()  # seconds it took


def test_a_stop_is_told_as_a_wish_and_not_as_an_error(visitor, served, monkeypatch):
    page = visitor.page
    monkeypatch.setattr(served.stub, "delay", 1.0)
    visitor.write("ask", "is there a kite?")
    begun = len(served.stub.calls)
    page.locator("#run-ask").click()
    while len(served.stub.calls) == begun:
        page.wait_for_timeout(50)
    page.locator("#stop").click()
    page.locator(".toast-body.info", has_text=visitor.says("stopped")).first.wait_for()
    page.locator("#tab-ask .progress-level").wait_for(state="detached")
    assert page.locator(".toast-body.error").count() == 0


def test_an_empty_field_is_marked_until_it_is_mended(visitor):
    page = visitor.page
    visitor.write("find", "")
    page.locator("#run-find").click()
    sentence = ERRORS[visitor.language].get("text/empty", "No phrase given")
    marked = page.locator("#phrases", has_text=sentence)
    marked.wait_for()
    assert "[" not in marked.inner_text()
    visitor.field("find").fill("a dog")
    marked.wait_for(state="detached")


def test_a_missing_image_marks_the_uploader_until_there_is_one(visitor, picture_file):
    page = visitor.bring_example()
    open_tab(page, "find")
    page.locator("#upload-image .icon-button-wrapper button").first.click()
    page.locator("#legend .empty", has_text=visitor.says("empty_stage")).wait_for()
    page.locator("#run-find").click()
    page.locator("#source-note .wrong").wait_for()
    assert "[" not in page.locator("#source-note").inner_text()
    page.locator("#upload-image input[type=file]").set_input_files(str(picture_file))
    page.locator("#source-note .wrong").wait_for(state="detached")
    wait_for_size(page, 300, 200)


# media


def test_an_upload_offers_what_suits_it_and_every_tab_answers(visitor, picture_file):
    page = visitor.bring_example()
    open_tab(page, "find")
    upload(page, "image", picture_file)
    wait_for_phrases(page, "a small dog")
    assert visitor.field("ask").input_value() == "is there a red car?"
    page.locator("#run-find").click()
    page.locator("#card-find .verdict.found").first.wait_for()
    visitor.write("ask", "what color is the car?")
    page.keyboard.press("Enter")
    page.locator("#card-ask .a", has_text="red").wait_for()


def test_two_sides_are_compared_in_the_visitors_words(visitor):
    page = visitor.bring_example()
    open_tab(page, "compare")
    if not page.locator("#other-model").is_visible():
        page.locator("#options-compare button").first.click()
    page.locator("#other-model input").click()
    page.get_by_role("option", name="other", exact=True).click()
    page.locator("#run-compare").click()
    page.locator("#card-compare .side").nth(1).wait_for()
    sides = page.locator("#card-compare .side span").filter(visible=True)
    told = page.locator("#card-compare").inner_text()
    for part in ("stub", "other", *map(visitor.says, ("method_gradient", "method_random"))):
        assert part in told
    assert all(side.evaluate("e => e.scrollWidth <= e.clientWidth + 1") for side in sides.all())
    page.locator("#card-compare .help summary").click()
    page.locator("#card-compare .help", has_text=visitor.says("numbers_help")).wait_for()


def test_a_region_is_told_and_obeyed(visitor):
    page = visitor.bring_example()
    open_tab(page, "ask")
    page.locator("#canvas").scroll_into_view_if_needed()
    if visitor.size == "desktop":
        frame = page.locator("#canvas img").bounding_box()
        x, y, width, height = (frame[side] for side in ("x", "y", "width", "height"))
        page.mouse.move(x + width * 0.25, y + height * 0.25)
        page.mouse.down()
        page.mouse.move(x + width * 0.75, y + height * 0.5, steps=5)
        page.mouse.up()
    else:
        page.locator("#region button").first.click()
        for place, value in enumerate((112, 112, 336, 224)):
            page.locator("#region input[type=number]").nth(place).fill(str(value))
        page.keyboard.press("Tab")  # four sides, and nothing was wrong before the last
    page.locator("#note-ask .region-on", has_text=visitor.says("region_ask")).wait_for()
    assert page.locator(".x2-region").is_visible() and not page.locator(".toast-body.error").count()
    page.locator("#run-ask").click()
    page.locator("#card-ask", has_text=visitor.says("region_answer")).wait_for()
    for tab in ("find", "describe", "inspect", "match", "compare"):
        open_tab(page, tab)
        page.locator(f"#note-{tab}", has_text=visitor.says(f"region_{tab}")).wait_for()
    page.locator("#region-on button").click()
    page.locator("#note-compare .region-on").wait_for(state="detached")


def test_a_video_shows_its_frames_its_curve_and_its_boxes(visitor, clip_file):
    page = visitor.page
    upload(page, "video", clip_file)
    page.locator("#strip .tile").nth(3).wait_for()
    count = page.locator("#frames input[type=number]").first
    assert int(count.input_value()) == page.locator("#strip .tile").count() == 4
    before = source(page)
    page.locator("#strip .tile").nth(3).click()
    wait_for_change(page, before)
    open_tab(page, "match")
    page.locator("#over-time").click()
    page.locator("#match-curve [data-pick='frame:0']").wait_for()
    visitor.write("find", "a red car")
    page.locator("#annotate").click()
    page.locator("#annotated video[src]").wait_for()
    seconds = page.wait_for_function("document.querySelector('#annotated video').duration || 0")
    assert seconds.json_value() == pytest.approx(1.5, abs=0.3)  # as far apart as the seen frames
    page.locator("#kind input[value=image]").check()


def test_a_new_scene_stands_beside_its_truth_which_asks_nothing(visitor):
    page = visitor.bring_example()
    before = source(page)
    page.locator("#new-scene").click()
    wait_for_change(page, before)
    page.locator("#truth tr").nth(2).wait_for(state="attached")
    open_tab(page, "ask")
    page.locator("#starters .pick").first.wait_for()
    truth = page.locator("#truth").text_content()
    assert all(asked not in truth for asked in page.locator("#starters .pick").all_inner_texts())
    open_tab(page, "find")
    page.locator("#card-find .verdict").first.wait_for()


def test_what_is_absent_is_drawn_only_where_that_is_asked_for(visitor):
    page = visitor.bring_example()
    open_tab(page, "find")
    page.locator("#choices", has_text="a unicorn").wait_for()
    page.locator("#view button").first.click()
    box = page.locator("#show label", has_text=visitor.says("absent_layer")).locator("input")
    assert not box.is_checked()
    before = source(page)
    box.check()
    wait_for_change(page, before)
    box.uncheck()
    page.locator("#view button").first.click()


def test_the_words_for_a_screen_reader_take_no_room(visitor):
    box = visitor.page.locator("#legend .hidden-text").bounding_box()
    assert box["width"] <= 1 and box["height"] <= 1


# texts


ENGLISH = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]{2,})+")


def test_no_sentence_of_the_page_is_in_another_language(visitor):
    """Neither our texts nor Gradio's own, in every tab but About. What models read and say is
    English."""
    page = visitor.bring_example()
    page.evaluate("document.querySelectorAll('.toast-close').forEach(one => one.click())")
    if visitor.language == "en":
        foreign = re.compile(r"[\u3131-\ud7a3\u4e00-\u9fff]")
        allowed: tuple[str, ...] = ()
    else:
        foreign = ENGLISH
        allowed = ("a red car", "a unicorn", "a small dog", "a dog", "a cat", CAPTION)
        allowed += ("is there", "what is it", "a car", "a picture", "for tests", "two dogs")
    for tab in TABS[:-1]:
        open_tab(page, tab)
        lines = page.locator("body").inner_text().split("\n")
        wrong = [one for one in lines if foreign.search(one) and not any(a in one for a in allowed)]
        assert wrong == [], tab


def test_about_tells_failures_citation_versions_licences_and_calls(visitor):
    page = visitor.page
    open_tab(page, "about")
    about = page.locator("#about")
    title = LOCALES[visitor.language]["about"].split("\n")[0].removeprefix("## ")
    about.locator("h2", has_text=title).wait_for()
    told = about.inner_text()
    for part in ("arXiv:2211.12402", "curl", "gradio_client", "Apache-2.0", "torch", "CC BY"):
        assert part in told, part
    assert about.locator("#failures figure:visible").count() >= 16 and fits(visitor)
    assert visitor.says("failures") in told


def test_files_and_link_repeat_the_result(visitor):
    """Last of a visit, as the link opens the page anew."""
    page = visitor.bring_example()
    visitor.write("find", "a zebra; a unicorn")
    page.locator("#run-find").click()
    page.locator("#card-find", has_text="a zebra").wait_for()
    found = page.locator("#card-find tbody").inner_text()
    address = link(page)
    page.locator("#make-files").click()
    page.locator("#files a").first.wait_for()
    with page.expect_download() as download:
        page.locator("#files a").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = {name.partition(".")[2]: name for name in archive.namelist()}
        assert set(names) == {"png", "json", "txt", "csv", "coco.json", "npz"}
        assert json.loads(archive.read(names["json"]))["task"] == "ground"
        picture = Image.open(io.BytesIO(archive.read(names["png"])))
        said = archive.read("methods.txt").decode()
    assert picture.height > 448  # the legend is below the image
    for part in ("stub (SHA-256 0123456789ab)", "image SHA-256", "task ground", "layer", "heads"):
        assert part in said, part
    page.goto(address)
    page.locator("#card-find", has_text="a zebra").wait_for()
    assert page.locator("#card-find tbody").inner_text() == found
