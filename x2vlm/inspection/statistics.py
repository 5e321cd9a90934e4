"""Measures of an inspection, and how sure they are: intervals by resampling images (bootstrap,
Efron 1979). Two models are compared on the same resampled images (paired), which is far sharper
than two intervals side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from x2vlm.inspection.captions import Captioned
from x2vlm.inspection.measure import Inspection, Measured
from x2vlm.metrics import auc

SIZES = (("small", 0.0, 0.01), ("medium", 0.01, 0.1), ("large", 0.1, 1.01))
"""Boxes by their share of the image."""
IOU = 0.5
BINS = 10
RECALLS = ("r@1", "r@5", "r@10")
DRAWS = 1000
COVERED = 0.95


@dataclass(frozen=True)
class Table:
    """Every text of every image as columns of equal length, NaN where a value is not known; and
    columns with one value an image."""

    image: np.ndarray
    columns: dict[str, np.ndarray]
    of_image: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def rows(self, index: np.ndarray) -> Table:
        """Some rows, of the same images."""
        return Table(self.image[index], _taken(self.columns, index), self.of_image)

    def of_images(self, index: np.ndarray, rows: np.ndarray) -> Table:
        """Some images, with the rows of their texts."""
        return replace(self.rows(rows), of_image=_taken(self.of_image, index))


def _taken(columns: dict[str, np.ndarray], index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[index] for name, values in columns.items()}


COLUMNS = ("present", "match", "iou", "area", "hit", "agrees", "energy")


def tabulate(inspection: Inspection) -> Table:
    """The columns of an inspection."""
    rows = [(number, one) for number, image in enumerate(inspection.images) for one in image.asked]
    columns = {
        name: np.array(
            [np.nan if getattr(one, name) is None else getattr(one, name) for _, one in rows], float
        )
        for name in COLUMNS
    }
    each = [_of_image(image) for image in inspection.images]
    of_image = {
        name: np.array([np.nan if one[name] is None else one[name] for one in each], float)
        for name in each[0]
    }
    return Table(np.array([number for number, _ in rows], int), columns, of_image)


def _of_image(image: Measured) -> dict[str, float | None]:
    """What is known of an image as a whole."""
    known = {"faithfulness": image.faithfulness}
    told = image.captioned or Captioned(0)
    known |= {"captions": told.count, "cider_d": told.cider_d}
    for k in RECALLS:
        known[f"text_{k}"] = (told.text_recall or {}).get(k)
        known[f"image_{k}"] = (told.image_recall or {}).get(k)
    return known


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _accuracy(table: Table) -> float | None:
    known = ~np.isnan(table["iou"])
    return float((table["iou"][known] >= IOU).mean()) if known.any() else None


def _of_size(measure: Callable[[Table], float | None], low: float, high: float):
    return lambda t: measure(t.rows((t["area"] >= low) & (t["area"] < high)))


def _auc(table: Table) -> float | None:
    known = ~np.isnan(table["match"])
    match, present = table["match"][known], table["present"][known] > 0
    return auc(match[present], match[~present]) if present.any() and not present.all() else None


def _on_true(table: Table, column: str) -> float | None:
    return _mean(table[column][table["present"] > 0])


def _pointing(table: Table) -> float | None:
    return _mean(table["hit"])


def _of_captions(k: str) -> Callable[[Table], float | None]:
    """Recall of images over all captions, of which one image may have more than another."""

    def measure(table: Table) -> float | None:
        recall, count = table.of_image[f"image_{k}"], table.of_image["captions"]
        known = ~np.isnan(recall)
        return float(np.average(recall[known], weights=count[known])) if known.any() else None

    return measure


MEASURES: dict[str, tuple[str, Callable[[Table], float | None]]] = {
    "accuracy": (f"boxes with IoU of at least {IOU}", _accuracy),
    **{
        f"accuracy_{name}": (f"the same, {name} boxes", _of_size(_accuracy, low, high))
        for name, low, high in SIZES
    },
    "mean_iou": ("mean IoU of the boxes", lambda table: _mean(table["iou"])),
    "pointing": ("pointing game: the map's peak lies in the right box", _pointing),
    **{
        f"pointing_{name}": (f"the same, {name} boxes", _of_size(_pointing, low, high))
        for name, low, high in SIZES
    },
    "auc": ("present against absent texts, AUC of the match", _auc),
    "calibration_error": (
        "expected calibration error of the match (less is better)",
        lambda table: calibration(table)["error"],
    ),
    "agreement": (
        "the map's peak lies in the predicted box",
        lambda table: _on_true(table, "agrees"),
    ),
    "energy_inside": (
        "share of the heat in the predicted box",
        lambda table: _on_true(table, "energy"),
    ),
    "faithfulness": (
        "faithfulness: area between deleting by heat and at random",
        lambda table: _mean(table.of_image["faithfulness"]),
    ),
    "cider_d": (
        "CIDEr-D of the captions that the model writes",
        lambda table: _mean(table.of_image["cider_d"]),
    ),
    **{
        f"text_{k}": (
            f"an image finds one of its captions by features, {k}",
            lambda table, name=f"text_{k}": _mean(table.of_image[name]),
        )
        for k in RECALLS
    },
    **{
        f"image_{k}": (f"a caption finds its image by features, {k}", _of_captions(k))
        for k in RECALLS
    },
}
"""Name -> what it says and its function of a table."""
LESS_IS_BETTER = ("calibration_error",)


def calibration(table: Table) -> dict[str, Any]:
    """How often a match probability is right: bins of equal width with their mean match, share of
    true texts and count, and the expected calibration error (Naeini et al., 2015)."""
    known = ~np.isnan(table["match"])
    match, present = table["match"][known], table["present"][known]
    place = np.minimum((match * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    some = np.maximum(count, 1)
    mean = np.bincount(place, match, BINS) / some
    share = np.bincount(place, present, BINS) / some
    error = float((count * abs(mean - share)).sum() / len(match)) if len(match) else None
    return {
        "match": mean.tolist(),
        "present": share.tolist(),
        "count": count.tolist(),
        "error": error,
    }


def measures(table: Table) -> dict[str, float | None]:
    """All of `MEASURES`, None where the data do not allow one."""
    return {name: function(table) for name, (_, function) in MEASURES.items()}


def confusion(inspection: Inspection, most: int = 20) -> list[dict[str, Any]]:
    """Near phrases that are told apart worst: a true and an absent text of one image with the same
    words but one. By the pair of words: how often the absent text matched at least as well."""
    asked, wrong = Counter(), Counter()
    for image in inspection.images:
        texts = [one for one in image.asked if one.match is not None]
        for true in (one for one in texts if one.present):
            words = true.text.lower().split()
            for other in (one for one in texts if not one.present):
                others = other.text.lower().split()
                changed = [pair for pair in zip(words, others) if pair[0] != pair[1]]
                if len(words) == len(others) and len(changed) == 1:
                    asked[changed[0]] += 1
                    wrong[changed[0]] += other.match >= true.match
    rows = [
        {"true": true, "absent": absent, "asked": count, "confused": wrong[true, absent]}
        for (true, absent), count in asked.items()
    ]
    return sorted(rows, key=lambda row: (-row["confused"] / row["asked"], -row["asked"]))[:most]


def intervals(
    tables: Sequence[Table], draws: int = DRAWS, seed: int = 0
) -> dict[str, list[tuple[float, float] | None]]:
    """95% intervals of every measure for each table; with two tables, a third entry is the interval
    of second minus first, on the same resampled images."""
    rng, first = np.random.default_rng(seed), tables[0]
    images = len(first.of_image["faithfulness"])
    places = [_places(table, images) for table in tables]
    drawn: dict[str, list[list[float]]] = {name: [[] for _ in tables] for name in MEASURES}
    for _ in range(draws):
        chosen = rng.integers(0, images, images)
        for number, table in enumerate(tables):
            part = table.of_images(chosen, np.concatenate([places[number][i] for i in chosen]))
            for name, value in measures(part).items():
                drawn[name][number].append(np.nan if value is None else value)
    return {name: _bounds([np.array(one) for one in values]) for name, values in drawn.items()}


def _places(table: Table, images: int) -> list[np.ndarray]:
    """Rows of each image."""
    bounds = np.searchsorted(table.image, np.arange(images + 1))
    return [np.arange(start, end) for start, end in pairwise(bounds)]


def _bounds(drawn: list[np.ndarray]) -> list[tuple[float, float] | None]:
    if len(drawn) == 2:
        drawn = [*drawn, drawn[1] - drawn[0]]
    tail = (1 - COVERED) / 2 * 100
    found = []
    for values in drawn:
        known = values[~np.isnan(values)]
        low, high = np.percentile(known, (tail, 100 - tail)) if len(known) else (None, None)
        found.append(None if low is None else (float(low), float(high)))
    return found
