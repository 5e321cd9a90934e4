"""Everything that is said of a photo or mosaic, learnt from one encoding of it: the joint recipe of
`photo`.

As in `train.tasks.scene`, phrases, captions and questions share one pass of the tower. Unlike
sticker scenes, photos say little of themselves: many phrases have no box, and those count for
matching only. The paper's losses are joined by `alignment_loss`, which is not in the paper
(`x2vlm.losses`).

Shapes: B images, K phrases an image, T tokens, P image tokens, E contrastive features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.captioning import caption_layout, collate_captions
from train.data.masking import MaskingConfig, TokenMasker
from train.data.regions import WHOLE_IMAGE
from train.tasks.records import RecordTask, choose, choose_exactly, positive_pairs
from train.tasks.scene import region_features
from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.losses import (
    alignment_loss,
    box_losses,
    classification_loss,
    contrastive_loss,
    masked_lm_loss,
    sample_hard_negatives,
)
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.processing import normalize, patch_mask

YES_NO_WEIGHT = 0.4
"""How often a question that is answered by yes or no is taken, against any other."""


class PhotoTask(RecordTask):
    """What the tasks over photos share: maps in place of images, and phrases of which some have a
    box."""

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.grid_size = processor.config.vision.grid_size

    def visual(self, record: dict[str, Any], rng: np.random.Generator) -> Tensor:
        """The maps of a record's image float[N], or its pixels where there are none."""
        if "maps" in record:
            return torch.from_numpy(record["maps"].astype(np.float32))
        return self.pixels(record, rng)

    def collate_places(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """`visual`; of all phrases `boxes` float[B * K, 4], `boxed` bool[B, K], whether it is
        known, and `patch_mask` bool[B, K, P], the patches in it."""
        boxes = [box for sample in samples for box in sample["boxes"]]
        boxed = torch.tensor([box is not None for box in boxes])
        boxes = torch.tensor([WHOLE_IMAGE if box is None else box for box in boxes])
        patches = [patch_mask(box, self.grid_size) for box in cxcywh_to_xyxy(boxes).tolist()]
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "boxes": boxes,
            "boxed": boxed.unflatten(0, (len(samples), -1)),
            "patch_mask": torch.stack(patches).bool().unflatten(0, (len(samples), -1)),
        }


def embed(model, visual: Tensor) -> Tensor:
    """image_embeds float[B, P, D] of `PhotoTask.visual` in a batch."""
    if visual.ndim == 2:
        return model.vision.from_maps(visual)
    return model.encode_visual(normalize(visual))


