"""Grounding: the box of a phrase; several phrases of an image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from train.data.records import TestRecords
from train.data.transforms import may_flip, rand_augment
from train.tasks.records import RecordTask, choose_exactly, owned
from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.config import sides
from x2vlm.inference.explain import FusionInputs, token_maps
from x2vlm.metrics import grounding_accuracy, pointing_hits
from x2vlm.modeling.grounding import X2VLMForGrounding
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.options import MapChoice
from x2vlm.processing import normalize, to_pixels

BOX_KEYS = ("box_xywh", "right_xywh")
"""What a prediction says of a phrase: the box that was found, and the right one, in pixels."""


@dataclass(kw_only=True)
class Grounding(RecordTask):
    """Referring phrases; the image is not cropped, and mirrored only if no phrase names a side.

    Attributes:
        batch_size: images.
        phrases_per_image: texts learnt from one encoding of the image.
        explain_method: how the heat maps are computed in evaluation.
        explain_layer: their fusion layer; None for the mean of all.
    """

    all_losses = X2VLMForGrounding.loss_names
    needs = ("image", "regions")

    phrases_per_image: int = 1
    explain_method: Literal["gradient", "attention", "similarity"] = "gradient"
    explain_layer: int | None = None

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        regions = choose_exactly(record["regions"], self.phrases_per_image, rng)
        image, flip = record["image"], False
        if self.augmentation != "none":
            flip = may_flip([region["text"] for region in regions], rng)
            size = sides(self.image_size)[::-1]
            image = image.resize(size, Image.Resampling.BICUBIC)
            image = rand_augment(
                ImageOps.mirror(image) if flip else image, rng, photometric_only=True
            )
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

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """Over all phrases of all records: `accuracy`, boxes with IoU of at least 0.5 (spec of
        RefCOCO), and `pointing`, maps of the match whose peak lies in the true box."""
        predicted, targets, hits = [], [], []
        for group in records.batches(32):
            embeds = self.see(model, group)
            owners, phrases = owned(group, lambda record: record["regions"])
            if not phrases:
                continue
            sizes = np.array(
                [(*group[owner]["image"].size, *group[owner]["image"].size) for owner in owners]
            )
            boxes = np.array([phrase["box"] for phrase in phrases])
            for start in range(0, len(phrases), 256):
                part = slice(start, start + 256)
                _, mask, text_embeds = self.read(
                    model, [phrase["text"] for phrase in phrases[part]]
                )
                seen = embeds[owners[part]]
                fused, maps = self._fuse(model, text_embeds, mask, seen)
                found = model.locate(seen, text_embeds, fused)
                predicted.append(found.float().cpu().numpy() * sizes[part])
                if maps is not None:
                    corners = cxcywh_to_xyxy(torch.from_numpy(boxes[part])).numpy()
                    hits.append(pointing_hits(maps.cpu().numpy(), corners))
            targets.append(boxes * sizes)
            found = _corners(np.concatenate(predicted)[-len(phrases) :]).tolist()
            said: list[list[dict[str, Any]]] = [[] for _ in group]
            for owner, phrase, box, right in zip(
                owners, phrases, found, _corners(targets[-1]).tolist(), strict=True
            ):
                boxes_of = dict(zip(BOX_KEYS, (box, right), strict=True))
                said[owner].append({"text": phrase["text"], **boxes_of})
            for record, boxes_said in zip(group, said, strict=True):
                pairs = [[said_of[key] for said_of in boxes_said] for key in BOX_KEYS]
                score = {"score": grounding_accuracy(*pairs)} if boxes_said else {}
                records.predict(record, boxes=boxes_said, **score)
        predicted, targets, hits = map(records.gather, (predicted, targets, hits))
        accuracy = grounding_accuracy(
            _corners(np.concatenate(predicted)), _corners(np.concatenate(targets))
        )
        return {"accuracy": accuracy} | (
            {"pointing": float(np.concatenate(hits).mean())} if hits else {}
        )

    def _fuse(self, model, text_embeds, mask, embeds) -> tuple[Tensor, Tensor | None]:
        """Fused phrases and their maps float (N, rows, columns), `Explanation.overall`; None
        without a matching head."""
        if "matching" not in model.config.heads:
            return model.fuse(text_embeds, mask, embeds), None
        inputs = FusionInputs(
            model, text_embeds, mask, embeds, lambda fused: model.match_logits(fused)[:, 1]
        )
        choice = MapChoice("match", self.explain_method, self.explain_layer)
        (maps,), fused = token_maps(inputs, (choice,), seed=0)
        heat = (maps * mask[..., None]).sum(dim=1)
        return fused, heat.unflatten(1, model.config.vision.grid_size)


def _corners(boxes_cxcywh: np.ndarray) -> np.ndarray:
    """(cx, cy, w, h) to (x, y, w, h)."""
    return np.concatenate(
        [boxes_cxcywh[:, :2] - boxes_cxcywh[:, 2:] / 2, boxes_cxcywh[:, 2:]], axis=1
    )
