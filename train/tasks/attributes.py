"""Which of many attributes a box has, told by the contrastive features alone (OVAD with given
boxes, Bravo et al., arXiv 2211.12914)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.data.json_text import read_json_list
from train.data.records import DataConfig, TestRecords
from train.tasks.records import RecordTask
from x2vlm.errors import DataError
from x2vlm.metrics import average_precision
from x2vlm.modeling.x2vlm import X2VLM


@dataclass(kw_only=True)
class Attributes(RecordTask):
    """Nothing is learnt here: the task has no losses and only measures.

    Attributes:
        attribute_list: JSON file with `[{"name", "group", "texts"}]` in the order of the records'
            `attributes`, as `train.prepare.ovad` writes it.
    """

    needs = ("image", "attributes")

    attribute_list: str

    def open_data(self, sources: Iterable[DataConfig] | None = None) -> None:
        super().open_data(sources)
        self.named()

    def named(self) -> list[dict[str, Any]]:
        """The attributes. Raises `DataError` when the list is not as it should be."""
        found = read_json_list(self.attribute_list)
        for number, one in enumerate(found, start=1):
            if not isinstance(one, dict) or not {"name", "group", "texts"} <= one.keys():
                raise DataError(
                    f"{self.attribute_list}, entry {number}: an attribute needs a name, a group "
                    "and texts.",
                    "data/key",
                )
        return found

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"visual": self.pixels(self.record(index), rng)}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {"visual": torch.stack([sample["visual"] for sample in samples])}

    def training_step(self, model, batch):
        return {}

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`map`, the mean over attributes of their average precision, and `map_GROUP` of each
        group; boxes where an attribute is unknown do not count for it, attributes that no box has
        do not count at all."""
        named, scores, labels = self.named(), [], []
        texts = torch.stack([self._direction(model, one["texts"]) for one in named])
        for group in records.batches(32):
            features = model.image_features(self.see(model, group)).float()
            # The benchmark cuts similarities to 0 .. 1 before it ranks them.
            found = (features @ texts.T).clamp(0, 1).cpu().numpy()
            scores += list(found)
            labels += [record["attributes"] for record in group]
            for record, row in zip(group, found, strict=True):
                records.predict(record, scores=[round(float(value), 6) for value in row])
        scores, labels = map(records.gather, (scores, labels))
        precision = _precision_of_each(np.array(scores), np.array(labels))
        groups: dict[str, list[float]] = {"map": [v for v in precision if not np.isnan(v)]}
        for one, value in zip(named, precision, strict=True):
            if not np.isnan(value):
                groups.setdefault(f"map_{one['group']}", []).append(value)
        return {name: float(np.mean(values)) for name, values in groups.items() if values}

    def _direction(self, model: X2VLM, texts: list[str]) -> Tensor:
        """float (E,): the mean feature of the texts of an attribute, so that a product with it is
        their mean similarity."""
        return model.text_features(self.read(model, texts)[2]).float().mean(dim=0)


def _precision_of_each(scores: np.ndarray, labels: np.ndarray) -> list[float]:
    """Average precision of each column of float (N, A), by labels 1, 0 and -1 for unknown; NaN
    without a positive.

    Raises:
        DataError: the labels are of another list of attributes (`data/entry`).
    """
    if scores.shape != labels.shape:
        raise DataError(
            f"The records tell of {labels.shape[-1]} attributes, the list has {scores.shape[1]}.",
            "data/entry",
        )
    return [
        average_precision(own[known >= 0], known[known >= 0] == 1)
        if (known == 1).any()
        else float("nan")
        for own, known in zip(scores.T, labels.T, strict=True)
    ]
