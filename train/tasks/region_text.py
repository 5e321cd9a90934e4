"""Multi-grained pre-training: the regions of an image and the image itself, each with its text
(X²-VLM, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from train.data.masking import MaskingConfig
from train.data.regions import WHOLE_IMAGE, RegionText, box_in_crop, sample_crop
from train.data.transforms import may_flip, rand_augment
from train.tasks.records import RecordTask, choose, positive_pairs
from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.config import sides
from x2vlm.modeling.pretraining import REGION_LOSSES, X2VLMForPretraining
from x2vlm.processing import normalize, patch_mask, to_pixels


@dataclass(kw_only=True)
class RegionTextTask(RecordTask):
    """Up to `max_regions` texts of each image; its caption takes one of the places.

    Attributes:
        batch_size: images.
        boxes: which lists of a record are learnt. Files have everything under `regions`; the
            sticker world tells `regions` (phrases for items and groups) and `objects` apart.
        max_texts: texts of a batch on one process; a random subset is kept when there are more (0:
            all are kept).
        careful_flip: images whose texts name a side are not mirrored (with an augmentation that
            mirrors).
        min_share: a region counts when more than this part of it lies in the crop.
    """

    all_losses = REGION_LOSSES
    needs = ("image", "regions")

    masking: MaskingConfig = field(default_factory=MaskingConfig)
    equal_texts: bool = True
    boxes: list[Literal["regions", "objects"]] = field(default_factory=lambda: ["regions"])
    max_regions: int = 5
    max_texts: int = 0
    careful_flip: bool = True
    min_share: float = 0.5

    def text_masking(self) -> MaskingConfig:
        return self.masking

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.grid_size = processor.config.vision.grid_size

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        image = record["image"]
        regions = [
            region | {"text": choose(region.get("texts", [region["text"]]), 1, rng)[0]}
            for name in self.boxes
            for region in record.get(name, ())
        ]
        caption = choose(record.get("captions", ()), 1, rng)
        crop, flip = (0, 0, *image.size), False
        if self.augmentation != "none":
            texts = [*caption, *(region["text"] for region in regions)]
            flip = may_flip(texts if self.careful_flip else (), rng)
            if regions:
                crop = sample_crop(
                    _pixel_box(choose(regions, 1, rng)[0]["box"], image.size), *image.size, rng
                )
            size = sides(self.image_size)[::-1]
            image = image.resize(size, Image.Resampling.BICUBIC, box=crop)
            image = rand_augment(
                ImageOps.mirror(image) if flip else image, rng, photometric_only=True
            )
        image_key = self.image_key(index, record)
        items = [RegionText(text, WHOLE_IMAGE, image_key, is_image=True) for text in caption]
        for region in choose(regions, len(regions), rng):
            if len(items) == self.max_regions:
                break
            box = box_in_crop(
                _scaled(region["box"], record["image"].size), crop, flip, self.min_share
            )
            if box is not None:
                shown = self.region_key(index, record, region["box"])
                items.append(RegionText(region["text"], box, shown))
        return {
            "image": to_pixels(image, self.image_size),
            "items": [(item, self.encode(item.text, rng)) for item in items],
            "places": rng.random(len(items)),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [
            (place, index, item, text)
            for index, sample in enumerate(samples)
            for place, (item, text) in zip(sample["places"], sample["items"], strict=True)
        ]
        if self.max_texts and len(rows) > self.max_texts:
            rows = sorted(rows, key=lambda row: row[0])[: self.max_texts]
        texts = [text for *_, text in rows]
        boxes = torch.tensor([item.box_cxcywh for _, _, item, _ in rows])
        return {
            "image": torch.stack([sample["image"] for sample in samples]),
            "image_index": torch.tensor([index for _, index, _, _ in rows]),
            "patch_mask": torch.stack(
                [patch_mask(box, self.grid_size) for box in cxcywh_to_xyxy(boxes).tolist()]
            ),
            "target_boxes": boxes,
            "is_image": torch.tensor([item.is_image for _, _, item, _ in rows]),
            "positives": positive_pairs(
                [item.shown for _, _, item, _ in rows], texts, self.equal_texts
            ),
            **self.texts.collate(texts),
        }

    def training_step(self, model, batch):
        batch = batch | {"image": normalize(batch["image"])}
        return X2VLMForPretraining(model).forward_regions(**batch, wanted=self.loss_weights).losses


def _scaled(box_cxcywh, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Fractions to (x, y, w, h) in pixels."""
    cx, cy, w, h = box_cxcywh
    width, height = size
    return (cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height


def _pixel_box(box_cxcywh, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x, y, w, h) in whole pixels, as the official crop takes them."""
    return tuple(int(round(value, 3)) for value in _scaled(box_cxcywh, size))
