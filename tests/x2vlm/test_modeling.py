"""Properties of the model: single = batched, cached = uncached, fused = explicit, and every tower
and head wired up."""

import dataclasses

import pytest
import torch
from timm.models.beit import Attention

from x2vlm.config import TextConfig, VisionConfig
from x2vlm.errors import CheckpointError, ParameterError
from x2vlm.inference.generation import beam_search
from x2vlm.modeling.build import build_model
from x2vlm.modeling.captioning import CaptionDecoder
from x2vlm.modeling.classification import X2VLMForClassification, X2VLMForPairReasoning
from x2vlm.modeling.grounding import X2VLMForGrounding
from x2vlm.modeling.layers import AttentionRecord
from x2vlm.modeling.pretraining import X2VLMForPretraining
from x2vlm.modeling.retrieval import X2VLMForRetrieval
from x2vlm.modeling.task import match_against_negatives
from x2vlm.modeling.vision import RelativeAttention, VisionEncoder, build_tower, pool_regions
from x2vlm.modeling.vqa import AnswerStepDecoder, X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import region_context_mask

MASK, END = 4, 3


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(0)
    config = dataclasses.replace(
        tiny_config, heads=(*tiny_config.heads, "classification"), num_labels=5
    )
    model = build_model(config).eval()
    with (
        torch.no_grad()
    ):  # spread-out weights, so that a mix-up of rows or positions is visible in the outputs
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def batch(model):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {
        "image": torch.randn(3, 3, 64, 64, generator=generator),
        "ids": ids * mask,
        "mask": mask,
    }


def fuse(model, batch, rows=slice(None), **options):
    text = model.encode_text(batch["ids"][rows], batch["mask"][rows])
    return model.fuse(
        text, batch["mask"][rows], model.encode_image(batch["image"][rows]), **options
    )


@torch.no_grad()
def test_one_at_a_time_equals_a_batch(model, batch):
    together = fuse(model, batch)
    for row in range(3):
        close(fuse(model, batch, slice(row, row + 1)), together[row : row + 1])


@torch.no_grad()
def test_padding_changes_nothing(model, batch):
    short = {
        "image": batch["image"][1:2],
        "ids": batch["ids"][1:2, :4],
        "mask": batch["mask"][1:2, :4],
    }
    close(fuse(model, short), fuse(model, batch)[1:2, :4])


@torch.no_grad()
def test_several_texts_share_one_image(model, batch):
    text = model.encode_text(batch["ids"], batch["mask"])
    image = model.encode_image(batch["image"][:1])
    close(
        model.fuse(text, batch["mask"], image),
        model.fuse(text, batch["mask"], image.expand(3, -1, -1)),
    )


@torch.no_grad()
def test_fused_attention_equals_explicit(model, batch):
    record = AttentionRecord()
    close(fuse(model, batch, attend=record), fuse(model, batch))
    assert [p.shape for p in record.probabilities] == [(3, 2, 7, 17)] * 3
    close(record.probabilities[0].sum(-1), torch.ones(3, 2, 7))
    shared = AttentionRecord()
    text = model.encode_text(batch["ids"], batch["mask"])
    image = model.encode_image(batch["image"][:1])
    close(
        model.fuse(text, batch["mask"], image, attend=shared),
        model.fuse(text, batch["mask"], image),
    )
    assert shared.probabilities[0].shape == (3, 2, 7, 17)


@torch.no_grad()
def test_hidden_patches_are_not_attended(model, batch):
    mask = torch.ones(3, 17, dtype=torch.bool)
    mask[:, 5:] = False
    record = AttentionRecord()
    fuse(model, batch, context_mask=mask, attend=record)
    assert record.probabilities[0][..., 5:].abs().max() == 0


@torch.no_grad()
def test_one_frame_and_many(model, batch):
    video = batch["image"][:2][None]
    frames = torch.stack([model.encode_image(frame) for frame in video[0].split(1)], dim=1)
    places = torch.tensor(
        [0, 2]
    )  # two frames read the positions of a model with four at even distances
    close(model.encode_video(video), (frames + model.frame_positions[:, places]).mean(1))


