"""Reasoning over two images: is the statement true of them (NLVR2)?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from train.data.records import TestRecords
from train.tasks.records import RecordTask
from x2vlm.metrics import accuracy
from x2vlm.modeling.classification import X2VLMForPairReasoning
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class PairReasoning(RecordTask):
    """Pairs of images with a statement and its truth."""

    all_losses = X2VLMForPairReasoning.loss_names
    needs = ("images", "statement", "label")

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        return {
            "images": [self.pixels({"image": image}, rng) for image in record["images"]],
            "text": self.encode(record["statement"]),
            "label": int(record["label"]),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "images": torch.stack(
                [sample["images"][side] for side in (0, 1) for sample in samples]
            ),
            "labels": torch.tensor([sample["label"] for sample in samples]),
            **self.texts.collate([sample["text"] for sample in samples]),
        }

    def training_step(self, model, batch):
        return X2VLMForPairReasoning(model)(**batch | {"images": normalize(batch["images"])}).losses

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`accuracy`."""
        task, predictions, labels = X2VLMForPairReasoning(model), [], []
        for group in records.batches(32):
            images = [{"image": record["images"][side]} for side in (0, 1) for record in group]
            input_ids, mask, _ = self.read(model, [record["statement"] for record in group])
            predictions += (
                task.predict(self.see(model, images), input_ids, mask).argmax(dim=1).tolist()
            )
            labels += [int(record["label"]) for record in group]
            for record, predicted in zip(group, predictions[-len(group) :], strict=True):
                records.predict(
                    record,
                    statement=record["statement"],
                    score=float(predicted == record["label"]),
                    predicted=bool(predicted),
                    label=bool(record["label"]),
                )
        predictions, labels = map(records.gather, (predictions, labels))
        return {"accuracy": accuracy(predictions, labels)}
