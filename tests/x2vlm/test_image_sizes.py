"""Images that are not square, as in person search (384 x 128): detection, towers, resizing, boxes
and maps; and sizes that cannot work together."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.beit import gen_relative_position_index
from timm.models.swin_transformer import window_partition

from tests.conftest import without_heads
from tests.x2vlm.test_checkpoint import (
    BASIC,
    FUSION,
    SWIN,
    TEXT,
    VISION,
    XLM_R,
    make_config,
    same_weights,
)
from x2vlm.checkpoint import official_state_dict, save_model
from x2vlm.checkpoint.resize import resize_relative_table
from x2vlm.config import VisionConfig, X2VLMConfig, size_from_text
from x2vlm.errors import CheckpointError, ConfigError, ParameterError
from x2vlm.inference.explain import agreement
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import build_model, convert, load_model
from x2vlm.processing import patch_mask, to_pixels
from x2vlm.settings import Settings

# A toy of the person search tower: 96 x 32 tokens in the first stage, windows of 8, the last one
# of 4 (12 x 4 tokens).
PERSON_SWIN = dataclasses.replace(SWIN, image_size=(384, 128), swin_window_size=8)
PERSON_BEIT = dataclasses.replace(VISION, image_size=(96, 32))
PERSON_CLIP = VisionConfig(
    tower="clip", image_size=(96, 32), hidden_size=64, num_layers=2, num_heads=1, layer_scale=None
)
TOWERS = {"beit": PERSON_BEIT, "swin": PERSON_SWIN, "clip": PERSON_CLIP}


def build(vision: VisionConfig, heads=BASIC):
    torch.manual_seed(0)
    return build_model(make_config(vision=vision, heads=heads)).eval()


def official_mask(rows: int, columns: int, window: int) -> torch.Tensor:
    """The mask of a shifted Swin block as the original code computes it."""
    regions, count = torch.zeros(1, rows, columns, 1), 0
    shift = window // 2
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for down in cuts:
        for right in cuts:
            regions[:, down, right] = count
            count += 1
    windows = window_partition(regions, (window, window)).view(-1, window**2)
    return (windows[:, None] != windows[:, :, None]).float() * -100


def constants(vision: VisionConfig) -> dict[str, torch.Tensor]:
    """What the official code stores beside the parameters."""
    if vision.tower == "swin":
        (rows, columns), window = vision.swin_stages[1]
        mask = official_mask(rows, columns, window)
        return {"vision_encoder.layers.1.blocks.1.attn_mask": mask}
    index = gen_relative_position_index(vision.grid_size)
    return {"vision_encoder.blocks.0.attn.relative_position_index": index}


def write(model, path, **more):
    torch.save({"model": official_state_dict(model) | more}, path)
    return path


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("tower", ["beit", "swin"])
def test_the_constants_of_a_file_tell_its_height_and_width(tower, turned, tmp_path):
    vision = TOWERS[tower]
    if turned:
        vision = dataclasses.replace(vision, image_size=vision.size[::-1])
    model = build(vision)
    loaded = load_model(write(model, tmp_path / "m.th", **constants(vision)))
    assert loaded.config.vision.size == vision.size
    assert same_weights(loaded.model, model)


@pytest.mark.parametrize("tower", TOWERS)
def test_without_constants_the_size_is_asked_for_and_checked(tower, tmp_path):
    model = build(TOWERS[tower])
    path, size = write(model, tmp_path / "m.th"), list(TOWERS[tower].size)
    if tower != "swin":
        with pytest.raises(CheckpointError, match="no square image"):
            load_model(path)
    loaded = load_model(path, config={"vision": {"image_size": size}})
    assert same_weights(loaded.model, model)


def test_a_swin_file_without_masks_is_taken_for_square_and_that_is_said(tmp_path):
    bare = load_model(write(build(PERSON_SWIN), tmp_path / "bare.th"))
    assert bare.config.vision.image_size == 128
    assert "taken to be square" in str(bare.report)
    told = write(build(PERSON_SWIN), tmp_path / "told.th", **constants(PERSON_SWIN))
    assert "taken to be square" not in str(load_model(told).report)


@pytest.mark.parametrize("tower", TOWERS)
def test_folders_keep_the_size(tower, tmp_path):
    model = build(TOWERS[tower])
    save_model(model, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.config == model.config and same_weights(loaded.model, model)


def test_a_converted_file_keeps_the_size(tmp_path):
    path = write(build(PERSON_SWIN), tmp_path / "m.th", **constants(PERSON_SWIN))
    convert(path, tmp_path / "converted")
    assert load_model(tmp_path / "converted").config.vision.image_size == (384, 128)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_gives_its_patches_row_by_row(tower):
    vision = TOWERS[tower]
    embeds = build(vision).encode_image(torch.randn(2, 3, *vision.size))
    assert embeds.shape == (2, 1 + vision.grid_size[0] * vision.grid_size[1], vision.hidden_size)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_turned_image_is_refused_by_name(tower):
    vision = TOWERS[tower]
    with pytest.raises(ParameterError, match=rf"takes {vision.size[0]} x {vision.size[1]}"):
        build(vision).encode_image(torch.randn(1, 3, *vision.size[::-1]))


def test_swin_windows_are_square_where_the_official_ones_are():
    """The last stage has 12 x 4 tokens in three windows of 4 x 4, and so has a stage whose shorter
    side is one window no shift."""
    stages = build(PERSON_SWIN).vision.tower.layers
    assert [stage.blocks[-1].window_size for stage in stages] == [(8, 8), (8, 8), (8, 8), (4, 4)]
    assert [stage.blocks[-1].shift_size for stage in stages] == [(0, 0), (4, 4), (0, 0), (0, 0)]


@torch.no_grad()
def test_swin_stage_of_square_windows_attends_within_each_of_them():
    tower = build(PERSON_SWIN).vision.tower
    block, x = tower.layers[3].blocks[0], torch.randn(1, 12, 4, 64)
    whole = block(x)
    for start in (0, 4, 8):
        alone = block(x[:, start : start + 4])
        assert torch.allclose(whole[:, start : start + 4], alone, atol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_another_size_resizes_the_positions(tower, tmp_path):
    save_model(build(TOWERS[tower]), tmp_path / "saved")
    size = {"beit": (96, 64), "clip": (64, 96), "swin": (256, 128)}[tower]
    loaded = load_model(tmp_path / "saved", image_size=size)
    assert loaded.config.vision.size == size
    assert loaded.model.encode_image(torch.randn(1, 3, *size)).isfinite().all()


def test_a_square_table_serves_an_oblong_image(tmp_path):
    save_model(build(VISION), tmp_path / "square")
    loaded = load_model(tmp_path / "square", image_size=(128, 64))
    assert len(loaded.report.resized) == VISION.num_layers
    assert loaded.model.encode_image(torch.randn(1, 3, 128, 64)).isfinite().all()


def test_turning_the_window_turns_the_table(tmp_path):
    """Tables of 6 x 2 and 2 x 6 patches have equally many rows and differ all the same."""
    table = torch.randn(11 * 3 + 3, 2)
    wide = resize_relative_table(table, (6, 2), (2, 6))
    assert wide.shape == table.shape and not torch.equal(wide, table)
    assert torch.equal(wide[-3:], table[-3:])


def test_each_side_of_a_table_is_resized_by_itself():
    """A table that changes along one side alone is resized as along that side of a square."""
    square = torch.randn(7, 1).repeat(1, 7).reshape(49, 1)
    oblong = square.view(7, 7, 1)[:, :3].reshape(21, 1)
    resized = resize_relative_table(oblong, (4, 2), (6, 2)).view(11, 3)
    expected = resize_relative_table(square, (4, 4), (6, 6)).view(11, 11)
    assert torch.allclose(resized[:, 1], expected[:, 5], atol=1e-5)


def test_the_same_window_leaves_a_table_alone():
    table = torch.randn(36, 2)
    assert resize_relative_table(table, (6, 2), (6, 2)) is table


def test_a_window_of_one_row_grows():
    resized = resize_relative_table(torch.arange(3.0)[:, None], (1, 2), (3, 2))
    assert torch.allclose(resized.view(5, 3), torch.arange(3.0).expand(5, 3))


def test_sine_positions_are_computed_anew_for_the_turned_grid(tmp_path):
    vision = dataclasses.replace(PERSON_BEIT, position="sincos")
    save_model(build(vision), tmp_path / "saved")
    turned = load_model(tmp_path / "saved", image_size=(32, 96)).model.vision.tower.pos_embed
    fresh = build(dataclasses.replace(vision, image_size=(32, 96))).vision.tower.pos_embed
    assert torch.equal(turned, fresh)


def test_pixels_have_the_size_of_the_model():
    assert to_pixels(Image.new("RGB", (50, 40)), (96, 32)).shape == (3, 96, 32)


def test_patches_of_a_box_on_an_oblong_grid():
    mask = patch_mask((0.5, 0.0, 1.0, 0.25), (4, 2)).view(4, 2)
    assert mask.nonzero().tolist() == [[0, 1]]


def test_a_map_and_a_box_agree_on_an_oblong_grid():
    heat = np.zeros((4, 2), np.float32)
    heat[3, 1] = 1
    found = agreement(heat, (0.5, 0.75, 1.0, 1.0))
    assert found.pointing_hit and found.energy_inside == 1
    assert not agreement(heat, (0.0, 0.0, 0.5, 0.25)).pointing_hit


@pytest.fixture(scope="module")
def predictor(tiny_config, tiny_processor):
    from x2vlm.processing import Processor

    vision = dataclasses.replace(tiny_config.vision, image_size=(96, 32))
    config = without_heads(tiny_config, "pair").replace(vision=vision)
    torch.manual_seed(0)
    processor = Processor(config, tiny_processor.tokenizer, max_tokens=20)
    answers = ("yes", "no")
    model = build_model(config).eval()
    return Predictor.from_model(model, processor, Settings(max_tokens=20, answers=answers))


def test_a_predictor_tells_height_and_width(predictor):
    assert predictor.info.image_size == (96, 32) and predictor.info.grid_size == (6, 2)


@pytest.mark.parametrize(
    "method", ["gradient", "attention", "rollout", "similarity", "image-gradcam", "random"]
)
def test_maps_lie_on_the_oblong_grid(predictor, photo, method):
    explanation = predictor.explain(photo, "a dog", method=method)
    assert explanation.overall.shape == (6, 2)
    assert explanation.maps.shape == (len(explanation.words), 6, 2)


def test_boxes_are_in_the_pixels_of_the_image(predictor, photo):
    found = predictor.ground(photo, "dog")[0]
    x1, y1, x2, y2 = found.box_xyxy
    assert 0 <= x1 <= x2 <= photo.width and 0 <= y1 <= y2 <= photo.height


def test_regions_and_deletion_work_on_the_oblong_grid(predictor, photo):
    assert predictor.describe_region(photo, (10, 10, 60, 60), max_new_tokens=2).captions
    explanation = predictor.explain(photo, "a dog")
    check = predictor.deletion_check(photo, explanation, steps=2, draws=2)
    assert len(check.by_heat) == 3


@pytest.mark.parametrize(
    ("text", "size"), [("384", 384), ("384x128", (384, 128)), ("96X32", (96, 32))]
)
def test_sizes_on_the_command_line(text, size):
    assert size_from_text(text) == size


@pytest.mark.parametrize("text", ["", "x", "384x", "wide"])
def test_what_is_no_size_on_the_command_line(text):
    with pytest.raises(ValueError, match="invalid literal"):
        size_from_text(text)


@pytest.mark.parametrize("size", [(64, 64), [64, 64], 64])
def test_a_square_is_one_number(size):
    assert VisionConfig(image_size=size).image_size == 64


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": (384, 100)}, "384 x 96"),
        ({"image_size": (384, 128, 3)}, "one or two numbers"),
        ({"tower": "swin", "patch_size": 32, "hidden_size": 768}, "hidden_size 768"),
        ({"tower": "swin", "hidden_size": 1024}, "patch_size 16"),
        ({"tower": "swin", "patch_size": 32, "hidden_size": 1024, "image_size": 320}, "windows"),
        (
            {"tower": "swin", "patch_size": 32, "hidden_size": 1024, "swin_num_heads": (4, 8, 16)},
            "swin_num_heads",
        ),
        (
            {
                "tower": "swin",
                "patch_size": 32,
                "hidden_size": 1024,
                "swin_num_heads": (3, 8, 16, 32),
            },
            "3 heads",
        ),
    ],
)
def test_sizes_that_cannot_work_together_are_refused_by_name(changes, named):
    with pytest.raises(ConfigError, match=named):
        VisionConfig(**changes)


def test_an_oblong_size_survives_its_json():
    config = X2VLMConfig(vision=PERSON_BEIT)
    values = config.to_dict()
    values["vision"]["image_size"] = list(values["vision"]["image_size"])
    assert X2VLMConfig.from_dict(values) == config


def test_texts_cannot_stand_for_images_of_another_width():
    config = make_config(text=XLM_R, heads=BASIC)
    model = build_model(config)
    texts = model.encode_text(torch.randint(4, 70, (2, 5)))
    assert TEXT.hidden_size != VISION.hidden_size and FUSION.num_layers
    with pytest.raises(ParameterError, match="width 32, these have 64"):
        model.fuse(texts, None, texts)
