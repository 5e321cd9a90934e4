"""One encoding for everything gives the losses that each task gives by itself."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train.config import build_task
from train.data.vocabulary import build_tokenizer, learn_vocabulary
from train.tasks.scene import Scene
from x2vlm.config import DecoderConfig, FusionConfig, TextConfig, VisionConfig, X2VLMConfig
from x2vlm.losses import classification_loss, masked_lm_loss
from x2vlm.modeling.build import build_model
from x2vlm.modeling.captioning import X2VLMForCaptioning
from x2vlm.modeling.grounding import X2VLMForGrounding
from x2vlm.modeling.retrieval import X2VLMForRetrieval
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import region_context_mask
from x2vlm.processing import Processor, normalize
from x2vlm.stickers import OBJECT_NAMES, corpus

CONFIG = X2VLMConfig(
    vision=VisionConfig(
        image_size=32,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        layer_scale=None,
        position="sincos",
    ),
    text=TextConfig(
        vocab_size=1000,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_positions=64,
        dropout=0.0,
    ),
    fusion=FusionConfig(num_layers=2, num_heads=2, intermediate_size=32, dropout=0.0),
    decoder=DecoderConfig(num_layers=1, max_positions=16),
    projection_size=8,
    num_frames=3,
    heads=("contrastive", "matching", "box", "masked_lm", "answer_decoder"),
)
SCENES = {"stickers": {"kind": "scene"}}
EVERY_LOSS = dict.fromkeys(Scene.all_losses, 1)


@pytest.fixture(scope="module")
def processor():
    return Processor(CONFIG, build_tokenizer(learn_vocabulary(corpus(2000), 1000), 64))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG).eval()


@pytest.fixture(scope="module")
def task(processor):
    settings = {"type": "scene", "batch_size": 4, "losses": EVERY_LOSS, "data": SCENES}
    task = build_task("scenes", settings)
    task.prepare(processor)
    return task


def test_shared_encoding_gives_the_losses_of_the_single_tasks(task, model):
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(4)])
    visual = normalize(batch["visual"])
    losses = task.training_step(model, batch)
    questions, answers = batch["questions"], batch["answers"]
    ones = torch.ones(12)
    vqa = X2VLMForQuestionAnswering(model)
    fields = (
        questions["input_ids"],
        questions["attention_mask"],
        answers["input_ids"],
        answers["attention_mask"],
    )
    expected = vqa(visual.repeat_interleave(3, 0), *fields, ones, ones.long()).losses["answer_loss"]
    torch.testing.assert_close(losses["answer_loss"], expected)
    writing = X2VLMForCaptioning(model)(visual, **batch["writing"])
    torch.testing.assert_close(losses["caption_loss"], writing.losses["caption_loss"])
    there = torch.tensor([True] * 3 + [False] * 3).repeat(4)
    ids, mask = (batch["phrases"][key][there] for key in ("input_ids", "attention_mask"))
    boxes = X2VLMForGrounding(model)(visual, ids, mask, batch["boxes"].flatten(0, 1))
    torch.testing.assert_close(losses["box_l1_loss"], boxes.losses["box_l1_loss"])
    torch.testing.assert_close(losses["box_giou_loss"], boxes.losses["box_giou_loss"])
    ids, mask = (batch["caption"][key][:4] for key in ("input_ids", "attention_mask"))
    retrieval = X2VLMForRetrieval(model)(visual, ids, mask, batch["caption_positives"])
    torch.testing.assert_close(losses["contrastive_loss"], retrieval.losses["contrastive_loss"])


def test_objects_are_named_from_their_own_patches_alone(task, model):
    """Each name, written from the image with only its box visible, as the region by itself would
    be."""
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(4)])
    loss = task.training_step(model, batch)["object_loss"]
    embeds = model.encode_visual(normalize(batch["visual"])).repeat_interleave(task.objects, 0)
    fields, visible = batch["naming"], region_context_mask(batch["object_patches"].flatten(0, 1))
    texts = model.encode_text(fields["input_ids"], fields["attention_mask"], fields["position_ids"])
    fused = model.fuse(texts, fields["attention_mask"], embeds, visible)
    expected = masked_lm_loss(
        model.masked_lm_logits(fused, fields["masked_positions"]), fields["masked_labels"]
    )
    torch.testing.assert_close(loss, expected, atol=2e-6, rtol=0)
    whole = model.fuse(texts, fields["attention_mask"], embeds)
    seen = masked_lm_loss(
        model.masked_lm_logits(whole, fields["masked_positions"]), fields["masked_labels"]
    )
    assert (seen - expected).abs() > 1e-5


def test_objects_and_their_names_are_contrasted_by_their_patches(task, model):
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(4)])
    loss = task.training_step(model, batch)["object_contrastive_loss"]
    embeds = model.encode_visual(normalize(batch["visual"]))
    seen = batch["object_patches"].bool().flatten(0, 1)
    means = torch.stack(
        [embeds[i // task.objects, 1:][patches].mean(0) for i, patches in enumerate(seen)]
    )
    names = [task.encode(name) for name in OBJECT_NAMES]
    texts = model.encode_text(
        *(task.texts.collate(names)[key] for key in ("input_ids", "attention_mask"))
    )
    logits = model.image_features(means[:, None]) @ model.text_features(texts).T / model.temperature
    torch.testing.assert_close(
        loss, F.cross_entropy(logits, batch["object_names"]), atol=2e-6, rtol=0
    )


def test_a_caption_with_one_error_is_no_match(task, model):
    """Of three captions an image, its own matches, the most similar other and the false one do
    not."""
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(4)])
    torch.manual_seed(0)
    loss = task.training_step(model, batch)["caption_matching_loss"]
    embeds = model.encode_visual(normalize(batch["visual"]))
    mask = batch["caption"]["attention_mask"]
    texts = model.encode_text(batch["caption"]["input_ids"], mask)
    own = torch.arange(4)
    scores = torch.stack(
        [model.match_logits(model.fuse(texts[own + at], mask[own + at], embeds)) for at in (0, 4)]
    )
    by_other = [
        classification_loss(
            torch.stack(
                [
                    *scores.flatten(0, 1),
                    *model.match_logits(model.fuse(texts[list(other)], mask[list(other)], embeds)),
                ]
            ),
            torch.tensor([1] * 4 + [0] * 8),
        )
        for other in product(range(4), repeat=4)
        if all(a != b for a, b in enumerate(other))
    ]
    assert min((loss - expected).abs() for expected in by_other) < 1e-5


def test_a_phrase_matches_where_it_is_and_nowhere_else(processor, model):
    """Its own region yes, the rest no, all but another's region yes, that region no."""
    settings = {
        "type": "scene",
        "batch_size": 6,
        "phrases": 4,
        "losses": {"region_matching_loss": 1},
        "data": SCENES,
    }
    task = build_task("scenes", settings)
    task.prepare(processor)
    batch = task.collate([task.sample(i, np.random.default_rng(i)) for i in range(6)])
    loss = task.training_step(model, batch)["region_matching_loss"]
    embeds = model.encode_visual(normalize(batch["visual"]))
    expected, left_out = {0: [], 1: []}, 0
    for row, regions in enumerate(batch["patch_mask"].bool()):
        cases = [(regions[0], 1), (~regions[1], 0), (~regions[3], 1), (regions[0], 0)]
        for place, (visible, label) in enumerate(cases):
            if place >= 2 and (regions[place] & regions[(place + 1) % 4]).any():
                left_out += 1
                continue
            text = row * (task.phrases + task.absent) + place
            ids, mask = (
                batch["phrases"][name][text : text + 1] for name in ("input_ids", "attention_mask")
            )
            embedded = model.encode_text(ids, mask)
            fused = model.fuse(
                embedded, mask, embeds[row : row + 1], region_context_mask(visible[None])
            )
            expected[label].append(
                classification_loss(model.match_logits(fused), torch.tensor([label]))
            )
    assert left_out and min(map(len, expected.values())) > 5
    torch.testing.assert_close(loss, torch.stack(expected[0] + expected[1]).mean())
