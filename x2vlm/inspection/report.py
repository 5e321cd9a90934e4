"""The report of one inspection or of two side by side: JSON, and one HTML file that needs nothing
else, with tables, plots and the images where the model was most right and most wrong."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from x2vlm.inference.predictor import Predictor
from x2vlm.inspection.measure import Asked, Inspection, medium
from x2vlm.inspection.statistics import (
    BINS,
    LESS_IS_BETTER,
    MEASURES,
    calibration,
    confusion,
    intervals,
    measures,
    tabulate,
)
from x2vlm.inspection.truth import Truth
from x2vlm.visualize import draw_boxes, heat_range, overlay_heatmap

CASES = 6
"""Images that are shown of the best, and of the worst."""
SHOWN_SIDE = 320
COLORS = ("#0072B2", "#D55E00")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 20rem; }
figcaption, .note { color: #555; font-size: .9rem; }
img { max-width: 100%; height: auto; }
.better { color: #00663f; font-weight: 600; } .worse { color: #a33400; font-weight: 600; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #161616; }
  th, td { border-color: #444; } figcaption, .note { color: #bbb; }
  .better { color: #4fd19a; } .worse { color: #ff9a6b; } .plot { background: #fff; } }
"""


def summarize(data: str, inspections: Sequence[Inspection]) -> dict[str, Any]:
    """All numbers of the report as plain values."""
    tables = [tabulate(one) for one in inspections]
    bounds = intervals(tables)
    models = []
    for number, (one, table) in enumerate(zip(inspections, tables, strict=True)):
        values = measures(table)
        models.append(
            {
                "name": one.name,
                "hash": one.hash,
                "measures": {
                    name: {"value": value, "interval": bounds[name][number]}
                    for name, value in values.items()
                },
                "calibration": calibration(table),
                "confusion": confusion(one),
                "unreadable": [
                    problem
                    for image in one.images
                    for problem in (*([image.error] if image.error else []), *image.unread)
                ],
                "images": [asdict(image) for image in one.images],
            }
        )
    summary: dict[str, Any] = {
        "data": data,
        "images": len(inspections[0].images),
        "texts": len(tables[0].image),
        "boxes": sum(one.true_xywh is not None for i in inspections[0].images for one in i.asked),
        "models": models,
    }
    if len(models) == 2:
        first, second = (model["measures"] for model in models)
        summary["differences"] = {
            name: {"value": _minus(second[name]["value"], first[name]["value"]), "interval": b[2]}
            for name, b in bounds.items()
        }
    return summary


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def write_report(
    out: Path,
    summary: dict[str, Any],
    truths: Sequence[Truth],
    inspections: Sequence[Inspection],
    predictors: Sequence[Predictor],
) -> tuple[Path, Path]:
    """`OUT.html` and `OUT.json`.

    Args:
        predictors: of each inspection, for the images that are shown.
    """
    html, numbers = out.with_suffix(".html"), out.with_suffix(".json")
    numbers.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    names = " and ".join(escape(model["name"]) for model in summary["models"])
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{names} on {escape(summary['data'])}</title><style>{STYLE}</style>",
        f"<h1>{names} on {escape(summary['data'])}</h1>",
        f"<p>{summary['images']:,} images, {summary['texts']:,} texts, of which "
        f"{summary['boxes']:,} have a box. In brackets: 95% intervals by resampling images.</p>",
        _measures(summary),
        *map(_unreadable, summary["models"]),
        "<h2>Calibration of the match</h2>",
        "<p class=note>Of the texts with a match near x, the share that is true. On the line, a "
        "match can be read as a probability.</p>",
        _figure(_calibration_plot(summary["models"]), "Calibration of the match"),
        "<h2>Boxes</h2>",
        _figure(_iou_plot(summary["models"]), "How many boxes reach an IoU"),
        *(_confused(model) for model in summary["models"]),
        *map(_cases, inspections, predictors, [truths] * len(inspections)),
        "</html>",
    ]
    html.write_text("\n".join(parts), encoding="utf-8")
    return html, numbers


