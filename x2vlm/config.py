"""The sizes of every model as frozen dataclasses, and the named presets.

A configuration says what is built (towers, layers, heads); it never enters a leaf module, `build.py` hands plain numbers on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from x2vlm.errors import ConfigError

HEADS = ("contrastive", "matching", "box", "masked_lm", "answer_decoder", "pair", "classification")
"""Every head a model can carry. `pair` reasons over two pictures (NLVR2), `classification` answers from a closed list."""


@dataclass(frozen=True)
class VisionConfig:
    """The image tower.

    Attributes:
        tower: `beit2` (X2-VLM), `swin` (X-VLM) or `clip` (ViT-B/16 as in CLIP).
        image_size: side of the square input in pixels; a multiple of `patch_size`.
        patch_size: pixels per side of one output token (32 for Swin: its output stride).
        hidden_size, num_layers, num_heads: width D, depth and heads (Swin: of the last stage, see `swin_*`).
        layer_scale: initial LayerScale, None for none. Loaded weights override it.
        position: `relative` (BEiT-2 as released) or `sincos` (fixed absolute positions; what training from scratch needs).
    """

    tower: Literal["beit2", "swin", "clip"] = "beit2"
    image_size: int = 224
    patch_size: int = 16
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    layer_scale: float | None = 0.1
    position: Literal["relative", "sincos"] = "relative"
    swin_embed_dim: int = 128
    swin_depths: tuple[int, ...] = (2, 2, 18, 2)
    swin_num_heads: tuple[int, ...] = (4, 8, 16, 32)
    swin_window_size: int = 7

    def __post_init__(self):
        if self.image_size <= 0 or self.image_size % self.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is not a multiple of the patch size {self.patch_size}. "
                f"Choose for example {max(1, round(self.image_size / self.patch_size)) * self.patch_size}.",
                "config/value",
            )

    @property
    def grid_size(self) -> int:
        """Patches per side."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """P: patches plus the pooled token at index 0."""
        return self.grid_size**2 + 1


@dataclass(frozen=True)
class TextConfig:
    """The text encoder: BERT (`bert`) or XLM-R (`xlm-roberta`, positions counted from the padding id)."""

    family: Literal["bert", "xlm-roberta"] = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    drop_path: float = 0.0
    drop_path_per_token: bool = False

    @property
    def first_position(self) -> int:
        """The position of [CLS]."""
        return self.pad_token_id + 1 if self.family == "xlm-roberta" else 0

    @property
    def max_tokens(self) -> int:
        """The longest text, [CLS] and [SEP] included."""
        return self.max_positions - self.first_position


@dataclass(frozen=True)
class FusionConfig:
    """The fusion layers: self-attention, cross-attention to the image, MLP. Their width is the text width."""

    num_layers: int = 6
    num_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    drop_path: float = 0.0
    drop_path_per_token: bool = False


@dataclass(frozen=True)
class DecoderConfig:
    """The answer decoder: causal layers that attend to the fused question states, with embeddings and LM head of its own."""

    num_layers: int = 6
    max_positions: int = 512
    type_vocab_size: int = 2


@dataclass(frozen=True)
class X2VLMConfig:
    """A whole model.

    Attributes:
        projection_size: width of the contrastive features.
        num_frames: frames of a clip the model was trained with; 0 means it has no frame positions (pictures only).
        heads: subset of `HEADS` that the model carries.
        num_labels: classes of the `classification` head.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projection_size: int = 256
    num_frames: int = 0
    heads: tuple[str, ...] = ("contrastive", "matching", "box", "masked_lm")
    num_labels: int = 2

    def __post_init__(self):
        unknown = [head for head in self.heads if head not in HEADS]
        if unknown:
            raise ConfigError(f"Unknown head {unknown[0]!r}. Known heads: {', '.join(HEADS)}.", "config/value")

    @property
    def multilingual(self) -> bool:
        """True for CCLM: XLM-R text encoder, fusion layers apart, untied masked-LM decoder."""
        return self.text.family == "xlm-roberta"

    def replace(self, **changes: Any) -> X2VLMConfig:
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> X2VLMConfig:
        """Inverse of `to_dict`.

        Raises:
            ConfigError: an unknown key (`config/key`) or a bad value (`config/value`).
        """
        parts = {"vision": VisionConfig, "text": TextConfig, "fusion": FusionConfig, "decoder": DecoderConfig}
        values = dict(values)
        for name, part in parts.items():
            if isinstance(values.get(name), dict):
                values[name] = _from_dict(part, values[name], name)
        return _from_dict(cls, values, "model")


def _from_dict(cls, values: dict[str, Any], where: str):
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"Unknown key {unknown[0]!r} in the {where} configuration. Known keys: {', '.join(sorted(known))}.",
            "config/key",
        )
    return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


_LARGE_VISION = VisionConfig(hidden_size=1024, num_layers=24, num_heads=16)
_LARGE_FUSION = FusionConfig(num_heads=16, intermediate_size=4096)
_XLM_R = TextConfig(
    family="xlm-roberta", vocab_size=250002, max_positions=514, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
)
_ALL_BUT_CLASSES = ("contrastive", "matching", "box", "masked_lm", "answer_decoder", "pair")

BASE = X2VLMConfig()
LARGE = X2VLMConfig(
    vision=_LARGE_VISION,
    text=TextConfig(hidden_size=1024, num_heads=16, intermediate_size=4096),
    fusion=_LARGE_FUSION,
)
XVLM_BASE = X2VLMConfig(
    vision=VisionConfig(tower="swin", patch_size=32, hidden_size=1024, num_layers=24, num_heads=32, layer_scale=None),
    text=TextConfig(num_layers=6),
)
CCLM_BASE = X2VLMConfig(text=_XLM_R)
CCLM_LARGE = X2VLMConfig(
    vision=_LARGE_VISION,
    text=dataclasses.replace(_XLM_R, hidden_size=1024, num_layers=24, num_heads=16, intermediate_size=4096),
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
PRESETS = {
    "mini": MINI,
    "base": BASE,
    "large": LARGE,
    "xvlm_base": XVLM_BASE,
    "cclm_base": CCLM_BASE,
    "cclm_large": CCLM_LARGE,
}
