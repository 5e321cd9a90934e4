"""What brings media onto the stage: uploads, frames, examples, fresh scenes, links."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app import cards, panels, viewing
from app import examples as app_examples
from app.arrivals import stored_shown, with_results
from app.state import MediaRef
from app.view import Look
from tests.app.conftest import TURNS
from x2vlm.errors import MediaError, ParameterError, X2VLMError


def test_upload_fills_stage_and_empties_tabs(arrivals, visitor, look, picture_file):
    values = arrivals.upload(visitor, str(picture_file), look, "stub")
    assert values[0].seen.size == (300, 200)
    assert "Name things to look for" in " ".join(
        value for value in values if isinstance(value, str)
    )


def test_emptied_uploader_empties_the_stage(arrivals, visitor, look):
    values = arrivals.upload(visitor, None, look, "stub")
    assert values[0] is None and values[1] is None


@pytest.mark.parametrize(
    "content", [b"", b"x", b"%PDF-1.4", b"<svg onload=alert(1)>", b"GIF89a", bytes(1000)]
)
def test_hostile_upload_gets_a_sentence(content, arrivals, visitor, look, upload_folder):
    path = upload_folder / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(MediaError) as refusal:
        arrivals.upload(visitor, str(path), look, "stub")
    assert str(upload_folder) not in str(refusal.value) and refusal.value.code.startswith("image/")


@pytest.mark.parametrize("orientation", TURNS)
def test_phone_photo_equals_its_upright_twin(
    orientation, arrivals, handlers, visitor, look, phone_photos
):
    """The same boxes, in upright pixels, as the twin that was stored upright."""
    boxes = []
    for path in (phone_photos[orientation], phone_photos[1]):
        shown = arrivals.upload(visitor, str(path), look, "stub")[0]
        assert shown.seen.size == (200, 300)
        assert np.array_equal(
            np.asarray(shown.seen.frames[0]), np.asarray(Image.open(phone_photos[1]))
        )
        data = handlers.find(
            visitor, shown, look, "stub", "a dog", 0.3, 0.7, None, None, None, None
        )[-1]
        boxes.append(data["results"][0]["box_xyxy"])
    assert boxes[0] == boxes[1]


def test_frames_of_a_clip_are_shown_and_changed(arrivals, visitor, look, clip_shown):
    assert len(clip_shown.seen.frames) == 4
    chosen = arrivals.use_frames(visitor, clip_shown, look, "stub", 8, "0, 3 7")[0]
    assert chosen.seen.indices == (0, 3, 7) and chosen.seen.times[1] == pytest.approx(
        0.75, abs=0.01
    )


def test_the_number_of_frames_counts_while_no_frame_is_typed(arrivals, visitor, look, clip_file):
    """What the page itself writes into the field is no choice of the visitor's."""
    shown = arrivals.upload(visitor, str(clip_file), look, "stub")
    (field,) = [value for value in shown if isinstance(value, dict) and "placeholder" in value]
    assert field["placeholder"] == ", ".join(map(str, shown[0].seen.indices)) != ""
    spread = arrivals.use_frames(visitor, shown[0], look, "stub", 2, field["value"])[0]
    assert len(spread.seen.frames) == 2


@pytest.mark.parametrize(
    "numbers", ["one", "-1", "1.5", "99999999999", ",".join(map(str, range(40)))]
)
def test_bad_frame_numbers_are_refused(numbers, arrivals, visitor, look, clip_shown):
    with pytest.raises(ParameterError):
        arrivals.use_frames(visitor, clip_shown, look, "stub", 8, numbers)


def test_frame_that_the_clip_lacks_is_refused(arrivals, visitor, look, clip_shown):
    with pytest.raises(X2VLMError):
        arrivals.use_frames(visitor, clip_shown, look, "stub", 8, "0, 5000")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_new_scene_answers_every_tab_and_tells_the_truth(kind, arrivals, visitor, look):
    values = arrivals.new_scene(visitor, kind, look, "stub")
    shown = values[0]
    assert (
        shown.seen.kind == kind and shown.origin.startswith(f"kind={kind}&scene=") and shown.layers
    )
    assert any("truth" in value for value in values if isinstance(value, str))


