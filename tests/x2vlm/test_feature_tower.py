"""The `timm` tower: any backbone with feature maps, batch norms folded, and like the other towers
in all else: regions, video, other sizes, heat maps, files."""

import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file

from x2vlm.batch_norm import folded
from x2vlm.checkpoint import initialize, save_model
from x2vlm.config import IMAGE_MEAN, IMAGE_STD, VisionConfig, X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.inference.explain import relevance, trace_attention
from x2vlm.modeling.build import build_model, load_model
from x2vlm.modeling.feature_tower import FrozenBatchNorm, freeze_batch_norms
from x2vlm.modeling.vision import VisionEncoder, build_tower, pool_regions

BACKBONES = ("test_efficientnet", "test_resnet", "test_convnext")


def vision_config(backbone="test_efficientnet", **changes):
    sizes = {"image_size": 64, "hidden_size": 32, "num_layers": 1, "num_heads": 2}
    return VisionConfig(tower="timm", backbone=backbone, position="sincos", **sizes | changes)


@pytest.fixture(scope="module")
def config(tiny_config) -> X2VLMConfig:
    return dataclasses.replace(tiny_config, vision=vision_config())


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return build_model(config).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_gives_the_grid_of_tokens(backbone):
    config = vision_config(backbone)
    encoder = VisionEncoder(build_tower(config), config).eval()
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 17, 32)


def test_the_pooled_token_is_the_mean_of_the_patches(model):
    embeds = model.encode_image(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(embeds[:, 0], embeds[:, 1:].mean(dim=1))


def test_kept_maps_give_the_tokens_of_the_images(model):
    images = torch.randn(2, 3, 64, 64)
    embeds = model.vision.from_maps(model.vision.tower.maps(images))
    torch.testing.assert_close(embeds, model.encode_image(images))


def test_a_frozen_batch_norm_does_what_the_norm_does():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(5).train()
    for _ in range(3):
        norm(torch.randn(4, 5, 6, 6) * 3 + 1)
    norm.weight.data.uniform_(0.5, 2)
    norm.eval()
    x = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(FrozenBatchNorm(norm)(x), norm(x))


def test_a_folded_norm_is_a_scale_and_a_shift():
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    scale, shift = folded(norm)
    torch.testing.assert_close(scale, torch.full((3,), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(shift, torch.full((3,), -1.0), atol=1e-5, rtol=0)


def test_no_batch_norm_is_left(model):
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_freezing_changes_no_feature(backbone):
    torch.manual_seed(0)
    network = timm.create_model(backbone, num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network.forward_features(x)
        after = freeze_batch_norms(network).forward_features(x)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


def test_the_backbone_sees_its_own_statistics(model):
    """White is +1 for a backbone normalised by 0.5 and 0.5."""
    tower = model.vision.tower
    mean, std = (torch.tensor(tower.backbone.pretrained_cfg[key]) for key in ("mean", "std"))
    white = ((1 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD))[:, None, None]
    seen = tower.pixel_shift + white * tower.pixel_scale
    torch.testing.assert_close(seen[:, 0, 0], (1 - mean) / std)


def test_training_leaves_the_maps_alone(model):
    images = torch.randn(2, 3, 64, 64)
    before = model.vision.tower.maps(images)
    model.train()
    after = model.vision.tower.maps(images)
    model.eval()
    torch.testing.assert_close(after, before)


def test_regions_of_an_image(model):
    embeds = model.encode_image(torch.randn(2, 3, 64, 64))
    patches = torch.zeros(1, 16, dtype=torch.bool)
    patches[0, :4] = True
    regions = pool_regions(embeds, patches, torch.tensor([1]))
    torch.testing.assert_close(regions[0, 0], embeds[1, 1:5].mean(dim=0))


def test_a_video_of_one_image_repeated(model):
    image = torch.randn(1, 3, 64, 64)
    frames = model.config.num_frames or 2
    assert model.encode_video(image[:, None].repeat(1, frames, 1, 1, 1)).shape == (1, 17, 32)


def test_every_part_gets_a_gradient(config):
    torch.manual_seed(0)
    encoder = build_model(config).train().vision
    encoder(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = {name for name, p in encoder.named_parameters() if p.grad is None}
    assert without == {"tower.pos_embed"}


def test_grad_cam_gives_a_map_over_the_grid(model):
    ids = torch.tensor([[2, 7, 8, 3]])
    mask = torch.ones_like(ids)
    embeds = model.encode_image(torch.randn(1, 3, 64, 64))
    trace = trace_attention(
        model, model.encode_text(ids, mask), mask, embeds, lambda f: model.match_logits(f)[:, 1]
    )
    assert relevance(trace, layer=None).shape == (1, 4, 16)


def test_a_saved_model_is_read_as_it_was(model, tmp_path):
    save_model(model, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.model.encode_image(images), model.encode_image(images))
    assert not loaded.report.missing and not loaded.report.unexpected


def test_a_saved_model_runs_at_another_size(model, tmp_path):
    save_model(model, tmp_path / "saved")
    larger = load_model(tmp_path / "saved", image_size=96).model
    assert larger.encode_image(torch.randn(1, 3, 96, 96)).shape == (1, 37, 32)
    small = model.vision.tower.pos_embed[0].unflatten(0, (4, 4))
    torch.testing.assert_close(larger.vision.tower.pos_embed[0].unflatten(0, (6, 6))[:4, :4], small)


def test_a_backbone_starts_from_a_local_file(config, tmp_path):
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet").eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    save_file(network.state_dict(), tmp_path / "backbone.safetensors")
    model = build_model(config).eval()
    fresh = initialize(model, vision=tmp_path / "backbone.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = network.forward_features(x)
        found = model.vision.tower.backbone.forward_features(x)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not any(name.startswith("vision.tower.backbone.") for name in fresh)


def test_a_file_that_lacks_weights_is_named(config, tmp_path):
    save_file({"conv_stem.weight": torch.zeros(1)}, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"half\.safetensors"):
        initialize(build_model(config), vision=tmp_path / "half.safetensors")


def test_an_unreachable_name_says_so(config, monkeypatch):
    def offline(*args, **options):
        raise OSError("no network")

    model = build_model(config)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match="timm"):
        initialize(model, vision="tf_efficientnet_lite2.in1k")
