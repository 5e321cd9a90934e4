"""Every tab over the stub: what it asks, shows, exports and hands over."""

from __future__ import annotations

import dataclasses
import re
import zipfile

import pytest

from app import limits
from app.html import plain
from app.state import Result, ViewState
from app.tab import Asker
from app.tabs import TABS
from app.tabs.collection import Collection, gathered, unpacked
from x2vlm.errors import MediaError, X2VLMError

GIVEN = {
    "find": {"phrases": "a red car; a unicorn"},
    "describe": {},
    "ask": {"question": "what is it?"},
    "inspect": {"text": "a small dog"},
    "match": {"texts": "a dog\na cat"},
    "compare": {"text": "a small dog"},
}
BY_NAME = {tab.name: tab for tab in TABS}
asking = pytest.mark.parametrize("name", GIVEN)


def pressed(name: str, ask: Asker, **given) -> tuple[Result, ViewState]:
    """A tab's result, and the stage with it in view."""
    tab = BY_NAME[name]()
    result = tab.run(ask, tab.defaults | GIVEN[name] | given)
    state = dataclasses.replace(ask.state, tab=name).with_result(name, result)
    return result, tab.remember(state, result)


def shown(name: str, state: ViewState) -> str:
    return BY_NAME[name]().render(state.results[name], state)


@asking
def test_a_tab_answers_about_an_image(name, ask):
    result, state = pressed(name, ask)
    assert shown(name, state)
    assert result.settings["hash"] == "0123456789ab"


@asking
def test_a_tab_answers_about_a_video(name, ask_video):
    assert shown(name, pressed(name, ask_video)[1])


@asking
def test_hostile_text_comes_back_escaped(name, ask):
    field = next(iter(GIVEN[name]), "prefix")
    assert "<script>" not in shown(name, pressed(name, ask, **{field: "<script>x"})[1])


@pytest.mark.parametrize("name", ["find", "ask", "inspect", "match", "compare"])
def test_empty_text_is_refused_by_the_rule_of_its_field(name):
    (field,) = GIVEN[name]
    with pytest.raises(X2VLMError):
        BY_NAME[name].rules[field]("  ")


@asking
def test_changed_inputs_make_a_result_stale(name, ask):
    tab = BY_NAME[name]()
    values = tab.defaults | GIVEN[name]
    _, state = pressed(name, ask)
    assert "stale" not in tab.told(state, "stub", values)
    field = next(iter(GIVEN[name]), "prefix")
    assert "stale" in tab.told(state, "stub", values | {field: "something else"})
    assert "stale" in tab.told(state, "another model", values)


@asking
def test_a_region_is_told_and_makes_the_old_result_stale(name, ask):
    tab = BY_NAME[name]()
    state = dataclasses.replace(pressed(name, ask)[1], region=(10.0, 10.0, 90.0, 90.0))
    told = tab.told(state, "stub", tab.defaults | GIVEN[name])
    assert "region-on" in told and "stale" in told


@pytest.mark.parametrize(
    "name, task",
    [("describe", "describe_region"), ("ask", "answer_region"), ("match", "match_region")],
)
def test_a_region_is_obeyed(name, task, ask):
    ask.state = dataclasses.replace(ask.state, region=(10.0, 10.0, 90.0, 90.0))
    assert pressed(name, ask)[0].task == task


@pytest.mark.parametrize("name, said", [("find", "IoU"), ("inspect", "region")])
def test_a_region_is_compared_with(name, said, ask):
    ask.state = dataclasses.replace(ask.state, region=(10.0, 10.0, 90.0, 90.0))
    assert said in plain(shown(name, pressed(name, ask)[1]))


@pytest.mark.parametrize("name", ["find", "describe", "ask", "inspect", "compare"])
def test_everything_that_can_be_chosen_has_a_map(name, ask):
    result, state = pressed(name, ask)
    picks = re.findall(r'data-pick="(\d+):(\d*)"', shown(name, state))
    assert picks
    for layer, word in picks:
        explanation = result.layers[int(layer)].explanation
        assert len(explanation.maps) > int(word or 0)


