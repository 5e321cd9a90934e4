"""The dense box head of `photo`, learnt above a finished model: phrases with boxes, nothing else
read.

Shapes: B images, K phrases an image, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from train.data.regions import WHOLE_IMAGE
from train.tasks.records import RecordTask, choose_exactly
from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.losses import dense_box_losses, share_loss
from x2vlm.processing import normalize, patch_mask


@dataclass(kw_only=True)
class DenseBoxes(RecordTask):
    """Records of `train.data.photos` with regions.

    Attributes:
        batch_size: images.
        phrases: how many an image is asked for at once.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("share_loss", "l1_loss", "giou_loss")
    needs = ("image|maps", "regions")

    phrases: int = 4

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.grid_size = processor.config.vision.grid_size
        self.boxed = [i for i in range(len(self.records)) if self.records.has_boxes(i)]

    def __len__(self) -> int:
        return len(self.boxed)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(self.boxed[index])
        maps = record.get("maps")
        regions = record["regions"] or [{"text": "", "box": None}]
        regions = choose_exactly(regions, self.phrases, rng)
        return {
            "visual": self.pixels(record, rng)
            if maps is None
            else torch.from_numpy(maps.astype(np.float32)),
            "phrases": [self.encode(region["text"]) for region in regions],
            "boxes": [region["box"] for region in regions],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        boxes = [box for sample in samples for box in sample["boxes"]]
        boxed = torch.tensor([box is not None for box in boxes])
        boxes = torch.tensor([WHOLE_IMAGE if box is None else box for box in boxes])
        patches = [patch_mask(box, self.grid_size) for box in cxcywh_to_xyxy(boxes).tolist()]
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "boxes": boxes,
            "boxed": boxed,
            "inside": torch.stack(patches).bool(),
            "phrases": self.texts.collate(
                [text for sample in samples for text in sample["phrases"]]
            ),
        }

    def training_step(self, model, batch):
        visual, texts = batch["visual"], batch["phrases"]
        embeds = (
            model.vision.from_maps(visual)
            if visual.ndim == 2
            else model.encode_visual(normalize(visual))
        )
        text_embeds = model.encode_text(texts["input_ids"], texts["attention_mask"])
        scores, boxes = model.dense_boxes(embeds, text_embeds)
        inside, boxed = batch["inside"], batch["boxed"]
        l1, giou = dense_box_losses(boxes, batch["boxes"], inside & boxed[:, None])
        return {
            "share_loss": share_loss(scores, inside, boxed),
            "l1_loss": l1,
            "giou_loss": giou,
        }
