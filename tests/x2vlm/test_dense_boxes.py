"""The dense box head: what patches say, how they agree, and that a model with it finds boxes by
it."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.x2vlm.test_checkpoint import make_config
from x2vlm.checkpoint import save_model
from x2vlm.errors import CheckpointError
from x2vlm.modeling.build import build_model, load_model
from x2vlm.modeling.dense_boxes import elect_boxes

HEADS = ("contrastive", "matching", "box", "dense_box")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(make_config(heads=HEADS)).eval()


def embeds_of(model, images, texts):
    vision, text = model.config.vision, model.config.text
    patches = vision.grid_size[0] * vision.grid_size[1]
    return (
        torch.randn(images, 1 + patches, vision.hidden_size),
        torch.randn(texts, 5, text.hidden_size),
    )


def test_every_phrase_of_an_image_has_a_score_and_a_box_at_every_patch(model):
    image, text = embeds_of(model, 2, 6)
    scores, boxes = model.dense_boxes(image, text)
    patches = image.shape[1] - 1
    assert scores.shape == (6, patches) and boxes.shape == (6, patches, 4)
    alone_scores, alone_boxes = model.dense_boxes(image[1:], text[4:5])
    torch.testing.assert_close(alone_scores[0], scores[4])
    torch.testing.assert_close(alone_boxes[0], boxes[4])


def test_a_box_holds_the_patch_that_tells_it(model):
    _, boxes = model.dense_boxes(*embeds_of(model, 1, 3))
    centres = model.dense_box_head.centres
    assert (boxes[..., :2] <= centres).all() and (boxes[..., 2:] >= centres).all()


def test_the_box_that_most_shares_agree_on_is_taken():
    right, near, far = [0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9]
    boxes = torch.tensor([[far, right, near, right]])
    scores = torch.tensor([[0.4, 0.25, 0.2, 0.15]]).log()
    torch.testing.assert_close(elect_boxes(scores, boxes)[0], torch.tensor(right))


def test_an_elected_box_stays_on_the_image():
    boxes = torch.tensor([[[-0.3, 0.2, 0.4, 1.6]]])
    assert elect_boxes(torch.zeros(1, 1), boxes).tolist()[0] == pytest.approx([0, 0.2, 0.4, 1])


def test_a_model_without_the_head_reads_the_fused_token(model):
    plain = build_model(make_config(heads=HEADS[:3])).eval()
    image, text = embeds_of(plain, 1, 2)
    torch.testing.assert_close(plain.locate(image, None, text), plain.predict_boxes(text))
    with pytest.raises(CheckpointError, match="dense box"):
        plain.dense_boxes(image, text)


def test_a_model_with_the_head_does_not(model):
    image, text = embeds_of(model, 1, 2)
    found = model.locate(image, text, torch.full_like(text, torch.nan))
    assert np.isfinite(found.detach().numpy()).all()


def test_the_head_is_saved_and_loaded(model, tmp_path):
    save_model(model, tmp_path)
    loaded = load_model(tmp_path).model
    assert loaded.config.heads == model.config.heads
    image, text = embeds_of(model, 1, 2)
    for one, other in zip(
        model.dense_boxes(image, text), loaded.dense_boxes(image, text), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_patches_are_those_of_an_oblong_image():
    config = make_config(heads=HEADS)
    oblong = dataclasses.replace(config.vision, image_size=(64, 32))
    model = build_model(config.replace(vision=oblong))
    assert model.dense_box_head.centres.shape == (8, 2)
    assert model.dense_box_head.centres[0].tolist() == [0.25, 0.125]
