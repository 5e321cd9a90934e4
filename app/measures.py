"""Numbers that the page computes from results: ranks, overlaps, how a map is spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from x2vlm.results import Caption, Explanation, Match
from x2vlm.visualize import FLAT

from .state import Box


def fit(found: Match) -> float:
    """Match, or similarity where the model has no matching head."""
    return found.probability if found.probability is not None else found.similarity or 0.0


def ranked(found: Sequence[Match]) -> tuple[Match, ...]:
    """Best first."""
    return tuple(sorted(found, key=fit, reverse=True))


def caption_rank(caption: Caption) -> float:
    """What captions are ranked by: log p(caption) + log p(match)."""
    return caption.log_probability + math.log(max(caption.match or 1.0, 1e-12))


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Overlap of two boxes (x1, y1, x2, y2): intersection over union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / (area - inner) if area > inner else 0.0


def parts(explanation: Explanation) -> list[tuple[str, int | None]]:
    """What of a text has a map of its own: its phrases, each with the number of its first word, and
    the words between them with None. Without phrases every word has one."""
    if not explanation.phrases:
        return [(word.text, k) for k, word in enumerate(explanation.words)]
    first = {phrase.words[0]: phrase.text for phrase in explanation.phrases}
    inside = {k for phrase in explanation.phrases for k in phrase.words}
    return [
        (first[k], k) if k in first else (word.text, None)
        for k, word in enumerate(explanation.words)
        if k in first or k not in inside
    ]


def part_of(explanation: Explanation, word: int) -> int | None:
    """The word that stands for the phrase of a word; None where it is in none."""
    for phrase in explanation.phrases:
        if word in phrase.words:
            return phrase.words[0]
    return None if explanation.phrases else word


def heat_shares(explanation: Explanation) -> list[float]:
    """Each word's share of the heat, the hottest word 1."""
    heat = explanation.maps.clip(min=0).sum(axis=(1, 2))
    return (heat / max(float(heat.max(initial=0)), 1e-12)).tolist()


def peak(heat: np.ndarray) -> tuple[float, float]:
    """(x, y) of the hottest patch as fractions of the image."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (column + 0.5) / heat.shape[1], (row + 0.5) / heat.shape[0]


def entropy(heat: np.ndarray) -> float:
    """Bits; log2 of the number of patches for an even map."""
    share = _shares(heat)
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())


def hottest_tenth(heat: np.ndarray) -> float:
    """Share of the heat in the hottest tenth of the patches."""
    share = np.sort(_shares(heat))[::-1]
    return float(share[: max(1, share.size // 10)].sum())


def inside(heat: np.ndarray, box: Box, size: Sequence[int]) -> float:
    """Share of the heat in the patches whose centre lies in a box, in pixels of an image."""
    rows, columns = heat.shape
    x = (np.arange(columns) + 0.5) / columns * size[0]
    y = (np.arange(rows) + 0.5) / rows * size[1]
    across, down = (x >= box[0]) & (x <= box[2]), (y >= box[1]) & (y <= box[3])
    return float(_shares(heat).reshape(heat.shape)[down[:, None] & across[None]].sum())


def correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Pearson's r of two maps on one grid; None for other grids or a flat map."""
    if a.shape != b.shape or np.ptp(a) < FLAT or np.ptp(b) < FLAT:
        return None
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _shares(heat: np.ndarray) -> np.ndarray:
    flat = heat.clip(min=0).ravel()
    total = flat.sum()
    return flat / total if total > FLAT else np.full(flat.size, 1 / flat.size)
