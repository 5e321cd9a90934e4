"""The sticker world: procedural images and videos with exact annotation, a pure function of seed
and version.

Needs PIL and numpy only. `make_record(seed, split)` gives an image with captions, region phrases,
questions and absent phrases; see `records` for videos, word-order pairs and image pairs, `checker`
for verifying any caption.
"""

from x2vlm.stickers.checker import Claim, ClaimCheck, check_caption
from x2vlm.stickers.concepts import ANSWERS
from x2vlm.stickers.geometry import Item, Scene
from x2vlm.stickers.language import OBJECT_NAMES
from x2vlm.stickers.records import (
    corpus,
    make_order_record,
    make_pair_record,
    make_record,
    make_video_record,
)
from x2vlm.stickers.render import render
from x2vlm.stickers.scene import WORLD_VERSION, sample_scene
from x2vlm.stickers.splits import HELD_OUT_COLOURS, HELD_OUT_RELATIONS, SPLITS, split_seeds
from x2vlm.stickers.translations import Language, translated_captions
from x2vlm.stickers.videos import Video, render_video, sample_video

__all__ = [
    "ANSWERS",
    "HELD_OUT_COLOURS",
    "HELD_OUT_RELATIONS",
    "OBJECT_NAMES",
    "SPLITS",
    "WORLD_VERSION",
    "Claim",
    "ClaimCheck",
    "Item",
    "Language",
    "Scene",
    "Video",
    "check_caption",
    "corpus",
    "make_order_record",
    "make_pair_record",
    "make_record",
    "make_video_record",
    "render",
    "render_video",
    "sample_scene",
    "sample_video",
    "split_seeds",
    "translated_captions",
]