@asking
def test_rows_for_the_table(name, ask):
    tab = BY_NAME[name]()
    rows = tab.export(pressed(name, ask)[0])
    assert rows and len({tuple(row) for row in rows}) == 1


@asking
def test_hand_overs_fill_fields_that_the_target_has(name, ask):
    result, _ = pressed(name, ask)
    for hand in BY_NAME[name].hand_overs:
        given = hand.fill(result)
        assert given and set(given) <= set(BY_NAME[hand.to].defaults)


def test_captions_show_the_score_that_ranks_them(ask):
    text = plain(shown("describe", pressed("describe", ask)[1]))
    assert "Candidates are ranked by the score" in text


def test_low_confidence_is_said_below_the_models_limit(ask):
    result, state = pressed("describe", ask)
    low = dataclasses.replace(result, settings=result.settings | {"sure_from": 0.99})
    assert "Low confidence" in plain(BY_NAME["describe"]().render(low, state))


def test_questions_are_remembered_newest_first(ask):
    state = pressed("ask", ask)[1]
    ask.state = state
    state = pressed("ask", ask, question="is there a dog?")[1]
    assert [row[0] for row in state.asked] == ["is there a dog?", "what is it?"]


def test_compare_tells_both_sides(ask):
    result, state = pressed("compare", ask, other_text="a red car")
    text = plain(shown("compare", state))
    assert len(result.layers) == 2
    assert "a red car" in text and "Correlation" in text


def test_the_images_of_a_zip_are_unpacked_without_their_folders(upload_folder, picture_file):
    archive = upload_folder / "many.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(picture_file, "../../evil/one.png")
        file.write(picture_file, "two.png")
        file.writestr("notes.txt", "no image")
    names = [path.name for path in unpacked(archive)]
    assert names == ["000-one.png", "001-two.png"]


def test_a_collection_is_described_searched_and_sorted(ask, picture_file, phone_photos):
    tab = Collection()
    values = {"files": [str(picture_file), str(phone_photos[1])], "query": "a dog", "rows": None}
    done = tab.each(ask, values, "caption")
    assert all(row.caption for row in done)
    found = tab.each(ask, values | {"rows": done}, "match", ["a dog"])
    assert all(row.match is not None and row.caption for row in found)


def test_a_collection_goes_through_the_model_in_batches(
    ask, picture_file, phone_photos, runner, monkeypatch
):
    lists, work = [], runner._work_each
    monkeypatch.setattr(limits, "BATCH", 2)
    monkeypatch.setattr(
        runner, "_work_each", lambda *call: lists.append(len(call[2])) or work(*call)
    )
    files = [str(picture_file), *map(str, phone_photos.values())]
    done = Collection().each(ask, {"files": files, "query": "", "rows": None}, "caption")
    assert lists == [2, 2, 1] and len(done) == 5


def test_a_zip_with_too_many_or_too_large_images_is_refused(upload_folder, monkeypatch):
    archive = upload_folder / "large.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for k in range(3):
            file.writestr(f"{k}.png", bytes(2**20))
    for limit in ("COLLECTION", "COLLECTION_MEGABYTES"):
        with monkeypatch.context() as patch, pytest.raises(MediaError) as refusal:
            patch.setattr(limits, limit, 2)
            unpacked(archive)
        assert refusal.value.code == "image/bytes"


def test_a_broken_file_of_a_collection_is_named(ask, picture_file, upload_folder):
    broken = upload_folder / "broken.png"
    broken.write_bytes(b"no image")
    values = {"files": [str(broken), str(picture_file)], "query": "", "rows": None}
    first, second = Collection().each(ask, values, "caption")
    assert first.error and not second.error


@pytest.mark.parametrize("files", [[], None])
def test_an_empty_collection_is_refused(files):
    with pytest.raises(MediaError):
        gathered(files, None)
