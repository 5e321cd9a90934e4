"""Boxes in the forms of other tools: COCO, FiftyOne, supervision."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from x2vlm.collections.writer import Record
from x2vlm.errors import DataError
from x2vlm.results import Grounding


def to_coco(records: Iterable[Record]) -> dict[str, Any]:
    """COCO's detection form of records of `x2vlm ground`: a category a phrase, `score` the match.
    Phrases whose verdict is absent are left out."""
    images, annotations, categories = [], [], {}
    for record in _grounded(records):
        width, height = record["size"]
        image = {"id": len(images) + 1, "file_name": record["id"], "width": width, "height": height}
        images.append(image)
        for one in _present(record):
            x1, y1, x2, y2 = one["box_xyxy"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": categories.setdefault(one["phrase"], len(categories) + 1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "score": one["match"],
                }
            )
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


def to_fiftyone(records: Iterable[Record]) -> tuple[dict[str, Any], dict[str, str]]:
    """`labels.json` and the manifest `data.json` of FiftyOne's FiftyOneImageDetectionDataset: boxes
    (x, y, w, h) as fractions."""
    labels, manifest, classes = {}, {}, {}
    for number, record in enumerate(_grounded(records)):
        width, height = record["size"]
        key = f"{number:08d}"
        manifest[key], labels[key] = record["id"], []
        for one in _present(record):
            x1, y1, x2, y2 = one["box_xyxy"]
            classes.setdefault(one["phrase"])
            box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
            found = {"label": one["phrase"], "bounding_box": box, "confidence": one["match"]}
            labels[key].append(found)
    return {"classes": list(classes), "labels": labels}, manifest


def to_supervision(groundings: Sequence[Grounding]) -> dict[str, Any]:
    """Arguments of `supervision.Detections`: xyxy float32 (N, 4), confidence float32 (N,), class_id
    int (N,) and the phrases as `class_name`; absent phrases are left out."""
    found = [one for one in groundings if one.verdict != "absent"]
    names = list(dict.fromkeys(one.phrase for one in groundings))
    return {
        "xyxy": np.array([one.box_xyxy for one in found], np.float32).reshape(-1, 4),
        "confidence": np.array(
            [np.nan if one.match is None else one.match for one in found], np.float32
        ),
        "class_id": np.array([names.index(one.phrase) for one in found], int),
        "data": {"class_name": np.array([one.phrase for one in found], dtype=str)},
    }


def export(records: Iterable[Record], form: str, out: Path) -> list[Path]:
    """Write `coco` (one JSON file) or `fiftyone` (a folder); the files written.

    Raises:
        DataError: the records are not of `x2vlm ground` (`data/format`).
    """
    if form == "coco":
        contents = {out: to_coco(records)}
    else:
        labels, manifest = to_fiftyone(records)
        out.mkdir(exist_ok=True)
        contents = {out / "labels.json": labels, out / "data.json": manifest}
    for path, content in contents.items():
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return list(contents)


def _grounded(records: Iterable[Record]) -> Iterable[Record]:
    for record in records:
        if "error" in record:
            continue
        if "groundings" not in record:
            raise DataError(
                "These records have no boxes. Make them with x2vlm ground ... --out.", "data/format"
            )
        yield record


def _present(record: Record) -> list[dict[str, Any]]:
    return [one for one in record["groundings"] if one["verdict"] != "absent"]
