"""The dense box head of `photo`, learnt above a finished model: phrases with boxes, nothing else
read.

Shapes: B images, K phrases an image, P patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from train.tasks.photos import PhotoTask, embed
from train.tasks.records import choose_exactly
from x2vlm.losses import dense_box_losses, share_loss


@dataclass(kw_only=True)
class DenseBoxes(PhotoTask):
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
        self.boxed = [i for i in range(len(self.records)) if self.records.has_boxes(i)]

    def __len__(self) -> int:
        return len(self.boxed)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(self.boxed[index])
        regions = record["regions"] or [{"text": "", "box": None}]
        regions = choose_exactly(regions, self.phrases, rng)
        return {
            "visual": self.visual(record, rng),
            "phrases": [self.encode(region["text"]) for region in regions],
            "boxes": [region["box"] for region in regions],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        phrases = [text for sample in samples for text in sample["phrases"]]
        return {**self.collate_places(samples), "phrases": self.texts.collate(phrases)}

    def training_step(self, model, batch):
        texts = batch["phrases"]
        text_embeds = model.encode_text(texts["input_ids"], texts["attention_mask"])
        scores, boxes = model.dense_boxes(embed(model, batch["visual"]), text_embeds)
        inside, boxed = batch["patch_mask"].flatten(0, 1), batch["boxed"].flatten()
        l1, giou = dense_box_losses(boxes, batch["boxes"], inside & boxed[:, None])
        return {
            "share_loss": share_loss(scores, inside, boxed),
            "l1_loss": l1,
            "giou_loss": giou,
        }
