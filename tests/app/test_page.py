"""The page as Gradio sees it: events, endpoints, checks, texts in three languages."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import gradio as gr
import pytest

from app import build_demo, controls, limits
from app.html import remark
from app.i18n import ERRORS, I18N, LANGUAGES, LOCALES, TEXT, say, t
from app.service.messages import message
from app.service.server import SETTINGS
from app.wiring import checks
from tests.app.stub import StubPredictor
from x2vlm.errors import TextError

APP = Path(__file__).resolve().parents[2] / "app"
GOLDEN = {
    "/caption": [
        "media",
        "num_beams",
        "num_captions",
        "max_new_tokens",
        "do_sample",
        "top_p",
        "temperature",
        "seed",
        "min_length",
        "prefix",
        "region",
        "frames",
    ],
    "/ask": ["media", "question", "choices", "top_k", "mode", "region", "frames"],
    "/ground": ["media", "phrases", "absent_below", "found_from", "frame", "frames"],
    "/explain": ["media", "text", "target", "layer", "method", "head", "answer", "frames"],
    "/match": ["media", "texts", "region", "frames"],
    "/match_over_time": ["media", "text", "frames"],
    "/faithfulness": ["media", "text", "mode", "fill", "frames"],
}


@pytest.fixture(scope="module")
def demo(examples):
    return build_demo(lambda name: StubPredictor(), stored=examples)


def test_public_endpoints_are_these_and_no_others(demo):
    named = demo.get_api_info()["named_endpoints"]
    assert {
        name: [p["parameter_name"] for p in info["parameters"]] for name, info in named.items()
    } == GOLDEN
    assert demo.get_api_info()["unnamed_endpoints"] == {}
    for info in named.values():
        assert len(info["description"]) > 20
        assert "notes: list[str]" in info["returns"][0]["python_type"]["type"]


def test_every_event_says_how_visible_it_is(demo):
    public = {fn.api_name for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert public == {name.strip("/") for name in GOLDEN}
    assert {fn.api_visibility for fn in demo.fns.values()} == {"public", "private"}


def test_model_events_share_one_queue_and_view_events_none(demo):
    queued = [fn for fn in demo.fns.values() if fn.queue and fn.fn]
    assert queued and {fn.concurrency_id for fn in queued} == {"model"}
    assert all(fn.concurrency_limit == limits.AT_ONCE for fn in queued)
    assert [fn for fn in demo.fns.values() if not fn.queue]


def test_validators_give_one_result_an_input(demo):
    checked = [fn for fn in demo.fns.values() if fn.validator and "ask" in str(fn.name)]
    assert len(checked) >= 5
    for fn in checked:
        results = fn.validator(*[""] * len(fn.inputs))
        assert len(results) == len(fn.inputs)
        assert any(
            said["message"]
            for field, said in zip(fn.inputs, results)
            if not isinstance(field, gr.State)
        )


def test_a_rule_marks_its_own_field_without_a_code():
    with gr.Blocks():
        state, field, other = gr.State(), gr.Textbox(), gr.Textbox()

    def needs_text(text):
        raise TextError("Empty.", "text/empty")

    said = checks([state, field, other], {field: needs_text})(None, "", "x")
    assert [result["is_valid"] for result in said] == [True, False, True]
    assert said[1]["message"] == "Empty."


def test_serving_is_private_by_default(demo):
    assert demo.analytics_enabled is False
    assert (
        SETTINGS["run_history"] is False
        and SETTINGS["enable_monitoring"] is False
        and SETTINGS["show_error"] is False
    )
    assert SETTINGS["max_file_size"] == "200mb"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_missing_in_any_language(language):
    assert set(LOCALES[language]) == set(LOCALES["en"])


def test_korean_uses_the_fields_words():
    said = " ".join(LOCALES["ko"].values())
    for wrong in ("지도", "무대", "정점", "표본 추출"):
        assert wrong not in said


@pytest.mark.parametrize("key", TEXT)
def test_text_is_there_in_all_languages(key):
    texts = TEXT[key]
    assert len(texts) == len(LANGUAGES) and all(text.strip() for text in texts)
    fields = [
        {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        for text in texts
    ]
    assert fields[0] == fields[1] == fields[2]


def test_translations_reach_gradio():
    assert (
        I18N.translations["ko"]["x2_find"] == "찾기"
        and I18N.translations["zh"]["x2_find"] == "查找"
    )
    assert t("find").key == "x2_find"
    with pytest.raises(KeyError):
        t("no such text")


def test_html_carries_all_languages_and_escapes_values():
    html = say("twin_plain", name="<b>", width=1, height=2)
    assert [f'lang="{language}"' in html for language in LANGUAGES] == [True] * 3
    assert "<b>" not in html


def test_refusals_are_of_codes_that_exist_and_fall_back_to_english(monkeypatch):
    source = "".join(
        path.read_text() for folder in (APP, APP.parent / "x2vlm") for path in folder.rglob("*.py")
    )
    built = {
        f"{area}/{reason}"
        for area in ("image", "video")
        for reason in re.findall(r"\{(?:area|kind)\}/(\w+)", source)
    }
    written = set(re.findall(r'"(\w+/\w+)"\)', source)) | set(
        re.findall(r'"(\w+/\w+)",?$', source, re.M)
    )
    assert set(ERRORS["ko"]) == set(ERRORS["zh"]) <= built | written
    known, unknown = (
        TextError("The text.", "text/empty"),
        TextError("Some text.", "text/unheard-of"),
    )
    assert message(known) == "The text. [text/empty]"
    monkeypatch.setattr("app.service.messages.language", lambda headers: LANGUAGES.index("ko"))
    assert message(known) == f"{ERRORS['ko']['text/empty']} [text/empty]"
    assert message(unknown) == "Some text. [text/unheard-of]"


def literal_keys() -> set[str]:
    """Keys that the source names; `f"tab_{name}"` and the like count for all that they can
    become."""
    found = set()
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                found |= {key for key in TEXT if key.startswith(node.values[0].value)}
    return found


def test_every_text_is_used():
    codes = {key for key in TEXT if "/" in key}  # of notes about a file
    unused = set(TEXT) - literal_keys() - {"found", "unsure", "absent"} - codes
    assert not unused


def test_every_text_that_is_asked_for_exists():
    asked = set()
    for path in APP.rglob("*.py"):
        asked |= set(re.findall(r"\b(?:t|say|note)\(\"(\w+)\"[,)]", path.read_text()))
    assert asked <= set(TEXT)


def test_app_module_holds_nothing_to_import():
    source = (APP.parent / "app.py").read_text()
    defined = [
        node.name
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert defined == ["load"]
    assert 'if __name__ == "__main__":' in source


def test_official_checkpoints_are_offered_with_their_download_on_ones_own_machine(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    offered = {name: str(label) for label, name in controls.models(("photo", "mini"), True)}
    assert "2.4 GB" in offered["x2vlm_large_1b_vqa"] and "VQA" in offered["x2vlm_large_1b_vqa"]
    assert "xvlm_base_4m" not in offered  # its authors publish no direct link


@pytest.mark.parametrize("open_choice, offline", [(False, ""), (True, "1")])
def test_strangers_and_offline_servers_are_offered_no_download(open_choice, offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    names = [name for _, name in controls.models(("photo", "mini"), open_choice)]
    assert names == ["photo", "mini"]


def test_an_image_outside_the_models_world_is_told_in_every_language():
    told = remark("this does not look like what photo was trained on. [scene/domain]")
    assert "모델이 학습한 것과 다른" in told and "[" not in told
