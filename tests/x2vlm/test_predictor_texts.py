"""Every text of the bad-input catalogue through every method that takes one."""

import dataclasses
import json

import numpy as np
import pytest

from tests.bad_inputs import ACCEPT, REFUSE, text_cases
from x2vlm.errors import ParameterError, TextError, X2VLMError
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import build_model
from x2vlm.processing import Processor


@pytest.fixture(scope="module")
def scene(tiny_predictor):
    return tiny_predictor.encode(
        np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    )


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
            # A text that names nothing can be scored, and not explained.
            known = {"text/unknown", *(["text/empty"] if name.startswith("explain") else [])}
            assert case.expect != ACCEPT or error.code in known, f"{name}: {error}"
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
    for choices in (
        ["", "red"],
        [None],
        [["a"]],
        ["\u200b"],
        [7],
        ["a b c d e f g h i j k l m n o p q r s"],
    ):
        with pytest.raises(X2VLMError, match=r"text/|param/"):
            tiny_predictor.answer(scene, "what?", choices=choices)


def test_an_answer_beyond_the_decoder_is_refused(tiny_config, tiny_processor, scene):
    config = dataclasses.replace(
        tiny_config, decoder=dataclasses.replace(tiny_config.decoder, max_positions=512)
    )
    predictor = Predictor.from_model(build_model(config), tiny_processor)
    assert predictor.answer(scene, "what?", choices=["red " * 510, "blue"]).best
    with pytest.raises(TextError, match=r"512 tokens .*text/long"):
        predictor.answer(scene, "what?", choices=["red " * 511, "blue"])


def test_truncation_shows_in_every_result(tiny_predictor, tiny_model, tiny_tokenizer, scene):
    text = "red car " * 30
    cut = 18 * 4
    assert tiny_predictor.answer(scene, text).truncated_at == 50 * 4  # questions: 50 words
    assert tiny_predictor.ground(scene, text)[0].truncated_at == cut
    assert tiny_predictor.match(scene, text)[0].truncated_at == cut
    assert tiny_predictor.explain(scene, text).truncated_at == cut
    assert tiny_predictor.explain(scene, text, target="caption").truncated_at == cut
    roomy = Predictor.from_model(
        tiny_model, Processor(tiny_model.config, tiny_tokenizer, max_tokens=64)
    )
    explanation = roomy.explain(
        scene, text, target="caption"
    )  # the prompt takes 3 of the model's 64 tokens
    assert explanation.truncated_at == 58 * 4 and len(explanation.words) == 58 == len(
        explanation.maps
    )
    shorter = tiny_predictor.match(scene, text[:cut])[0]
    assert shorter.truncated_at is None
    assert shorter.probability == pytest.approx(
        tiny_predictor.match(scene, text)[0].probability, abs=1e-6
    )
