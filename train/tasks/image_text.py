"""Pre-training on whole images or videos and their texts: contrastive, matching and masked-LM
losses (X²-VLM, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from train.data.masking import MaskingConfig
from train.tasks.records import RecordTask, choose, positive_pairs
from x2vlm.modeling.pretraining import PAIR_LOSSES, X2VLMForPretraining
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class ImageText(RecordTask):
    """One random caption of each image or video.

    Attributes:
        masking: how captions are masked.
        equal_texts: captions with the same words count as positives of each other, as those of one
            image always do.
    """

    all_losses = PAIR_LOSSES

    masking: MaskingConfig = field(default_factory=MaskingConfig)
    equal_texts: bool = True

    def text_masking(self) -> MaskingConfig:
        return self.masking

    def sample(self, index: int, rng) -> dict[str, Any]:
        record = self.record(index)
        caption = choose(record["captions"], 1, rng)[0]
        return {
            "visual": self.pixels(record, rng),
            "text": self.encode(caption, rng),
            "shown": self.image_key(index, record),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        texts = [sample["text"] for sample in samples]
        shown = [sample["shown"] for sample in samples]
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "positives": positive_pairs(shown, texts, self.equal_texts),
            **self.texts.collate(texts),
        }

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        return X2VLMForPretraining(model)(**batch, wanted=self.loss_weights).losses
