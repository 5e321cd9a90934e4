"""Photos as training data: views of single photos and mosaics of several, each a pure function of
its number, from shards that `train.prepare.photo` wrote.

With `features` the images themselves are not opened: what a frozen backbone makes of them is read
from a file that `train.features` wrote once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image

from train.data.entries import Entries
from train.data.files import open_all
from train.data.mosaics import Tile, View, draw_mosaic, sample_tiles, sample_view
from train.data.remote import expand
from x2vlm.errors import ConfigError, DataError

SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
SEEN = 0.6
"""A phrase stays in a cut view if more than this share of its box does."""
TILE_CAPTIONS = 2
"""Captions of a tile that a mosaic asks for."""
VIEW, MOSAIC = 1, 2
"""First numbers of the seeds, so that views and mosaics draw apart."""


@dataclass(frozen=True, kw_only=True)
class PhotoData:
    """Which photos, and how.

    Attributes:
        files: shards of `train.prepare.photo`.
        kind: `photos` (one photo each), `nouns` (the same, with the nouns that are there as
            captions), `mosaics` (several on a canvas), or `tiles` (the same, with one caption a
            tile as its only regions).
        views: of `photos`, how often each comes: whole first, then windows, half of them mirrored.
        first, count: of `mosaics` and `tiles`, their numbers.
        features: file of `train.features` with these records; empty to open the images.
    """

    files: list[str]
    kind: Literal["photos", "nouns", "mosaics", "tiles"] = "photos"
    views: int = 1
    first: int = 0
    count: int = 1000
    features: str = ""

    def __post_init__(self):
        if self.views < 1 or self.count < 1 or self.first < 0:
            raise ConfigError(
                "views and count of photo data must be at least 1, first at least 0.",
                "config/value",
            )


class PhotoRecords(Sequence):
    """Records with `image` (or `maps`), `captions`, `regions`, `phrases`, `questions`, `absent`.
    Views of one photo have one `image_id`."""

    def __init__(self, config: PhotoData, image_size: int):
        self.config, self.image_size = config, image_size
        self.files, self.left_out = open_all(expand(config.files), "")
        self.starts = np.cumsum([0, *map(len, self.files)])
        self.photos = int(self.starts[-1])
        if config.features and len(self._features) != len(self):
            raise DataError(
                f"{config.features} holds {len(self._features):,} rows for {len(self):,} records. "
                "Write it again: python -m train.features.",
                "data/entry",
            )

    def __len__(self) -> int:
        config = self.config
        return config.count if self.composed else config.views * self.photos

    @property
    def composed(self) -> bool:
        """Whether an image holds several photos."""
        return self.config.kind in ("mosaics", "tiles")

    @cached_property
    def _features(self) -> np.ndarray:
        try:
            return np.load(self.config.features, mmap_mode="r")
        except (OSError, ValueError):
            raise DataError(
                f"{self.config.features} is no readable feature file. Write it: "
                "python -m train.features.",
                "data/missing",
            ) from None

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises `X2VLMError` when an image or its texts cannot be used."""
        index = range(len(self))[index]
        if self.composed:
            return self._mosaic(index)
        view, number = divmod(index, self.photos)
        entry, file = self._entry(number)
        seen = View() if view == 0 else sample_view(np.random.default_rng([VIEW, view, number]))
        record = _texts(entry, seen)
        if self.config.kind == "nouns":
            record = {"captions": entry["present"], "absent": entry["absent"]}
        shown = self._visual(index, lambda: self._cut(entry, file, seen))
        return {"image_id": f"photo {number}"} | record | shown

    def has_boxes(self, index: int) -> bool:
        """Whether anything in an image has a known box, without opening it."""
        return self.composed or bool(self._entry(index % self.photos)[0]["regions"])

    def captions(self, index: int) -> list[str]:
        """The captions of a single photo, without opening it."""
        return self._entry(index % self.photos)[0]["captions"]

    def _cut(self, entry: dict[str, Any], file: Entries, view: View) -> Image.Image:
        return view.cut(self._image(entry, file), self.image_size, self.image_size)

    def _visual(self, index: int, draw) -> dict[str, Any]:
        return {"maps": self._features[index]} if self.config.features else {"image": draw()}

    def _mosaic(self, index: int) -> dict[str, Any]:
        number = self.config.first + index
        rng = np.random.default_rng([MOSAIC, number])
        tiles = sample_tiles(rng, self.photos)
        image, background = draw_mosaic(
            tiles, self._read, self.image_size, rng, self.photos, draw=not self.config.features
        )
        entries = [self._entry(tile.photo)[0] for tile in tiles]
        others = [] if background is None else [self._entry(background)[0]]
        if self.config.kind == "tiles":
            regions = [
                {"text": entry["captions"][0], "box": _centred(tile.box)}
                for entry, tile in zip(entries, tiles, strict=True)
                if not (tile.view.flip and SIDES.search(entry["captions"][0]))
            ]
            return {"regions": regions} | self._visual(index, lambda: image)
        texts = mosaic_texts(tiles, entries, others, np.random.default_rng([MOSAIC, number, 1]))
        return texts | self._visual(index, lambda: image)

    def _read(self, number: int) -> Image.Image:
        return self._image(*self._entry(number))

    def _entry(self, number: int) -> tuple[dict[str, Any], Entries]:
        place = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.files[place].entry(number - int(self.starts[place])), self.files[place]

    def _image(self, entry: dict[str, Any], file: Entries) -> Image.Image:
        return file.image(entry["image"])

    def name(self, index: int) -> str:
        return f"{self.config.kind} {index} of {', '.join(file.path.name for file in self.files)}"

    def fingerprint(self) -> str:
        about = [(file.path.name, len(file)) for file in self.files]
        return f"{self.config!r}, {about!r}"


