"""What a run begins with where the checkpoint is of another shape: X-VLM's stages."""

from dataclasses import replace

import pytest
import torch

from train.config import ModelSource
from train.launch import load_source
from x2vlm.checkpoint import save_model
from x2vlm.modeling.build import build_model


@pytest.fixture
def saved(tiny_config, tiny_tokenizer, tmp_path):
    torch.manual_seed(0)
    model = build_model(tiny_config.replace(heads=("contrastive", "masked_lm")))
    save_model(model, tmp_path / "model", tiny_tokenizer)
    return model, str(tmp_path / "model")


def test_twin_layers_begin_as_the_layers_of_an_ordinary_model(saved):
    model, folder = saved
    overrides = {"fusion": {"twin_layers": True}, "heads": ["pair"]}
    twins, _, new = load_source(ModelSource(init_from=folder, overrides=overrides))
    assert len(twins.fusion_encoder.layers) == 2 * len(model.fusion_encoder.layers)
    for number, layer in enumerate(twins.fusion_encoder.layers):
        own = model.fusion_encoder.layers[number // 2].state_dict()
        assert all(torch.equal(t, own[name]) for name, t in layer.state_dict().items())
    first, second = twins.fusion_encoder.layers[:2]
    assert first.cross_attention.key.weight is second.cross_attention.key.weight
    assert first.cross_attention.query.weight is not second.cross_attention.query.weight
    assert new and all(name.startswith("pair_head.") for name in new)


def test_twin_layers_go_on_as_they_are(saved, tiny_tokenizer, tmp_path):
    _, folder = saved
    overrides = {
        "fusion": {"twin_layers": True},
        "num_labels": 3,
        "heads": ["contrastive", "classification"],
    }
    twins, _, _ = load_source(ModelSource(init_from=folder, overrides=overrides))
    with torch.no_grad():
        twins.fusion_encoder.layers[1].fc1.weight.add_(1)
    save_model(twins, tmp_path / "twins", tiny_tokenizer)
    after, _, new = load_source(
        ModelSource(init_from=str(tmp_path / "twins"), overrides={"heads": ["pair"]})
    )
    for own, loaded in zip(twins.fusion_encoder.layers, after.fusion_encoder.layers, strict=True):
        assert torch.equal(own.fc1.weight, loaded.fc1.weight)
    assert new and all(name.startswith("pair_head.") for name in new)


def test_next_token_captions_begin_with_the_masked_lm_head(saved):
    model, folder = saved
    overrides = {"heads": ["causal_lm", "masked_lm"]}
    loaded, _, new = load_source(ModelSource(init_from=folder, overrides=overrides))
    assert loaded.config.causal and not new
    assert torch.equal(loaded.causal_lm_head.dense.weight, model.masked_lm_head.dense.weight)
    words = loaded.text_encoder.embeddings.words.weight
    assert loaded.causal_lm_head.decoder.weight is words


def test_swin_takes_larger_images_with_larger_windows(tiny_config, tiny_tokenizer, tmp_path):
    vision = replace(
        tiny_config.vision,
        tower="swin",
        patch_size=32,
        hidden_size=64,
        position=type(tiny_config.vision)().position,
        image_size=64,
        swin_embed_dim=8,
        swin_depths=(1, 1, 1, 1),
        swin_num_heads=(1, 1, 2, 2),
        swin_window_size=2,
    )
    model = build_model(tiny_config.replace(vision=vision))
    save_model(model, tmp_path / "swin", tiny_tokenizer)
    overrides = {"vision": {"image_size": 128, "swin_window_size": 4}}
    larger, _, new = load_source(ModelSource(init_from=str(tmp_path / "swin"), overrides=overrides))
    assert not new and larger.encode_image(torch.rand(1, 3, 128, 128)).shape == (1, 17, 64)