def test_scene_is_a_function_of_its_number():
    first, again = (app_examples.fresh_scene("image", 77) for _ in range(2))
    assert np.array_equal(np.asarray(first[0][0]), np.asarray(again[0][0])) and first[1] == again[1]


def test_stored_example_needs_no_model(examples):
    example = examples["scene"]
    shown = stored_shown(example, "stub")
    assert shown.layers and shown.layers[0].explanation.maps.dtype == np.float32
    assert shown.origin == "example=scene"


def test_stored_results_equal_fresh_ones(examples, predictor):
    """What was written and read is what the model said."""
    for example in examples.values():
        scene = predictor.encode(str(example.path))
        fresh = predictor.ground(scene, example.texts.phrases.split("\n"))
        for kept, new in zip(example.results["ground"], fresh, strict=True):
            assert kept.phrase == new.phrase and kept.verdict == new.verdict
            assert kept.box_xyxy == pytest.approx(new.box_xyxy, rel=1e-5)
            assert kept.explanation.words == new.explanation.words
            np.testing.assert_allclose(
                kept.explanation.maps, new.explanation.maps, rtol=1e-5, atol=1e-12
            )


def test_example_of_another_model_is_asked_anew(arrivals, visitor, look, predictor):
    event = SimpleNamespace(index=0)
    arrivals.example(visitor, event, look, "stub")
    assert predictor.calls == ["encode"]
    predictor.info = SimpleNamespace(**(vars(predictor.info) | {"hash": "another"}))
    arrivals.example(visitor, event, look, "stub")
    assert "ground" in predictor.calls


@pytest.mark.parametrize(
    "query, filled",
    [
        ({}, False),
        ({"example": "scene", "tab": "ask"}, True),
        ({"tab": "ask"}, False),
        ({"scene": "12", "kind": "image"}, True),
        ({"example": "../../etc/passwd"}, False),
        ({"scene": "1e9", "kind": "image"}, False),
        ({"scene": "5", "kind": "/etc/passwd"}, False),
        ({"tab": "<script>"}, False),
    ],
)
def test_links(query, filled, arrivals, look):
    request = SimpleNamespace(session_hash="v", query_params=query)
    values = arrivals.arrive(request, look, "stub")
    assert isinstance(values, list) if filled else values == gr.skip()


def test_first_paint_of_another_model_is_asked_anew(arrivals, visitor, look, predictor):
    assert arrivals.arrive(visitor, look, "stub") == gr.skip()
    predictor.info = SimpleNamespace(**(vars(predictor.info) | {"hash": "another"}))
    values = arrivals.arrive(visitor, look, "stub")
    assert values[0].origin == "example=scene" and "ground" in predictor.calls


@pytest.mark.parametrize("older", ["picture", "not a picture", "link", "first paint"])
def test_an_upload_counts_more_than_what_was_under_way(
    older, arrivals, visitor, look, predictor, picture_file, clip_file, upload_folder, monkeypatch
):
    """What is older changes nothing any more when it ends, and says nothing either."""
    (upload_folder / "bad.png").write_bytes(b"x")
    predictor.info = SimpleNamespace(**(vars(predictor.info) | {"hash": "another"}))
    linked = SimpleNamespace(session_hash="visitor", query_params={"scene": "12", "kind": "image"})
    begin = {
        "picture": lambda: arrivals.upload(visitor, str(picture_file), look, "stub"),
        "not a picture": lambda: arrivals.upload(
            visitor, str(upload_folder / "bad.png"), look, "stub"
        ),
        "link": lambda: arrivals.arrive(linked, look, "stub"),
        "first paint": lambda: arrivals.arrive(visitor, look, "stub"),
    }[older]
    newer = []

    def meanwhile(path: str) -> MediaRef:
        monkeypatch.setattr("app.arrivals.MediaRef", MediaRef)
        newer.append(arrivals.upload(visitor, str(clip_file), look, "stub"))
        return MediaRef(path)

    monkeypatch.setattr("app.arrivals.MediaRef", meanwhile)
    assert begin() == gr.skip()
    assert newer[0][0].seen.kind == "video"


