"""Videos of 6 to 16 frames in which things enter, leave, grow or swap.

A model that averages its frames cannot know the order, so captions and plain questions are about
content: what is to be seen, how many, which colours, which background. `order_questions` ask what
came first, what appeared and what left. `Video.summary` is the scene of all items that are shown,
for language and checker.
"""

import random
from dataclasses import dataclass, replace

from PIL import Image

from x2vlm.stickers.captions import list_caption
from x2vlm.stickers.concepts import NAMES, SHAPES
from x2vlm.stickers.free import free_questions
from x2vlm.stickers.geometry import Item, Scene, contains
from x2vlm.stickers.language import Voice
from x2vlm.stickers.loose import call
from x2vlm.stickers.questions import CONTENT_MAKERS, held_out_questions, questions
from x2vlm.stickers.render import disturb, paint_background, paste_item
from x2vlm.stickers.scene import SMALL, compose, random_source, sample_wish
from x2vlm.stickers.splits import check_seed, held_out_items
from x2vlm.stickers.sprites import box_size
from x2vlm.stickers.wordings import as_people_type, reword

GROWN_FROM = 0.55  # a growing item starts at this share of its size


@dataclass(frozen=True)
class Track:
    """One item on screen from frame `start` up to, not including, frame `stop`."""

    item: Item
    start: int
    stop: int
    grows: bool


@dataclass(frozen=True)
class Video:
    """`frames`: how many; `summary`: every item that appears, sizes left open, as one scene."""

    frames: int
    tracks: tuple[Track, ...]
    summary: Scene


def _track(item: Item, frames: int, rng: random.Random) -> list[Track]:
    """One item stays, enters, leaves or grows."""
    event = rng.choice(("stay", "enter", "leave", "grow"))
    late = rng.randint(frames // 4, frames // 2)
    start, stop = {"enter": (late, frames), "leave": (0, frames - late)}.get(event, (0, frames))
    return [Track(item, start, stop, event == "grow" and item.size == "large")]


def _swap(item: Item, frames: int, taken: set[str], rng: random.Random) -> list[Track]:
    """One item gives its place to another kind half-way."""
    kind = rng.choice([name for name in (*NAMES, *SHAPES) if name not in taken])
    box = (*item.box[:2], *box_size(kind, min(item.box[2:]), 0, item.flip))
    other = Item(kind, sample_wish(rng, kind).colour, item.size, box, 0, item.flip)
    half = rng.randint(-(-2 * frames // 5), 3 * frames // 5)
    return [Track(item, 0, half, False), Track(other, half, frames, False)]


def sample_video(seed: int, split: str = "train") -> Video:
    """The video of a seed of `split_seeds(split)`: 1 to 5 items, at most 6 with a swap.

    Raises `ParameterError` for an unknown split or a seed outside it.
    """
    check_seed(seed, split)
    rng = random_source("clip", seed)
    while True:
        scene = compose(rng, split, max_items=5)
        frames = rng.randint(6, 16)
        # What takes the place of a narrow item would be too small to see.
        wide = [i for i, item in enumerate(scene.items) if min(item.box[2:]) >= 0.8 * SMALL[0]]
        free = [
            i
            for i in wide
            if not any(contains(scene.items[i], b) for b in scene.items if b is not scene.items[i])
        ]
        swapped = rng.choice(free) if free and rng.random() < 0.5 else -1
        taken = {item.kind for item in scene.items}
        tracks = [
            track
            for index, item in enumerate(scene.items)
            for track in (
                _swap(item, frames, taken, rng) if index == swapped else _track(item, frames, rng)
            )
        ]
        everything = tuple(replace(track.item, size="") for track in tracks)
        combinations = held_out_items(everything)
        # Content alone can show a held-out coloured shape, never a relation.
        if (
            any(len(found) == 1 for found in combinations)
            if split == "unseen"
            else not combinations
        ):
            return Video(frames, tuple(tracks), Scene(scene.background, everything, scene.look))


def frame_items(video: Video, frame: int) -> list[Item]:
    """The items to be seen in a frame, with their boxes of that moment."""
    items = []
    for track in video.tracks:
        if track.start <= frame < track.stop:
            grown = (
                GROWN_FROM + (1 - GROWN_FROM) * frame / (video.frames - 1) if track.grows else 1.0
            )
            x, y, w, h = track.item.box
            items.append(replace(track.item, box=(x, y, w * grown, h * grown)))
    return items


def render_video(video: Video, size: int = 192) -> list[Image.Image]:
    """The frames as RGB images."""
    look = video.summary.look
    backdrop = paint_background(video.summary.background, look, size)
    frames = []
    for index in range(video.frames):
        image = backdrop.copy()
        for item in frame_items(video, index):
            paste_item(image, item)
        frames.append(disturb(image, look))
    return frames


def video_captions(video: Video, rng: random.Random) -> list[str]:
    """Captions of all that appears: kinds and colours with the background first, then shorter
    ones."""
    scene = video.summary
    found = [
        list_caption(scene, rng, detail=1),
        list_caption(scene, rng, detail=0, shuffle=True),
        list_caption(scene, rng, detail=1, background=False, shuffle=True),
    ]
    return list(dict.fromkeys(found))


def video_questions(video: Video, split: str, rng: random.Random) -> list[dict]:
    """Questions about content as {"question", "answer", "kind"}; in `unseen` only those about
    held-out coloured shapes."""
    scene = video.summary
    if split == "unseen":
        shapes = [found for found in held_out_items(scene.items) if len(found) == 1]
        return [question for found in shapes for question in held_out_questions(scene, found, rng)]
    return questions(scene, rng, count=6, makers=CONTENT_MAKERS)


def order_questions(video: Video, rng: random.Random, kept_back: bool = False) -> list[dict]:
    """Questions about the order of events in people's words, as `video_questions`.

    They are asked where one thing leaves and one other comes in, so that what is to be seen, and
    for how long, does not tell the answer.
    """
    comes = [track.item for track in video.tracks if track.start > 0]
    goes = [track.item for track in video.tracks if track.stop < video.frames]
    if len(comes) != 1 or len(goes) != 1 or comes[0].kind == goes[0].kind:
        return []
    items = video.summary.items
    came, went = (call(replace(item, size=""), items, rng) for item in (comes[0], goes[0]))
    if not came or not went:
        return []
    late, early = (name.say(Voice(rng)) for name in (came, went))
    x, y = rng.sample((early, late), 2)
    yes = rng.random() < 0.5
    a, b = (early, late) if yes else (late, early)
    asked = {
        "appeared": ("what appears?", comes[0].kind),
        "left": ("what disappears?", goes[0].kind),
        "first": (f"what comes first, {x} or {y}?", goes[0].kind),
        "before": (f"is {a} there before {b}?", "yes" if yes else "no"),
    }
    return [
        {
            "question": as_people_type(reword(text, kind, rng, kept_back), rng, kept_back),
            "answer": answer,
            "kind": kind,
        }
        for kind, (text, answer) in asked.items()
    ]


def free_video_questions(video: Video, rng: random.Random, kept_back: bool = False) -> list[dict]:
    """As `x2vlm.stickers.free.free_questions`, about what is to be seen in a video."""
    return free_questions(video.summary, rng, kept_back, count=6, content=True)
