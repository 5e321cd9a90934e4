"""One label of a closed list for an image or video and a text: video question answering, visual
entailment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from train.data.records import TestRecords
from train.tasks.records import RecordTask
from x2vlm.errors import DataError
from x2vlm.metrics import accuracy
from x2vlm.modeling.classification import X2VLMForClassification
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class Classification(RecordTask):
    """`statement` (question or hypothesis) and `label`, the index in the closed list; -100 is left
    out of the loss."""

    all_losses = X2VLMForClassification.loss_names
    needs = ("image|frames", "statement", "label")
    rules = "question"

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record, labels = self.record(index), self.processor.config.num_labels
        if record["label"] != -100 and not 0 <= record["label"] < labels:
            raise DataError(
                f"{self.records.name(index)}: the label {record['label']} is none of 0 to "
                f"{labels - 1} (model.overrides: num_labels), nor -100.",
                "data/entry",
            )
        return {
            "visual": self.pixels(record, rng),
            "text": self.encode(record["statement"]),
            "label": int(record["label"]),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "labels": torch.tensor([sample["label"] for sample in samples]),
            **self.texts.collate([sample["text"] for sample in samples]),
        }

    def training_step(self, model, batch):
        return X2VLMForClassification(model)(
            **batch | {"visual": normalize(batch["visual"])}
        ).losses

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`accuracy`; answers outside the list (-100) are wrong."""
        task, predictions, labels = X2VLMForClassification(model), [], []
        for group in records.batches(32):
            input_ids, mask, _ = self.read(model, [record["statement"] for record in group])
            predictions += (
                task.predict(self.see(model, group), input_ids, mask).argmax(dim=1).tolist()
            )
            labels += [int(record["label"]) for record in group]
            for record, predicted in zip(group, predictions[-len(group) :], strict=True):
                records.predict(
                    record,
                    statement=record["statement"],
                    score=float(predicted == record["label"]),
                    predicted=predicted,
                    label=int(record["label"]),
                )
        predictions, labels = map(records.gather, (predictions, labels))
        if lost := sum(label == -100 for label in labels):
            records.note(
                f"{lost} of {len(labels)} labels are -100: their answers are not in the closed "
                "list and count as wrong."
            )
        return {"accuracy": accuracy(predictions, labels)}
