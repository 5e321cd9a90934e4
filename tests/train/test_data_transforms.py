"""Transforms, frames and captions: sizes, randomness from the given generator only, flips that
follow the words."""

import numpy as np
import pytest
import torch
from PIL import Image

from train.data.captioning import caption_layout, collate_captions
from train.data.masking import MaskingConfig, TokenMasker
from train.data.text import TextEncoder
from train.data.transforms import (
    GEOMETRIC,
    PHOTOMETRIC,
    augment,
    may_flip,
    rand_augment,
    sample_resized_crop,
)
from train.data.video import sample_frame_indices
from train.data.vocabulary import build_tokenizer, learn_vocabulary
from x2vlm.config import TextConfig
from x2vlm.presets import MINI
from x2vlm.processing import Processor, normalize, to_pixels


def noise(width=60, height=40) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(
        learn_vocabulary(["a red dog runs on the green grass", "a picture of a dog"] * 3, 1300), 64
    )


def make_processor(tokenizer, max_tokens, **text):
    text = {"vocab_size": len(tokenizer), "max_positions": 64, **text}
    return Processor(MINI.replace(text=TextConfig(**text)), tokenizer, max_tokens)


@pytest.mark.parametrize("kind", ["none", "pretrain", "train", "train_no_flip"])
def test_augment_depends_on_the_generator_alone(kind):
    first, again, other = (
        augment(noise(), 32, kind, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (kind == "none")


def test_none_is_what_inference_sees():
    class OnlyImages(Processor):
        def __init__(self):
            self.config = MINI

    assert torch.allclose(
        normalize(to_pixels(noise(), MINI.vision.image_size)),
        OnlyImages().image(noise()),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("text", "free"),
    [("a dog left of a cat", False), ("turn Right!", False), ("bright leftover cleft", True)],
)
def test_flips_follow_whole_words(text, free):
    assert any(may_flip([text], np.random.default_rng(seed)) for seed in range(20)) == free


def test_forced_flip_mirrors():
    wide = Image.new("RGB", (8, 8), "black")
    wide.paste("white", (0, 0, 4, 8))
    rng_state = 3
    plain = augment(wide, 8, "train_no_flip", np.random.default_rng(rng_state), flip=False)
    flipped = augment(wide, 8, "train_no_flip", np.random.default_rng(rng_state), flip=True)
    assert not torch.equal(plain, flipped)


def test_resized_crops():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        x0, y0, x1, y1 = sample_resized_crop(100, 80, 0.5, rng)
        assert 0 <= x0 < x1 <= 100 and 0 <= y0 < y1 <= 80
        shares.append((x1 - x0) * (y1 - y0) / 8000)
    assert min(shares) > 0.48 and max(shares) > 0.9
    assert sample_resized_crop(1000, 3, 0.5, rng) == (
        498,
        0,
        502,
        3,
    )  # no ratio fits: the largest centred window


def test_rand_augment_operations():
    image = noise()
    assert set(PHOTOMETRIC) == {"identity", "auto_contrast", "equalize", "brightness", "sharpness"}
    for name, operation in (PHOTOMETRIC | GEOMETRIC).items():
        assert operation(image, 1).size == image.size, name
    grey = Image.new("RGB", (10, 10), (100, 100, 100))
    assert PHOTOMETRIC["brightness"](grey, -1).getpixel((5, 5)) == (136, 136, 136)
    moved = np.asarray(GEOMETRIC["translate_x"](Image.new("RGB", (20, 20), "black"), 1))
    assert (moved[:, -7:] == 128).all() and (moved[:, :-7] == 0).all()
    same = sum(rand_augment(image, np.random.default_rng(seed)) == image for seed in range(100))
    assert 20 < same < 55  # none of two operations applied: 1/4, and identity one time in ten


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 0, 1]),
        (3, 3, [0, 1, 2]),
        (2, 5, [0, 0, 0, 1, 1]),
        (4, 3, [0, 2, 3]),
        (7, 3, [0, 3, 5]),
        (8, 3, [0, 3, 6]),
        (10, 3, [0, 4, 7]),
        (30, 5, [0, 6, 12, 18, 24]),
        (17, 5, [0, 4, 8, 11, 14]),
    ],
)
def test_frames_as_recorded(frames, count, expected):
    assert sample_frame_indices(frames, count) == expected


def test_random_frames_are_sorted_and_cover_the_video():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        chosen = sample_frame_indices(17, 5, rng)
        assert chosen == sorted(set(chosen)) and chosen[0] < 4 and chosen[-1] > 12
        few = sample_frame_indices(3, 5, rng)
        assert few == sorted(few) and set(few) == {0, 1, 2}


