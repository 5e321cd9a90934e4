"""Questions with a few answers to choose from, of which one is right (NExT-QA): the matching head
says how well question and answer together fit the image or video."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.data.records import TestRecords
from train.data.transforms import may_flip
from train.tasks.records import RecordTask, owned
from x2vlm.errors import DataError
from x2vlm.losses import classification_loss
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class MultipleChoice(RecordTask):
    """`statement` (the question), `choices` and `label`, the index of the right one; every record
    has equally many choices. An image is mirrored only if no text names a side.

    The authors' code reads NExT-QA and has no model for it. The matching head is pre-trained for
    what is asked of it here, so the task can also be measured without training.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("choice_loss",)
    needs = ("image|frames", "statement", "choices", "label")
    rules = "question"

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record, mirrors = self.record(index), self.augmentation != "none"
        texts = _texts(record)
        return {
            "visual": self.pixels(record, rng, flip=mirrors and may_flip(texts, rng)),
            "texts": [self.encode(text) for text in texts],
            "label": record["label"],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        if len({len(sample["texts"]) for sample in samples}) > 1:
            raise DataError("Some questions have more choices than others.", "data/entry")
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "labels": torch.tensor([sample["label"] for sample in samples]),
            **self.texts.collate([text for sample in samples for text in sample["texts"]]),
        }

    def training_step(self, model, batch):
        embeds = model.encode_visual(normalize(batch["visual"]))
        text_embeds = model.encode_text(batch["input_ids"], batch["attention_mask"])
        scores = _odds(model, model.fuse(text_embeds, batch["attention_mask"], embeds))
        scores = scores.unflatten(0, (len(batch["labels"]), -1))
        return {"choice_loss": classification_loss(scores, batch["labels"])}

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`accuracy`, and `accuracy_KIND` of the questions of each kind."""
        told: list[tuple[float, list[str]]] = []
        for group in records.batches(16):
            owners, texts = owned(group, _texts)
            _, mask, text_embeds = self.read(model, texts)
            fused = model.fuse(text_embeds, mask, self.see(model, group)[owners])
            odds = _odds(model, fused).tolist()
            for place, record in enumerate(group):
                own = [value for owner, value in zip(owners, odds, strict=True) if owner == place]
                chosen = int(np.argmax(own))
                score = float(chosen == record["label"])
                told.append((score, record["kinds"]))
                records.predict(
                    record,
                    question=record["statement"],
                    chosen=record["choices"][chosen],
                    right=record["choices"][record["label"]],
                    score=score,
                )
        right: dict[str, list[float]] = defaultdict(list)
        for score, kinds in records.gather(told):
            for name in ("accuracy", *(f"accuracy_{kind}" for kind in kinds)):
                right[name].append(score)
        return {name: sum(scores) / len(scores) for name, scores in sorted(right.items())}


def _texts(record: dict[str, Any]) -> list[str]:
    return [f"{record['statement']} {choice}" for choice in record["choices"]]


def _odds(model: X2VLM, fused: Tensor) -> Tensor:
    """float (N,): log-odds of a match."""
    logits = model.match_logits(fused).float()
    return logits[:, 1] - logits[:, 0]
