"""The sticker world: procedural pictures and clips with exact annotation, a pure function of seed and version.

Needs PIL and numpy only. `make_record(seed, split)` gives a picture with captions, region phrases, questions and absent
phrases; see `records` for clips, word-order pairs and picture pairs, `checker` for verifying any caption.
"""

from x2vlm.stickers.checker import Claim, ClaimCheck, check_caption
from x2vlm.stickers.clips import Clip, render_clip, sample_clip
from x2vlm.stickers.concepts import ANSWERS
from x2vlm.stickers.geometry import Item, Scene
from x2vlm.stickers.language import OBJECT_NAMES
from x2vlm.stickers.records import corpus, make_clip_record, make_order_record, make_pair_record, make_record
from x2vlm.stickers.render import render
from x2vlm.stickers.scene import WORLD_VERSION, sample_scene
from x2vlm.stickers.splits import HELD_OUT_COLOURS, HELD_OUT_RELATIONS, SPLITS, split_seeds

__all__ = [
    "ANSWERS",
    "HELD_OUT_COLOURS",
    "HELD_OUT_RELATIONS",
    "OBJECT_NAMES",
    "SPLITS",
    "WORLD_VERSION",
    "Claim",
    "ClaimCheck",
    "Clip",
    "Item",
    "Scene",
    "check_caption",
    "corpus",
    "make_clip_record",
    "make_order_record",
    "make_pair_record",
    "make_record",
    "render",
    "render_clip",
    "sample_clip",
    "sample_scene",
    "split_seeds",
]
