"""Captioning by next-token prediction, as X-VLM's captioning file does it: every token sees those
before it, and the logits at a token are those of the next one (X²-VLM's own way is
`x2vlm.modeling.captioning`).

Shapes: B images, N rows (beams of one image are consecutive), T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from x2vlm.losses import next_token_loss
from x2vlm.modeling.layers import KeyValueCache
from x2vlm.modeling.task import TaskModel, TaskOutput
from x2vlm.modeling.x2vlm import X2VLM


def causal_mask(length: int, device: torch.device, past: int = 0) -> Tensor:
    """bool[1, length, past + length]: what each of `length` tokens may see, those `past` before
    them included."""
    places = torch.arange(past + length, device=device)
    return (places[None] <= places[past:, None])[None]


class X2VLMForCausalCaptioning(TaskModel):
    """Training loss; `CausalCaptionDecoder` writes."""

    heads = ("causal_lm",)
    loss_names = ("caption_loss",)

    def forward(
        self,
        visual: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        prompt_length: int,
        label_smoothing: float = 0.0,
    ) -> TaskOutput:
        """Next-token loss of the captions.

        Args:
            visual: float[B, 3, H, W] or float[B, F, 3, H, W].
            input_ids, attention_mask: int64[B, T], [CLS] prompt caption [SEP], padded on the right.
            prompt_length: tokens at the beginning, [CLS] included, that are given and not learnt.
            label_smoothing: see `next_token_loss`.

        Returns:
            losses caption_loss.
        """
        labels = input_ids.masked_fill(attention_mask == 0, -100)
        labels[:, :prompt_length] = -100
        logits = self.predict(self.model.encode_visual(visual), input_ids, attention_mask)
        return TaskOutput({"caption_loss": next_token_loss(logits, labels[:, 1:], label_smoothing)})

    def predict(self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float[N, T - 1, V] of all tokens of N texts but the first; consecutive ones share
        an image of image_embeds float[B, P, D]. The rest as for `forward`."""
        sees = causal_mask(input_ids.shape[1], input_ids.device) & attention_mask.bool()[:, None]
        fused = self.model.fuse(self.model.encode_text(input_ids, sees), sees, image_embeds)
        return self.model.causal_lm_head(fused[:, :-1])


class CausalCaptionDecoder:
    """`x2vlm.inference.generation.StepDecoder` over one batch of encoded images.

    Args:
        image_embeds: float[B, P, D]; context_mask: [B, P] for regions.
    """

    def __init__(self, model: X2VLM, image_embeds: Tensor, context_mask: Tensor | None = None):
        model.require("causal_lm")
        self._model, self._context_mask = model, context_mask
        self._contexts = model.fusion_encoder.project_context(image_embeds)
        self._text_cache = KeyValueCache(len(model.text_encoder.layers))
        self._fusion_cache = KeyValueCache(len(model.fusion_encoder.layers))

    def step(self, token_ids: Tensor) -> Tensor:
        """int64[N, T] new tokens to float[N, V] logits of the next one."""
        past, new = self._text_cache.length, token_ids.shape[1]
        sees = causal_mask(new, token_ids.device, past)
        first = past + self._model.config.text.first_position
        positions = torch.arange(first, first + new, device=token_ids.device)[None]
        text_embeds = self._model.text_encoder(token_ids, sees, positions, self._text_cache, new)
        fused = self._model.fusion_encoder(
            text_embeds,
            sees,
            self._contexts,
            self._context_mask,
            cache=self._fusion_cache,
            keep=new,
        )
        return self._model.causal_lm_head(fused[:, -1])

    def reorder(self, rows: Tensor) -> None:
        """See `x2vlm.inference.generation.StepDecoder.reorder`."""
        self._text_cache.reorder(rows)
        self._fusion_cache.reorder(rows)
