"""Captioned photos, named photos and COCO photos with human boxes -> shards of records for the
bundled `photo` model.

    python -m train.prepare.photo --out data/photo --flickr8k ../shared/data/flickr8k \\
        --imagenet ../shared/data/imagenet/one-per-class.tar --coco ../shared/data/coco_mini \\
        --boxes boxes.jsonl --box-size 416

Writes OUT/{flickr8k,imagenet,coco}-train.tar, OUT/{flickr8k,coco}-val.tar and OUT/answers.json.
Beside the image a record holds

    captions [text]                 regions [{text, box}]: noun phrases whose box is known
    phrases [text]                  nouns [noun]: all that is said or implied to be there
    questions [{question, answer}]  present, absent [text]: nouns with their article

`--boxes` are the boxes of any detector of COCO's classes: a line for each photo of Flickr8k, train
before val in the order of the shards, `[[x0, y0, x1, y1, score, class number], ...]` in pixels of
an image of `--box-size` squared. A phrase gets a box where all captions speak of one such thing and
the detector found one.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from train.data.boxes import check_units
from train.prepare.common import arguments, read_json_lines, run
from train.prepare.photo_texts import (
    Parsed,
    load_parser,
    nouns_of,
    parse,
    questions_of,
    with_article,
)
from train.prepare.photo_words import (
    COCO_NAMES,
    FEMALE,
    GROUPS,
    IMAGENET_KINDS,
    MALE,
    PEOPLE,
    implied,
    kinds_of,
)
from x2vlm.errors import DataError, MediaError
from x2vlm.media import decode_image

ANSWERS = 500
MIN_SCORE = 0.38
SURE_SCORE = 0.55
"""Of a machine box: that the captions name its class makes weak boxes trustworthy; without that the
detector must be surer."""
MIN_AREA, LARGE = 0.015, 0.10
"""Least share of the image that a box covers: to be learnt, and to be measured (human boxes)."""
MIN_AGREEMENT = 0.25
"""How often a second caption must say a noun that one says, so that its silence means absence."""
ABSENT = 12
"""Absent nouns of a photo."""
VALIDATION_EVERY = 5
"""Every fifth photo of COCO is kept for validation."""


@dataclass
class Photo:
    """One photo on its way to a record."""

    key: str
    jpeg: bytes
    captions: list[str]
    boxes: list[tuple[str, list[float], float]] = field(default_factory=list)
    """(class, box (cx, cy, w, h), score)."""
    parsed: list[Parsed] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)
    """Human ones."""
    exhaustive: bool = False
    """Every object of COCO's classes has a box."""

    @property
    def nouns(self) -> set[str]:
        return nouns_of(self.parsed) | {noun for name, *_ in self.boxes for noun in implied(name)}


def read_shards(paths: Iterable[Path], problems: Counter) -> Iterator[tuple[str, bytes, dict]]:
    """key, JPEG and fields of every sample; files that are no image are counted and left out."""
    for path in paths:
        with tarfile.open(path) as tar:
            parts: dict[str, dict[str, bytes]] = {}
            for member in tar:
                key, _, suffix = member.name.partition(".")
                parts.setdefault(key, {})[suffix] = tar.extractfile(member).read()
        for key, part in parts.items():
            if not {"jpg", "json"} <= part.keys():
                problems[f"{path.name}: samples without image or texts"] += 1
            elif not _is_image(part["jpg"]):
                problems[f"{path.name}: unreadable images"] += 1
            else:
                yield key, part["jpg"], json.loads(part["json"])


def _is_image(content: bytes) -> bool:
    try:
        decode_image(content)
    except MediaError:
        return False
    return True


def machine_boxes(
    found: Sequence[Sequence[float]], size: int
) -> list[tuple[str, list[float], float]]:
    """A detector's rows -> `Photo.boxes`: the sure ones, none twice, none outside.

    Raises:
        DataError: they are not in pixels (`data/box`).
    """
    check_units([(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1, *_ in found], "--boxes")
    rows = sorted((row for row in found if row[4] >= MIN_SCORE), key=lambda row: -row[4])
    kept: list[tuple[str, np.ndarray, float]] = []
    for row in rows:
        box, name = np.clip(np.array(row[:4]) / size, 0, 1), COCO_NAMES[int(row[5])]
        if all(name != other or _iou(box, earlier) <= 0.5 for other, earlier, _ in kept):
            kept.append((name, box, float(row[4])))
    return [(name, _centred(box), sure) for name, box, sure in kept if (box[2:] > box[:2]).all()]


def _centred(box: np.ndarray) -> list[float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return [round(v, 4) for v in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)]


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = np.clip(high - low, 0, None).prod()
    return float(
        common / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - common)
    )