def _measures(summary: dict[str, Any]) -> str:
    models, differences = summary["models"], summary.get("differences")
    heads = "".join(f"<th>{escape(model['name'])}</th>" for model in models)
    rows = [f"<tr><th>measure</th>{heads}{'<th>second - first</th>' if differences else ''}</tr>"]
    for name, (help_text, _) in MEASURES.items():
        if all(model["measures"][name]["value"] is None for model in models):
            continue
        cells = "".join(f"<td>{_number(model['measures'][name])}</td>" for model in models)
        if differences:
            cells += _difference(name, differences[name])
        rows.append(f"<tr id={name}><td>{escape(help_text)}</td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _unreadable(model: dict[str, Any]) -> str:
    problems = model["unreadable"]
    if not problems:
        return ""
    shown = "".join(f"<li>{escape(problem)}</li>" for problem in problems[:10])
    count = f"{len(problems):,} images or texts that {escape(model['name'])} could not use"
    return f"<details><summary>{count}</summary><ul>{shown}</ul></details>"


def _number(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    interval = found["interval"]
    bounds = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return f"{found['value']:.3f}{bounds}"


def _difference(name: str, found: dict[str, Any]) -> str:
    """Marked where the interval leaves out 0."""
    interval = found["interval"]
    kind = ""
    if interval is not None and not interval[0] <= 0 <= interval[1]:
        better = (interval[0] > 0) != (name in LESS_IS_BETTER)
        kind = f" class={'better' if better else 'worse'}"
    return f"<td{kind}>{_number(found)}</td>"


def _confused(model: dict[str, Any]) -> str:
    if not model["confusion"]:
        return ""
    rows = "".join(
        f"<tr><td>{escape(row['true'])}</td><td>{escape(row['absent'])}</td>"
        f"<td>{row['confused']} of {row['asked']}</td></tr>"
        for row in model["confusion"]
    )
    return (
        f"<h2>Near phrases that {escape(model['name'])} confuses</h2><p class=note>A true and an "
        "absent phrase of one image differ in one word; the absent one matched at least as well."
        f"</p><table><tr><th>true</th><th>absent</th><th>confused</th></tr>{rows}</table>"
    )


def _calibration_plot(models: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(5, 4), layout="tight")
    axes = figure.add_subplot(xlabel="match", ylabel="share that is true")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    for model, color in zip(models, COLORS):
        curve = model["calibration"]
        bins = [i for i in range(BINS) if curve["count"][i]]
        axes.plot(
            [curve["match"][i] for i in bins],
            [curve["present"][i] for i in bins],
            marker="o",
            color=color,
            label=model["name"],
        )
    axes.legend()
    return figure


def _iou_plot(models: Sequence[dict[str, Any]]) -> Figure | None:
    figure = Figure(figsize=(5, 4), layout="tight")
    axes = figure.add_subplot(xlabel="IoU of at least", ylabel="share of boxes", ylim=(0, 1))
    thresholds = [step / 20 for step in range(21)]
    for model, color in zip(models, COLORS):
        ious = [
            a["iou"] for image in model["images"] for a in image["asked"] if a["iou"] is not None
        ]
        if not ious:
            return None
        shares = [sum(iou >= t for iou in ious) / len(ious) for t in thresholds]
        axes.plot(thresholds, shares, color=color, label=model["name"])
    axes.legend()
    return figure


def _figure(figure: Figure | None, alt: str) -> str:
    if figure is None:
        return "<p>The data have no boxes.</p>"
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return f'<img class=plot alt="{escape(alt)}" src="{_embedded(data.getvalue(), "png")}">'


def _embedded(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _cases(inspection: Inspection, predictor: Predictor, truths: Sequence[Truth]) -> str:
    """The best and the worst texts: by IoU, or without boxes by the match."""
    asked = [
        (image, one)
        for image, found in enumerate(inspection.images)
        for one in found.asked
        if one.present and (one.iou if one.iou is not None else one.match) is not None
    ]
    asked.sort(key=lambda pair: pair[1].match if pair[1].iou is None else pair[1].iou)
    shown = [("worst", _distinct(asked)), ("best", _distinct(asked[::-1]))]
    parts = []
    for word, pairs in shown:
        figures = "".join(_case(truths[image], one, predictor) for image, one in pairs)
        parts.append(f"<h2>{escape(inspection.name)}: {word} cases</h2>{figures}")
    legend = "<p class=note>1: the right box, 2: the predicted one (broken). The heat is that of "
    return legend + "the match.</p>" + "".join(parts)


def _distinct(pairs: Sequence[tuple[int, Asked]]) -> list[tuple[int, Asked]]:
    """The first text of each of the first images."""
    firsts = {}
    for image, one in pairs:
        firsts.setdefault(image, one)
        if len(firsts) == CASES:
            break
    return list(firsts.items())


def _case(truth: Truth, asked: Asked, predictor: Predictor) -> str:
    scene = predictor.encode(medium(truth, predictor))
    heat = predictor.find_phrases(scene, asked.text)[0].explanation.overall
    image = overlay_heatmap(scene.image, heat, value_range=heat_range(heat))
    boxes = [_corners(box) for box in (asked.true_xywh, asked.box_xywh) if box is not None]
    dashed = [False, True][-len(boxes) :]
    image = draw_boxes(image, boxes, dashed=dashed, numbers=[1, 2][-len(boxes) :])
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=85)
    numbers = [("IoU", asked.iou), ("match", asked.match)]
    told = ", ".join(f"{name} {value:.2f}" for name, value in numbers if value is not None)
    text = f"{escape(asked.text)} ({told})<br>{escape(truth.id)}"
    source = _embedded(data.getvalue(), "jpeg")
    shown = f'<img alt="{escape(asked.text)}" src="{source}">'
    return f"<figure>{shown}<figcaption>{text}</figcaption></figure>"


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h
