"""The one table of parameter names: official key on the left, our name on the right, read in both
directions.

The official key is the canonical one of `x2vlm.checkpoint.layout`.
"""

from __future__ import annotations

import re

LAYER = (
    ("attention.output.dense.*", "attention.output.*"),
    ("attention.output.LayerNorm.*", "attention_norm.*"),
    ("attention.self.*", "attention.*"),
    ("crossattention.output.dense.*", "cross_attention.output.*"),
    ("crossattention.output.LayerNorm.*", "cross_attention_norm.*"),
    ("crossattention.self.*", "cross_attention.*"),
    ("intermediate.dense.*", "fc1.*"),
    ("output.dense.*", "fc2.*"),
    ("output.LayerNorm.*", "mlp_norm.*"),
)
EMBEDDINGS = (
    ("word_embeddings.*", "words.*"),
    ("position_embeddings.*", "positions.*"),
    ("token_type_embeddings.*", "token_types.*"),
    ("LayerNorm.*", "norm.*"),
)
LM_HEAD = (
    ("transform.dense.*", "dense.*"),
    ("transform.LayerNorm.*", "norm.*"),
    ("decoder.*", "decoder.*"),
    ("bias", "decoder.bias"),  # a second copy of the same tensor
)
SAME = (("*", "*"),)

# Official prefix, our prefix, table for the rest. `#` is a layer number; `#+1` is the number after
# it.
TABLE = (
    # Swin: end of a stage; timm: start.
    (
        "vision_encoder.layers.#.downsample.",
        "vision.tower.layers.#+1.downsample.",
        SAME,
    ),
    ("vision_encoder.", "vision.tower.", SAME),
    ("text_encoder.embeddings.", "text_encoder.embeddings.", EMBEDDINGS),
    ("text_encoder.encoder.layer.#.", "text_encoder.layers.#.", LAYER),
    ("cross_encoder.encoder.layer.#.", "fusion_encoder.layers.#.", LAYER),
    ("mlm_head.predictions.", "masked_lm_head.", LM_HEAD),
    ("causal_lm_head.predictions.", "causal_lm_head.", LM_HEAD),
    ("text_decoder.embeddings.", "answer_decoder.embeddings.", EMBEDDINGS),
    ("text_decoder.encoder.layer.#.", "answer_decoder.layers.#.", LAYER),
    ("text_decoder.cls.predictions.", "answer_decoder.head.", LM_HEAD),
    ("vision_proj.", "image_projection.", SAME),
    ("text_proj.", "text_projection.", SAME),
    ("itm_head.", "matching_head.", SAME),
    ("bbox_head.", "box_head.", SAME),
    # NLVR2 (`canonical` tells them apart).
    (
        "cls_head.pair.",
        "pair_head.",
        SAME,
    ),
    ("cls_head.", "classification_head.", SAME),
    ("absolute_frame_pos_embed", "frame_positions", (("", ""),)),
    ("temp", "temperature", (("", ""),)),
)

BUFFERS = (
    "position_ids",
    "relative_position_index",
    "relative_coords_table",
    "attn_mask",
    "crit_mask_lm_smoothed.one_hot",
    "token_type_ids",
)
"""Ends of keys that hold constants which the model computes itself."""

NEVER_USED = (
    "pooler.dense.weight",
    "pooler.dense.bias",
    "seq_relationship.weight",
    "seq_relationship.bias",
    "vision_encoder.head.weight",
    "vision_encoder.head.bias",
    "vision_encoder.mask_token",
    "vision_encoder.lm_head.weight",
    "vision_encoder.lm_head.bias",
)
"""Ends of keys of parts that X2-VLM drops: poolers, next-sentence and classifier layers,
masked-patch prediction."""


def _compile(left: str, right: str) -> tuple[re.Pattern[str], str, int]:
    """A template pair to (pattern, template of the result, number to add to the layer)."""
    shift = ("#+1" in right) - ("#+1" in left)
    pattern = (
        re.escape(left.replace("#+1", "#"))
        .replace(r"\#", r"(?P<n>\d+)")
        .replace(r"\*", r"(?P<rest>.+)")
    )
    return re.compile(pattern), right.replace("#+1", "#"), shift


_PAIRS = [(official + a, ours + b) for official, ours, table in TABLE for a, b in table]
_FORWARD = [_compile(official, ours) for official, ours in _PAIRS]
_BACKWARD = [_compile(ours, official) for official, ours in _PAIRS]


def _translate(key: str, rules: list[tuple[re.Pattern[str], str, int]]) -> str | None:
    for pattern, template, shift in rules:
        if match := pattern.fullmatch(key):
            groups = match.groupdict()
            if "n" in groups:
                template = template.replace("#", str(int(groups["n"]) + shift))
            return template.replace("*", groups.get("rest", ""))
    return None


def our_name(key: str) -> str | None:
    """Our name of a canonical official key, None if the table has none."""
    return _translate(key, _FORWARD)


def official_name(name: str) -> str | None:
    """The canonical official key of one of our names, None if the table has none."""
    return _translate(name, _BACKWARD)


def ignored_reason(key: str) -> str | None:
    """Why a key of an official file is left out, None if it is not."""
    if key.endswith(BUFFERS):
        return "constant, computed by the model"
    if key.endswith(NEVER_USED):
        return "part that X2-VLM does not use"
    return None
