"""Matching with given negatives: is this phrase or caption true of the image? What in-batch
negatives never teach: phrases for things that are nearly there, and two captions with the same
words for two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.data.records import TestRecords
from train.tasks.records import RecordTask, choose, choose_exactly, owned
from x2vlm.losses import classification_loss
from x2vlm.metrics import auc, winoground
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class Matching(RecordTask):
    """For an image or video: true captions and region phrases against its `absent` ones. For a pair
    of images: both captions with each image.

    Attributes:
        batch_size: images, or pairs of them.
        true_texts, absent_texts: how many of each an image is asked about at once.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("matching_loss",)
    needs = ("image|frames|images", "captions", "absent|images")

    true_texts: int = 3
    absent_texts: int = 3

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
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
        return {"visual": visual, "texts": [self.encode(text) for text in texts], "labels": labels}

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
        return {"matching_loss": classification_loss(model.match_logits(fused), batch["labels"])}

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """`auc` of true against absent phrases; for pairs of images the Winoground scores `text`,
        `image`, `group`."""
        odds, labels = self.scores(model, records)
        if len(labels) == 0:
            # rows: image 0 with captions 0 and 1, then image 1; the metric wants caption first
            return winoground(odds.reshape(-1, 2, 2).transpose(0, 2, 1))
        return {"auc": auc(odds[labels == 1], odds[labels == 0])}

    def scores(self, model: X2VLM, records: TestRecords) -> tuple[np.ndarray, np.ndarray]:
        """Log-odds of a match float (N,) of every text with its image, and int (N,) labels, none
        for pairs of images."""
        odds, labels = [], []
        for given in records.batches(32):
            group, start_of_group = given, len(odds)
            if "images" in group[0]:
                group = [
                    {"image": image, "captions": record["captions"]}
                    for record in given
                    for image in record["images"]
                ]
                owners, texts = owned(group, lambda record: record["captions"])
            else:
                owners, pairs = owned(group, _labelled)
                texts = [text for text, _ in pairs]
                labels += [label for _, label in pairs]
            embeds = self.see(model, group)
            for start in range(0, len(texts), 256):
                part = slice(start, start + 256)
                _, mask, text_embeds = self.read(model, texts[part])
                odds += _odds(
                    model.match_logits(model.fuse(text_embeds, mask, embeds[owners[part]]))
                )
            images = len(group) // len(given)
            said: list[list[dict[str, Any]]] = [[] for _ in given]
            for owner, text, value in zip(owners, texts, odds[start_of_group:], strict=True):
                place = {"image": owner % images} if images > 1 else {}
                said[owner // images].append(place | {"text": text, "odds": value})
            for record, matches in zip(given, said, strict=True):
                records.predict(record, matches=matches)
        return np.array(records.gather(odds)), np.array(records.gather(labels))


def _labelled(record: dict[str, Any]) -> list[tuple[str, int]]:
    phrases = [region["text"] for region in record.get("regions", ())] or record["captions"]
    return [(text, 1) for text in phrases] + [(text, 0) for text in record["absent"]]


def _odds(logits: Tensor) -> list[float]:
    """Log-odds of a match: the order of the probabilities, without ties where these saturate."""
    logits = logits.float()
    return (logits[:, 1] - logits[:, 0]).tolist()
