"""A model of another language by a swap of its text encoder: captions, weights, the command."""

import json

import pytest
import torch

from train import swap
from train.config import ModelSource, build_task
from train.launch import load_source
from x2vlm import stickers
from x2vlm.checkpoint import save_model
from x2vlm.errors import ConfigError
from x2vlm.modeling.build import build_model
from x2vlm.presets import PRESETS
from x2vlm.stickers.concepts import BACKGROUNDS, COLOURS, NAMES, NUMBERS, SHAPES
from x2vlm.stickers.geometry import Scene
from x2vlm.stickers.translations import _WORDS


@pytest.mark.parametrize("language", ["ko", "zh"])
def test_every_word_is_translated_and_two_are_never_one(language):
    words = _WORDS[language]["words"]
    assert words.keys() == {*NAMES, *SHAPES, *COLOURS, *BACKGROUNDS, *NUMBERS[1:]}
    assert len(set(words.values())) == len(words)


def test_captions_say_what_is_there():
    scene = next(
        scene
        for seed in stickers.split_seeds("train")[:500]
        if len((scene := stickers.sample_scene(seed)).items) == 2
        and scene.items[0].kind == scene.items[1].kind == "star"
        and scene.items[0].colour == scene.items[1].colour
    )
    assert isinstance(scene, Scene)
    korean, chinese = (stickers.translated_captions(scene, name)[1] for name in ("ko", "zh"))
    assert (korean, chinese) == ("별 두 개", "两颗星星")


def test_only_scenes_have_captions_in_other_languages():
    data = {"stickers": {"kind": "video", "language": "ko"}}
    with pytest.raises(ConfigError, match="speak English"):
        build_task("pairs", {"type": "retrieval", "batch_size": 2, "data": data})


@pytest.mark.parametrize("embeddings_only", [False, True])
def test_what_a_swap_replaces(
    embeddings_only, tiny_config, tiny_model, tiny_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setitem(PRESETS, "tiny", tiny_config)
    save_model(tiny_model, tmp_path / "english", tiny_tokenizer)
    other = build_model(tiny_config)
    save_model(other, tmp_path / "other", tiny_tokenizer)
    source = ModelSource(
        preset="tiny",
        x2vlm_from=str(tmp_path / "english"),
        text_from=str(tmp_path / "other"),
        tokenizer=str(tmp_path / "english"),
        embeddings_only=embeddings_only,
    )
    model, _, fresh = load_source(source)
    assert not {name for name in fresh if not name.startswith("answer_decoder.")}
    of_text = ("text_encoder.embeddings.", *([] if embeddings_only else ["text_encoder."]))
    for name, tensor in model.state_dict().items():
        if name.startswith(("answer_decoder.", "masked_lm_head.decoder.")):
            continue
        source_model = other if name.startswith(tuple(of_text)) else tiny_model
        assert torch.equal(tensor, source_model.state_dict()[name]), name


@pytest.mark.slow
def test_the_whole_way_at_toy_size(tmp_path):
    arguments = ["--language", "zh", "--out", str(tmp_path), "--steps", "2", "--text-steps", "2"]
    assert swap.main([*arguments, "--test", "8"]) == 0
    found = json.loads((tmp_path / "recall.json").read_text())
    assert found.keys() == swap.ROWS.keys()
    assert found["english"]["mean_recall"] > 0.9  # among eight scenes
    assert all(0 <= value <= 1 for row in found.values() for value in row.values())
