"""Image-text and video-text retrieval: contrastive features find candidates, the matching head
re-ranks them."""

from __future__ import annotations

from torch import Tensor

from x2vlm.losses import classification_loss, contrastive_loss
from x2vlm.modeling.task import TaskModel, TaskOutput, match_against_negatives


class X2VLMForRetrieval(TaskModel):
    """Contrastive and matching losses in equal parts."""

    heads = ("contrastive", "matching")
    loss_names = ("contrastive_loss", "matching_loss")

    def forward(
        self,
        visual: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        positives: Tensor | None = None,
    ) -> TaskOutput:
        """Pictures float[B, 3, H, W] or videos float[B, F, 3, H, W] with texts int64[B, T].

        Args:
            positives: int64[B] or int64[B, K]; rows with an equal number in some column belong
                together, see `contrastive_loss`.

        Returns:
            losses contrastive_loss, matching_loss.
        """
        model = self.model
        embeds = model.encode_visual(visual)
        text_embeds = model.encode_text(input_ids, attention_mask)
        image_features, text_features = (
            model.image_features(embeds),
            model.text_features(text_embeds),
        )
        similarity = image_features.detach() @ text_features.detach().T / model.temperature.detach()
        logits, labels = match_against_negatives(
            model, embeds, None, text_embeds, attention_mask, similarity, positives
        )
        return TaskOutput(
            {
                "contrastive_loss": contrastive_loss(
                    image_features, text_features, model.temperature, positives
                ),
                "matching_loss": classification_loss(logits, labels),
            }
        )

    def rerank(self, image_embeds: Tensor, text_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """Raw matching logits of class 1, float[N]: texts float[N, T, C] with images float[B, P,
        D], B divides N."""
        return self.model.match_logits(self.model.fuse(text_embeds, attention_mask, image_embeds))[
            :, 1
        ]
