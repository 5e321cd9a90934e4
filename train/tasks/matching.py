"""Matching with given negatives: is this phrase or caption true of the picture? What in-batch negatives never teach: phrases
for things that are nearly there, and two captions with the same words for two pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from train.data.transforms import normalize
from train.tasks.records import RecordTask, choose, choose_exactly
from x2vlm.losses import matching_loss


@dataclass(kw_only=True)
class Matching(RecordTask):
    """For a picture or clip: true captions and region phrases against its `absent` ones. For a pair of pictures: both
    captions with each picture.

    Attributes:
        batch_size: pictures, or pairs of them.
        true_texts, absent_texts: how many of each a picture is asked about at once.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("matching_loss",)

    true_texts: int = 3
    absent_texts: int = 3

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records[index]
        if "images" in record:
            visual = torch.stack([self.pixels({"image": image}, rng) for image in record["images"]])
            texts = [*record["captions"], *record["captions"]]
            labels = [1, 0, 0, 1]
        else:
            visual = self.pixels(record, rng)[None]
            phrases = [region["text"] for region in record.get("regions", ())]
            true = choose(record["captions"], 1, rng) if phrases else []
            true += choose_exactly(phrases or record["captions"], self.true_texts - len(true), rng)
            texts = [*true, *choose_exactly(record["absent"], self.absent_texts, rng)]
            labels = [1] * self.true_texts + [0] * self.absent_texts
        return {"visual": visual, "texts": [self.texts.encode(text) for text in texts], "labels": labels}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "visual": torch.cat([sample["visual"] for sample in samples]),
            "labels": torch.tensor([label for sample in samples for label in sample["labels"]]),
            **self.texts.collate([text for sample in samples for text in sample["texts"]]),
        }

    def training_step(self, model, batch):
        embeds = model.encode_visual(normalize(batch["visual"]))
        text_embeds = model.encode_text(batch["input_ids"], batch["attention_mask"])
        fused = model.fuse(text_embeds, batch["attention_mask"], embeds)
        return {"matching_loss": matching_loss(model.match_logits(fused), batch["labels"])}
