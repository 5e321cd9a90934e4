"""The sizes of every model as frozen dataclasses, and the named presets.

A configuration says what is built (towers, layers, heads); it never enters a leaf module,
`build.py` hands plain numbers on.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from x2vlm.errors import ConfigError

Size = Annotated[int, (1, 65_536)]
Few = Annotated[int, (0, 256)]
Count = Annotated[int, (0, 10_000_000)]
Rate = Annotated[float, (0, 1)]
"""Numbers with their least and greatest value, which `read_values` checks; files with other numbers
are damaged or hostile."""

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's statistics, with which every tower's images are normalised."""

HEADS = (
    "contrastive",
    "matching",
    "box",
    "masked_lm",
    "causal_lm",
    "answer_decoder",
    "pair",
    "classification",
)
"""Every head a model can carry. `causal_lm` writes captions word by word (X-VLM), `pair` reasons
over two images (NLVR2), `classification` answers from a closed list."""


@dataclass(frozen=True)
class VisionConfig:
    """The image tower.

    Attributes:
        tower: `beit2` (X2-VLM), `swin` (X-VLM), `clip` (ViT-B/16 as in CLIP) or `timm` (layers
            above the feature maps of a timm model).
        backbone: the timm model of a `timm` tower.
        image_size: side of the square input in pixels; a multiple of `patch_size`.
        patch_size: pixels per side of one output token (32 for Swin: its output stride).
        hidden_size, num_layers, num_heads: width D, depth and heads (Swin: of the last stage, see
            `swin_*`).
        layer_scale: initial LayerScale, None for none. Loaded weights override it.
        position: `relative` (BEiT-2 as released) or `sincos` (fixed absolute positions; what
            training from scratch needs).
    """

    tower: Literal["beit2", "swin", "clip", "timm"] = "beit2"
    backbone: str = ""
    image_size: Size = 224
    patch_size: Size = 16
    hidden_size: Size = 768
    num_layers: Few = 12
    num_heads: Size = 12
    mlp_ratio: Annotated[float, (0, 100)] = 4.0
    drop_path: Rate = 0.1
    layer_scale: Rate | None = 0.1
    position: Literal["relative", "sincos"] = "relative"
    swin_embed_dim: Size = 128
    swin_depths: tuple[Few, ...] = (2, 2, 18, 2)
    swin_num_heads: tuple[Size, ...] = (4, 8, 16, 32)
    swin_window_size: Size = 7

    def __post_init__(self):
        if self.image_size <= 0 or self.image_size % self.patch_size:
            raise ConfigError(
                f"image_size {self.image_size} is not a multiple of the patch size "
                f"{self.patch_size}. Choose for example "
                f"{max(1, round(self.image_size / self.patch_size)) * self.patch_size}.",
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
    """The text encoder: BERT (`bert`) or XLM-R (`xlm-roberta`, positions counted from the padding
    id).

    Attributes:
        bert_stack: XLM-R as CCLM 3M and 4M have it, in one BERT stack with the fusion layers:
            positions count from 0, and the masked-LM head is tied to the word embeddings.
    """

    family: Literal["bert", "xlm-roberta"] = "bert"
    bert_stack: bool = False
    vocab_size: Count = 30522
    hidden_size: Size = 768
    num_layers: Few = 12
    num_heads: Size = 12
    intermediate_size: Size = 3072
    max_positions: Size = 512
    type_vocab_size: Size = 2
    pad_token_id: Count = 0
    layer_norm_eps: Rate = 1e-12
    dropout: Rate = 0.1
    drop_path: Rate = 0.0
    drop_path_per_token: bool = False

    @property
    def positions_from_padding(self) -> bool:
        """Whether positions count real tokens only, from `pad_token_id` + 1 on (XLM-R)."""
        return self.family == "xlm-roberta" and not self.bert_stack

    @property
    def first_position(self) -> int:
        """The position of [CLS]."""
        return self.pad_token_id + 1 if self.positions_from_padding else 0

    @property
    def max_tokens(self) -> int:
        """The longest text, [CLS] and [SEP] included."""
        return self.max_positions - self.first_position


@dataclass(frozen=True)
class FusionConfig:
    """The fusion layers: self-attention, cross-attention to the image, MLP. Their width is the text
    width.

    Attributes:
        twin_layers: every layer stands twice, for the two images of a pair; the two share keys and
            values (X-VLM's NLVR2). `num_layers` counts them once.
    """

    num_layers: Few = 6
    twin_layers: bool = False
    num_heads: Size = 12
    intermediate_size: Size = 3072
    layer_norm_eps: Rate = 1e-12
    dropout: Rate = 0.1
    drop_path: Rate = 0.0
    drop_path_per_token: bool = False


@dataclass(frozen=True)
class DecoderConfig:
    """The answer decoder: causal layers that attend to the fused question states, with embeddings
    and LM head of its own."""

    num_layers: Few = 6
    max_positions: Size = 512
    type_vocab_size: Size = 2


@dataclass(frozen=True)
class X2VLMConfig:
    """A whole model.

    Attributes:
        projection_size: width of the contrastive features.
        num_frames: frames of a video the model was trained with; 0 means it has no frame positions
            (images only).
        heads: subset of `HEADS` that the model carries.
        num_labels: classes of the `classification` head.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projection_size: Size = 256
    num_frames: Few = 0
    heads: tuple[str, ...] = ("contrastive", "matching", "box", "masked_lm")
    num_labels: Size = 2

    def __post_init__(self):
        unknown = [head for head in self.heads if head not in HEADS]
        if unknown:
            raise ConfigError(
                f"Unknown head {unknown[0]!r}. Known heads: {', '.join(HEADS)}.", "config/value"
            )
        widths = {
            "vision": self.vision.hidden_size,
            "text": self.text.hidden_size,
            "fusion": self.text.hidden_size,
        }
        for part, width in widths.items():
            if width % (heads := getattr(self, part).num_heads):
                raise ConfigError(
                    f"The {part} width {width} is not a multiple of its num_heads, {heads}.",
                    "config/value",
                )

    @property
    def multilingual(self) -> bool:
        """True for CCLM: an XLM-R text encoder."""
        return self.text.family == "xlm-roberta"

    @property
    def separate_fusion(self) -> bool:
        """True for CCLM made from X2-VLM: fusion layers apart, untied masked-LM decoder."""
        return self.multilingual and not self.text.bert_stack

    @property
    def causal(self) -> bool:
        """True where captions are written by next-token prediction (X-VLM)."""
        return "causal_lm" in self.heads

    @property
    def writes(self) -> bool:
        """Whether a head can write captions."""
        return self.causal or "masked_lm" in self.heads

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
        return read_values(cls, values, "the model configuration")


def read_values(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """A dataclass from what a JSON file holds, checked by the types of its fields; blocks and lists
    nest.

    Args:
        where: what is read, for messages.

    Raises:
        ConfigError: an unknown key (`config/key`), or a value of another type or outside its bounds
            (`config/value`).
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(
            f"Unknown key {unknown[0]!r} in {where}. Known keys: {', '.join(sorted(hints))}.",
            "config/key",
        )
    read = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            value = read_values(hint, value, f"{key} of {where}")
        elif wanted := _unlike(value, hint):
            raise ConfigError(
                f"{key} in {where} is {value!r:.40}; it must be {wanted}.", "config/value"
            )
        read[key] = tuple(value) if isinstance(value, list) else value
    return cls(**read)


def _unlike(value: Any, hint: Any) -> str | None:
    """What a value of this type looks like, in words; None where `value` does."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        wanted = [_unlike(value, choice) for choice in inner]
        return " or ".join(wanted) if all(wanted) else None
    if origin is tuple:
        wanted = (
            [_unlike(item, inner[0]) for item in value]
            if isinstance(value, (list, tuple))
            else [_unlike(None, inner[0])]
        )
        return f"a list, every entry {next(filter(None, wanted))}" if any(wanted) else None
    if origin is Literal:
        return None if value in inner else f"one of: {', '.join(inner)}"
    if origin is Annotated:
        kind, (low, high) = inner
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        named = "a whole number" if kind is int else "a number"
        return None if number and low <= value <= high else f"{named} from {low} to {high}"
    words = {str: "text", bool: "true or false", types.NoneType: "null"}
    return None if isinstance(value, hint) else words.get(hint, "a block of keys")


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
