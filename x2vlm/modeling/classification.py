"""Closed-label tasks: reasoning over two images (NLVR2, MaRVL) and answers from a list (video QA,
XVNLI)."""

from __future__ import annotations

import torch
from torch import Tensor

from x2vlm.losses import classification_loss
from x2vlm.modeling.task import TaskModel, TaskOutput


class X2VLMForPairReasoning(TaskModel):
    """Is the statement true of the two images?

    In X2-VLM each image is fused with the text by itself, and the head reads both token 0s. In
    X-VLM (twin layers) one text reads the first image, then the second, in every twin of layers.
    """

    heads = ("pair",)
    loss_names = ("pair_loss",)

    def forward(
        self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> TaskOutput:
        """images float[2B, 3, H, W]: all first images, then all second ones; labels int64[B], 1 =
        true.

        Returns:
            losses pair_loss.
        """
        logits = self.predict(self.model.encode_image(images), input_ids, attention_mask)
        return TaskOutput({"pair_loss": classification_loss(logits, labels)})

    def predict(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float[B, 2] from image_embeds float[2B, P, D] and statements int64[B, T]."""
        model, text_embeds = self.model, self.model.encode_text(input_ids, attention_mask)
        if model.config.fusion.twin_layers:
            contexts = model.fusion_encoder.project_pair(*image_embeds.chunk(2))
            return model.pair_head(
                model.fusion_encoder(text_embeds, attention_mask, contexts)[:, 0]
            )
        fused = model.fuse(text_embeds.repeat(2, 1, 1), attention_mask.repeat(2, 1), image_embeds)
        first, second = fused[:, 0].chunk(2)
        return model.pair_head(torch.cat([first, second], dim=-1))


class X2VLMForClassification(TaskModel):
    """One label for an image or video and a text, read from token 0 of the fused text."""

    heads = ("classification",)
    loss_names = ("classification_loss",)

    def forward(
        self, visual: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> TaskOutput:
        """visual float[B, 3, H, W] or float[B, F, 3, H, W]; labels int64[B], -100 = left out.

        Returns:
            losses classification_loss.
        """
        logits = self.predict(self.model.encode_visual(visual), input_ids, attention_mask)
        return TaskOutput({"classification_loss": classification_loss(logits, labels)})

    def predict(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float[B, num_labels]."""
        text_embeds = self.model.encode_text(input_ids, attention_mask)
        return self.model.classification_head(
            self.model.fuse(text_embeds, attention_mask, image_embeds)[:, 0]
        )