def boxed_phrases(photo: Photo) -> list[dict[str, Any]]:
    """Noun phrases with the box of the one thing of their class; "two dogs" with that of both."""
    by_class: dict[str, list[list[float]]] = {}
    scores: dict[str, float] = {}
    for name, box, score in photo.boxes:
        by_class.setdefault(name, []).append(box)
        scores[name] = max(score, scores.get(name, 0))
    regions = {}
    for name, boxes in by_class.items():
        box = _union(boxes)
        if box[2] * box[3] < MIN_AREA:
            continue
        mentioned = any(name in kinds_of(p.noun) for c in photo.parsed for p in c.phrases)
        if len(boxes) == 1 and (mentioned or scores[name] >= SURE_SCORE):
            regions[with_article(name)] = box
        said = [[p for p in c.phrases if name in kinds_of(p.noun)] for c in photo.parsed]
        spoken = [phrases for phrases in said if phrases]
        if not spoken or any(len(phrases) > 1 for phrases in spoken):
            continue
        counts = {phrases[0].count for phrases in spoken} - {0}
        if counts != {len(boxes)} and not (len(boxes) == 1 and not counts):
            continue
        if any(phrases[0].noun in GROUPS for phrases in spoken):
            continue
        regions |= {phrases[0].text: box for phrases in spoken}
    return [{"text": text, "box": box} for text, box in regions.items()]


def _union(boxes: Sequence[Sequence[float]]) -> list[float]:
    centre, side = np.array(boxes)[:, :2], np.array(boxes)[:, 2:]
    return _centred(
        np.concatenate([(centre - side / 2).min(axis=0), (centre + side / 2).max(axis=0)])
    )


def human_regions(photo: Photo, least: float) -> list[dict[str, Any]]:
    """Objects that are the only ones of their class and cover at least `least` of the image."""
    counts = Counter(name for name, *_ in photo.boxes)
    return [
        {"text": with_article(name), "box": box}
        for name, box, _ in photo.boxes
        if counts[name] == 1 and box[2] * box[3] >= least
    ]


def telling_nouns(photos: Sequence[Photo]) -> dict[str, float]:
    """Nouns whose silence means absence -> their share of the photos (see `MIN_AGREEMENT`)."""
    photos_with, pairs, agreed = Counter(), Counter(), Counter()
    for photo in photos:
        said = Counter(noun for c in photo.parsed for noun in {p.noun for p in c.phrases})
        for noun, count in said.items():
            photos_with[noun] += 1
            pairs[noun] += count * (len(photo.parsed) - 1)
            agreed[noun] += count * (count - 1)
    return {
        noun: count / len(photos)
        for noun, count in photos_with.items()
        if count >= 8 and agreed[noun] >= MIN_AGREEMENT * pairs[noun]
    }


def absent_nouns(photo: Photo, telling: dict[str, float], rng: np.random.Generator) -> list[str]:
    """Nouns of things that are not in the photo, common ones more often."""
    nouns = photo.nouns
    kinds = {kind for noun in nouns for kind in kinds_of(noun)}
    if photo.exhaustive:
        pool = {name: 1.0 for name in COCO_NAMES if name not in nouns | kinds}
    else:
        people = nouns & PEOPLE
        sexes = [
            sex
            for sex, other in ((FEMALE, MALE), (MALE, FEMALE))
            if people and people <= other | {"person"}
        ]
        pool = {
            noun: share**0.5
            for noun, share in telling.items()
            if noun not in nouns
            and (not kinds & kinds_of(noun) or bool(sexes and noun in sexes[0]))
            and not (people and noun in GROUPS | {"person"})
        }
    if not pool:
        return []
    names, weights = list(pool), np.array(list(pool.values()))
    count = min(ABSENT, len(names))
    return [str(n) for n in rng.choice(names, count, replace=False, p=weights / weights.sum())]


def record(photo: Photo, absent: Sequence[str], measured: bool) -> dict[str, Any]:
    """What the shard holds beside the image.

    Args:
        measured: the photo is kept for validation, where only large human boxes count.
    """
    said = Counter(noun for c in photo.parsed for noun in {p.noun for p in c.phrases})
    sure = 2 if len(photo.parsed) > 1 else 1
    regions = human_regions(photo, LARGE if measured else MIN_AREA) if photo.exhaustive else []
    if not (photo.exhaustive and measured):
        regions += boxed_phrases(photo)
    if photo.exhaustive:
        present = sorted({name for name, box, _ in photo.boxes if box[2] * box[3] >= MIN_AREA})
    else:
        present = [noun for noun, count in said.most_common() if count >= sure]
    phrases = {phrase.text for caption in photo.parsed for phrase in caption.phrases}
    return {
        "images_as": "image",
        "captions": photo.captions,
        "regions": regions,
        "phrases": sorted(phrases),
        "nouns": sorted(photo.nouns),
        "questions": questions_of(photo.parsed, absent) + photo.questions,
        "present": [with_article(noun) for noun in present],
        "absent": [with_article(noun) for noun in absent],
    }


