"""Fresh sticker scenes, which training has never seen, with their ground truth."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from PIL import Image

from x2vlm import stickers
from x2vlm.media import write_video

from .state import Texts

SCENE_SIZE = 448
VIDEO_FPS = 4.0
WORLD_MODEL = "mini"  # the model of the sticker world
# Fresh scenes are numbered from the end of the test split's seeds; evaluation takes its beginning.
SCENES = 100_000


def fresh_scene(kind: str, number: int) -> tuple[list[Image.Image], dict[str, Any]]:
    """Frames (one for a picture) and the truth of the scene of this number, which training has
    never seen."""
    seed = stickers.split_seeds("test")[-1 - number]
    make = stickers.make_video_record if kind == "video" else stickers.make_record
    record = make(seed, "test", SCENE_SIZE)
    truth = {
        key: record[key] for key in ("captions", "regions", "questions", "absent") if key in record
    }
    return list(record["frames"]) if kind == "video" else [record["image"]], truth


def texts_for(truth: dict[str, Any], number: int) -> Texts:
    """Questions, phrases (one of them for what is absent) and texts that suit a scene. The last
    caption of a clip is a list."""
    rng = random.Random(number)
    absent = truth.get("absent") or []
    regions = truth.get("regions", [])
    captions = truth["captions"]
    named = {tuple(region["box"]): region["text"] for region in regions}.values() or re.split(
        ", | and ", captions[-1]
    )
    phrases = [*list(named)[:3], *absent[:1]]
    question = (
        rng.choice(truth["questions"])["question"] if truth.get("questions") else "what is there?"
    )
    questions = tuple(q["question"] for q in truth.get("questions", [])[:4])
    texts = "\n".join([*captions[:2], *absent[:3]])
    return Texts(question, "\n".join(phrases), captions[0], texts, questions)


def truth_of(truth: dict[str, Any]) -> dict[str, Any]:
    """What is right of the texts that suit a scene, as examples keep it."""
    return {
        "answers": {asked["question"]: asked["answer"] for asked in truth.get("questions", [])},
        "absent": list(truth.get("absent") or []),
        "captions": truth["captions"],
    }


def save_scene(kind: str, frames: list[Image.Image], stem: Path) -> Path:
    """The file of a scene, PNG or MP4."""
    if kind == "video":
        return write_video(frames, VIDEO_FPS, stem.with_suffix(".mp4"))
    path = stem.with_suffix(".png")
    frames[0].save(path)
    return path
