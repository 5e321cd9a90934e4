"""Captions as truth: what the model writes against them, and how well images and captions find each
other by their contrastive features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from x2vlm.caption_metrics import cider_d_scores
from x2vlm.errors import CheckpointError, X2VLMError
from x2vlm.inference.predictor import Predictor
from x2vlm.inference.scene import Scene
from x2vlm.inspection.truth import Truth
from x2vlm.metrics import recall_at


@dataclass(frozen=True)
class Captioned:
    """Captions of one image; None for what a model without the head, or the data, do not allow.

    Attributes:
        count: true captions.
        written: the model's own caption.
        cider_d: of the own caption.
        text_recall: `r@1`, `r@5`, `r@10` of the image's captions among those of all images.
        image_recall: of the image among all images, the mean over its captions.
    """

    count: int
    written: str | None = None
    cider_d: float | None = None
    text_recall: dict[str, float] | None = None
    image_recall: dict[str, float] | None = None


class CaptionTest:
    """Collects captions and features image by image; `results` compares them all."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.writes = "caption" in predictor.tasks
        try:
            self.compares = predictor.feature_size > 0
        except CheckpointError:
            self.compares = False
        self.places: list[int] = []
        self.references: list[tuple[str, ...]] = []
        self.written: list[str] = []
        self.images: list[np.ndarray] = []
        self.texts: list[np.ndarray] = []

    def add(
        self, first: int, truths: Sequence[Truth], scenes: Sequence[Scene | X2VLMError]
    ) -> None:
        """Some images: the place of the first of them, what is true of them, and what was seen."""
        good = [
            i
            for i, (truth, scene) in enumerate(zip(truths, scenes, strict=True))
            if truth.captions and isinstance(scene, Scene)
        ]
        seen, nothing = [scenes[i] for i in good], [None] * len(good)
        written = self.predictor.caption(seen) if self.writes else nothing
        images = self.predictor.image_features(seen) if self.compares else nothing
        for i, captions, image in zip(good, written, images, strict=True):
            if isinstance(captions, X2VLMError) or isinstance(image, X2VLMError):
                continue
            self.places.append(first + i)
            self.references.append(truths[i].captions)
            if self.writes:
                self.written.append(captions[0].text)
            if self.compares:
                self.images.append(image)
                self.texts += map(self.predictor.text_features, truths[i].captions)

    def results(self) -> dict[int, Captioned]:
        """By the place of the image."""
        if not self.places:
            return {}
        nothing = [None] * len(self.places)
        rows = zip(
            self.places,
            map(len, self.references),
            self.written or nothing,
            self._cider() or nothing,
            *(self._recalls() if self.compares else (nothing, nothing)),
            strict=True,
        )
        return {place: Captioned(*row) for place, *row in rows}

    def _cider(self) -> list[float] | None:
        """None where all images have the same words, so that none can weigh more."""
        if not self.written:
            return None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scores = cider_d_scores(self.written, self.references)
        return None if said else scores

    def _recalls(self) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Of each image, `text_recall` and `image_recall`."""
        images, texts = np.stack(self.images), np.stack(self.texts)
        owners = np.repeat(np.arange(len(images)), list(map(len, self.references)))
        to_text, to_image = [], []
        for place, image in enumerate(images):
            own = owners == place
            to_text.append(recall_at((texts @ image)[None], own[None]))
            relevant = np.zeros((int(own.sum()), len(images)), dtype=bool)
            relevant[:, place] = True
            to_image.append(recall_at(texts[own] @ images.T, relevant))
        return to_text, to_image
