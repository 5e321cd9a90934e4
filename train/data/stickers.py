"""The sticker world as training data: scenes drawn on the fly, each a pure function of its seed.

Drawing is remembered per process, so that tasks that look at the same scene in the same step, and
echoes of a scene, draw it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

from x2vlm import stickers
from x2vlm.errors import ConfigError
from x2vlm.stickers.scene import MAX_ITEMS

REMEMBERED, REMEMBERED_VIDEOS = 2048, 256
"""Records kept in memory per worker process. An image takes about 0.11 MB at 192 px, and a video
has up to 16."""


@dataclass(frozen=True, kw_only=True)
class StickerData:
    """Which scenes.

    Attributes:
        kind: `scene` (an image with everything said about it), `video`, `order` (two images, two
            captions with the same words) or `pair` (two images and a statement).
        split: of the world; `train` never holds the held-out combinations.
        first, count: seeds `first .. first + count - 1` of the split.
        curriculum: (sample, most items) pairs: from that sample on, scenes have at most so many
            items.
        min_items: scenes have at least so many; a crowd shows the tower more objects an image.
        echo: how often a scene is used before it is forgotten, when drawing is slower than the
            step.
        echo_window: samples between two uses of a scene; a multiple of workers x batch size lets
            each worker draw it once.
        language: of the captions of scenes: `en`, or `ko` and `zh`, which have captions and no
            other texts.
        texts: `plain`; `free`, which puts questions, regions and absent phrases in people's words
            in the place of the plain ones (outside the split `train` in words kept back from
            training); or `order`, questions about the order of events in videos alone.
    """

    kind: Literal["scene", "video", "order", "pair"] = "scene"
    split: str = "train"
    first: int = 0
    count: int = 1_000_000
    curriculum: list[tuple[int, int]] = field(default_factory=list)
    min_items: int = 1
    echo: int = 1
    echo_window: int = 4096
    # Both stand in the settings of a run; older runs, which lack them, shall go on.
    language: Literal["en", stickers.Language] = field(default="en", repr=False)
    texts: Literal["plain", "free", "order"] = field(default="plain", repr=False)

    def __post_init__(self):
        if self.language != "en" and self.kind != "scene":
            raise ConfigError(
                f"Sticker data of kind {self.kind!r} speak English; language is "
                f"{self.language!r}. Use kind: scene.",
                "config/value",
            )
        if self.count < 1 or self.echo < 1 or self.echo_window < 1:
            raise ConfigError(
                "count, echo and echo_window of sticker data must be at least 1.", "config/value"
            )
        if not all(
            1 <= self.min_items <= most <= MAX_ITEMS
            for _, most in [*self.curriculum, (0, MAX_ITEMS)]
        ):
            raise ConfigError(
                f"Scenes have 1 to {MAX_ITEMS} items: choose min_items, and most items of the "
                f"curriculum that are not fewer.",
                "config/value",
            )


class StickerRecords(Sequence):
    """Records of the sticker world, each used `echo` times."""

    left_out: ClassVar[dict[str, float]] = {}
    """As of `train.data.files.FileRecords`."""

    def __init__(self, config: StickerData, image_size: int):
        self.config = config
        self.image_size = image_size

    def __len__(self) -> int:
        return self.config.count * self.config.echo

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record; its values are shared between callers, so do not change them."""
        config = self.config
        block, place = divmod(index, config.echo_window)
        seed = config.first + (block // config.echo * config.echo_window + place) % config.count
        max_items = MAX_ITEMS
        for start, limit in config.curriculum:
            if index >= start:
                max_items = limit
        draw = _draw_video if config.kind == "video" else _draw_image
        drawn = draw(config.kind, seed, config.split, self.image_size, config.min_items, max_items)
        named = {"image_id": f"{config.kind} {seed}"}
        if config.language == "en":
            replaced = {
                key: drawn[f"{config.texts}_{key}"]
                for key in ("questions", "regions", "absent")
                if f"{config.texts}_{key}" in drawn
            }
            return named | drawn | replaced
        captions = stickers.translated_captions(drawn["scene"], config.language)
        return named | {"image": drawn["image"], "captions": captions, "scene": drawn["scene"]}

    def name(self, index: int) -> str:
        return f"sticker {self.config.kind} {index} of {self.config.split}"


def _draw(
    kind: str, seed: int, split: str, size: int, min_items: int, max_items: int
) -> dict[str, Any]:
    """One record; `seed` counts from the start of the split."""
    make = {
        "scene": stickers.make_record,
        "video": stickers.make_video_record,
        "order": stickers.make_order_record,
        "pair": stickers.make_pair_record,
    }[kind]
    options = {"min_items": min_items, "max_items": max_items} if kind == "scene" else {}
    return make(stickers.split_seeds(split).start + seed, split=split, size=size, **options)


_draw_image, _draw_video = (
    lru_cache(maxsize=REMEMBERED)(_draw),
    lru_cache(maxsize=REMEMBERED_VIDEOS)(_draw),
)
