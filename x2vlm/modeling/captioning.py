"""Captioning by left-to-right masked LM: a [MASK] at the end of what is written predicts the next
token.

Trained with masks in front of the real tokens (`train.data.masking`), decoded with a key/value
cache: the real tokens are remembered, the [MASK] is not, and the picture's keys and values are
computed once.

Shapes: B images, N rows (beams of one image are consecutive), L tokens incl. inserted masks, M
masks, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from x2vlm.losses import masked_lm_loss, smoothed_lm_loss
from x2vlm.modeling.layers import KeyValueCache
from x2vlm.modeling.task import TaskModel, TaskOutput
from x2vlm.modeling.x2vlm import X2VLM


class X2VLMForCaptioning(TaskModel):
    """Training loss and a decoder for `x2vlm.inference.generation`."""

    heads = ("masked_lm",)
    loss_names = ("caption_loss",)

    def forward(
        self,
        visual: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        masked_positions: Tensor,
        masked_labels: Tensor,
        masked_weights: Tensor | None = None,
        label_smoothing: float = 0.0,
        excluded_id: int = 101,
    ) -> TaskOutput:
        """Masked-LM loss under a left-to-right mask.

        Args:
            visual: float[B, 3, H, W] or float[B, F, 3, H, W].
            input_ids, position_ids: int64[B, L]; attention_mask: [B, L, L], row = who looks.
            masked_positions, masked_labels: int64[B, M]; masked_weights: float[B, M], 0 = padding.
            label_smoothing: 0 gives plain cross-entropy; otherwise `smoothed_lm_loss` with
                `excluded_id` ([CLS]).

        Returns:
            losses caption_loss.
        """
        image_embeds = self.model.encode_visual(visual)
        logits = self.predict(
            image_embeds, input_ids, attention_mask, position_ids, masked_positions
        )
        if label_smoothing:
            loss = smoothed_lm_loss(
                logits, masked_labels, label_smoothing, excluded_id, masked_weights
            )
        else:
            loss = masked_lm_loss(logits, masked_labels)
        return TaskOutput({"caption_loss": loss})

    def predict(
        self,
        image_embeds: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        masked_positions: Tensor,
    ) -> Tensor:
        """Logits float[N, M, V] of the masked tokens of N texts; consecutive ones share an image of
        image_embeds float[B, P, D]. The rest as for `forward`."""
        text_embeds = self.model.encode_text(input_ids, attention_mask, position_ids)
        fused = self.model.fuse(text_embeds, attention_mask, image_embeds)
        return self.model.masked_lm_logits(fused, masked_positions)


class CaptionDecoder:
    """`x2vlm.inference.generation.StepDecoder` over one batch of encoded images.

    All beams of an image are one sequence whose attention mask tells them apart: a beam sees its
    own ancestors among the remembered tokens. Reordering beams changes the mask and moves no keys.

    Args:
        image_embeds: float[B, P, D]; context_mask: [B, P] for regions.
    """

    def __init__(
        self,
        model: X2VLM,
        image_embeds: Tensor,
        mask_token_id: int,
        context_mask: Tensor | None = None,
    ):
        model.require("masked_lm")
        self._model, self._mask_token_id, self._context_mask = model, mask_token_id, context_mask
        contexts = model.fusion_encoder.project_context(image_embeds)
        # They are read at every token.
        self._contexts = [(keys.contiguous(), values.contiguous()) for keys, values in contexts]
        self._text_cache = KeyValueCache(len(model.text_encoder.layers))
        self._fusion_cache = KeyValueCache(len(model.fusion_encoder.layers))
        self._ancestors = torch.ones(
            len(image_embeds), 1, 0, dtype=torch.bool, device=image_embeds.device
        )
        self._position = model.config.text.first_position

    def step(self, token_ids: Tensor) -> Tensor:
        """int64[N, T] new tokens to float[N, V] logits of the next one."""
        model, batch, (rows, new), device = (
            self._model,
            len(self._ancestors),
            token_ids.shape,
            token_ids.device,
        )
        beams = rows // batch
        masks = token_ids.new_full((batch, beams), self._mask_token_id)
        ids = torch.cat([token_ids.view(batch, -1), masks], dim=1)
        beam = torch.arange(beams, device=device)
        beam = torch.cat([beam.repeat_interleave(new), beam])
        place = torch.cat(
            [
                torch.arange(new, device=device).repeat(beams),
                torch.full((beams,), new, device=device),
            ]
        )
        among_new = (beam[:, None] == beam) & (place[:, None] >= place)
        sees = torch.cat([self._ancestors[:, beam], among_new.expand(batch, -1, -1)], dim=2)

        positions, keep = self._position + place[None], beams * new
        text_embeds = model.text_encoder(ids, sees, positions, self._text_cache, keep)
        fused = model.fusion_encoder(
            text_embeds,
            sees,
            self._contexts,
            self._context_mask,
            cache=self._fusion_cache,
            keep=keep,
        )
        # What a [MASK] sees, itself left out, is what its beam has written.
        self._ancestors = sees[:, keep:, :-beams]
        self._position += new
        return model.masked_lm_head(fused[:, keep:].flatten(0, 1))

    def reorder(self, rows: Tensor) -> None:
        """See `x2vlm.inference.generation.StepDecoder.reorder`."""
        self._ancestors = self._ancestors.flatten(0, 1)[rows].unflatten(
            0, (len(self._ancestors), -1)
        )