def _texts(entry: dict[str, Any], view: View) -> dict[str, Any]:
    """What is said of a photo and is true of a view of it."""

    def true(text: str) -> bool:
        return not (view.flip and SIDES.search(text))

    regions = [
        {"text": region["text"], "box": box}
        for region in entry["regions"]
        if true(region["text"]) and (box := view_box(region["box"], view)) is not None
    ]
    return {
        "captions": [c for c in entry["captions"] if true(c)] or entry["captions"],
        "regions": regions,
        "phrases": [phrase for phrase in entry["phrases"] if true(phrase)],
        "questions": [pair for pair in entry["questions"] if true(pair["question"])],
        "absent": entry["absent"],
    }


def view_box(box: Sequence[float], view: View) -> list[float] | None:
    """A box (cx, cy, w, h) of a photo in a view of it; None if too little of it is seen."""
    x0, y0, x1, y1 = view.window
    cx, cy, w, h = box
    left, right = max(cx - w / 2, x0), min(cx + w / 2, x1)
    top, bottom = max(cy - h / 2, y0), min(cy + h / 2, y1)
    if right <= left or bottom <= top or (right - left) * (bottom - top) <= SEEN * w * h:
        return None
    width, height = x1 - x0, y1 - y0
    centre = ((left + right) / 2 - x0) / width
    return [
        1 - centre if view.flip else centre,
        ((top + bottom) / 2 - y0) / height,
        (right - left) / width,
        (bottom - top) / height,
    ]


def mosaic_texts(
    tiles: Sequence[Tile],
    entries: Sequence[dict[str, Any]],
    others: Sequence[dict[str, Any]],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What is true of a mosaic: captions and phrases of each tile with its box, where no other tile
    or the background shows the same; absent nouns that none of them shows.

    Args:
        entries: of the photos on the tiles; others: of the photo behind them.
    """
    texts = [_texts(entry, tile.view) for entry, tile in zip(entries, tiles, strict=True)]
    nouns = [set(entry["nouns"]) for entry in (*entries, *others)]
    regions = []
    for number, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        elsewhere = set().union(*nouns[:number], *nouns[number + 1 :])
        whole = _centred(tile.box)
        inner = [
            {"text": region["text"], "box": _inside(region["box"], whole)}
            for region in text["regions"]
            if not elsewhere & _words(region["text"])
        ]
        found = {region["text"] for region in inner}
        captions = rng.permutation(text["captions"])[:TILE_CAPTIONS].tolist()
        regions += [{"text": caption, "box": whole} for caption in captions]
        regions += inner
        regions += [
            {"text": phrase, "box": whole}
            for phrase in entries[number]["present"]
            if phrase not in found and not elsewhere & _words(phrase)
        ]
    said = set().union(*nouns)
    absent = {
        text: None for entry in entries for text in entry["absent"] if not said & _words(text)
    }
    return {
        "captions": [caption for text in texts for caption in text["captions"]],
        "regions": regions,
        "phrases": [],
        "questions": [],
        "absent": list(absent) or entries[0]["absent"],
    }


def _words(phrase: str) -> set[str]:
    return {phrase, *phrase.split(), phrase.split(" ", 1)[-1]}


def _centred(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]


def _inside(box: Sequence[float], tile: Sequence[float]) -> list[float]:
    """A box of a tile's photo on the canvas; both (cx, cy, w, h)."""
    cx, cy, w, h = tile
    return [cx + (box[0] - 0.5) * w, cy + (box[1] - 0.5) * h, box[2] * w, box[3] * h]
