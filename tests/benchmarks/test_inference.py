"""The benchmark's functions run at toy size and do the work they claim; speed itself is never
asserted."""

import json

import pytest
import torch

from benchmarks import inference
from benchmarks.timing import median_ratio, take_turns


@pytest.fixture
def config(tiny_config):
    return tiny_config.replace(num_frames=0)


@pytest.mark.parametrize(
    "measure", [inference.caption, inference.second_phrase, inference.ranking, inference.explaining]
)
def test_measures_run(measure, config):
    measured = measure(config, rounds=1)
    assert len(measured) == (2 if measure is inference.caption else 1)
    assert all(0 < m.ratio < float("inf") for m in measured)


@pytest.mark.skipif(
    not inference.Path("/proc/self/status").exists(), reason="peak memory is read from /proc"
)
def test_loading_measures_memory(config):
    assert inference.loading(config)[0].ratio > 0


def test_the_peer_and_our_model_write_equally_many_tokens(config):
    model, image = inference.fresh_model(config, "masked_lm"), inference.random_input(config)
    prompt = torch.tensor([inference.PROMPT])
    with torch.no_grad():
        ours = inference.write_caption(model, model.encode_image(image), prompt)[0][0]
    assert len(ours.token_ids) == inference.NEW_TOKENS
    ids = torch.tensor([[*inference.PROMPT, inference.END_ID]])
    written = inference.blip_like(config).generate(
        pixel_values=image,
        input_ids=ids,
        num_beams=3,
        min_new_tokens=20,
        max_new_tokens=20,
        do_sample=False,
    )
    assert written.shape[1] == len(inference.PROMPT) + inference.NEW_TOKENS


def test_answers_have_one_to_three_pieces():
    ids = inference.random_answers(50, 60)
    assert set((ids != 0).sum(1).tolist()) == {3, 4, 5}
    assert ((ids == inference.END_ID).sum(1) == 1).all()


def test_bars_know_their_direction():
    assert inference.Measurement("speed", 1.4, 1.3, True).passed
    assert not inference.Measurement("cost", 1.4, 1.3, False).passed


def test_turns_alternate_and_ratios_are_paired():
    order = []
    seconds = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert len(seconds["a"]) == 2
    assert median_ratio([2, 8, 3], [1, 2, 3]) == 2


def test_json_output(monkeypatch, capsys):
    monkeypatch.setattr(
        inference,
        "MEASURES",
        {"loading": lambda: [inference.Measurement("loading", 1.1, 1.2, False)]},
    )
    assert inference.main(["--only", "loading", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["passed"] is True
