"""The result in view as files: PNG with its legend, JSON, COCO JSON, CSV, raw maps (npz), methods
sentence, and all of them in one zip."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from x2vlm.visualize import PALETTE, colorbar

from .html import map_name
from .stage import draw
from .state import ViewOptions, ViewState

CONVENTION = (
    "box_xyxy: x1, y1, x2, y2 in pixels of the upright image; COCO bbox: x, y, width, "
    "height in the same pixels"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")
Rows = Sequence[Mapping[str, Any]]


def write_files(state: ViewState, options: ViewOptions, rows: Rows, folder: Path) -> list[str]:
    """Write what the result in view has into `folder`; returns the paths, the zip first.

    Args:
        rows: of the CSV file, which the result's tab makes.
    """
    stem = Path(state.preview.name).stem or "x2vlm"
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in stem)[:40]
    said = methods(state, options)
    made = {
        f"{stem}.png": png(state, options),
        f"{stem}.json": _json(state.to_dict() | {"methods": said, "convention": CONVENTION}),
        "methods.txt": (said + "\n").encode(),
    }
    if rows:
        made[f"{stem}.csv"] = csv_text(rows).encode("utf-8-sig")
    if any(layer.grounding for layer in state.layers):
        made[f"{stem}.coco.json"] = _json(coco(state))
    if any(layer.explanation for layer in state.layers):
        made[f"{stem}.npz"] = npz(state, said)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / f"{stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in made:
            archive.write(folder / name, name)
    return [str(folder / name) for name in (f"{stem}.zip", *made)]


def methods(state: ViewState, options: ViewOptions | None = None) -> str:
    """One sentence for a paper: model, image, task, maps, frames, versions; enough to repeat the
    figure."""
    result = state.result
    if result is None:
        return f"Image {image_hash(state.media.path)}; nothing was asked of it."
    settings = dict(result.settings)
    model, weights = settings.pop("model", ""), settings.pop("hash", "")
    asked = ", ".join(f"{key} {value}" for key, value in settings.items())
    parts = [
        f"X2-VLM checkpoint {model} (SHA-256 {weights or 'unknown'})",
        f"image SHA-256 {image_hash(state.media.path)}",
        f"task {result.task} ({asked or 'defaults'})",
    ]
    if explanation := result.explanation:
        layer = "all fusion layers" if explanation.layer is None else f"layer {explanation.layer}"
        head = result.asked.get("head", "default")
        heads = "mean of all heads" if head == "default" else f"head {head}"
        shared = options is not None and options.one_scale
        scale = "one scale for all words" if shared else "each map on its own scale"
        parts.append(
            f"maps: {explanation.method}, target {explanation.target}, fusion {layer}, {heads}, "
            f"{scale} from min(0, lowest) to the highest value"
        )
    if state.is_video:
        parts.append(f"frames {', '.join(map(str, state.preview.indices))}")
    if result.asked.get("region"):
        parts.append(f"region {tuple(round(side) for side in result.asked['region'])}")
    return "; ".join([*parts, versions()]) + "."


@functools.lru_cache(maxsize=64)
def image_hash(path: str) -> str:
    """First 12 hex digits of a file's SHA-256; `gone` where it is not there any more."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    except OSError:
        return "gone"


@functools.cache
def versions() -> str:
    """Names and versions of what computed the result."""
    found = []
    for name in ("x2vlm", "torch", "transformers"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def png(state: ViewState, options: ViewOptions) -> bytes:
    """The stage's image with a legend below: phrases with verdict and score, colour bar, model."""
    image = draw(state, options)
    lines = legend_lines(state)
    heat = "heat" in options.show and state.heat is not None
    font = ImageFont.load_default(size=15)
    rows, bar = 24 * len(lines) + 8, 56 if heat else 0
    sheet = Image.new("RGB", (max(image.width, 420), image.height + rows + bar + 8), "white")
    sheet.paste(image, (0, 0))
    pen, y = ImageDraw.Draw(sheet), image.height + 8
    for text, color in lines:
        if color:
            pen.rectangle((8, y + 2, 22, y + 16), fill=color, outline="black")
        pen.text((30 if color else 8, y), text, "black", font)
        y += 24
    if heat:
        scale = state.heat_range(options.one_scale)
        sheet.paste(colorbar(scale, options.colormap, width=min(sheet.width - 16, 320)), (8, y))
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


def legend_lines(state: ViewState) -> list[tuple[str, str]]:
    """Lines below the exported image, each with the colour of its box or none."""
    result = state.result
    if result is None:
        return []
    lines = [
        (
            f"{k + 1}  {g.phrase}: {g.verdict or ''}"
            + ("" if g.match is None else f" (match {g.match:.2f})"),
            PALETTE[k % len(PALETTE)],
        )
        for k, g in state.found
    ]
    if explanation := result.explanation:
        part = "" if result.word is None else f", part “{map_name(state)}”"
        lines.append((f"map: “{explanation.text}”{part}, {explanation.method}", ""))
    settings = result.settings
    lines.append((f"{settings.get('model', '')} {settings.get('hash', '')}".strip(), ""))
    return [(text[:90], color) for text, color in lines]


def coco(state: ViewState) -> dict[str, Any]:
    """COCO-style: one image, one category and one annotation a phrase; `score` is the match
    probability."""
    width, height = state.preview.size
    found = [layer.grounding for layer in state.layers if layer.grounding]
    return {
        "info": {"description": "X2-VLM visual grounding", "convention": CONVENTION},
        "images": [{"id": 1, "file_name": state.preview.name, "width": width, "height": height}],
        "categories": [{"id": k + 1, "name": g.phrase} for k, g in enumerate(found)],
        "annotations": [_annotation(k + 1, g) for k, g in enumerate(found)],
    }


def _annotation(number: int, found: Any) -> dict[str, Any]:
    x1, y1, x2, y2 = found.box_xyxy
    box = [x1, y1, x2 - x1, y2 - y1]
    fixed = {"id": number, "image_id": 1, "category_id": number, "bbox": box}
    fixed |= {"area": box[2] * box[3], "iscrowd": 0}
    return fixed | {"score": found.match, "verdict": found.verdict}


def csv_text(rows: Rows) -> str:
    """CSV with one line a row; nothing in it can be taken for a formula."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows([{key: _safe(value) for key, value in row.items()} for row in rows])
    return stream.getvalue()


def _safe(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value.startswith(FORMULA) else value


def npz(state: ViewState, said: str) -> bytes:
    """Raw maps, float32 and unnormalised, with words and boxes of every layer, and `methods`."""
    arrays: dict[str, Any] = {
        "size": np.array(state.preview.size),
        "convention": np.array(CONVENTION),
        "methods": np.array(said),
    }
    for k, layer in enumerate(state.layers):
        if layer.explanation:
            arrays[f"maps_{k}"] = layer.explanation.maps
            arrays[f"overall_{k}"] = layer.explanation.overall
            arrays[f"words_{k}"] = np.array([word.text for word in layer.explanation.words])
        if layer.grounding:
            arrays[f"box_{k}"] = np.array(layer.grounding.box_xyxy)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
