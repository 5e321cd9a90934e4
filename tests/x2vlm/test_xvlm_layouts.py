"""X-VLM's NLVR2 and captioning models and CCLM 3M/4M: what only they do, on toys. Their agreement
with the official classes is in `test_parity`, round trips through files in `test_checkpoint`."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.conftest import without_heads
from tests.x2vlm.test_checkpoint import CONFIGS, SWIN, same_weights
from x2vlm.checkpoint import official_state_dict
from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.inference.closing_beams import closing_beam_search
from x2vlm.inference.predictor import Predictor
from x2vlm.losses import next_token_loss
from x2vlm.modeling.build import build_model, convert, load_model
from x2vlm.modeling.causal_captioning import CausalCaptionDecoder, causal_mask
from x2vlm.modeling.classification import X2VLMForPairReasoning
from x2vlm.settings import XVLM_CAPTIONING, Settings


def build(config: X2VLMConfig):
    torch.manual_seed(0)
    model = build_model(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.fixture(scope="module")
def twins():
    return build(CONFIGS["xvlm_pair"])


@pytest.fixture(scope="module")
def writer():
    return build(CONFIGS["xvlm_captioning"])


@torch.no_grad()
def pair_logits(model, images):
    ids = torch.arange(4, 10)[None]
    embeds = model.encode_image(images)
    return X2VLMForPairReasoning(model).predict(embeds, ids, torch.ones_like(ids))


def test_twins_read_the_images_in_order(twins):
    images = torch.randn(2, 3, 128, 128)
    assert not torch.allclose(pair_logits(twins, images), pair_logits(twins, images.flip(0)))


def test_twins_share_keys_and_values_alone(twins):
    first, second = twins.fusion_encoder.layers[:2]
    assert first.cross_attention.key.weight is second.cross_attention.key.weight
    assert first.cross_attention.value.bias is second.cross_attention.value.bias
    assert first.cross_attention.query.weight is not second.cross_attention.query.weight


def test_a_file_of_twins_converts(twins, tmp_path):
    """Twins share memory in the file that the official code writes."""
    torch.save({"model": official_state_dict(twins)}, tmp_path / "nlvr.th")
    convert(tmp_path / "nlvr.th", tmp_path / "converted")
    loaded = load_model(tmp_path / "converted")
    assert same_weights(loaded.model, twins)
    assert loaded.config.fusion.twin_layers and loaded.config.fusion.num_layers == 2


def test_copies_in_place_of_shared_tensors_are_twins_too(twins, tmp_path):
    state = {key: tensor.clone() for key, tensor in official_state_dict(twins).items()}
    torch.save({"model": state}, tmp_path / "nlvr.th")
    assert load_model(tmp_path / "nlvr.th").config.fusion.twin_layers


def test_as_many_ordinary_layers_are_no_twins(tmp_path):
    fusion = dataclasses.replace(CONFIGS["xvlm"].fusion, num_layers=4)
    config = CONFIGS["xvlm"].replace(heads=("classification",), fusion=fusion)
    torch.save({"model": official_state_dict(build(config))}, tmp_path / "vqa.th")
    loaded = load_model(tmp_path / "vqa.th").config
    assert loaded.fusion.num_layers == 4 and loaded.heads == ("classification",)


def test_different_tensors_that_share_memory_are_stored_apart(tmp_path):
    state = official_state_dict(build(CONFIGS["retrieval"]))
    shared = "text_encoder.encoder.layer.{}.attention.self.key.weight"
    state[shared.format(1)] = state[shared.format(0)]
    torch.save({"model": state}, tmp_path / "m.th")
    convert(tmp_path / "m.th", tmp_path / "converted")
    layers = load_model(tmp_path / "converted").model.text_encoder.layers
    assert torch.equal(layers[0].attention.key.weight, layers[1].attention.key.weight)


@torch.no_grad()
def test_the_causal_decoder_continues_as_if_it_read_all_anew(writer):
    embeds = writer.encode_image(torch.randn(2, 3, 128, 128))
    ids = torch.randint(5, 80, (2, 6))
    decoder = CausalCaptionDecoder(writer, embeds)
    decoder.step(ids[:, :3])
    for end in range(4, 7):
        stepped = decoder.step(ids[:, end - 1 : end])
        sees = causal_mask(end, ids.device)
        fused = writer.fuse(writer.encode_text(ids[:, :end], sees), sees, embeds)
        whole = writer.causal_lm_head(fused[:, -1])
        assert torch.allclose(stepped, whole, atol=1e-5)


@torch.no_grad()
def test_beams_of_a_batch_are_those_of_each_image(writer):
    embeds = writer.encode_image(torch.randn(3, 3, 128, 128))
    options = {"end_id": 2, "num_beams": 3, "max_new_tokens": 6, "num_return": 3}
    prompt = torch.tensor([[1, 5]])
    together = closing_beam_search(
        CausalCaptionDecoder(writer, embeds), prompt.expand(3, -1), **options
    )
    for row in range(3):
        alone = closing_beam_search(
            CausalCaptionDecoder(writer, embeds[row : row + 1]), prompt, **options
        )[0]
        assert [kept.token_ids for kept in alone] == [kept.token_ids for kept in together[row]]


def test_the_next_token_loss_smooths_over_all_other_words():
    logits, labels = torch.randn(1, 3, 7), torch.tensor([[2, -100, 5]])
    targets = torch.full((3, 7), 0.1 / 7)
    targets[0, 2] = targets[2, 5] = 0.9
    rows = -(targets * logits[0].log_softmax(-1)).sum(1)
    assert torch.allclose(next_token_loss(logits, labels, 0.1), (rows[0] + rows[2]) / 2)


def test_without_smoothing_it_is_cross_entropy():
    logits, labels = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.allclose(next_token_loss(logits, labels), expected)


@pytest.fixture(scope="module")
def predictor(tiny_config, tiny_processor):
    config = without_heads(tiny_config, "masked_lm")
    config = config.replace(heads=(*config.heads, "causal_lm"))
    return Predictor.from_model(build(config), tiny_processor, Settings(max_tokens=20))


def test_a_causal_model_captions_and_does_not_complete(predictor):
    assert "caption" in predictor.tasks and "complete" in predictor.missing


@pytest.mark.parametrize("options", [{}, {"do_sample": True}, {"num_captions": 3}])
def test_a_causal_model_writes(predictor, photo, options):
    captions = predictor.caption(photo, max_new_tokens=5, **options)
    assert len(captions) == options.get("num_captions", 1) and captions[0].text


def test_a_prefix_begins_the_caption(predictor, photo):
    caption = predictor.caption(photo, prefix="two dogs", max_new_tokens=3)[0]
    assert caption.text.startswith("two dogs")


def test_a_region_is_captioned(predictor, photo):
    assert predictor.describe_region(photo, (0, 0, 60, 40), max_new_tokens=3).captions


def test_a_caption_is_explained_by_the_places_that_predict_it(predictor, photo):
    explanation = predictor.explain(photo, "a red dog", target="caption")
    assert len(explanation.words) == 3


def test_the_score_of_a_caption_is_what_the_decoder_gives(predictor, photo):
    caption = predictor.caption(photo, max_new_tokens=4, num_beams=1)[0]
    mean = sum(caption.token_log_probabilities) / len(caption.token_log_probabilities)
    if caption.finished:
        pytest.skip("the explained text has no end token")
    score = predictor.explain(photo, caption.text, target="caption").score
    assert score == pytest.approx(torch.tensor(mean).exp().item(), rel=0.05)


def test_xvlm_captions_follow_its_own_rules(tmp_path, tiny_config, tiny_tokenizer):
    from x2vlm.checkpoint import save_model

    config = tiny_config.replace(heads=("causal_lm",))
    save_model(build(config), tmp_path / "m", tiny_tokenizer)
    member = Predictor.from_pretrained(tmp_path / "m")._serving["caption"]
    assert member.settings == XVLM_CAPTIONING


def test_cclm_3m_counts_positions_from_zero():
    text = CONFIGS["cclm_3m"].text
    assert text.first_position == 0 and text.max_tokens == text.max_positions
    assert CONFIGS["cclm"].text.first_position == 2


def test_cclm_3m_is_told_by_its_one_token_type_or_its_vocabulary(tmp_path):
    state = official_state_dict(build(CONFIGS["cclm_3m"]))
    torch.save({"model": state}, tmp_path / "cclm.th")
    found = load_model(tmp_path / "cclm.th").config
    assert found.text == dataclasses.replace(CONFIGS["cclm_3m"].text, dropout=0.1)
    assert found.fusion.layer_norm_eps == 1e-5


def test_cclm_with_one_projection_uses_it_for_images_too(tmp_path):
    vision = dataclasses.replace(CONFIGS["cclm"].vision, hidden_size=64)
    state = official_state_dict(build(CONFIGS["cclm"].replace(vision=vision)))
    del state["vision_proj.weight"], state["vision_proj.bias"]
    torch.save({"model": state}, tmp_path / "cclm.th")
    loaded = load_model(tmp_path / "cclm.th")
    assert torch.equal(loaded.model.image_projection.weight, loaded.model.text_projection.weight)
    assert "images use text_proj, as the file has no vision_proj" in loaded.report.notes


def test_a_missing_projection_of_another_family_is_told(tmp_path):
    state = official_state_dict(build(CONFIGS["retrieval"]))
    del state["vision_proj.weight"], state["vision_proj.bias"]
    torch.save({"model": state}, tmp_path / "m.th")
    with pytest.raises(CheckpointError, match=r"lacks weights.*vision_proj"):
        load_model(tmp_path / "m.th")


def test_the_text_assignment_stage_of_xvlm_has_twins_and_an_extra_head(twins, tmp_path):
    state = official_state_dict(twins)
    state = {key: tensor for key, tensor in state.items() if not key.startswith("cls_head.")}
    hidden, image = CONFIGS["xvlm_pair"].text.hidden_size, SWIN.hidden_size
    state |= {
        "ta_head.weight": torch.ones(3, hidden),
        "ta_head.bias": torch.ones(3),
        "vision_proj.weight": torch.ones(16, image),
        "vision_proj.bias": torch.ones(16),
    }
    torch.save({"model": state}, tmp_path / "ta.th")
    with pytest.raises(CheckpointError, match="ta_head"):
        load_model(tmp_path / "ta.th")
    loaded = load_model(tmp_path / "ta.th", allow_extra=True)
    assert loaded.config.fusion.twin_layers
    assert {key.split(".")[0] for key in loaded.report.unexpected} == {"ta_head", "vision_proj"}


def test_an_xvlm_file_without_its_words_is_still_another_model(tmp_path):
    state = official_state_dict(build(CONFIGS["xvlm_captioning"]))
    state.pop("text_decoder.bert.embeddings.word_embeddings.weight")
    state.pop("text_decoder.cls.predictions.decoder.weight")
    torch.save({"model": state}, tmp_path / "m.th")
    with pytest.raises(CheckpointError, match="no word embeddings"):
        load_model(tmp_path / "m.th")