def write_shard(path: Path, photos: Sequence[Photo], records: Sequence[dict[str, Any]]) -> None:
    """The tar under its final name only when it is whole."""
    partial = path.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        for photo, fields in zip(photos, records, strict=True):
            for suffix, content in (("jpg", photo.jpeg), ("json", json.dumps(fields).encode())):
                info = tarfile.TarInfo(f"{photo.key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    os.replace(partial, path)
    boxed = sum(len(fields["regions"]) for fields in records)
    asked = sum(len(fields["questions"]) for fields in records)
    print(f"{path}: {len(photos):,} photos, {boxed:,} phrases with a box, {asked:,} questions")


def captioned(
    folder: Path, split: str, boxes: Iterator[Any], size: int, problems: Counter
) -> list[Photo]:
    """Flickr8k's photos of a split with the detector's boxes."""
    photos = []
    for key, jpeg, fields in read_shards(sorted(folder.glob(f"{split}-*.tar")), problems):
        photo = Photo(key, jpeg, [text.strip() for text in fields["captions"]])
        photo.boxes = machine_boxes(next(boxes, []), size)
        photos.append(photo)
    return photos


def named(path: Path, problems: Counter) -> list[Photo]:
    """ImageNet's photos, one a class: "a tench", "a fish"."""
    photos = []
    for number, (key, jpeg, fields) in enumerate(read_shards([path], problems)):
        names = [fields["name"].lower(), fields["name"].split()[-1].lower()]
        names += [kind for first, end, kind in IMAGENET_KINDS if first <= number < end]
        names += ["animal"] if number < 398 else []
        photos.append(Photo(key, jpeg, [with_article(name) for name in dict.fromkeys(names)]))
    return photos


def annotated(folder: Path, problems: Counter) -> list[Photo]:
    """COCO's photos with human boxes, captions and questions."""
    photos = []
    entries = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    boxes = (item["box_xywh"] for entry in entries for item in entry["objects"])
    check_units(boxes, "annotations.json")
    for entry in entries:
        content = (folder / entry["file"]).read_bytes()
        if not _is_image(content):
            problems["coco: unreadable images"] += 1
            continue
        photo = Photo(Path(entry["file"]).stem, content, entry["captions"], exhaustive=True)
        sides = np.array([entry["width"], entry["height"]] * 2)
        for item in entry["objects"]:
            x, y, w, h = np.array(item["box_xywh"]) / sides
            box = _centred(np.clip([x, y, x + w, y + h], 0, 1))
            photo.boxes.append((item["category"], box, 1.0))
        photo.questions = [
            {"question": pair["question"].lower(), "answer": pair["majority"].lower()}
            for pair in entry["qa"]
        ]
        photos.append(photo)
    return photos


def parse_all(photos: Sequence[Photo], parser) -> None:
    """Fills `parsed` of every photo."""
    texts = parse((text for photo in photos for text in photo.captions), parser)
    for photo in photos:
        photo.parsed = [next(texts) for _ in photo.captions]


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0],
        flickr8k={"type": Path, "required": True, "help": "folder of train-*.tar and val-*.tar"},
        imagenet={"type": Path, "required": True, "help": "tar of named photos, one a class"},
        coco={"type": Path, "required": True, "help": "folder with annotations.json and images/"},
        boxes={"type": Path, "nargs": "*", "default": [], "help": "JSON lines of a detector"},
        **{"box-size": {"type": int, "default": 416, "help": "side of what the detector saw"}},
    )
    needed = [options.flickr8k / f"{split}-*.tar" for split in ("train", "val")]
    needed += [options.imagenet, options.coco / "annotations.json", *options.boxes]
    for path in needed:
        if not any(path.parent.glob(path.name)):
            raise DataError(f"{path} is not there. What is expected:\n\n{__doc__}", "data/missing")
    problems, parser, rng = Counter(), load_parser(), np.random.default_rng(0)
    boxes = (row for path in sorted(options.boxes) for row in read_json_lines(path))
    train = captioned(options.flickr8k, "train", boxes, options.box_size, problems)
    val = captioned(options.flickr8k, "val", boxes, options.box_size, problems)
    photos, coco = named(options.imagenet, problems), annotated(options.coco, problems)
    for group in (train, val, photos, coco):
        parse_all(group, parser)
    telling = telling_nouns(train)
    kept = [number % VALIDATION_EVERY == 0 for number in range(len(coco))]
    shards = {
        "flickr8k-train": (train, False),
        "imagenet-train": (photos, False),
        "coco-train": ([p for p, val in zip(coco, kept, strict=True) if not val], False),
        "flickr8k-val": (val, True),
        "coco-val": ([p for p, val in zip(coco, kept, strict=True) if val], True),
    }
    answers: Counter[str] = Counter()
    for name, (group, measured) in shards.items():
        records = [record(photo, absent_nouns(photo, telling, rng), measured) for photo in group]
        write_shard(options.out / f"{name}.tar", group, records)
        if not measured:
            answers.update(q["answer"] for fields in records for q in fields["questions"])
    listed = [answer for answer, _ in answers.most_common(ANSWERS)]
    (options.out / "answers.json").write_text(json.dumps(listed, indent=0) + "\n", encoding="utf-8")
    for problem, count in problems.items():
        print(f"{count:,} left out: {problem}")


if __name__ == "__main__":
    run(main)
