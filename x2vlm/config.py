"""The sizes of every model as frozen dataclasses.

A configuration says what is built (towers, layers, heads); it never enters a leaf module,
`build.py` hands plain numbers on.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
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
    "dense_box",
    "masked_lm",
    "causal_lm",
    "answer_decoder",
    "pair",
    "classification",
)
"""Every head a model can carry. `causal_lm` writes captions word by word (X-VLM), `pair` reasons
over two images (NLVR2), `classification` answers from a closed list, `dense_box` finds boxes
patch by patch and needs `contrastive`."""


SWIN_PATCH = 4
"""Pixels per side of a token in the first stage of Swin; every later stage doubles it."""


def sides(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of an `image_size`.

    Raises:
        ConfigError: neither a number nor two of them (`config/value`).
    """
    if isinstance(image_size, int):
        return image_size, image_size
    if len(image_size) != 2:
        raise ConfigError(
            "image_size is a number of pixels, or (height, width). Give one or two numbers.",
            "config/value",
        )
    return image_size[0], image_size[1]


def size_text(image_size: int | Sequence[int]) -> str:
    """As people read it: "384", or "384 x 128" (height x width)."""
    height, width = sides(image_size)
    return str(height) if height == width else f"{height} x {width}"


def size_from_text(text: str) -> int | tuple[int, ...]:
    """An `image_size` from "384", or from "384x128" (height x width); ValueError for others."""
    numbers = tuple(map(int, text.lower().split("x")))
    return numbers if len(numbers) > 1 else numbers[0]


@dataclass(frozen=True)
class VisionConfig:
    """The image tower.

    Attributes:
        tower: `beit2` (X2-VLM), `swin` (X-VLM), `clip` (ViT-B/16 as in CLIP) or `timm` (layers
            above the feature maps of a timm model).
        backbone: the timm model of a `timm` tower.
        image_size: side of the square input in pixels, or (height, width) of another; multiples of
            `patch_size`.
        patch_size: pixels per side of one output token (32 for Swin: its output stride).
        hidden_size, num_layers, num_heads: width D, depth and heads (Swin: of the last stage, see
            `swin_*`).
        layer_scale: initial LayerScale, None for none. Loaded weights override it.
        position: `relative` (BEiT-2 as released) or `sincos` (fixed absolute positions; what
            training from scratch needs).
    """

    tower: Literal["beit2", "swin", "clip", "timm"] = "beit2"
    backbone: str = ""
    image_size: Size | tuple[Size, ...] = 224
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
        height, width = sides(self.image_size)
        object.__setattr__(self, "image_size", height if height == width else (height, width))
        patch = self.patch_size
        if any(side <= 0 or side % patch for side in (height, width)):
            near = [max(1, round(side / patch)) * patch for side in (height, width)]
            raise ConfigError(
                f"image_size {size_text(self.image_size)} is not a multiple of the patch size "
                f"{patch}. Choose for example {size_text(near)}.",
                "config/value",
            )
        if self.tower == "swin":
            self._check_swin()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input in pixels."""
        return sides(self.image_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        height, width = self.size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_tokens(self) -> int:
        """P: patches plus the pooled token at index 0."""
        rows, columns = self.grid_size
        return rows * columns + 1

    @property
    def swin_stages(self) -> tuple[tuple[tuple[int, int], int], ...]:
        """For every stage of Swin the (rows, columns) of its tokens and the side of its square
        windows: the shorter side where that is not longer than a window, which is then not shifted.
        """
        stages, (rows, columns) = len(self.swin_depths), self.grid_size
        grids = [(rows << stage, columns << stage) for stage in reversed(range(stages))]
        return tuple((grid, min(*grid, self.swin_window_size)) for grid in grids)

    def _check_swin(self) -> None:
        stages = len(self.swin_depths)
        width, patch = self.swin_embed_dim << stages - 1, SWIN_PATCH << stages - 1
        if len(self.swin_num_heads) != stages:
            raise ConfigError(
                f"swin_num_heads has {len(self.swin_num_heads)} entries and swin_depths {stages}. "
                f"Give one of each for every stage.",
                "config/value",
            )
        for name, value, wanted in (
            ("hidden_size", self.hidden_size, width),
            ("patch_size", self.patch_size, patch),
        ):
            if value != wanted:
                raise ConfigError(
                    f"{name} {value} does not fit a Swin tower of {stages} stages with "
                    f"swin_embed_dim {self.swin_embed_dim}, which doubles both in every stage. "
                    f"Give {wanted}.",
                    "config/value",
                )
        for stage, heads in enumerate(self.swin_num_heads):
            if (self.swin_embed_dim << stage) % heads:
                raise ConfigError(
                    f"Stage {stage} of the Swin tower is {self.swin_embed_dim << stage} wide, "
                    f"which its {heads} heads do not divide. Change swin_num_heads.",
                    "config/value",
                )
        for (rows, columns), window in self.swin_stages:
            if rows % window or columns % window:
                raise ConfigError(
                    f"image_size {size_text(self.image_size)} gives a Swin stage of {rows} x "
                    f"{columns} tokens, which windows of {window} x {window} do not fill. Choose "
                    f"an image_size or a swin_window_size that fits.",
                    "config/value",
                )


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


MODEL_TYPE = "x2vlm"
OF_TRANSFORMERS = {"model_type", "architectures", "auto_map", "dtype", "transformers_version"}
"""Keys of a config.json that are not about the architecture, see `x2vlm.hf`."""


@dataclass(frozen=True)
class X2VLMConfig:
    """A whole model.

    Attributes:
        projection_size: width of the contrastive features.
        num_frames: frames of a video the model was trained with; 0 means it has no frame positions
            (images only).
        frame_order: the model sees in which order frames come, see `x2vlm.modeling.video`; the
            paper's models do not.
        heads: subset of `HEADS` that the model carries.
        num_labels: classes of the `classification` head.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    projection_size: Size = 256
    num_frames: Few = 0
    frame_order: bool = False
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
        return {"model_type": MODEL_TYPE} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> X2VLMConfig:
        """Inverse of `to_dict`; what transformers writes for itself is left out.

        Raises:
            ConfigError: an unknown key (`config/key`) or a bad value (`config/value`).
        """
        own = {name: value for name, value in values.items() if name not in OF_TRANSFORMERS}
        return read_values(cls, own, "the model configuration")


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