@torch.no_grad()
def test_relative_attention_is_that_of_timm():
    timm_attention = Attention(32, 2, qkv_bias=True, window_size=(4, 3))
    for parameter in timm_attention.parameters():
        parameter.normal_()
    x = torch.randn(2, 13, 32)
    close(RelativeAttention(timm_attention)(x), timm_attention(x))


def test_the_blocks_share_one_position_index_wherever_they_are_moved():
    config = VisionConfig(image_size=64, hidden_size=32, num_layers=2, num_heads=2)
    encoder = VisionEncoder(build_tower(config), config).to("meta")
    first, second = (block.attn.relative_position_index for block in encoder.tower.blocks)
    assert first is second and first.device.type == "meta"


def test_region_pooling_is_a_masked_mean():
    embeds = torch.arange(24.0).view(2, 4, 3)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    regions = pool_regions(embeds, mask, torch.tensor([1, 0]))
    close(regions[0, 0], embeds[1, [1, 3]].mean(0))
    close(regions[1, 0], embeds[0, 2])
    close(regions[:, 1:], embeds[[1, 0], 1:])
    assert region_context_mask(mask).tolist() == [
        [True, True, False, True],
        [True, False, True, False],
    ]


class UncachedCaptioner:
    """What `CaptionDecoder` must agree with: every step from the first token, one beam per image
    copy."""

    def __init__(self, model, image_embeds):
        self.model, self.embeds, self.tokens = model, image_embeds, None

    def step(self, token_ids):
        self.tokens = token_ids if self.tokens is None else torch.cat([self.tokens, token_ids], 1)
        ids = torch.cat([self.tokens, self.tokens.new_full((len(self.tokens), 1), MASK)], 1)
        mask = torch.ones(1, ids.shape[1], ids.shape[1]).tril()
        embeds = self.embeds.repeat_interleave(len(ids) // len(self.embeds), 0)
        fused = self.model.fuse(self.model.encode_text(ids, mask), mask, embeds)
        return self.model.masked_lm_head(fused[:, -1])

    def reorder(self, rows):
        self.tokens = self.tokens[rows]


@torch.no_grad()
@pytest.mark.parametrize("num_beams", [1, 3])
def test_caption_cache_changes_nothing(model, batch, num_beams):
    embeds, prompt = model.encode_image(batch["image"]), batch["ids"][:, :3]
    options = {
        "end_id": END,
        "num_beams": num_beams,
        "max_new_tokens": 8,
        "min_length": 3,
        "no_repeat_ngram_size": 2,
    }
    cached = beam_search(CaptionDecoder(model, embeds, MASK), prompt, **options)
    plain = beam_search(UncachedCaptioner(model, embeds), prompt, **options)
    for ours, theirs in zip(cached, plain):
        assert ours[0].token_ids == theirs[0].token_ids
        assert ours[0].score == pytest.approx(theirs[0].score, abs=1e-4)


@torch.no_grad()
def test_caption_of_a_batch_equals_one_by_one(model, batch):
    embeds, prompt = model.encode_image(batch["image"]), batch["ids"][:1, :3].expand(3, -1)
    together = beam_search(
        CaptionDecoder(model, embeds, MASK), prompt, end_id=END, max_new_tokens=6
    )
    for row in range(3):
        alone = beam_search(
            CaptionDecoder(model, embeds[row : row + 1], MASK),
            prompt[:1],
            end_id=END,
            max_new_tokens=6,
        )
        assert alone[0][0].token_ids == together[row][0].token_ids


@torch.no_grad()
def test_answer_ranking_equals_scoring_each_answer(model, batch):
    vqa = X2VLMForQuestionAnswering(model)
    states = vqa.read_question(model.encode_image(batch["image"]), batch["ids"], batch["mask"])
    answers = torch.tensor([[2, 9, 3, 0], [2, 10, 11, 3], [2, 12, 3, 0], [2, 9, 20, 3]])
    mask = (answers != 0).long()
    index, probability = vqa.rank_answers(states, batch["mask"], answers, mask, k=4)
    decoder = model.answer_decoder
    for row in range(3):
        contexts = decoder.project_context(states[row : row + 1])
        scores = []
        for ids in answers:
            ids = ids[ids != 0][None]
            hidden = decoder(ids[:, :-1], contexts, batch["mask"][row : row + 1])
            tokens = decoder.head(hidden).log_softmax(-1).gather(2, ids[:, 1:, None])[0, :, 0]
            scores.append(tokens.sum() + tokens[0])
        expected, order = torch.stack(scores).softmax(0).sort(descending=True)
        assert index[row].tolist() == order.tolist()
        close(probability[row], expected)


@torch.no_grad()
def test_generated_answers_follow_the_decoder(model, batch):
    states = X2VLMForQuestionAnswering(model).read_question(
        model.encode_image(batch["image"]), batch["ids"], batch["mask"]
    )
    start = torch.full((3, 1), 2)
    best = beam_search(
        AnswerStepDecoder(model, states, batch["mask"]),
        start,
        end_id=END,
        num_beams=1,
        max_new_tokens=4,
    )
    contexts = model.answer_decoder.project_context(states)
    for row in range(3):
        ids = torch.tensor([[2, *best[row][0].token_ids]])
        one = [(key[row : row + 1], value[row : row + 1]) for key, value in contexts]
        logits = model.answer_decoder.head(
            model.answer_decoder(ids[:, :-1], one, batch["mask"][row : row + 1])
        )
        assert logits[0].argmax(-1).tolist() == ids[0, 1:].tolist()


def test_every_parameter_learns_from_the_tasks_together(model, batch):
    image, ids, mask = batch["image"], batch["ids"], batch["mask"]
    masked = {
        "masked_positions": torch.tensor([[1], [2], [3]]),
        "masked_labels": torch.tensor([[7], [8], [9]]),
    }
    outputs = [
        X2VLMForPretraining(model)(image[:, None], ids, mask, ids, **masked),
        X2VLMForPretraining(model).forward_regions(
            image, torch.arange(3), torch.rand(3, 16) > 0.5, ids, mask, ids, **masked,
            target_boxes=torch.rand(3, 4), is_image=torch.tensor([False, True, False]),
        ),
        X2VLMForPretraining(model).forward_text(ids, mask, **masked),
        X2VLMForRetrieval(model)(image, ids, mask, torch.tensor([0, 0, 1])),
        X2VLMForGrounding(model)(image, ids, mask, torch.rand(3, 4)),
        X2VLMForQuestionAnswering(model)(image, ids, mask, ids, mask, torch.ones(3),
        torch.tensor([1, 0, 2])),
        X2VLMForPairReasoning(model)(image[:2], ids[:1], mask[:1], torch.tensor([1])),
        X2VLMForClassification(model)(image, ids, mask, torch.tensor([4, -100, 0])),
    ]  # fmt: skip
    total = sum(loss for output in outputs for loss in output.losses.values())
    assert torch.isfinite(total)
    model.zero_grad()
    total.backward()
    fixed = {"vision.tower.pos_embed"}
    without = {
        name for name, parameter in model.named_parameters() if parameter.grad is None
    } - fixed
    assert not without
    model.zero_grad()


def test_parallel_text_uses_text_in_the_place_of_images(tiny_config):
    square = dataclasses.replace(
        tiny_config,
        vision=dataclasses.replace(tiny_config.vision, hidden_size=24),
        text=dataclasses.replace(
            tiny_config.text, family="xlm-roberta", pad_token_id=1, layer_norm_eps=1e-5
        ),
    )
    model = build_model(square)
    assert model.masked_lm_head.decoder.weight is not model.text_encoder.embeddings.words.weight
    ids, mask = torch.randint(5, 60, (3, 6)), torch.ones(3, 6, dtype=torch.long)
    output = X2VLMForPretraining(model).forward_parallel_text(
        ids,
        mask,
        ids[:, :5],
        mask[:, :5],
        ids,
        torch.tensor([[1], [2], [3]]),
        torch.tensor([[7], [8], [9]]),
    )
    assert set(output.losses) == {"contrastive_loss", "matching_loss", "masked_lm_loss"}


def test_positions_from_padding(tiny_config):
    model = build_model(
        dataclasses.replace(
            tiny_config,
            text=dataclasses.replace(tiny_config.text, family="xlm-roberta", pad_token_id=1),
        )
    ).eval()
    ids = torch.tensor([[5, 6, 7, 1, 1]])
    explicit = model.text_encoder.embeddings(ids, torch.tensor([[2, 3, 4, 1, 1]]))
    close(model.text_encoder.embeddings(ids), explicit)


@pytest.mark.parametrize(
    "vision",
    [
        VisionConfig(image_size=64, hidden_size=32, num_layers=2, num_heads=2),
        VisionConfig(tower="clip", image_size=64, hidden_size=32, num_layers=2, num_heads=2),
        VisionConfig(
            tower="swin", image_size=128, patch_size=32, hidden_size=64, num_heads=4,
            layer_scale=None,
            swin_embed_dim=8, swin_depths=(1, 1, 1, 1), swin_num_heads=(1, 1, 2, 4),
            swin_window_size=4,
        ),
    ],
    ids=lambda vision: vision.tower,
)  # fmt: skip
@torch.no_grad()
def test_towers(vision, tiny_config):
    model = build_model(dataclasses.replace(tiny_config, vision=vision)).eval()
    embeds = model.encode_image(torch.randn(2, 3, vision.image_size, vision.image_size))
    assert embeds.shape == (2, vision.num_tokens, vision.hidden_size)
    close(embeds[:, 0], embeds[:, 1:].mean(1))
    with pytest.raises(ParameterError, match=rf"{vision.image_size} x {vision.image_size}"):
        model.encode_image(torch.randn(1, 3, vision.image_size + 32, vision.image_size))


def test_a_missing_head_is_named(tiny_config):
    model = build_model(dataclasses.replace(tiny_config, heads=("matching",)))
    with pytest.raises(CheckpointError, match=r"no box head.*matching.*\[ckpt/keys\]"):
        X2VLMForGrounding(model)
    with pytest.raises(CheckpointError, match="contrastive"):
        model.image_features(torch.zeros(1, 17, 32))


def test_hard_negatives_never_pair_equal_content(model, batch):
    text = model.encode_text(batch["ids"], batch["mask"])
    embeds = model.encode_image(batch["image"])
    logits, labels = match_against_negatives(
        model, embeds, None, text, batch["mask"], torch.zeros(3, 3), torch.tensor([7, 7, 7])
    )
    assert logits.shape == (9, 2)
    assert labels.tolist() == [1] * 3 + [-100] * 6


def test_drop_path_replaces_dropout_inside_layers(tiny_config):
    text = dataclasses.replace(
        tiny_config.text, drop_path=0.5, dropout=0.1, drop_path_per_token=True
    )
    layers = build_model(dataclasses.replace(tiny_config, text=text)).train().text_encoder.layers
    assert [type(layer.residual).__name__ for layer in layers] == ["Dropout", "DropPath"]
    out = layers[1].residual(torch.ones(4, 1000, 1))
    assert torch.equal(out[0], out[3])
    assert set(out.unique().tolist()) == {0.0, 2.0}


def test_official_sizes():
    """Parameter counts of the official classes (base, pre-training)."""
    from x2vlm.presets import BASE, XVLM_BASE

    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(BASE).parameters()) == 254_758_401
        assert sum(p.numel() for p in build_model(XVLM_BASE).parameters()) == 215_637_241
        assert TextConfig().vocab_size == 30522


def test_only_a_model_with_frame_order_tells_a_video_from_its_reverse(tiny_config):
    config = tiny_config.replace(num_frames=2, frame_order=True)
    model = build_model(config).eval()
    video = torch.randn(1, 4, 3, *config.vision.size)
    with torch.no_grad():
        changed = model.encode_video(video) - model.encode_video(video.flip(1))
        assert changed.abs().max() > 0.01
        model.frame_change = None
        model.frame_positions.zero_()
        close(model.encode_video(video), model.encode_video(video.flip(1)))