def test_caption_layout_predicts_from_the_left_only(tokenizer):
    processor = make_processor(tokenizer, 40)
    masker = TokenMasker.from_tokenizer(MaskingConfig(0.6, 18), tokenizer)
    for seed in range(20):
        layout = caption_layout(
            "a red dog runs on the grass", processor, masker, np.random.default_rng(seed)
        )
        tokens = processor.encode("a picture of a red dog runs on the grass")
        real = [i for i in range(len(layout.ids)) if i not in layout.mask_positions]
        assert [layout.ids[i] for i in real] == tokens and [
            layout.position_ids[i] for i in real
        ] == list(range(len(tokens)))
        assert all(
            layout.position_ids[i] > 3 for i in layout.mask_positions
        )  # [CLS] and the prompt are never predicted
        for where, label in zip(layout.mask_positions, layout.labels, strict=True):
            assert layout.ids[where] == tokenizer.mask_token_id
            assert (
                layout.ids[where + 1] == label
                and layout.position_ids[where] == layout.position_ids[where + 1]
            )
        batch = collate_captions([layout], tokenizer.pad_token_id)
        sees, masks = batch["attention_mask"][0], set(layout.mask_positions)
        for row in range(len(layout.ids)):
            assert set(sees[row].nonzero()[:, 0].tolist()) == {
                c for c in range(row + 1) if c == row or c not in masks
            }
        assert batch["masked_labels"][0, : len(layout.labels)].tolist() == layout.labels
        assert (batch["masked_labels"][0, len(layout.labels) :] == -100).all()


def test_prompt_is_not_said_twice_and_long_captions_are_cut(tokenizer):
    processor = make_processor(tokenizer, 10)
    masker = TokenMasker.from_tokenizer(MaskingConfig(0.6, 18), tokenizer)
    twice = caption_layout("a picture of a dog", processor, masker, np.random.default_rng(0))
    once = caption_layout("a dog", processor, masker, np.random.default_rng(0))
    assert twice == once
    loud = caption_layout("A picture of a dog", processor, masker, np.random.default_rng(0))
    assert loud == once
    longer = caption_layout("a picture offering shade", processor, masker, np.random.default_rng(0))
    assert len(longer.ids) > len(once.ids)  # only the prompt as whole words is taken away
    assert (
        max(caption_layout("a dog " * 20, processor, masker, np.random.default_rng(0)).position_ids)
        == 9
    )
    processor = make_processor(tokenizer, 10, family="xlm-roberta", pad_token_id=1)
    later = caption_layout("a dog", processor, masker, np.random.default_rng(0))
    assert (
        later.position_ids == [position + 2 for position in once.position_ids]
        and later.ids == once.ids
    )


def test_text_batches(tokenizer):
    encoder = TextEncoder(make_processor(tokenizer, 12), MaskingConfig(0.5, 6))
    texts = [
        encoder.encode(text, "caption", np.random.default_rng(0))
        for text in ("a dog", "a red dog runs on the green grass a dog a dog")
    ]
    batch = encoder.collate(texts)
    assert batch["input_ids"].shape == (2, 12) and batch["masked_positions"].shape == (2, 6)
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 12]
    assert batch["input_ids"][1, 11] == tokenizer.sep_token_id
    for row in range(2):
        for position, label in zip(
            batch["masked_positions"][row].tolist(),
            batch["masked_labels"][row].tolist(),
            strict=True,
        ):
            assert label == -100 or batch["input_ids"][row, position] == label
    assert (
        encoder.encode("a dog", None).key
        == encoder.encode("A dog.", "caption").key
        != encoder.encode("a red dog", None).key
    )
    assert "[MASK]" not in tokenizer.convert_ids_to_tokens(encoder.encode("[MASK] dog", None).ids)
    assert set(encoder.collate(texts, masked=False)) == {"input_ids", "attention_mask"}
    five = encoder.collate([encoder.encode("a red dog", None)], masked=False)
    assert five["input_ids"].shape == (1, 6)


def test_vocabulary_spells_every_common_script(tokenizer):
    texts = [
        "The red DOG.",
        "it's 5'10\" & 50% <b>",
        "café ß Œuvre",
        "Привет мир",
        "Γειά σου",
        "안녕하세요",
        "こんにちは。",
        "שלום",
        "مرحبا",
    ]
    for text in texts:
        assert tokenizer.unk_token not in tokenizer.tokenize(text), text
    assert tokenizer.tokenize("the red dog") == ["the", "red", "dog"]
    small = learn_vocabulary(["rare word word"] * 1 + ["word"], 2000)
    assert "word" in small and "rare" not in small
    assert [len(learn_vocabulary(["x"], size)) for size in (300, 3000)] == [300, 3000]
