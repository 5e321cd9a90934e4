"""Tasks of benchmarks that choose: answers of a question (NExT-QA), attributes of a box (OVAD), the
image that a text tells of (X-VLM's stage before NLVR2)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from train.config import build_task
from train.tasks.text_assignment import FIRST, NEITHER, SECOND, assign
from x2vlm.errors import ConfigError, DataError
from x2vlm.metrics import average_precision
from x2vlm.modeling.build import build_model
from x2vlm.processing import Processor


def task_over(kind, folder, entries, processor, **settings):
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(folder / f"{colour}.png")
    (folder / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    data = {"files": [str(folder / "data.jsonl")], "format": settings.pop("format", kind)}
    task = build_task(
        "it", {"type": kind, "batch_size": 2, "data": data, "validation": {"v": data}} | settings
    )
    task.open_data()
    task.prepare(processor)
    return task


def batch_of(task):
    return task.collate([task.sample(i, np.random.default_rng(i)) for i in range(2)])


@pytest.fixture
def processor(tiny_config, tiny_tokenizer):
    return Processor(tiny_config, tiny_tokenizer)


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return build_model(tiny_config)


def choice(label, kinds=(), **changed):
    entry = {"image": "red.png", "question": "what is it", "choices": ["a dog", "a cat"]}
    return entry | {"label": label, "kinds": list(kinds)} | changed


def test_choices_are_learnt_and_counted_by_kind(processor, model, tmp_path):
    entries = [choice(0, ["C", "CW"]), choice(1, ["C", "CH"])]
    losses = {"choice_loss": 1}
    task = task_over("multiple_choice", tmp_path, entries, processor, losses=losses)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    first = task.collate([task.sample(0, np.random.default_rng(0))] * 2)
    for _ in range(10):
        loss = task.training_step(model, first)["choice_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < np.log(2) / 2
    with torch.no_grad():
        found = task.evaluate(model.eval())
    # one image and one question: what was learnt for the first is wrong for the second
    assert found["v_accuracy_CW"] == 1 and found["v_accuracy_CH"] == 0
    assert found["v_accuracy_C"] == found["v_accuracy"] == 0.5


def test_bad_choices_are_named(processor, tmp_path):
    with pytest.raises(DataError, match=r"data.jsonl, line 1: The label 2 is none of 0 to 1"):
        task_over("multiple_choice", tmp_path, [choice(2)], processor)
    uneven = [choice(0), choice(0, choices=["a", "b", "c"])]
    task = task_over("multiple_choice", tmp_path, uneven, processor)
    with pytest.raises(DataError, match="more choices than others"):
        batch_of(task)


class FeaturesOfColour(torch.nn.Module):
    """The first number of a feature is how red an image is, or that a text says "red"."""

    def __init__(self, config, red_id: int):
        super().__init__()
        self.config, self.red_id = config, red_id
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode_visual(self, visual):
        return visual[:, 0].mean(dim=(1, 2))

    def image_features(self, embeds):
        return torch.stack([embeds, -embeds], dim=1)

    def encode_text(self, input_ids, attention_mask):
        return (input_ids == self.red_id).any(dim=1).float()

    def text_features(self, embeds):
        return torch.stack([embeds, 1 - embeds], dim=1)


def test_attributes_of_boxes(processor, tiny_config, tmp_path):
    named = [
        {"name": "color:red", "group": "head", "texts": ["red", "a red"]},
        {"name": "color:blue", "group": "tail", "texts": ["blue"]},
        {"name": "color:green", "group": "tail", "texts": ["green"]},
    ]
    (tmp_path / "names.json").write_text(json.dumps(named))
    box = {"box": [8, 8, 20, 20]}
    entries = [
        {"image": "red.png", "attributes": [1, 1, 0], **box},  # the second label is wrong
        {"image": "blue.png", "attributes": [0, 1, -1], **box},
        {"image": "red.png", "attributes": [-1, 0, 0], **box},
    ]
    names = str(tmp_path / "names.json")
    task = task_over("attributes", tmp_path, entries, processor, attribute_list=names)
    red = processor.pieces("red")[0]
    found = task.evaluate(FeaturesOfColour(tiny_config, red))
    # blue: the blue image first, then two equal red ones of which one is labelled so
    blue = 0.5 * 1 + 0.5 * 2 / 3
    assert found["v_map_head"] == 1 and found["v_map_tail"] == pytest.approx(blue)
    assert found["v_map"] == pytest.approx((1 + blue) / 2)  # no box is green
    short = [entry | {"attributes": [1, 0]} for entry in entries]
    task = task_over("attributes", tmp_path, short, processor, attribute_list=names)
    with pytest.raises(DataError, match="tell of 2 attributes, the list has 3"):
        task.evaluate(FeaturesOfColour(tiny_config, red))


def test_average_precision_as_in_scikit_learn():
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    assert average_precision(scores, np.array([False, False, True, True])) == pytest.approx(5 / 6)
    ties = np.array([0.5, 0.5, 0.5])
    assert average_precision(ties, np.array([True, False, False])) == pytest.approx(1 / 3)


def test_text_assignment_shows_the_own_image_where_the_answer_says(processor, tmp_path):
    torch.manual_seed(0)
    first, second, labels = assign(torch.rand(300, 300))
    own = torch.arange(300)
    assert torch.equal(first == own, labels == FIRST)
    assert torch.equal(second == own, labels == SECOND)
    assert all(60 < (labels == answer).sum() < 140 for answer in (FIRST, SECOND, NEITHER))
    entries = [{"image": f"{name}.png", "caption": name} for name in ("red", "blue")]
    with pytest.raises(ConfigError, match="twin_layers"):
        task_over("text_assignment", tmp_path, entries, processor, format="image_text")


def test_text_assignment_trains_twin_layers(tiny_config, tiny_tokenizer, tmp_path):
    fusion = replace(tiny_config.fusion, twin_layers=True)
    heads = ("contrastive", "classification")
    config = tiny_config.replace(fusion=fusion, heads=heads, num_labels=3)
    processor, model = Processor(config, tiny_tokenizer), build_model(config)
    entries = [{"image": f"{name}.png", "caption": name} for name in ("red", "blue")]
    losses = {"assignment_loss": 1}
    task = task_over(
        "text_assignment", tmp_path, entries, processor, format="image_text", losses=losses
    )
    loss = task.training_step(model, batch_of(task))["assignment_loss"]
    loss.backward()
    assert torch.isfinite(loss)
    for layer in model.fusion_encoder.layers:
        assert layer.cross_attention.query.weight.grad.abs().sum() > 0