def test_an_arrival_stops_the_one_before_and_what_was_asked_meanwhile(
    arrivals, visitor, look, runner, picture_file
):
    with runner.jobs.job("visitor") as asked, runner.jobs.job("another") as elsewhere:
        assert arrivals.arrive(visitor, look, "stub") == gr.skip()
        assert not asked.is_set()  # nothing arrived
        older = arrivals.newest["visitor"] = threading.Event()
        assert arrivals.upload(visitor, str(picture_file), look, "stub")[0]
        assert older.is_set() and asked.is_set() and not elsewhere.is_set()


def test_model_status_greys_tabs_with_a_reason(arrivals, predictor):
    predictor.missing["ground"] = "This checkpoint has no box head."
    head, note, lacks, *rest = arrivals.model_status("stub")
    assert (
        "stub" in head
        and "stand-in" in note
        and lacks["visible"]
        and "no box head" in lacks["value"]
    )
    assert '<span lang="ko">이 모델에 없음: ground.' in lacks["value"]
    assert [tab["interactive"] for tab in rest[:5]] == [True, True, False, True, True]
    layers, heads = rest[-2:]
    assert layers == gr.update(choices=["default", "mean", "0", "1", "2"], value="default")
    assert heads == gr.update(choices=["default", "max", "0", "1", "2", "3"], value="default")


def test_a_clip_opens_at_the_frame_that_was_searched(clip_shown):
    example = app_examples.load_examples()["clip"]
    found = example.results["ground"]
    assert found[0].frame
    shown = with_results(clip_shown, example.results, "mini")
    assert shown.frame == found[0].frame and shown.heat is not None


def test_every_stored_result_is_kept_for_its_tab(examples):
    """So that hand-offs of the first paint are of their own tab, not of what is on the stage."""
    example = examples["scene"]
    shown = stored_shown(example, "stub")
    assert shown.task == "ground" and set(shown.kept) == {
        "describe",
        "ask",
        "find",
        "inspect",
        "match",
    }
    assert viewing.caption_to_find(shown)[0] == viewing.phrases_of(
        example.results["caption"][0].text
    )
    assert viewing.text_to_inspect("ask")(shown)[0] == example.texts.question
    best = max(example.results["match"], key=lambda match: match.probability).text
    assert viewing.text_to_inspect("match")(shown)[0] == best
    of_inspect = viewing.choose_own_word("inspect")(shown, Look(), SimpleNamespace(index=0))[0]
    assert of_inspect.explanation is example.results["explain"]
    everything = " ".join(
        value for value in panels.everything(example.results, shown.seen) if isinstance(value, str)
    )
    assert everything.index(best, everything.index("matches")) == min(
        everything.index(text, everything.index("matches"))
        for text in example.texts.texts.split("\n")
    )


def test_the_note_of_mini_is_told_in_the_visitors_language(arrivals, predictor):
    settings = app_examples.FOLDER.parent / "mini" / "predictor.json"
    predictor.info = SimpleNamespace(
        **(vars(predictor.info) | {"note": json.loads(settings.read_text())["note"]})
    )
    assert "mini는 스티커 세계만" in arrivals.model_status("stub")[1]
    predictor.info.note = "knows photographs"
    assert arrivals.model_status("stub")[1].count("knows photographs") == 3


def test_what_is_odd_about_a_file_is_told_in_the_visitors_language():
    """By the code at its end; a sentence without a known code stays as it is."""
    told = cards.remark("clip.mp4: the file ends early: 7 frames could be read. [video/partial]")
    assert (
        "7 frames could be read" in told
        and "只能读取视频的一部分" in told
        and 'class="warn"' in told
    )
    assert cards.remark("<b>").count("&lt;b&gt;") == 3


def test_bundled_examples_are_complete():
    """Whatever is bundled has its file and one result for every tab."""
    bundled = app_examples.load_examples()
    if not bundled:
        pytest.skip("assets/examples is not built: python -m app.examples")
    assert [name for name, _, _ in app_examples.BUNDLED] == list(bundled)
    for example in bundled.values():
        assert example.path.is_file() and set(example.results) == set(app_examples.RESULTS)
        assert json.loads((Path(app_examples.FOLDER) / f"{example.name}.json").read_text())["model"]
