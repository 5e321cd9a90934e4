"""Multi-grained pre-training (arXiv 2211.12402, section 3): the same losses for images, regions and
videos, masked text alone, and pairs of texts in two languages (CCLM).

Shapes: B pairs, R regions, M masked tokens, others as in `x2vlm.modeling.x2vlm`.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from x2vlm.losses import box_losses, classification_loss, contrastive_loss, masked_lm_loss
from x2vlm.modeling.task import TaskModel, TaskOutput, match_against_negatives
from x2vlm.modeling.x2vlm import region_context_mask

TEXT_LOSSES = ("masked_lm_loss",)
PAIR_LOSSES = ("contrastive_loss", "matching_loss", *TEXT_LOSSES)
REGION_LOSSES = (*PAIR_LOSSES, "box_l1_loss", "box_giou_loss")
"""The losses of text alone, of images or videos or sentences with a text, and of regions."""


class X2VLMForPretraining(TaskModel):
    """Contrastive, matching, masked-LM and box losses. These arguments are the same in every
    method:

    input_ids, attention_mask: int64[B, T]; masked_ids: int64[B, T], the text with masks;
    masked_positions, masked_labels: int64[B, M], label -100 = padding; wanted: which of the losses
    to compute, others cost nothing and need no head; positives: int64[B] or int64[B, K], rows with
    an equal number in some column have the same content (None: only row i fits row i).
    """

    def forward(
        self,
        visual: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_ids: Tensor,
        masked_positions: Tensor,
        masked_labels: Tensor,
        wanted: Collection[str] = PAIR_LOSSES,
        positives: Tensor | None = None,
    ) -> TaskOutput:
        """Pictures float[B, 3, H, W] or videos float[B, F, 3, H, W] and their texts.

        Returns:
            losses contrastive_loss, matching_loss, masked_lm_loss.
        """
        embeds = self.model.encode_visual(visual)
        text_embeds = self.model.encode_text(input_ids, attention_mask)
        losses = self._align(embeds, None, text_embeds, attention_mask, wanted, positives)
        if "masked_lm_loss" in wanted:
            losses["masked_lm_loss"] = self._masked_lm(
                embeds, None, masked_ids, attention_mask, masked_positions, masked_labels
            )
        return TaskOutput(losses)

    def forward_regions(
        self,
        image: Tensor,
        image_index: Tensor,
        patch_mask: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        masked_ids: Tensor,
        masked_positions: Tensor,
        masked_labels: Tensor,
        target_boxes: Tensor,
        is_image: Tensor,
        wanted: Collection[str] = REGION_LOSSES,
        positives: Tensor | None = None,
    ) -> TaskOutput:
        """Regions of images and their texts; one pass of the tower for all regions of an image.

        Args:
            image: float[B, 3, H, W].
            image_index: int64[R], the image of each region; patch_mask: bool[R, P-1].
            target_boxes: float[R, 4] (cx, cy, w, h) in [0, 1]; is_image: bool[R], rows that
                describe the whole image.

        Returns:
            losses contrastive_loss, matching_loss, masked_lm_loss, box_l1_loss, box_giou_loss.
            Alignment sees the region only; the box is predicted from the whole image.
        """
        model = self.model
        image_embeds = model.encode_image(image)
        region_embeds = model.encode_regions(image_embeds, patch_mask, image_index)
        context_mask = region_context_mask(patch_mask)
        text_embeds = model.encode_text(input_ids, attention_mask)
        losses = self._align(
            region_embeds, context_mask, text_embeds, attention_mask, wanted, positives
        )
        if "masked_lm_loss" in wanted:
            losses["masked_lm_loss"] = self._masked_lm(
                region_embeds,
                context_mask,
                masked_ids,
                attention_mask,
                masked_positions,
                masked_labels,
            )
        if "box_l1_loss" in wanted or "box_giou_loss" in wanted:
            boxes = model.predict_boxes(
                model.fuse(text_embeds, attention_mask, image_embeds[image_index])
            )
            losses["box_l1_loss"], losses["box_giou_loss"] = box_losses(
                boxes, target_boxes, is_image
            )
        return TaskOutput(losses)

    def forward_text(
        self,
        masked_ids: Tensor,
        attention_mask: Tensor,
        masked_positions: Tensor,
        masked_labels: Tensor,
    ) -> TaskOutput:
        """Masked language modeling without an image: all layers, no cross-attention."""
        return TaskOutput(
            {
                "masked_lm_loss": self._masked_lm(
                    None, None, masked_ids, attention_mask, masked_positions, masked_labels
                )
            }
        )

    def forward_parallel_text(
        self,
        source_ids: Tensor,
        source_mask: Tensor,
        target_ids: Tensor,
        target_mask: Tensor,
        masked_source_ids: Tensor,
        masked_positions: Tensor,
        masked_labels: Tensor,
        wanted: Collection[str] = PAIR_LOSSES,
        positives: Tensor | None = None,
    ) -> TaskOutput:
        """Two languages of one sentence; the source stands where an image would (CCLM, arXiv
        2206.00621, section 3).

        The fusion encoder reads the target and attends to the source; masked source tokens attend
        to the whole target.
        """
        model = self.model
        source = model.encode_text(source_ids, source_mask)
        target = model.encode_text(target_ids, target_mask)
        losses = self._align(
            source,
            source_mask,
            target,
            target_mask,
            wanted,
            positives,
            of_context=model.text_features,
        )
        if "masked_lm_loss" in wanted:
            losses["masked_lm_loss"] = self._masked_lm(
                target, target_mask, masked_source_ids, source_mask, masked_positions, masked_labels
            )
        return TaskOutput(losses)

    def _align(
        self, context, context_mask, text_embeds, attention_mask, wanted, positives, of_context=None
    ) -> dict[str, Tensor]:
        model, losses = self.model, {}
        if "contrastive_loss" not in wanted and "matching_loss" not in wanted:
            return losses
        # Matching draws its negatives by these features.
        features = (of_context or model.image_features)(context)
        text_features = model.text_features(text_embeds)
        if "contrastive_loss" in wanted:
            losses["contrastive_loss"] = contrastive_loss(
                features, text_features, model.temperature, positives
            )
        if "matching_loss" in wanted:
            similarity = features.detach() @ text_features.detach().T / model.temperature.detach()
            logits, labels = match_against_negatives(
                model, context, context_mask, text_embeds, attention_mask, similarity, positives
            )
            losses["matching_loss"] = classification_loss(logits, labels)
        return losses

    def _masked_lm(
        self, context, context_mask, masked_ids, attention_mask, positions, labels
    ) -> Tensor:
        text_embeds = self.model.encode_text(masked_ids, attention_mask)
        fused = self.model.fuse(text_embeds, attention_mask, context, context_mask)
        return masked_lm_loss(self.model.masked_lm_logits(fused, positions), labels)
