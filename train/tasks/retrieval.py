"""Retrieval: contrastive features and, unless its loss is switched off, the matching head on
in-batch hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from train.data.records import TestRecords, identified
from train.tasks.records import RecordTask, choose, positive_pairs
from x2vlm.losses import contrastive_loss
from x2vlm.metrics import retrieval_recall
from x2vlm.modeling.retrieval import X2VLMForRetrieval
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize


@dataclass(kw_only=True)
class Retrieval(RecordTask):
    """One random caption of each image or video; pairs of one image or of equal words are all
    positives.

    Attributes:
        reranked: candidates by features that the matching head scores, in each direction; 0 leaves
            their order to the features.
        first_caption: evaluation looks for the first caption of each record only.
    """

    all_losses = X2VLMForRetrieval.loss_names

    reranked: int = 128
    first_caption: bool = False

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        text = self.encode(choose(record["captions"], 1, rng)[0])
        shown = self.image_key(index, record)
        return {"visual": self.pixels(record, rng), "text": text, "shown": shown}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        texts = [sample["text"] for sample in samples]
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "positives": positive_pairs([sample["shown"] for sample in samples], texts),
            **self.texts.collate(texts),
        }

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        if "matching_loss" in self.loss_weights:
            return X2VLMForRetrieval(model)(**batch).losses
        images = model.image_features(model.encode_visual(batch["visual"]))
        texts = model.text_features(model.encode_text(batch["input_ids"], batch["attention_mask"]))
        return {
            "contrastive_loss": contrastive_loss(
                images, texts, model.temperature, batch["positives"]
            )
        }

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """Recall at 1, 5, 10 in both directions, the records being the gallery."""
        embeds, texts, owners, shown = [], [], [], []
        for group in records.batches(32):
            shown += map(identified, group)
            owners += [
                len(embeds) + i for i, record in enumerate(group) for _ in self._captions(record)
            ]
            texts += [text for record in group for text in self._captions(record)]
            embeds += (
                self.see(model, group)
                .to(dtype=torch.float16 if len(records) > 2000 else torch.float32)
                .unbind()
            )
        read = [self.read(model, texts[start : start + 256]) for start in range(0, len(texts), 256)]
        text_features = torch.cat(
            [model.text_features(text_embeds).float() for *_, text_embeds in read]
        )
        image_features = torch.cat(
            [model.image_features(e[None].to(text_features)).float() for e in embeds]
        )
        # In bfloat16 near neighbours would be equal.
        with torch.autocast(image_features.device.type, enabled=False):
            similarity = image_features @ text_features.T
        if self.reranked:
            to_text = self._rerank(model, similarity, embeds, texts, by_image=True)
            to_image = self._rerank(model, similarity, embeds, texts, by_image=False)
        else:
            to_text, to_image = similarity.cpu().numpy(), similarity.T.cpu().numpy()
        self._predict(records, shown, texts, np.array(owners), to_text, to_image)
        return retrieval_recall(to_text, to_image, np.array(owners))

    def _predict(self, records, shown, texts, owners, to_text, to_image) -> None:
        """Of each image the best texts, and of each of its texts the best images."""
        found_texts, found_images = _best(to_text), _best(to_image)
        for number, record in enumerate(shown):
            records.predict(
                record,
                texts=[
                    {"text": texts[i], "score": score, "right": bool(owners[i] == number)}
                    for i, score in found_texts[number]
                ],
                images=[
                    {
                        "text": texts[i],
                        "found": [
                            {"sample": shown[j]["sample"], "score": score, "right": j == number}
                            for j, score in found_images[i]
                        ],
                    }
                    for i in np.flatnonzero(owners == number)
                ],
            )

    def _captions(self, record: dict[str, Any]) -> list[str]:
        return record["captions"][:1] if self.first_caption else record["captions"]

    def _rerank(self, model, similarity, embeds, texts, by_image: bool) -> np.ndarray:
        """Matching logits of the best candidates of each query, -inf elsewhere; (images, texts) or
        (texts, images)."""
        queries = similarity if by_image else similarity.T
        scores = np.full(queries.shape, -np.inf, dtype=np.float32)
        candidates = queries.topk(min(self.reranked, queries.shape[1]), dim=1).indices
        for query, found in enumerate(candidates):
            chosen = [texts[i] for i in found.tolist()] if by_image else [texts[query]]
            _, mask, text_embeds = self.read(model, chosen)
            if by_image:
                fused = model.fuse(text_embeds, mask, embeds[query][None].to(text_embeds))
            else:
                context = torch.stack([embeds[i] for i in found.tolist()]).to(text_embeds)
                fused = model.fuse(
                    text_embeds.expand(len(found), -1, -1), mask.expand(len(found), -1), context
                )
            scores[query, found.cpu().numpy()] = (
                model.match_logits(fused)[:, 1].float().cpu().numpy()
            )
        return scores


def _best(scores: np.ndarray, count: int = 10) -> list[list[tuple[int, float]]]:
    """Of each row the columns of the highest scores, with their scores."""
    best = torch.from_numpy(scores).topk(min(count, scores.shape[1]), dim=1)
    return [
        [(place, score) for place, score in zip(places, row, strict=True) if np.isfinite(score)]
        for places, row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
