"""Every text of the bad-input catalogue through every method that takes one."""

import json

import numpy as np
import pytest

from tests.bad_inputs import ACCEPT, REFUSE, text_cases
from x2vlm.errors import ParameterError, TextError, X2VLMError


@pytest.fixture(scope="module")
def scene(tiny_predictor):
    return tiny_predictor.encode(np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def calls(predictor, scene, text):
    return {
        "ground": lambda: predictor.ground(scene, [text])[0],
        "match": lambda: predictor.match(scene, [text])[0],
        "answer": lambda: predictor.answer(scene, text),
        "explain": lambda: predictor.explain(scene, text),
        "explain caption": lambda: predictor.explain(scene, text, target="caption"),
        "explain answer": lambda: predictor.explain(scene, text, target="answer"),
    }


@pytest.mark.parametrize("case", text_cases(), ids=lambda case: case.id)
def test_text_gets_its_outcome(tiny_predictor, scene, case):
    for name, call in calls(tiny_predictor, scene, case.text).items():
        try:
            result = call()
        except TextError as error:
            # The tiny vocabulary lacks whole scripts; that it knows no word of a text is said.
            assert case.expect != ACCEPT or error.code == "text/unknown", f"{name}: {error}"
            assert not case.code or error.code.startswith(case.code), f"{name}: {error}"
            assert len(error.message) < 300 and "0x" not in error.message
            continue
        assert case.expect != REFUSE, name
        json.dumps(result.to_dict()).encode("utf-8")
        if len(case.text) > 200:
            assert result.truncated_at is not None or len(case.text.split()) == 1, name


def test_lone_text_and_list_of_wrong_things(tiny_predictor, scene):
    for texts in ([], (), 7, None, {"a": 1}):
        with pytest.raises((TextError, ParameterError)):
            tiny_predictor.match(scene, texts)
    with pytest.raises(ParameterError, match="param/range"):
        tiny_predictor.match(scene, ["a dog"] * 1001)


def test_choices_are_texts_too(tiny_predictor, scene):
    for choices in (["", "red"], [None], ["\u200b"], [7], ["a b c d e f g h i j k l m n o p q r s"]):
        with pytest.raises(X2VLMError, match=r"text/|param/"):
            tiny_predictor.answer(scene, "what?", choices=choices)


def test_truncation_shows_in_every_result(tiny_predictor, scene):
    text = "red car " * 30
    cut = 18 * 4
    assert tiny_predictor.answer(scene, text).truncated_at == cut
    assert tiny_predictor.ground(scene, text)[0].truncated_at == cut
    assert tiny_predictor.match(scene, text)[0].truncated_at == cut
    assert tiny_predictor.explain(scene, text).truncated_at == cut
    shorter = tiny_predictor.match(scene, text[:cut])[0]
    assert shorter.truncated_at is None
    assert shorter.probability == pytest.approx(tiny_predictor.match(scene, text)[0].probability, abs=1e-6)
