"""What is true of the images of a data set: phrases with boxes, captions, and what is absent."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from x2vlm.errors import DataError
from x2vlm.stickers import make_record, split_seeds

STICKERS = "stickers"
FIRST_STICKER = 50_000
"""The scenes that the model cards report on begin here, see `train/configs/mini.yaml`."""
ABSENT = 5
"""Texts of other images that stand in where a data set does not say what is absent."""
ANNOTATIONS = ("annotations.json", "annotations.jsonl", "data.jsonl")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A phrase and its box (x, y, w, h), in pixels of the image or as fractions of its sides."""

    text: str
    box: Box
    fractions: bool = False

    def pixels(self, size: tuple[int, int]) -> Box:
        """(x, y, w, h) in pixels of an image of `size` (width, height)."""
        scale = (*size, *size) if self.fractions else (1, 1, 1, 1)
        return tuple(edge * side for edge, side in zip(self.box, scale, strict=True))


@dataclass(frozen=True)
class Truth:
    """One image and what is said of it.

    Attributes:
        media: a path, or a function that draws the image of a given size.
        absent: texts that are not true of the image.
    """

    id: str
    media: str | Callable[[int], Image.Image]
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """The true texts: phrases with a box, or else captions."""
        return tuple(region.text for region in self.regions) or self.captions

    @property
    def texts(self) -> list[str]:
        """All texts that are asked, those that are true first."""
        return [*self.present, *self.absent]


def read_truth(data: str, limit: int | None = None) -> list[Truth]:
    """A data set by its name.

    Args:
        data: `stickers` or `stickers:SPLIT`; a folder with an `annotations.json`; a `.json` of COCO
            (instances, captions or both) or a list of entries; a `.jsonl` of entries. An entry has
            `image` (or `file`), and any of `captions`, `regions` (`text` and `box_xyxy` or
            `box_xywh` in pixels), `elems` (`caption` and `bb`), `objects` (`category` and
            `box_xywh`), `refs`, `absent`. Entries of one image are one image with all its texts.

    Raises:
        DataError: there is no such data set, or nothing in it to measure (`data/*`).
    """
    if data.split(":")[0] == STICKERS:
        found = list(_stickers(data.partition(":")[2] or "test", limit or 300))
    else:
        path = Path(data)
        if path.is_dir():
            named = [path / name for name in ANNOTATIONS if (path / name).is_file()]
            if not named:
                raise DataError(
                    f"{data} holds none of {', '.join(ANNOTATIONS)}. Give the file itself.",
                    "data/missing",
                )
            path = named[0]
        found = [truth for truth in _of_one_image(_read(path)) if truth.present]
    if not found:
        raise DataError(f"{data} says nothing that could be measured.", "data/missing")
    return with_absent(found)[:limit]


def _of_one_image(truths: Iterable[Truth]) -> list[Truth]:
    """Flat lists name an image once a text: their rows become one truth."""
    found: dict[Any, Truth] = {}
    for truth in truths:
        first = found.setdefault(truth.media, truth)
        if first is not truth:
            joined = {
                name: tuple(dict.fromkeys(getattr(first, name) + getattr(truth, name)))
                for name in ("captions", "regions", "absent")
            }
            found[truth.media] = replace(first, **joined)
    return list(found.values())


def with_absent(truths: Sequence[Truth]) -> list[Truth]:
    """Texts of other images as absent ones, where a data set names none: those whose words are not
    all said of the image. The same data give the same texts."""
    every = list(dict.fromkeys(text for truth in truths for text in truth.present))
    filled = []
    for truth in truths:
        if truth.absent:
            filled.append(truth)
            continue
        said = " ".join((*truth.present, *truth.captions)).lower()
        others = [t for t in every if not all(word in said for word in t.lower().split())]
        count = min(ABSENT, len(others))
        chosen = random.Random(truth.id).sample(others, count)
        filled.append(replace(truth, absent=tuple(chosen)))
    return filled


