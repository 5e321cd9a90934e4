"""The named configurations: the released models, and the two that come with the package."""

from __future__ import annotations

import dataclasses

from x2vlm.config import DecoderConfig, FusionConfig, TextConfig, VisionConfig, X2VLMConfig

_LARGE_VISION = VisionConfig(hidden_size=1024, num_layers=24, num_heads=16)
_LARGE_FUSION = FusionConfig(num_heads=16, intermediate_size=4096)
_XLM_R = TextConfig(
    family="xlm-roberta",
    vocab_size=250002,
    max_positions=514,
    type_vocab_size=1,
    pad_token_id=1,
    layer_norm_eps=1e-5,
)
_ALL_BUT_CLASSES = ("contrastive", "matching", "box", "masked_lm", "answer_decoder", "pair")

BASE = X2VLMConfig()
LARGE = X2VLMConfig(
    vision=_LARGE_VISION,
    text=TextConfig(hidden_size=1024, num_heads=16, intermediate_size=4096),
    fusion=_LARGE_FUSION,
)
XVLM_BASE = X2VLMConfig(
    vision=VisionConfig(
        tower="swin", patch_size=32, hidden_size=1024, num_layers=24, num_heads=32, layer_scale=None
    ),
    text=TextConfig(num_layers=6),
)
CCLM_BASE = X2VLMConfig(text=_XLM_R)
CCLM_LARGE = X2VLMConfig(
    vision=_LARGE_VISION,
    text=dataclasses.replace(
        _XLM_R, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096
    ),
    fusion=_LARGE_FUSION,
)
MINI = X2VLMConfig(
    vision=VisionConfig(
        image_size=128,
        hidden_size=256,
        num_layers=6,
        num_heads=4,
        drop_path=0.0,
        layer_scale=None,
        position="sincos",
    ),
    text=TextConfig(
        vocab_size=1600,
        hidden_size=192,
        num_layers=2,
        num_heads=4,
        intermediate_size=768,
        max_positions=64,
        type_vocab_size=1,
        dropout=0.0,
    ),
    fusion=FusionConfig(num_layers=3, num_heads=4, intermediate_size=768, dropout=0.0),
    decoder=DecoderConfig(num_layers=2, max_positions=16, type_vocab_size=1),
    projection_size=128,
    num_frames=4,
    heads=_ALL_BUT_CLASSES,
)
PHOTO = X2VLMConfig(
    vision=VisionConfig(
        tower="timm",
        backbone="tf_efficientnet_lite2",
        image_size=256,
        hidden_size=384,
        num_layers=2,
        num_heads=6,
        drop_path=0.0,
        layer_scale=None,
        position="sincos",
    ),
    text=TextConfig(
        vocab_size=10_000,
        dropout=0.0,
        hidden_size=384,
        num_layers=6,
        num_heads=12,
        intermediate_size=1536,
    ),
    fusion=FusionConfig(num_layers=3, num_heads=12, intermediate_size=1536, dropout=0.0),
    decoder=DecoderConfig(num_layers=2, max_positions=16),
    num_frames=4,
    heads=("contrastive", "matching", "box", "masked_lm", "answer_decoder"),
)
PRESETS = {
    "photo": PHOTO,
    "mini": MINI,
    "base": BASE,
    "large": LARGE,
    "xvlm_base": XVLM_BASE,
    "cclm_base": CCLM_BASE,
    "cclm_large": CCLM_LARGE,
}
