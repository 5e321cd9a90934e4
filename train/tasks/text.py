"""Pre-training on text alone, and on the same sentence in two languages (CCLM, arXiv 2206.00621,
section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from train.data.masking import MaskingConfig
from train.data.text import text_key
from train.tasks.records import RecordTask, choose
from x2vlm.errors import DataError
from x2vlm.modeling.pretraining import PAIR_LOSSES, TEXT_LOSSES, X2VLMForPretraining


@dataclass(kw_only=True)
class MaskedText(RecordTask):
    """Masked LM without an image, on the `captions` of the records."""

    all_losses = TEXT_LOSSES
    needs = ("captions",)

    masking: MaskingConfig = field(default_factory=MaskingConfig)

    def text_masking(self) -> MaskingConfig:
        return self.masking

    def sample(self, index: int, rng: np.random.Generator) -> Any:
        return self.encode(choose(self.record(index)["captions"], 1, rng)[0], rng)

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        fields = self.texts.collate(samples)
        del fields["input_ids"]
        return fields

    def training_step(self, model, batch):
        return X2VLMForPretraining(model).forward_text(**batch).losses


@dataclass(kw_only=True)
class ParallelText(RecordTask):
    """The first two `captions` of a record say the same in two languages; which one is the source
    is drawn at random. Records that share a text or an image are positives of each other."""

    all_losses = PAIR_LOSSES
    needs = ("captions",)

    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(0.4, 16, whole_word=False))
    max_tokens: int = 64

    def text_masking(self) -> MaskingConfig:
        return self.masking

    def sample(self, index: int, rng: np.random.Generator) -> Any:
        record = self.record(index)
        texts = record["captions"][:2]
        if len(texts) < 2:
            raise DataError(
                f"{self.records.name(index)}: there is one text instead of two.", "data/entry"
            )
        source, target = choose(texts, 2, rng)
        keys = [self.image_key(index, record), *map(text_key, texts)]
        return self.encode(source, rng), self.encode(target, rng), keys

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        sources, targets, keys = zip(*samples, strict=True)
        source, target = self.texts.collate(sources), self.texts.collate(targets)
        return {
            "positives": torch.tensor(keys),
            "source_ids": source["input_ids"],
            "source_mask": source["attention_mask"],
            "target_ids": target["input_ids"],
            "target_mask": target["attention_mask"],
            "masked_source_ids": source["masked_ids"],
            "masked_positions": source["masked_positions"],
            "masked_labels": source["masked_labels"],
        }

    def training_step(self, model, batch):
        return (
            X2VLMForPretraining(model)
            .forward_parallel_text(**batch, wanted=self.loss_weights)
            .losses
        )
