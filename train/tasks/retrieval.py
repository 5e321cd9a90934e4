"""Retrieval: contrastive features and the matching head on in-batch hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from train.data.text import text_key
from train.data.transforms import normalize
from train.tasks.records import RecordTask, choose
from x2vlm.modeling.retrieval import X2VLMForRetrieval


@dataclass(kw_only=True)
class Retrieval(RecordTask):
    """One random caption of each picture or clip; pairs of one `image_id` (or, without ids, of equal words) are all
    positives."""

    all_losses: ClassVar[tuple[str, ...]] = ("contrastive_loss", "matching_loss")

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records[index]
        text = self.texts.encode(choose(record["captions"], 1, rng)[0])
        key = text.key if "image_id" not in record else text_key(str(record["image_id"]))
        return {"visual": self.pixels(record, rng), "text": text, "key": key}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "positives": torch.tensor([sample["key"] for sample in samples]),
            **self.texts.collate([sample["text"] for sample in samples]),
        }

    def training_step(self, model, batch):
        return X2VLMForRetrieval(model)(**batch | {"visual": normalize(batch["visual"])}).losses
