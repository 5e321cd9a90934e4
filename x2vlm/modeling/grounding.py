"""Visual grounding: one phrase, one box."""

from __future__ import annotations

from torch import Tensor

from x2vlm.losses import box_losses
from x2vlm.modeling.task import TaskModel, TaskOutput


class X2VLMForGrounding(TaskModel):
    """The box of a phrase, predicted from token 0 of the phrase fused with the whole image."""

    heads = ("box",)
    loss_names = ("box_l1_loss", "box_giou_loss")

    def forward(
        self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, target_boxes: Tensor
    ) -> TaskOutput:
        """image float[B, 3, H, W], phrases int64[N, T] (B divides N), target_boxes float[N, 4] (cx,
        cy, w, h) in [0, 1].

        Returns:
            losses box_l1_loss, box_giou_loss.
        """
        boxes = self.predict(self.model.encode_image(image), input_ids, attention_mask)
        l1, giou = box_losses(boxes, target_boxes)
        return TaskOutput({"box_l1_loss": l1, "box_giou_loss": giou})

    def predict(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(cx, cy, w, h) in [0, 1], float[N, 4], of phrases int64[N, T] in images float[B, P,
        D]."""
        text_embeds = self.model.encode_text(input_ids, attention_mask)
        fused = self.model.fuse(text_embeds, attention_mask, image_embeds)
        return self.model.locate(image_embeds, text_embeds, fused)