@dataclass(kw_only=True)
class Photos(PhotoTask):
    """Records of `train.data.photos`.

    Attributes:
        batch_size: images.
        phrases, absent, questions: how many of each an image is asked about at once.
        captions: how many are written.
        negatives: captions of other images that each image is matched against.
        group: so many images of similar captions stand together in a batch, whose captions are
            hard to tell apart (Byun et al., GRIT-VLP, arXiv 2208.04060); 1 draws them at random.
        masking: which tokens of a written caption are predicted.
    """

    all_losses: ClassVar[tuple[str, ...]] = (
        "contrastive_loss",
        "region_contrastive_loss",
        "alignment_loss",
        "matching_loss",
        "caption_matching_loss",
        "box_l1_loss",
        "box_giou_loss",
        "caption_loss",
        "answer_loss",
    )
    needs = ("image|maps", "captions", "regions", "phrases", "absent", "questions")

    phrases: int = 3
    absent: int = 2
    questions: int = 3
    captions: int = 1
    negatives: int = 2
    group: int = 1
    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(1.0, 24))
    prompt: str = "a picture of"

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.masker = TokenMasker.from_tokenizer(self.masking, processor.tokenizer)
        if self.group > 1:
            self.topics = topics([self.records.captions(i) for i in range(len(self.records))])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return super().order(rng) if self.group == 1 else similar(self.topics, self.group, rng)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        regions = choose(record["regions"], self.phrases, rng)
        unplaced = choose(record["phrases"] or record["captions"], self.phrases, rng)
        regions += [{"text": text, "box": None} for text in unplaced]
        regions = choose_exactly(regions[: self.phrases], self.phrases, rng)
        captions = choose_exactly(record["captions"], max(1, self.captions), rng)
        return {
            "visual": self.visual(record, rng),
            "caption": self.encode(captions[0]),
            "layouts": [
                caption_layout(text, self.processor, self.masker, rng, self.prompt)
                for text in captions[: self.captions]
            ],
            "phrases": [self.encode(region["text"]) for region in regions],
            "boxes": [region["box"] for region in regions],
            "shown": self.image_key(index, record),
            "regions_shown": [self.region_key(index, record, region["box"]) for region in regions],
            "absent": [
                self.encode(text) for text in choose_exactly(record["absent"], self.absent, rng)
            ],
            "questions": self._questions(record["questions"], rng),
        }

    def _questions(self, pairs: list[dict[str, str]], rng: np.random.Generator) -> list[tuple]:
        """Encoded (question, answer) pairs, as many as an image is asked; none if it has none."""
        if not pairs:
            return []
        weights = np.array([YES_NO_WEIGHT if p["answer"] in ("yes", "no") else 1 for p in pairs])
        chosen = rng.choice(
            len(pairs), self.questions, len(pairs) < self.questions, weights / weights.sum()
        )
        return [
            (
                self.texts.encode(pairs[i]["question"], "question"),
                self.texts.encode(pairs[i]["answer"], None),
            )
            for i in chosen
        ]

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {
            **self.collate_places(samples),
            "phrase_positives": positive_pairs(
                [key for sample in samples for key in sample["regions_shown"]],
                [text for sample in samples for text in sample["phrases"]],
            ),
            "phrases": self.texts.collate(
                [text for sample in samples for text in (*sample["phrases"], *sample["absent"])]
            ),
        }
        wanted = self.loss_weights
        if "contrastive_loss" in wanted or "caption_matching_loss" in wanted:
            captions = [sample["caption"] for sample in samples]
            batch["caption"] = self.texts.collate(captions)
            shown = [sample["shown"] for sample in samples]
            batch["caption_positives"] = positive_pairs(shown, captions)
        if "caption_loss" in wanted:
            layouts = [layout for sample in samples for layout in sample["layouts"]]
            batch["writing"] = collate_captions(layouts, self.processor.pad_id)
        if "answer_loss" in wanted:
            asked = [number for number, sample in enumerate(samples) if sample["questions"]]
            pairs = [pair for sample in samples for pair in sample["questions"]]
            batch["asked"] = torch.tensor(asked)
            for name, texts in zip(("questions", "answers"), zip(*pairs, strict=True), strict=True):
                batch[name] = self.texts.collate(texts)
        return batch

    def training_step(self, model, batch):
        embeds = embed(model, batch["visual"])
        contexts = model.fusion_encoder.project_context(embeds)
        losses = self._phrases(model, embeds, contexts, batch)
        if "caption" in batch:
            losses |= self._caption(model, embeds, contexts, batch)
        if "writing" in batch:
            losses["caption_loss"] = self._writing(model, contexts, batch["writing"])
        if "asked" in batch:
            losses["answer_loss"] = self._answers(model, contexts, batch)
        return losses

    def _phrases(self, model, embeds: Tensor, contexts, batch) -> dict[str, Tensor]:
        """Phrases that are there, some with their boxes, beside nouns that are not."""
        images, count = batch["boxed"].shape
        mask = batch["phrases"]["attention_mask"]
        text_embeds = model.encode_text(batch["phrases"]["input_ids"], mask)
        fused = model.fusion_encoder(text_embeds, mask, contexts)
        present = (torch.arange(len(mask) // images, device=mask.device) < count).repeat(images)
        boxed, inside = batch["boxed"].flatten(), batch["patch_mask"]
        boxes = model.predict_boxes(fused[present])
        l1, giou = box_losses(boxes, batch["boxes"], is_image=~boxed)
        features = model.text_features(text_embeds[present])
        regions = region_features(model, embeds, inside)
        patches = F.normalize(F.linear(embeds[:, 1:], *_weights(model.image_projection)), dim=-1)
        return {
            "matching_loss": classification_loss(model.match_logits(fused), present.long()),
            "box_l1_loss": l1,
            "box_giou_loss": giou,
            "region_contrastive_loss": contrastive_loss(
                regions[boxed],
                features[boxed],
                model.temperature,
                batch["phrase_positives"][boxed],
            ),
            "alignment_loss": alignment_loss(
                patches,
                features.unflatten(0, (images, count)),
                inside,
                model.temperature,
                batch["boxed"],
            ),
        }

    def _caption(self, model, embeds: Tensor, contexts, batch) -> dict[str, Tensor]:
        """The caption against those of the other images: all of them by features, the most similar
        ones by matching."""
        mask, positives = batch["caption"]["attention_mask"], batch["caption_positives"]
        text_embeds = model.encode_text(batch["caption"]["input_ids"], mask)
        features, text_features = model.image_features(embeds), model.text_features(text_embeds)
        similarity = features.detach() @ text_features.detach().T / model.temperature.detach()
        own = torch.arange(len(positives), device=mask.device)
        others = [sample_hard_negatives(similarity, positives) for _ in range(self.negatives)]
        rows = torch.stack([own, *others], dim=1)
        labels = (positives[rows] == positives[:, None]).any(dim=-1).long().flatten()
        rows = rows.flatten()
        fused = model.fusion_encoder(text_embeds[rows], mask[rows], contexts)
        return {
            "contrastive_loss": contrastive_loss(
                features, text_features, model.temperature, positives
            ),
            "caption_matching_loss": classification_loss(model.match_logits(fused), labels),
        }

    def _writing(self, model, contexts, fields) -> Tensor:
        """Left-to-right masked LM, as in `x2vlm.modeling.captioning`."""
        mask = fields["attention_mask"]
        text_embeds = model.encode_text(fields["input_ids"], mask, fields["position_ids"])
        fused = model.fusion_encoder(text_embeds, mask, contexts)
        logits = model.masked_lm_logits(fused, fields["masked_positions"])
        return masked_lm_loss(logits, fields["masked_labels"])

    def _answers(self, model, contexts, batch) -> Tensor:
        """The answer decoder on the images that are asked something."""
        mask, answers, asked = (
            batch["questions"]["attention_mask"],
            batch["answers"],
            batch["asked"],
        )
        contexts = [(key[asked], value[asked]) for key, value in contexts]
        text_embeds = model.encode_text(batch["questions"]["input_ids"], mask)
        states = model.fusion_encoder(text_embeds, mask, contexts)
        ones = torch.ones(len(mask), device=mask.device)
        return X2VLMForQuestionAnswering(model).answer_loss(
            states, mask, answers["input_ids"], answers["attention_mask"], ones, ones.long()
        )


def topics(captions: list[list[str]], width: int = 64) -> np.ndarray:
    """float[N, width]: what the captions of each image speak of, by the words that several images
    share, rare ones most."""
    words = [set(" ".join(texts).lower().replace(".", " ").split()) for texts in captions]
    counts = Counter(word for said in words for word in said)
    rng = np.random.default_rng(0)
    places = {
        word: rng.standard_normal(width) * np.log(len(words) / count)
        for word, count in sorted(counts.items())
        if count > 1
    }
    return np.stack(
        [sum((places[w] for w in sorted(said & places.keys())), np.zeros(width)) for said in words]
    )


def similar(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of all points, neighbours in groups of at most `size`, the groups in random order.

    Groups come of a random tree: the points are halved along the line through two of them until few
    enough are left.
    """
    waiting, groups = [rng.permutation(len(points))], []
    while waiting:
        members = waiting.pop()
        if len(members) <= size:
            groups.append(members)
            continue
        along = points[members] @ (points[members[0]] - points[members[1]])
        ranked = members[np.argsort(along)]
        middle = size * round(len(members) / size / 2) or size
        waiting += [rng.permutation(ranked[:middle]), rng.permutation(ranked[middle:])]
    return np.concatenate([groups[i] for i in rng.permutation(len(groups))])


def _weights(layer: torch.nn.Linear) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias
