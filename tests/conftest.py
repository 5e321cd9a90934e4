"""Fixtures that every test may use: a tiny random model with all heads, its vocabulary, and the
folder of shared real data."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from x2vlm.config import DecoderConfig, FusionConfig, TextConfig, VisionConfig, X2VLMConfig

WORDS = """
    a an the picture of is are in on at left right to and what color how many there where man woman
    dog cat car ball bus tree
    kite red green blue yellow small large two three yes no one next sky grass person runs jumps
    quickly sitting with it not
    un ##aff ##able ##s ##ing ##er play , . ? !
"""
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [character for character in "abcdefghijklmnopqrstuvwxyz0123456789"]


def make_tokenizer(family: str = "bert"):
    """A WordPiece tokenizer of about 150 entries: some words, all letters, continuations."""
    from transformers import BertTokenizerFast

    entries = dict.fromkeys(
        [*SPECIALS, *WORDS.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    )
    return BertTokenizerFast(vocab={entry: index for index, entry in enumerate(entries)})


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared real data, `../shared` beside the repository or `X2VLM_SHARED`."""
    folder = Path(os.environ.get("X2VLM_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip("shared data not found (set X2VLM_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer) -> X2VLMConfig:
    """64 px, grid 4, widths that differ between vision and text, every head but closed-list
    classification."""
    return X2VLMConfig(
        vision=VisionConfig(
            image_size=64,
            hidden_size=32,
            num_layers=2,
            num_heads=2,
            drop_path=0.0,
            layer_scale=None,
            position="sincos",
        ),
        text=TextConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=24,
            num_layers=2,
            num_heads=2,
            intermediate_size=48,
            max_positions=64,
            type_vocab_size=1,
            dropout=0.0,
        ),
        fusion=FusionConfig(num_layers=3, num_heads=2, intermediate_size=48, dropout=0.0),
        decoder=DecoderConfig(num_layers=2, max_positions=16, type_vocab_size=1),
        projection_size=16,
        num_frames=4,
        heads=("contrastive", "matching", "box", "masked_lm", "answer_decoder", "pair"),
    )


@pytest.fixture(scope="session")
def tiny_processor(tiny_config, tiny_tokenizer):
    from x2vlm.processing import Processor

    return Processor(tiny_config, tiny_tokenizer, max_tokens=20)


@pytest.fixture
def photo() -> Image.Image:
    """An image of 120 x 80 with structure in it."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC)


def without_heads(config: X2VLMConfig, *heads: str) -> X2VLMConfig:
    return dataclasses.replace(
        config, heads=tuple(head for head in config.heads if head not in heads)
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """Random weights, larger than a fresh model's so that answers differ between images; evaluation
    mode."""
    import torch

    from x2vlm.modeling.build import build_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(tiny_config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_predictor(tiny_model, tiny_processor):
    from x2vlm.inference.predictor import Predictor
    from x2vlm.settings import Settings

    answers = ("yes", "no", "red", "green", "blue", "two", "three", "man", "woman", "dog")
    return Predictor.from_model(
        tiny_model, tiny_processor, Settings(max_tokens=20, answers=answers), name="tiny"
    )


@pytest.fixture(scope="session")
def tiny_folder(tiny_predictor, tiny_model, tiny_tokenizer, tmp_path_factory) -> Path:
    """The tiny model as a folder that `Predictor.from_pretrained` loads."""
    import json

    from x2vlm.checkpoint import save_model

    folder = save_model(tiny_model, tmp_path_factory.mktemp("models") / "tiny", tiny_tokenizer)
    settings = {
        "thresholds": {"absent": 0.2, "present": 0.5},
        "max_tokens": 20,
        "answers": ["yes", "no", "red", "green", "blue", "two", "three", "man", "woman", "dog"],
        "note": "knows nothing",
    }
    (folder / "predictor.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
