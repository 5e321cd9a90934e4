"""Captioning as left-to-right masked LM (spec: "FG-free" layout), several captions of a picture at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from train.data.captioning import caption_layout, collate_captions
from train.data.masking import MaskingConfig, TokenMasker
from train.data.transforms import normalize
from train.tasks.records import RecordTask, choose_exactly
from x2vlm.modeling.captioning import X2VLMForCaptioning


@dataclass(kw_only=True)
class Captioning(RecordTask):
    """Captions of pictures or clips.

    Attributes:
        batch_size: pictures.
        captions_per_image: texts learnt from one encoding of the picture.
        first_share: how often the first caption of a record is taken, the fullest one in the sticker world, and not any.
        prompt: stands before every caption and is not learnt.
        label_smoothing: of the predicted token.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("caption_loss",)

    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(0.6, 18))
    captions_per_image: int = 1
    first_share: float = 0.0
    prompt: str = "a picture of"
    label_smoothing: float = 0.1

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.masker = TokenMasker.from_tokenizer(self.masking, processor.tokenizer)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.records[index]
        captions = choose_exactly(record["captions"], self.captions_per_image, rng)
        captions = [record["captions"][0] if rng.random() < self.first_share else caption for caption in captions]
        layouts = [caption_layout(caption, self.texts, self.masker, rng, self.prompt) for caption in captions]
        return {"visual": self.pixels(record, rng), "layouts": layouts}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        layouts = [layout for sample in samples for layout in sample["layouts"]]
        fields = collate_captions(layouts, self.processor.pad_id, self.masking.max_masks)
        return {"visual": torch.stack([sample["visual"] for sample in samples]), **fields}

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        task = X2VLMForCaptioning(model)
        return task(**batch, label_smoothing=self.label_smoothing, excluded_id=self.processor.cls_id).losses
