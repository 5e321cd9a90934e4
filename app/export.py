"""The present result as files: PNG with legend, JSON, COCO JSON, CSV and raw maps (npz)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from x2vlm.results import Answers, Caption, Grounding, Match
from x2vlm.visualize import colorbar

from .view import Look, Shown, draw

CONVENTION = (
    "box_xyxy: x1, y1, x2, y2 in pixels of the upright picture; COCO bbox: x, y, width, "
    "height in the same pixels"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_files(shown: Shown, look: Look, methods: str, folder: Path) -> list[str]:
    """Write what the result has into `folder`; returns the paths."""
    stem = Path(shown.seen.name).stem or "x2vlm"
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)[:40]
    made = {
        f"{stem}.png": png(shown, look),
        f"{stem}.json": _json(shown.to_dict() | {"methods": methods, "convention": CONVENTION}),
    }
    if rows := table(shown):
        made[f"{stem}.csv"] = rows.encode("utf-8-sig")
    if any(layer.grounding for layer in shown.layers):
        made[f"{stem}.coco.json"] = _json(coco(shown))
    if any(layer.explanation for layer in shown.layers):
        made[f"{stem}.npz"] = npz(shown)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in made]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def png(shown: Shown, look: Look) -> bytes:
    """The stage's picture with its colour bar below."""
    picture = draw(shown, look)
    if "heat" in look.show and shown.heat is not None:
        legend = colorbar(shown.heat_range, look.colormap, width=min(picture.width, 320))
        sheet = Image.new("RGB", (picture.width, picture.height + legend.height + 8), "white")
        sheet.paste(picture, (0, 0))
        sheet.paste(legend, (0, picture.height + 8))
        picture = sheet
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def coco(shown: Shown) -> dict[str, Any]:
    """COCO-style: one image, one category and one annotation a phrase; `score` is the match
    probability."""
    width, height = shown.seen.size
    found = [layer.grounding for layer in shown.layers if layer.grounding]
    return {
        "info": {"description": "X2-VLM visual grounding", "convention": CONVENTION},
        "images": [{"id": 1, "file_name": shown.seen.name, "width": width, "height": height}],
        "categories": [{"id": k + 1, "name": g.phrase} for k, g in enumerate(found)],
        "annotations": [_annotation(k + 1, g) for k, g in enumerate(found)],
    }


def _annotation(number: int, found: Grounding) -> dict[str, Any]:
    x1, y1, x2, y2 = found.box_xyxy
    box = [x1, y1, x2 - x1, y2 - y1]
    fixed = {
        "id": number,
        "image_id": 1,
        "category_id": number,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
    }
    return fixed | {"score": found.match, "verdict": found.verdict}


def table(shown: Shown) -> str:
    """CSV with one line a result; nothing in it can be taken for a formula."""
    rows = [row for result in shown.results for row in _rows(result)]
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows([{key: _safe(value) for key, value in row.items()} for row in rows])
    return stream.getvalue()


def _rows(result: Any) -> list[dict[str, Any]]:
    match result:
        case Grounding():
            box = dict(zip(("x1", "y1", "x2", "y2"), result.box_xyxy))
            agreement = result.agreement.to_dict() if result.agreement else {}
            return [
                {
                    "phrase": result.phrase,
                    **box,
                    "match": result.match,
                    "verdict": result.verdict,
                    **agreement,
                }
            ]
        case Answers():
            return [
                {"question": result.question, "answer": a.text, "probability": a.probability}
                for a in result.answers
            ]
        case Caption():
            return [
                {
                    "caption": result.text,
                    "log_probability": result.log_probability,
                    "match": result.match,
                }
            ]
        case Match():
            return [
                {"text": result.text, "match": result.probability, "similarity": result.similarity}
            ]
    return []


def _safe(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def npz(shown: Shown) -> bytes:
    """Raw maps, float32 and unnormalised, with words and boxes of every layer."""
    arrays: dict[str, Any] = {"size": np.array(shown.seen.size), "convention": np.array(CONVENTION)}
    for k, layer in enumerate(shown.layers):
        if layer.explanation:
            arrays[f"maps_{k}"] = layer.explanation.maps
            arrays[f"overall_{k}"] = layer.explanation.overall
            arrays[f"words_{k}"] = np.array([word.text for word in layer.explanation.words])
        if layer.grounding:
            arrays[f"box_{k}"] = np.array(layer.grounding.box_xyxy)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
