"""Training and test records: plain Python dictionaries with PIL images, all from a seed and a
split."""

import random
from collections.abc import Iterator

from PIL import Image

from x2vlm.stickers.captions import captions, false_caption
from x2vlm.stickers.free import free_questions
from x2vlm.stickers.geometry import Box, Scene
from x2vlm.stickers.language import (
    Voice,
    absent_description,
    absent_phrases,
    held_out_regions,
    object_labels,
    region_phrases,
)
from x2vlm.stickers.loose import loose_absent_phrases, loose_captions, loose_regions
from x2vlm.stickers.pairs import sample_image_pair, sample_order_pair
from x2vlm.stickers.questions import held_out_questions, questions
from x2vlm.stickers.render import render
from x2vlm.stickers.scene import MAX_ITEMS, random_source, sample_scene
from x2vlm.stickers.splits import held_out_items, split_seeds
from x2vlm.stickers.videos import (
    free_video_questions,
    order_questions,
    render_video,
    sample_video,
    video_captions,
    video_questions,
)


def _rounded(box: Box) -> list[float]:
    return [round(value, 5) for value in box]


def describe_scene(scene: Scene, split: str, rng: random.Random) -> dict:
    """All texts about a scene, as `make_record` lists them. In `unseen`, regions and questions are
    only those about the held-out combination."""
    if split == "unseen":
        combinations = held_out_items(scene.items)
        regions = [
            region for found in combinations for region in held_out_regions(scene, found, rng)
        ]
        asked = [
            question for found in combinations for question in held_out_questions(scene, found, rng)
        ]
    else:
        regions, asked = region_phrases(scene, rng), questions(scene, rng)
    return {
        "captions": captions(scene, rng),
        "regions": [{"text": text, "box": _rounded(box)} for text, box in regions],
        "questions": asked,
        "absent": absent_phrases(scene, rng),
        "objects": [
            {"text": text, "name": name, "box": _rounded(box)}
            for text, name, box in object_labels(scene, rng)
        ],
        "false_captions": [false_caption(scene, rng) for _ in range(2)],
    }


def describe_freely(scene: Scene, rng: random.Random, kept_back: bool = False) -> dict:
    """What people might say of a scene: `free_captions`, `free_regions`, `free_absent` and
    `free_questions`, of the form of the plain ones; `kept_back`: in words that training never
    sees."""
    return {
        "free_captions": loose_captions(scene, rng, kept_back),
        "free_regions": [
            {"text": text, "box": _rounded(box)}
            for text, box in loose_regions(scene, rng, kept_back)
        ],
        "free_absent": loose_absent_phrases(scene, rng, kept_back),
        "free_questions": free_questions(scene, rng, kept_back),
    }


def make_record(
    seed: int, split: str = "train", size: int = 192, max_items: int = MAX_ITEMS, min_items: int = 1
) -> dict:
    """One image and what is said of it.

    Args:
        seed: one of `split_seeds(split)`.
        size: side of the image in pixels.
        max_items, min_items: how many stickers (1-6), for a curriculum or a crowd.

    Returns:
        image: RGB image.
        captions: true captions; the first tells kinds, numbers, colours and background.
        objects: {"text", "name", "box"}: each item described by size, colour and kind; `name`
            leaves out the size and is one of `OBJECT_NAMES`.
        regions: {"text", "box"}: phrases for one item or group, box (cx, cy, w, h) in [0, 1].
        questions: {"question", "answer", "kind"}, answers from `ANSWERS`.
        absent: phrases for what is not in the image.
        false_captions: captions like the first, wrong in one thing.
        free_captions, free_regions, free_absent, free_questions: the same in people's words, see
            `describe_freely`; in words kept back from training unless the split is `train`.
        scene: the `Scene`.

    Raises:
        ParameterError: unknown split (param/split) or seed outside it (param/seed).
    """
    scene = sample_scene(seed, split, max_items, min_items)
    texts = describe_scene(scene, split, random_source("texts", seed))
    free = describe_freely(scene, random_source("free texts", seed), split != "train")
    return {"image": render(scene, size), **texts, **free, "scene": scene}


def make_video_record(seed: int, split: str = "train", size: int = 192) -> dict:
    """One video: `frames` (6-16 RGB images), `captions`, `false_captions`, `questions`, `absent`,
    `free_questions`, `order_questions`, `video`; texts as in `make_record`, about all that appears.
    Raises as `make_record`."""
    video = sample_video(seed, split)
    rng, free = random_source("clip texts", seed), random_source("free clip texts", seed)
    absent = [absent_description(video.summary.items, rng, hard) for hard in (False, False, True)]
    return {
        "frames": render_video(video, size),
        "captions": video_captions(video, rng),
        "questions": video_questions(video, split, rng),
        "absent": [description.say(Voice(rng)) for description in absent],
        "false_captions": [false_caption(video.summary, rng) for _ in range(2)],
        "free_questions": free_video_questions(video, free, split != "train"),
        "order_questions": order_questions(video, free, split != "train"),
        "video": video,
    }


def make_order_record(seed: int, split: str = "train", size: int = 192) -> dict:
    """Word-order pair: `images` (2), `captions` (2, the same words), caption i true of image i
    alone, and `scenes`."""
    scenes, texts = sample_order_pair(seed, split)
    return {
        "images": [render(scene, size) for scene in scenes],
        "captions": texts,
        "scenes": scenes,
    }


def make_pair_record(seed: int, split: str = "train", size: int = 192) -> dict:
    """Picture pair: `images` (left, right), `statement`, `label` (bool: is it true), and
    `scenes`."""
    scenes, statement, label = sample_image_pair(seed, split)
    images: list[Image.Image] = [render(scene, size) for scene in scenes]
    return {"images": images, "statement": statement, "label": label, "scenes": scenes}


def corpus(n: int, seed: int = 0) -> Iterator[str]:
    """`n` training texts of all kinds, from the training seeds behind `seed`, to learn a vocabulary
    from."""
    count = 0
    for offset in range(n):
        at = split_seeds("train")[seed + offset]
        rng = random_source("texts", at)
        texts = describe_scene(sample_scene(at), "train", rng)
        lines = [*texts["captions"], *(r["text"] for r in texts["regions"]), *texts["absent"]]
        lines += [text for q in texts["questions"] for text in (q["question"], q["answer"])]
        free = describe_freely(sample_scene(at), random_source("free texts", at))
        said = [*free["free_captions"], *(region["text"] for region in free["free_regions"])]
        said += [question["question"] for question in free["free_questions"]]
        lines += [text.lower() for text in said]
        lines += [sample_image_pair(at)[1]] if offset % 4 == 0 else []
        for line in lines:
            if count == n:
                return
            yield line
            count += 1
