"""Grounding: the box of a phrase; several phrases of a picture at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps

from train.data.transforms import may_flip, normalize, rand_augment, to_pixels
from train.metrics.scores import grounding_accuracy
from train.tasks.records import RecordTask, batches, choose_exactly, owned
from x2vlm.modeling.grounding import X2VLMForGrounding


@dataclass(kw_only=True)
class Grounding(RecordTask):
    """Referring phrases; the picture is not cropped, and mirrored only if no phrase names a side.

    Attributes:
        batch_size: pictures.
        phrases_per_image: texts learnt from one encoding of the picture.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("box_l1_loss", "box_giou_loss")

    phrases_per_image: int = 1

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records[index]
        regions = choose_exactly(record["regions"], self.phrases_per_image, rng)
        image, flip = record["image"], False
        if self.augmentation != "none":
            flip = may_flip([region["text"] for region in regions], rng)
            image = image.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
            image = rand_augment(ImageOps.mirror(image) if flip else image, rng, photometric_only=True)
        boxes = [region["box"] for region in regions]
        return {
            "image": to_pixels(image, self.image_size),
            "texts": [self.encode(region["text"]) for region in regions],
            "boxes": [[1 - cx if flip else cx, cy, w, h] for cx, cy, w, h in boxes],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "image": torch.stack([sample["image"] for sample in samples]),
            "target_boxes": torch.tensor([box for sample in samples for box in sample["boxes"]]),
            **self.texts.collate([text for sample in samples for text in sample["texts"]]),
        }

    def training_step(self, model, batch):
        return X2VLMForGrounding(model)(**batch | {"image": normalize(batch["image"])}).losses

    def measure(self, model, records) -> dict[str, float]:
        """`accuracy`: boxes with IoU of at least 0.5 (spec of RefCOCO), over all phrases of all records."""
        predicted, targets = [], []
        for group in batches(records, 32):
            embeds = self.see(model, group)
            owners, phrases = owned(group, lambda record: record["regions"])
            sizes = np.array([(*group[owner]["image"].size, *group[owner]["image"].size) for owner in owners])
            for start in range(0, len(phrases), 256):
                part = slice(start, start + 256)
                _, mask, text_embeds = self.read(model, [phrase["text"] for phrase in phrases[part]])
                boxes = model.predict_boxes(model.fuse(text_embeds, mask, embeds[owners[part]]))
                predicted.append(boxes.float().cpu().numpy() * sizes[part])
            targets.append(np.array([phrase["box"] for phrase in phrases]) * sizes)
        return {"accuracy": grounding_accuracy(_corners(np.concatenate(predicted)), _corners(np.concatenate(targets)))}


def _corners(boxes_cxcywh: np.ndarray) -> np.ndarray:
    """(cx, cy, w, h) to (x, y, w, h)."""
    return np.concatenate([boxes_cxcywh[:, :2] - boxes_cxcywh[:, 2:] / 2, boxes_cxcywh[:, 2:]], axis=1)
