"""Everything that is said of an image or video, learnt from one encoding of it: the joint recipe of
`mini`.

The other tasks encode the image once each. Here phrases, caption and questions share one pass of
the tower and one projection of its keys and values, which is most of the work of a small model. The
losses are those of the paper's pre-training and fine-tuning: contrastive (image and caption, region
and phrase), matching with hard negatives (absent phrases, other regions, captions of similar
images, captions with one error), boxes, left-to-right captions and names of objects, answers.

Shapes: B images, N texts an image, T tokens, P image tokens, K phrases with a box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.data.captioning import CaptionLayout, caption_layout, collate_captions
from train.data.masking import MaskingConfig, TokenMasker
from train.data.regions import WHOLE_IMAGE
from train.tasks.records import RecordTask, choose_exactly, positive_pairs
from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.errors import ConfigError
from x2vlm.losses import (
    box_losses,
    classification_loss,
    contrastive_loss,
    masked_lm_loss,
    sample_hard_negatives,
)
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import region_context_mask
from x2vlm.processing import normalize, patch_mask
from x2vlm.stickers import OBJECT_NAMES


@dataclass(kw_only=True)
class Scene(RecordTask):
    """Records of the sticker world: captions, region and absent phrases, objects, questions; videos
    have no regions or objects.

    Attributes:
        batch_size: images.
        phrases, absent, objects, questions: how many of each an image is asked about at once.
        captions: how many are written; one of them, the first, is also told apart from those of
            other images.
        first_share: how often the first, fullest caption is taken, and not any.
        masking: which tokens of the caption are predicted.
    """

    all_losses: ClassVar[tuple[str, ...]] = (
        "contrastive_loss",
        "object_contrastive_loss",
        "region_contrastive_loss",
        "matching_loss",
        "region_matching_loss",
        "caption_matching_loss",
        "box_l1_loss",
        "box_giou_loss",
        "caption_loss",
        "object_loss",
        "answer_loss",
    )
    needs = ("image|frames", "captions", "false_captions", "absent", "questions")

    region_losses: ClassVar[frozenset[str]] = frozenset(
        name for name in all_losses if name.startswith(("region_", "box_"))
    )
    object_losses: ClassVar[frozenset[str]] = frozenset(
        name for name in all_losses if name.startswith("object_")
    )

    phrases: int = 3
    absent: int = 3
    objects: int = 3
    questions: int = 3
    captions: int = 1
    first_share: float = 0.7
    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(0.6, 18))
    prompt: str = "a picture of"

    def __post_init__(self):
        super().__post_init__()
        videos = self.data.stickers is not None and self.data.stickers.kind == "video"
        without = sorted((self.region_losses | self.object_losses) & set(self.loss_weights))
        if videos and without:
            raise ConfigError(
                f"{without[0]} needs boxes, and sticker videos have none. Leave it out of losses.",
                "config/value",
            )

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.masker = TokenMasker.from_tokenizer(self.masking, processor.tokenizer)
        self.grid_size = processor.config.vision.grid_size
        self.names = self.texts.collate([self.encode(name) for name in OBJECT_NAMES])

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        captions = record["captions"]
        caption = (
            captions[0] if rng.random() < self.first_share else choose_exactly(captions, 1, rng)[0]
        )
        regions = record.get("regions") or [{"text": text, "box": WHOLE_IMAGE} for text in captions]
        regions = choose_exactly(regions, self.phrases, rng)
        objects = (
            choose_exactly(record["objects"], self.objects, rng) if "objects" in record else []
        )
        questions = choose_exactly(record["questions"], self.questions, rng)
        return {
            "visual": self.pixels(record, rng),
            "caption": self.encode(caption),
            "false_caption": self.encode(choose_exactly(record["false_captions"], 1, rng)[0]),
            "layouts": [
                self._layout(text, rng)
                for text in (caption, *choose_exactly(captions, self.captions - 1, rng))
            ],
            "objects": [
                (self._layout(item["text"], rng), OBJECT_NAMES.index(item["name"]), item["box"])
                for item in objects
            ],
            "phrases": [self.encode(region["text"]) for region in regions],
            "boxes": [region["box"] for region in regions],
            "shown": self.image_key(index, record),
            "regions_shown": [self.region_key(index, record, region["box"]) for region in regions],
            "absent": [
                self.encode(text) for text in choose_exactly(record["absent"], self.absent, rng)
            ],
            "questions": [
                self.texts.encode(question["question"], "question") for question in questions
            ],
            "answers": [self.texts.encode(question["answer"], None) for question in questions],
        }

    def _layout(self, text: str, rng: np.random.Generator) -> CaptionLayout:
        return caption_layout(text, self.processor, self.masker, rng, self.prompt)

    def _patch_masks(self, boxes: list[list[float]]) -> Tensor:
        """[R, P-1] of R boxes (cx, cy, w, h)."""
        return torch.stack(
            [
                patch_mask(box, self.grid_size)
                for box in cxcywh_to_xyxy(torch.tensor(boxes)).tolist()
            ]
        )

    def _collate_layouts(self, layouts: list[CaptionLayout]) -> dict[str, Tensor]:
        return collate_captions(layouts, self.processor.pad_id)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        phrases = [text for sample in samples for text in sample["phrases"]]
        boxes = torch.tensor([sample["boxes"] for sample in samples])
        batch = {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "boxes": boxes,
            "patch_mask": self._patch_masks(boxes.flatten(0, 1).tolist()).unflatten(
                0, boxes.shape[:2]
            ),
            "phrase_positives": positive_pairs(
                [key for sample in samples for key in sample["regions_shown"]], phrases
            ),
            "caption_positives": positive_pairs(
                [sample["shown"] for sample in samples], [sample["caption"] for sample in samples]
            ),
            "caption": self.texts.collate(
                [sample[name] for name in ("caption", "false_caption") for sample in samples]
            ),
            "phrases": self.texts.collate(
                [text for sample in samples for text in (*sample["phrases"], *sample["absent"])]
            ),
            "questions": self.texts.collate(
                [text for sample in samples for text in sample["questions"]]
            ),
            "answers": self.texts.collate(
                [text for sample in samples for text in sample["answers"]]
            ),
            "writing": self._collate_layouts(
                [layout for sample in samples for layout in sample["layouts"]]
            ),
        }
        objects = [item for sample in samples for item in sample["objects"]]
        if objects:
            layouts, names, places = zip(*objects, strict=True)
            batch["names"], batch["object_names"] = self.names, torch.tensor(names)
            batch["naming"] = self._collate_layouts(layouts)
            batch["object_patches"] = self._patch_masks(places).unflatten(0, (len(samples), -1))
        return batch

    def training_step(self, model, batch):
        embeds = model.encode_visual(normalize(batch["visual"]))
        contexts = model.fusion_encoder.project_context(embeds)
        wanted = self.loss_weights
        losses = {}
        if "matching_loss" in wanted or not self.region_losses.isdisjoint(wanted):
            losses |= self._phrases(model, embeds, contexts, batch)
        if "contrastive_loss" in wanted or "caption_matching_loss" in wanted:
            losses |= self._caption(model, embeds, contexts, batch)
        if "caption_loss" in wanted:
            losses["caption_loss"] = self._writing(model, contexts, batch["writing"])
        if "object_contrastive_loss" in wanted:
            losses["object_contrastive_loss"] = self._objects(model, embeds, batch)
        if "object_loss" in wanted:
            visible = region_visibility(
                batch["object_patches"], batch["naming"]["input_ids"].shape[1]
            )
            losses["object_loss"] = self._writing(model, contexts, batch["naming"], visible)
        if "answer_loss" in wanted:
            losses["answer_loss"] = self._answers(model, contexts, batch)
        return losses

    def _objects(self, model, embeds: Tensor, batch) -> Tensor:
        """Objects against the names of all objects there are: other images of a batch rarely hold a
        look-alike."""
        names = model.text_features(
            model.encode_text(batch["names"]["input_ids"], batch["names"]["attention_mask"])
        )
        features = region_features(model, embeds, batch["object_patches"])
        return classification_loss(features @ names.T / model.temperature, batch["object_names"])

    def _phrases(self, model, embeds: Tensor, contexts, batch) -> dict[str, Tensor]:
        """Phrases that are there, with their boxes, beside phrases that are not."""
        images, there = batch["boxes"].shape[:2]
        mask = batch["phrases"]["attention_mask"]
        text_embeds = model.encode_text(batch["phrases"]["input_ids"], mask)
        fused = model.fusion_encoder(text_embeds, mask, contexts)
        present = torch.arange(len(mask) // images, device=mask.device) < there
        losses = {
            "matching_loss": classification_loss(
                model.match_logits(fused), present.long().repeat(images)
            )
        }
        if not self.region_losses.isdisjoint(self.loss_weights):
            first, patches = present.repeat(images), batch["patch_mask"]
            boxes = model.predict_boxes(fused[first])
            losses["box_l1_loss"], losses["box_giou_loss"] = box_losses(
                boxes, batch["boxes"].flatten(0, 1)
            )
            features = (
                region_features(model, embeds, patches),
                model.text_features(text_embeds[first]),
            )
            losses["region_contrastive_loss"] = contrastive_loss(
                *features, model.temperature, batch["phrase_positives"]
            )
            if "region_matching_loss" in self.loss_weights:
                losses["region_matching_loss"] = self._region_matching(
                    model, text_embeds[first], mask[first], contexts, patches.bool()
                )
        return losses

    def _region_matching(
        self, model, text_embeds: Tensor, mask: Tensor, contexts, patches: Tensor
    ) -> Tensor:
        """Phrases against parts of their image, so that a match depends on the patches that show
        what is named.

        In turn they see their own region (a match), everything else (none), everything but their
        neighbour's region (a match) and that region (none). Neighbours that have patches in common
        are left out.

        Args:
            patches: bool[B, K, P-1], the regions of the phrases.
        """
        phrase = torch.arange(patches.shape[1], device=patches.device)
        turn = phrase % 4
        region = torch.where(turn < 2, phrase, (phrase + 1) % len(phrase))
        own, outside = region == phrase, (turn == 1) | (turn == 2)
        common = (patches & patches[:, region]).any(dim=-1) & ~own
        labels = torch.where(common, -100, (own ^ outside).long()).flatten()
        visible = region_visibility(patches[:, region] ^ outside[:, None], mask.shape[1])
        return classification_loss(
            model.match_logits(model.fusion_encoder(text_embeds, mask, contexts, visible)), labels
        )

    def _caption(self, model, embeds: Tensor, contexts, batch) -> dict[str, Tensor]:
        """The caption against those of other images, all of them by features; by matching, the most
        similar one of them and a caption that is wrong in one thing: what is generated is ranked by
        its match."""
        mask, positives = batch["caption"]["attention_mask"], batch["caption_positives"]
        text_embeds = model.encode_text(batch["caption"]["input_ids"], mask)
        features, text_features = (
            model.image_features(embeds),
            model.text_features(text_embeds[: len(positives)]),
        )
        other = sample_hard_negatives(
            features.detach() @ text_features.detach().T / model.temperature.detach(), positives
        )
        own = torch.arange(len(positives), device=mask.device)
        rows = torch.stack([own, other, own + len(positives)], dim=1).flatten()
        true = (positives[other] == positives).any(dim=-1).long()  # where there is no negative
        labels = torch.stack([torch.ones_like(own), true, torch.zeros_like(own)], dim=1).flatten()
        fused = model.fusion_encoder(text_embeds[rows], mask[rows], contexts)
        return {
            "contrastive_loss": contrastive_loss(
                features, text_features, model.temperature, positives
            ),
            "caption_matching_loss": classification_loss(model.match_logits(fused), labels),
        }

    def _writing(self, model, contexts, fields, context_mask: Tensor | None = None) -> Tensor:
        """Left-to-right masked LM, as in `x2vlm.modeling.captioning`; of a region, only its patches
        are seen."""
        mask = fields["attention_mask"]
        text_embeds = model.encode_text(fields["input_ids"], mask, fields["position_ids"])
        fused = model.fusion_encoder(text_embeds, mask, contexts, context_mask)
        return masked_lm_loss(
            model.masked_lm_logits(fused, fields["masked_positions"]), fields["masked_labels"]
        )

    def _answers(self, model, contexts, batch) -> Tensor:
        mask = batch["questions"]["attention_mask"]
        states = model.fusion_encoder(
            model.encode_text(batch["questions"]["input_ids"], mask), mask, contexts
        )
        answers = batch["answers"]
        ones = torch.ones(len(mask), device=mask.device)
        task = X2VLMForQuestionAnswering(model)
        return task.answer_loss(
            states, mask, answers["input_ids"], answers["attention_mask"], ones, ones.long()
        )


def region_features(model, embeds: Tensor, patches: Tensor) -> Tensor:
    """Features float[B * N, E] of regions bool[B, N, P-1], each the mean of its patches."""
    weights = patches.to(embeds.dtype)
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1)
    return model.image_features((weights @ embeds[:, 1:]).flatten(0, 1)[:, None])


def region_visibility(patches: Tensor, length: int) -> Tensor:
    """Regions bool[B, N, P-1] of N texts an image to the context mask bool[B, N * length, P] of
    their tokens in a row."""
    return (
        region_context_mask(patches.flatten(0, 1))
        .repeat_interleave(length, 0)
        .unflatten(0, (len(patches), -1))
    )
