"""Text assignment, the stage of X-VLM between pre-training and NLVR2 (arXiv 2111.08276, section
4.3): of two images, does a text tell of the first, of the second or of neither?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.tasks.records import RecordTask, choose
from x2vlm.errors import ConfigError
from x2vlm.losses import classification_loss
from x2vlm.processing import normalize

TEMPERATURE = 0.07
FIRST, SECOND, NEITHER = range(3)


@dataclass(kw_only=True)
class TextAssignment(RecordTask):
    """Images with captions. The other image of a pair is drawn from the batch, the likelier the
    more it resembles the own one; each of the three answers comes in a third of the pairs.

    The model needs twin layers, which read two images, and a `classification` head of three labels
    (X-VLM has one linear layer in its place); both go on to NLVR2, but for the head.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("assignment_loss",)

    def prepare_texts(self, processor: Any) -> None:
        super().prepare_texts(processor)
        config = processor.config
        if not config.fusion.twin_layers or config.num_labels != 3:
            raise ConfigError(
                "Text assignment needs model.overrides with fusion.twin_layers: true and "
                "num_labels: 3.",
                "config/value",
            )

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        text = self.encode(choose(record["captions"], 1, rng)[0])
        return {"visual": self.pixels(record, rng), "text": text}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            **self.texts.collate([sample["text"] for sample in samples]),
        }

    def training_step(self, model, batch):
        embeds = model.encode_visual(normalize(batch["visual"]))
        text_embeds = model.encode_text(batch["input_ids"], batch["attention_mask"])
        with torch.no_grad():
            features = model.image_features(embeds).float()
        first, second, labels = assign(features @ features.T)
        contexts = model.fusion_encoder.project_pair(embeds[first], embeds[second])
        fused = model.fusion_encoder(text_embeds, batch["attention_mask"], contexts)
        logits = model.classification_head(fused[:, 0])
        return {"assignment_loss": classification_loss(logits, labels)}


def assign(similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which two images of a batch each text is shown, and the answer; all int64 (B,).

    Args:
        similarity: float (B, B) of the images, at least two.
    """
    size, device = len(similarity), similarity.device
    own = torch.arange(size, device=device)
    weights = (similarity / TEMPERATURE).softmax(dim=1) + 1e-5
    weights = weights.fill_diagonal_(0)
    # Of two images the only other one stands on both sides.
    others = torch.multinomial(weights, 2, replacement=size < 3)
    labels = torch.randint(3, (size,), device=device)
    first = torch.where(labels == FIRST, own, others[:, 0])
    second = torch.where(labels == SECOND, own, others[:, 1])
    return first, second, labels
