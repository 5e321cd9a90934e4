"""Retrieval, grounding, matching, attributes, pairs and pointing: what a list of numbers says of a
model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def recall_at(
    scores: np.ndarray, relevant: np.ndarray, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Recall@k of each row (query) over the columns, ties counted exactly.

    A query counts by the probability that a relevant column is among the first k when equal scores
    stand in random order, so a constant score gives chance and never 1.

    Args:
        scores: float (queries, gallery), higher is better.
        relevant: bool (queries, gallery), at least one True a row.
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    better = (scores > best).sum(axis=1)
    tied = scores == best
    tied_relevant = (tied & relevant).sum(axis=1)
    tied_others = tied.sum(axis=1) - tied_relevant
    found = {}
    for k in ks:
        places = np.maximum(k - better, 0)
        missed = [
            _all_missed(int(p), int(r), int(o))
            for p, r, o in zip(places, tied_relevant, tied_others)
        ]
        found[f"r@{k}"] = float(1 - np.mean(missed))
    return found


def _all_missed(places: int, relevant: int, others: int) -> float:
    """The probability that none of `relevant` tied entries is among `places` drawn from all tied
    ones."""
    probability = 1.0
    for drawn in range(min(places, relevant + others)):
        probability *= max(0.0, (others - drawn) / (relevant + others - drawn))
    return probability


def median_rank(scores: np.ndarray, relevant: np.ndarray) -> float:
    """The median over the queries of the best relevant column's rank, 1 for the first; among equal
    scores the expected one. Arguments as for `recall_at`."""
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    tied_relevant = (tied & relevant).sum(axis=1)
    expected = (tied.sum(axis=1) + 1) / (tied_relevant + 1)
    return float(np.median((scores > best).sum(axis=1) + expected))


def retrieval_recall(
    image_to_text: np.ndarray,
    text_to_image: np.ndarray,
    image_of_text: np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """Recall in both directions and their mean, and the median rank of the best right answer.

    Args:
        image_to_text: float (images, texts); text_to_image: float (texts, images).
        image_of_text: int (texts,), the image that each text belongs to.
    """
    belongs = image_of_text[None] == np.arange(len(image_to_text))[:, None]
    to_text = {f"text_{k}": v for k, v in recall_at(image_to_text, belongs, ks).items()}
    to_image = {f"image_{k}": v for k, v in recall_at(text_to_image, belongs.T, ks).items()}
    values = [*to_text.values(), *to_image.values()]
    ranks = {
        "text_median_rank": median_rank(image_to_text, belongs),
        "image_median_rank": median_rank(text_to_image, belongs.T),
    }
    return to_text | to_image | {"mean_recall": sum(values) / len(values)} | ranks


def pixel_iou(first_xywh: np.ndarray, second_xywh: np.ndarray) -> np.ndarray:
    """IoU of box pairs (N, 4), (x, y, w, h) in pixels, corners inclusive as in the official RefCOCO
    evaluation.

    The intersection counts pixels (+1), the areas do not; boxes that share one pixel column only
    count as apart.
    """
    first, second = (
        np.asarray(first_xywh, dtype=np.float64),
        np.asarray(second_xywh, dtype=np.float64),
    )
    low = np.maximum(first[:, :2], second[:, :2])
    high = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:]) - 1
    span = high - low
    intersection = np.where((span > 0).all(axis=1), (span + 1).prod(axis=1), 0.0)
    return intersection / (first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - intersection)


def grounding_accuracy(
    predicted_xywh: np.ndarray, target_xywh: np.ndarray, threshold: float = 0.5
) -> float:
    """Share of boxes with `pixel_iou` of at least `threshold`."""
    return float((pixel_iou(predicted_xywh, target_xywh) >= threshold).mean())


def auc(positive_scores: Sequence[float], negative_scores: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half (area under the ROC
    curve)."""
    positive, negative = (
        np.asarray(positive_scores, dtype=np.float64),
        np.sort(np.asarray(negative_scores, dtype=np.float64)),
    )
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float(((below + not_above) / 2 / len(negative)).mean())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean precision at the scores of the positives: the sum over falling thresholds of (recall
    gained) x (precision there); equal scores are one threshold, as in scikit-learn.

    Args:
        scores: float (N,); positive: bool (N,), at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    last = np.append(ranked[1:] != ranked[:-1], True)
    precision = hits[last] / (np.flatnonzero(last) + 1)
    return float((np.diff(hits[last], prepend=0) / hits[-1] * precision).sum())


def winoground(scores: np.ndarray) -> dict[str, float]:
    """Text, image and group score (Thrush et al., arXiv 2204.03162).

    Args:
        scores: float (N, 2, 2), match of caption i (first index after N) with image j; caption i
            belongs to image i. Equal scores count as wrong.
    """
    text = (scores[:, 0, 0] > scores[:, 1, 0]) & (scores[:, 1, 1] > scores[:, 0, 1])
    image = (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] > scores[:, 1, 0])
    return {
        "text": float(text.mean()),
        "image": float(image.mean()),
        "group": float((text & image).mean()),
    }


def accuracy(predictions: Sequence, labels: Sequence) -> float:
    """Share of equal pairs; each sample counts once (NLVR2, closed-list questions)."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def pointing_hits(maps: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """bool (N,): the peak of each map lies in its box (pointing game, arXiv 1608.00507).

    Args:
        maps: float (N, rows, columns), rows from the top; the peak is the centre of its cell. A
            flat map has no peak and misses.
        boxes_xyxy: float (N, 4) as fractions of the sides.
    """
    maps, boxes = np.asarray(maps), np.asarray(boxes_xyxy)
    rows, columns = maps.shape[1:]
    flat = maps.reshape(len(maps), -1)
    peak = flat.argmax(axis=1)
    x, y = (peak % columns + 0.5) / columns, (peak // columns + 0.5) / rows
    inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
    return inside & (flat.max(axis=1) > flat.min(axis=1))
