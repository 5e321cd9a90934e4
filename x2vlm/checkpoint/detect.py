"""What a checkpoint is, told from the names and shapes in it: tower, sizes, layers, image size,
frames and heads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from x2vlm.checkpoint.translate import Translated
from x2vlm.config import (
    DecoderConfig,
    FusionConfig,
    TextConfig,
    VisionConfig,
    X2VLMConfig,
    sides,
)
from x2vlm.errors import CheckpointError

HEAD_PARTS = {
    "contrastive": ("image_projection", "text_projection", "temperature"),
    "matching": ("matching_head",),
    "box": ("box_head",),
    "dense_box": ("dense_box_head",),
    "masked_lm": ("masked_lm_head",),
    "causal_lm": ("causal_lm_head",),
    "answer_decoder": ("answer_decoder",),
    "pair": ("pair_head",),
    "classification": ("classification_head",),
}
"""Modules of the model that make up each head."""

XLM_R_VOCABULARY = 250_002
Overrides = Mapping[str, Any]

MAX_GRID = 64
"""Patches per side; position indices grow with the fourth power of it."""


def head_of(name: str) -> str | None:
    """The head that a parameter belongs to, None for towers and encoders."""
    part = name.partition(".")[0]
    return next((head for head, parts in HEAD_PARTS.items() if part in parts), None)


def merge_overrides(config: X2VLMConfig, overrides: Overrides) -> X2VLMConfig:
    """`config` with some values replaced; sections nest, as in `{"text": {"num_heads": 6},
    "num_frames": 3}`.

    Raises:
        ConfigError: an unknown key or a bad value.
    """
    values = config.to_dict()
    for key, value in overrides.items():
        values[key] = (
            {**values[key], **value}
            if isinstance(value, Mapping) and isinstance(values.get(key), dict)
            else value
        )
    return X2VLMConfig.from_dict(values)


def detect_config(translated: Translated, overrides: Overrides) -> X2VLMConfig:
    """The configuration of a state dict under our names.

    Numbers of text heads leave no trace in shapes: 64 dimensions a head are taken, as in every BERT
    and XLM-R, unless `overrides` say otherwise.

    Args:
        overrides: see `merge_overrides`.

    Raises:
        CheckpointError: no X2-VLM, X-VLM or CCLM model (`ckpt/keys`), or a width or an image size
            that the file cannot tell (`ckpt/shape`).
    """
    state, layout = translated.state, translated.layout
    for part, name in (
        ("an image tower", "vision.tower.patch_embed.proj.weight"),
        ("word embeddings", _WORDS),
    ):
        if name not in state:
            raise CheckpointError(
                f"The file has no {part[3:] if part.startswith('an ') else part} of X2-VLM, X-VLM "
                "or CCLM: it is a checkpoint of another model. Give one of theirs, or a folder "
                "that this package saved.",
                "ckpt/keys",
            )
    width = state[_WORDS].shape[1]
    heads = overrides.get("text", {}).get("num_heads") or _default_heads(width)
    layers = {
        "num_heads": heads,
        "intermediate_size": _size(state, "text_encoder.layers.0.fc1.weight", 0, 4 * width),
    }
    token_types = _size(state, "text_encoder.embeddings.token_types.weight", 0, 2)
    # XLM-R in a BERT stack has BERT's names; its vocabulary or its one token type tells it.
    bert_stack = not layout.separate_fusion and (
        token_types == 1 or len(state[_WORDS]) == XLM_R_VOCABULARY
    )
    family = {"family": "xlm-roberta", "pad_token_id": 1, "layer_norm_eps": 1e-5}
    text = TextConfig(
        vocab_size=state[_WORDS].shape[0],
        hidden_size=width,
        num_layers=_count(state, "text_encoder.layers"),
        max_positions=_size(state, "text_encoder.embeddings.positions.weight", 0, 512),
        type_vocab_size=token_types,
        bert_stack=bert_stack,
        **layers,
        **(family if bert_stack or layout.separate_fusion else {}),
    )
    fusion = FusionConfig(
        num_layers=_count(state, "fusion_encoder.layers") // (2 if layout.twin_fusion else 1),
        twin_layers=layout.twin_fusion,
        num_heads=heads,
        intermediate_size=_size(state, "fusion_encoder.layers.0.fc1.weight", 0, 4 * width),
        layer_norm_eps=text.layer_norm_eps if bert_stack else FusionConfig.layer_norm_eps,
    )
    decoder = DecoderConfig(
        num_layers=_count(state, "answer_decoder.layers") or 6,
        max_positions=_size(state, "answer_decoder.embeddings.positions.weight", 0, 512),
        type_vocab_size=_size(state, "answer_decoder.embeddings.token_types.weight", 0, 2),
    )
    config = X2VLMConfig(
        vision=_vision(state, translated.image_size or _given_size(overrides)),
        text=text,
        fusion=fusion,
        decoder=decoder,
        projection_size=_size(state, "image_projection.weight", 0, 256),
        num_frames=_size(state, "frame_positions", 1, 0),
        frame_order="frame_change.weight" in state,
        heads=heads_in(state),
        num_labels=_size(state, "classification_head.3.weight", 0, 2),
    )
    return merge_overrides(config, overrides)


def check_grid(vision: VisionConfig) -> None:
    """Raises:
    CheckpointError: an image so large that the tables of a tower would fill the memory
    (`ckpt/shape`).
    """
    if max(*vision.grid_size, vision.swin_window_size) > MAX_GRID:
        height, width = vision.size
        raise CheckpointError(
            f"The image tower would read {height} x {width} pixels; the limit is "
            f"{MAX_GRID * vision.patch_size} a side. Give a smaller image_size.",
            "ckpt/shape",
        )


_WORDS = "text_encoder.embeddings.words.weight"


def heads_in(names: Iterable[str]) -> tuple[str, ...]:
    """The heads that a state dict holds; a temperature alone is none."""
    found = {head_of(name) for name in names if name != "temperature"}
    return tuple(head for head in HEAD_PARTS if head in found)


def _given_size(overrides: Overrides) -> tuple[int, int] | None:
    size = overrides.get("vision", {}).get("image_size")
    return None if size is None else sides(size)


def _vision(state: Mapping[str, Tensor], told: tuple[int, int] | None) -> VisionConfig:
    """The image tower; `told` is the (height, width) in pixels that something else tells."""
    patch = state["vision.tower.patch_embed.proj.weight"]
    if "vision.tower.layers.0.blocks.0.attn.relative_position_bias_table" in state:
        return _swin(state, patch, told)
    width, patch_size, layers = patch.shape[0], patch.shape[2], _count(state, "vision.tower.blocks")
    table = state.get("vision.tower.blocks.0.attn.relative_position_bias_table")
    positions = _size(state, "vision.tower.pos_embed", 1, 1) - 1
    clip = "vision.tower.norm_pre.weight" in state
    if table is None:
        fits = told and math.prod(side // patch_size for side in told) == positions
        side = _square_side(positions) * patch_size
    else:
        fits = told and len(table) - 3 == math.prod(2 * (s // patch_size) - 1 for s in told)
        side = (_square_side(len(table) - 3) + 1) // 2 * patch_size
    if not (fits or side):
        raise CheckpointError(
            "The positions of the image tower belong to no square image, and the file does not "
            "tell its height and width. Give the size it was trained with, for example "
            'config={"vision": {"image_size": [384, 128]}}.',
            "ckpt/shape",
        )
    return VisionConfig(
        tower="clip" if clip else "beit2",
        image_size=told if fits else side,
        patch_size=patch_size,
        hidden_size=width,
        num_layers=layers,
        num_heads=_default_heads(width) if table is None else table.shape[1],
        mlp_ratio=_size(state, "vision.tower.blocks.0.mlp.fc1.weight", 0, 4 * width) / width,
        layer_scale=0.1 if "vision.tower.blocks.0.gamma_1" in state else None,
        position="relative" if clip or table is not None else "sincos",
    )


def _square_side(cells: int) -> int:
    """The side of a square of so many cells, 0 where there is none."""
    return side if (side := math.isqrt(max(cells, 0))) ** 2 == cells else 0


def _swin(state: Mapping[str, Tensor], patch: Tensor, told: tuple[int, int] | None) -> VisionConfig:
    """Sizes of Swin. Where nothing tells the size of its images they are taken for square: a stage
    smaller than the window has a table of its own size, otherwise the last stage is one window."""
    prefix, depths, tables = "vision.tower.layers", [], []
    for stage in range(_count(state, prefix)):
        depths.append(_count(state, f"{prefix}.{stage}.blocks"))
        tables.append(state[f"{prefix}.{stage}.blocks.0.attn.relative_position_bias_table"].shape)
    heads = [shape[1] for shape in tables]
    windows = [(math.isqrt(shape[0]) + 1) // 2 for shape in tables]
    stride = patch.shape[2] * 2 ** (len(depths) - 1)
    return VisionConfig(
        tower="swin",
        image_size=told or windows[-1] * stride,
        patch_size=stride,
        hidden_size=patch.shape[0] * 2 ** (len(depths) - 1),
        num_layers=sum(depths),
        num_heads=heads[-1],
        layer_scale=None,
        swin_embed_dim=patch.shape[0],
        swin_depths=tuple(depths),
        swin_num_heads=tuple(heads),
        swin_window_size=windows[0],
    )


def _size(state: Mapping[str, Tensor], name: str, dim: int, default: int) -> int:
    return state[name].shape[dim] if name in state and state[name].ndim > dim else default


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Layers under `prefix`, which must be numbered without a gap."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(match[1]) for name in state if (match := pattern.match(name))}
    if numbers != set(range(len(numbers))):
        raise CheckpointError(
            f"The layers {prefix} of the file are not numbered without a gap, so it is damaged or "
            "of another model. Get it again from its source.",
            "ckpt/keys",
        )
    return len(numbers)


def _default_heads(width: int) -> int:
    if width % 64:
        raise CheckpointError(
            f"The number of attention heads cannot be told from a width of {width}: 64 does not "
            f"divide it. "
            'Give it, for example config={"text": {"num_heads": 4}, "fusion": {"num_heads": 4}}.',
            "ckpt/shape",
        )
    return width // 64