def _stickers(split: str, count: int) -> Iterator[Truth]:
    try:
        start = split_seeds(split).start + FIRST_STICKER
    except (KeyError, ValueError):
        raise DataError(f"The sticker world has no split {split!r}.", "data/missing") from None
    for seed in range(start, start + count):

        def draw(size: int, seed: int = seed) -> Image.Image:
            return make_record(seed, split=split, size=size)["image"]

        yield replace(
            truth_of(f"{split} {seed}", make_record(seed, split=split, size=32)), media=draw
        )


def truth_of(id: str, record: Mapping[str, Any]) -> Truth:
    """What a training record says (`train.data.records`): boxes (cx, cy, w, h) as fractions."""
    regions = tuple(
        Region(one["text"], _corner(one["box"]), fractions=True) for one in record["regions"]
    )
    image = record["image"]
    captions, absent = tuple(record.get("captions", ())), tuple(record.get("absent", ()))
    return Truth(id, lambda size: image, captions, regions, absent)


def _corner(box: Sequence[float]) -> Box:
    """(cx, cy, w, h) to (x, y, w, h)."""
    cx, cy, w, h = box
    return cx - w / 2, cy - h / 2, w, h


def _read(path: Path) -> Iterator[Truth]:
    try:
        text = path.read_text(encoding="utf-8")
        lines = path.suffix.lower() in (".jsonl", ".ndjson")
        content = [json.loads(s) for s in text.splitlines() if s] if lines else json.loads(text)
    except OSError:
        raise DataError(f"There is no file {path}. Check its name.", "data/missing") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}).", "data/unreadable") from None
    entries = _coco(content) if isinstance(content, dict) else content
    for number, entry in enumerate(entries, start=1):
        try:
            yield _entry(entry, path.parent, f"{path.name}#{number}")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path.name}, entry {number} cannot be used: {error!r}.", "data/entry"
            ) from None


def _entry(entry: Mapping[str, Any], folder: Path, name: str) -> Truth:
    image = entry.get("image") or entry["file"]
    captions = entry.get("captions") or entry.get("caption") or ()
    regions = [Region(one["text"], _pixels(one)) for one in entry.get("regions", ())]
    regions += [Region(one["caption"], _pixels(one)) for one in entry.get("elems", ())]
    regions += [Region(one["text"], _pixels(one)) for one in entry.get("refs", ())]
    things = [one["category"] for one in entry.get("objects", ())]
    regions += [  # a name that stands for two things has no one box
        Region(one["category"], _pixels(one))
        for one in entry.get("objects", ())
        if things.count(one["category"]) == 1
    ]
    return Truth(
        name,
        str(folder / image),
        (captions,) if isinstance(captions, str) else tuple(captions),
        tuple(regions),
        tuple(entry.get("absent", ())),
    )


def _pixels(one: Mapping[str, Any]) -> Box:
    for key in ("box_xywh", "box_xywh_pixels", "bb", "bbox"):
        if key in one:
            x, y, w, h = map(float, one[key])
            return x, y, w, h
    x1, y1, x2, y2 = map(float, one["box_xyxy"])
    return x1, y1, x2 - x1, y2 - y1


def _coco(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Entries of a file in COCO's own form: instances, captions, or both."""
    names = {one["id"]: one["name"] for one in content.get("categories", ())}
    captions, objects = {}, {}
    for one in content.get("annotations", ()):
        if "caption" in one:
            captions.setdefault(one["image_id"], []).append(one["caption"])
        elif not one.get("iscrowd"):
            thing = {"category": names[one["category_id"]], "box_xywh": one["bbox"]}
            objects.setdefault(one["image_id"], []).append(thing)
    for image in content.get("images", ()):
        yield {
            "image": image["file_name"],
            "captions": captions.get(image["id"], ()),
            "objects": objects.get(image["id"], ()),
        }
