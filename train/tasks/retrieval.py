"""Retrieval: contrastive features and, unless its loss is switched off, the matching head on
in-batch hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
        """Recall at 1, 5, 10 and the median rank in both directions, the records being the
        gallery. Several processes share the images; each reads all texts."""
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
        counts = records.gather([len(embeds)])
        first = sum(counts[: records.share[0]])
        owners = np.array(records.gather([first + owner for owner in owners]))
        texts, shown = map(records.gather, (texts, shown))
        read = [self.read(model, texts[start : start + 256]) for start in range(0, len(texts), 256)]
        text_features = torch.cat(
            [model.text_features(text_embeds).float() for *_, text_embeds in read]
        )
        image_features = torch.cat(
            [model.image_features(e[None].to(text_features)).float() for e in embeds]
        )
        # In bfloat16 near neighbours would be equal.
        with torch.autocast(image_features.device.type, enabled=False):
            found = records.gather([(image_features @ text_features.T).cpu()])
        similarity = torch.cat(found)
        mine = range(first, first + len(embeds))
        if self.reranked:
            rows = [
                (mask[row][: lengths[row]], text_embeds[row][: lengths[row]].to(embeds[0].dtype))
                for _, mask, text_embeds in read
                for lengths in [mask.sum(dim=1).tolist()]
                for row in range(len(mask))
            ]
            of_images, of_texts = self._candidates(similarity), self._candidates(similarity.T).T
            scores = self._rerank(model, (of_images | of_texts)[mine], embeds, rows)
            scores = torch.cat(records.gather([scores]))
            to_text = scores.masked_fill(~of_images, -torch.inf).numpy()
            to_image = scores.masked_fill(~of_texts, -torch.inf).T.numpy()
        else:
            to_text, to_image = similarity.numpy(), similarity.T.numpy()
        self._predict(records, shown, mine, texts, owners, to_text, to_image)
        return retrieval_recall(to_text, to_image, owners)

    def _predict(self, records, shown, mine, texts, owners, to_text, to_image) -> None:
        """Of each image of `mine` the best texts, and of each of its texts the best images."""
        found_texts, found_images = _best(to_text), _best(to_image)
        for number in mine:
            record = shown[number]
            own = np.flatnonzero(owners == number)
            first = [bool(owners[found_texts[number][0][0]] == number)]
            first += [found_images[i][0][0] == number for i in own]
            records.predict(
                record,
                score=float(np.mean(first)),
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
                    for i in own
                ],
            )

    def _captions(self, record: dict[str, Any]) -> list[str]:
        return record["captions"][:1] if self.first_caption else record["captions"]

    def _rerank(self, model, candidates, embeds, texts) -> Tensor:
        """Matching logits float[images, texts] of candidates, -inf elsewhere.

        A pair that is a candidate in both directions is fused once, and the keys and values of an
        image are projected once for all its texts.

        Args:
            candidates: bool[images, texts].
            embeds: image_embeds [P, D] of each image.
            texts: attention_mask [T] and text_embeds [T, C] of each text, without padding.
        """
        scores = torch.full(candidates.shape, -torch.inf)
        for image, wanted in enumerate(candidates):
            for part in wanted.nonzero()[:, 0].split(256):
                rows = [texts[i] for i in part.tolist()]
                mask = pad_sequence([row for row, _ in rows], batch_first=True)
                text_embeds = pad_sequence([row for _, row in rows], batch_first=True)
                text_embeds = text_embeds.float()
                context = embeds[image][None].to(text_embeds)
                logits = model.match_logits(model.fuse(text_embeds, mask, context))[:, 1]
                scores[image, part] = logits.float().cpu()
        return scores

    def _candidates(self, queries: Tensor) -> Tensor:
        """bool, the `reranked` best columns of each row."""
        best = queries.topk(min(self.reranked, queries.shape[1]), dim=1).indices
        return torch.zeros_like(queries, dtype=torch.bool).scatter_(1, best, True)


def _best(scores: np.ndarray, count: int = 10) -> list[list[tuple[int, float]]]:
    """Of each row the columns of the highest scores, with their scores."""
    best = torch.from_numpy(scores).topk(min(count, scores.shape[1]), dim=1)
    return [
        [(place, score) for place, score in zip(places, row, strict=True) if np.isfinite(score)]
        for places, row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
