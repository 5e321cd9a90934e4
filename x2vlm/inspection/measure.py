"""What a model says of every text of a data set, and how far that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from x2vlm.errors import DataError, X2VLMError
from x2vlm.inference.explain import agreement
from x2vlm.inference.predictor import Predictor
from x2vlm.inference.scene import Scene
from x2vlm.inspection.captions import Captioned, CaptionTest
from x2vlm.inspection.truth import Truth
from x2vlm.metrics import pixel_iou, pointing_hits


@dataclass(frozen=True)
class Asked:
    """One text of one image.

    Attributes:
        present: whether it is true of the image.
        match: match probability.
        box_xywh: the predicted box in pixels; true_xywh the right one, None where none is known.
        iou: of the two boxes.
        area: of the right box, as a share of the image.
        hit: whether the heat map's peak lies in the right box.
        agrees: whether it lies in the predicted box; None for a flat map.
        energy: share of the heat inside the predicted box.
    """

    text: str
    present: bool
    match: float | None
    box_xywh: tuple[float, ...]
    true_xywh: tuple[float, ...] | None = None
    iou: float | None = None
    area: float | None = None
    hit: bool | None = None
    agrees: bool | None = None
    energy: float | None = None


@dataclass(frozen=True)
class Measured:
    """One image: its texts, those that are true first. `faithfulness` is that of the first text's
    map and `verdict` what it allows to say, None where they were not measured; `captioned` is about
    its captions, None where it has none; `error` says why the image could not be used, `unread`
    which of its texts."""

    id: str
    asked: tuple[Asked, ...] = ()
    faithfulness: float | None = None
    verdict: str | None = None
    error: str | None = None
    unread: tuple[str, ...] = ()
    captioned: Captioned | None = None


@dataclass(frozen=True)
class Inspection:
    """A model on a data set: its name and hash, and every image in the order of the data."""

    name: str
    hash: str
    images: tuple[Measured, ...] = field(repr=False)


def inspect(
    predictor: Predictor,
    truths: Sequence[Truth],
    name: str | None = None,
    faithfulness: int = 20,
    progress: Callable[[int, int], None] = lambda items, errors: None,
) -> Inspection:
    """Ask a model everything about a data set.

    Args:
        faithfulness: how many images have the map of their first text tested by deletion, which
            encodes an image many times.

    Raises:
        DataError: no image can be read (`data/unreadable`). CheckpointError: the model has no boxes
            or no match (`ckpt/keys`).
    """
    predictor.require("ground")
    predictor.require("match")
    measured: list[Measured] = []
    captions = CaptionTest(predictor)
    for start in range(0, len(truths), predictor.items_at_once):
        given = truths[start : start + predictor.items_at_once]
        part, unread = zip(*(readable(truth, predictor) for truth in given), strict=True)
        scenes = predictor.encode([medium(truth, predictor) for truth in part])
        captions.add(start, part, scenes)
        asked = [i for i, scene in enumerate(scenes) if isinstance(scene, Scene) and part[i].texts]
        texts = [part[i].texts for i in asked]
        found = predictor.find_phrases([scenes[i] for i in asked], texts) if asked else []
        told: dict[int, Any] = dict(zip(asked, found, strict=True))
        for i, truth in enumerate(part):
            one = told.get(i, scenes[i])
            if isinstance(one, X2VLMError):
                measured.append(Measured(truth.id, error=str(one)))
                continue
            check, some = None, told.get(i, ())
            if len(measured) < faithfulness and some and some[0].explanation is not None:
                check = predictor.deletion_check(scenes[i], some[0].explanation, steps=10, draws=3)
            measured.append(
                Measured(
                    truth.id,
                    tuple(_asked(truth, j, one, scenes[i].size) for j, one in enumerate(some)),
                    None if check is None else check.faithfulness,
                    None if check is None else check.verdict,
                    unread=unread[i],
                )
            )
        progress(len(part), sum(one.error is not None for one in measured[start:]))
    if all(one.error is not None for one in measured):
        raise DataError(f"No image can be used; the first: {measured[0].error}", "data/unreadable")
    for place, captioned in captions.results().items():
        measured[place] = replace(measured[place], captioned=captioned)
    info = predictor.info
    return Inspection(name or info.name, info.hash, tuple(measured))


def readable(truth: Truth, predictor: Predictor) -> tuple[Truth, tuple[str, ...]]:
    """A truth without the texts that the model cannot read, and what is wrong with these."""
    texts = dict.fromkeys((*truth.texts, *truth.captions))
    problems = {text: predictor.check_text(text) for text in texts}
    kept = replace(
        truth,
        regions=tuple(one for one in truth.regions if problems[one.text] is None),
        captions=tuple(one for one in truth.captions if problems[one] is None),
        absent=tuple(one for one in truth.absent if problems[one] is None),
    )
    if truth.regions and not kept.regions:  # its captions must not be asked in their place
        kept = replace(kept, captions=())
    return kept, tuple(f"{text}: {error}" for text, error in problems.items() if error is not None)


def medium(truth: Truth, predictor: Predictor) -> Any:
    """The image of a truth, drawn at the model's size where it is drawn."""
    return truth.media(max(predictor.info.image_size)) if callable(truth.media) else truth.media


def _asked(truth: Truth, number: int, found: Any, size: tuple[int, int]) -> Asked:
    """The text at a position among those of an image, and what was found of it."""
    width, height = size
    x1, y1, x2, y2 = (np.array(found.box.tolist()) * (width, height, width, height)).tolist()
    box = (x1, y1, x2 - x1, y2 - y1)
    heat = None if found.explanation is None else found.explanation.overall
    edges = [edge / side for edge, side in zip((x1, y1, x2, y2), (width, height) * 2)]
    agreed = None if heat is None else agreement(heat, edges)
    facts: dict[str, Any] = {}
    if number < len(truth.regions):
        right = truth.regions[number].pixels(size)
        x, y, w, h = right
        corners = np.array([[x / width, y / height, (x + w) / width, (y + h) / height]])
        facts = {
            "true_xywh": right,
            "iou": float(pixel_iou(np.array([box]), np.array([right]))[0]),
            "area": w * h / (width * height),
            "hit": None if heat is None else bool(pointing_hits(heat[None], corners)[0]),
        }
    return Asked(
        found.phrase.text,
        number < len(truth.present),
        found.match,
        box,
        agrees=None if agreed is None else agreed.pointing_hit,
        energy=None if agreed is None else agreed.energy_inside,
        **facts,
    )
