"""X2VLM: image tower, text encoder, fusion encoder and heads, joined. No loss lives here and no
task.

Departures from the official code: text and fusion layers are two modules; explicit attention is
asked for by handing in a recorder; heads that a model lacks do not exist and asking for one says
so.

Shapes: B batch, F frames, P image tokens (index 0 pooled), D image width, T text tokens, C text
width, R regions, N texts (a multiple of B), V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from x2vlm.boxes import xyxy_to_cxcywh
from x2vlm.config import X2VLMConfig
from x2vlm.errors import CheckpointError
from x2vlm.modeling.decoder import AnswerDecoder
from x2vlm.modeling.dense_boxes import DenseBoxHead, elect_boxes
from x2vlm.modeling.heads import MaskedLMHead, MLPHead, ProjectionHead
from x2vlm.modeling.layers import Attend, fused_attention
from x2vlm.modeling.parts import build_parts
from x2vlm.modeling.pretrained import Pretrained
from x2vlm.modeling.text import FusionEncoder, TextEncoder
from x2vlm.modeling.video import pool_frames
from x2vlm.modeling.vision import VisionEncoder, pool_regions

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 0.5
CHANGE = 0.7
"""How strongly a fresh model with `frame_order` sees the change between frames."""


class X2VLM(nn.Module, Pretrained):
    """The model. Build it with `X2VLM.from_config(config)`; every argument is a finished part.

    Heads that are None are missing: the methods that need them raise `CheckpointError`
    (`ckpt/keys`).
    """

    def __init__(
        self,
        config: X2VLMConfig,
        vision: VisionEncoder,
        text_encoder: TextEncoder,
        fusion_encoder: FusionEncoder,
        image_projection: ProjectionHead | None = None,
        text_projection: ProjectionHead | None = None,
        matching_head: MLPHead | None = None,
        box_head: MLPHead | None = None,
        dense_box_head: DenseBoxHead | None = None,
        masked_lm_head: MaskedLMHead | None = None,
        causal_lm_head: MaskedLMHead | None = None,
        answer_decoder: AnswerDecoder | None = None,
        pair_head: MLPHead | None = None,
        classification_head: MLPHead | None = None,
    ):
        super().__init__()
        self.config = config
        self.vision = vision
        self.text_encoder = text_encoder
        self.fusion_encoder = fusion_encoder
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.temperature = (
            nn.Parameter(torch.tensor(0.07)) if image_projection is not None else None
        )
        self.matching_head = matching_head
        self.box_head = box_head
        self.dense_box_head = dense_box_head
        self.masked_lm_head = masked_lm_head
        self.causal_lm_head = causal_lm_head
        self.answer_decoder = answer_decoder
        self.pair_head = pair_head
        self.classification_head = classification_head
        frames, width = config.num_frames, config.vision.hidden_size
        self.frame_positions = nn.Parameter(torch.empty(1, frames, 1, width)) if frames else None
        if frames:
            nn.init.trunc_normal_(self.frame_positions, std=0.02)
        self.frame_change = nn.Linear(width, width, bias=False) if config.frame_order else None
        if self.frame_change is not None:
            # A rotation tells change from content at once; from zeros it learns too slowly.
            nn.init.orthogonal_(self.frame_change.weight, gain=CHANGE)

    @classmethod
    def from_config(cls, config: X2VLMConfig) -> X2VLM:
        """A model with fresh weights."""
        return cls(config, **build_parts(config))

    @classmethod
    def _wrap(cls, model: X2VLM) -> X2VLM:
        return model

    def require(self, *heads: str) -> None:
        """Raises:
        CheckpointError: one of `heads` (see `x2vlm.config.HEADS`) is missing (`ckpt/keys`).
        """
        missing = [head for head in heads if head not in self.config.heads]
        if missing:
            raise CheckpointError(
                f"This model has no {missing[0].replace('_', ' ')} head. Its heads: "
                f"{', '.join(self.config.heads) or 'none'}. Choose a checkpoint that was trained "
                "for the task.",
                "ckpt/keys",
            )

    def encode_image(self, image: Tensor) -> Tensor:
        """float[B, 3, H, W], normalised, to image_embeds float[B, P, D]."""
        return self.vision(image)

    def encode_video(self, video: Tensor) -> Tensor:
        """float[B, F, 3, H, W] to video_embeds float[B, P, D], used like image_embeds
        everywhere."""
        frame_embeds = self.vision(video.flatten(0, 1)).unflatten(0, video.shape[:2])
        return self.pool_frames(frame_embeds)

    def pool_frames(self, frame_embeds: Tensor) -> Tensor:
        """float[B, F, P, D] of frames to video_embeds float[B, P, D]."""
        return pool_frames(frame_embeds, self.frame_positions, self.frame_change)

    def encode_visual(self, visual: Tensor) -> Tensor:
        """`encode_image` or `encode_video`, by the number of dimensions."""
        return self.encode_image(visual) if visual.ndim == 4 else self.encode_video(visual)

    def encode_regions(
        self, image_embeds: Tensor, patch_mask: Tensor, image_index: Tensor
    ) -> Tensor:
        """Region tokens from one pass over the images, see `x2vlm.modeling.vision.pool_regions`.

        Fuse them with `context_mask = region_context_mask(patch_mask)`.
        """
        return pool_regions(image_embeds, patch_mask, image_index)

    def encode_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """int64[B, T] to text_embeds float[B, T, C]; mask [B, T] or [B, T, T], 1 = attend."""
        return self.text_encoder(input_ids, attention_mask, position_ids)

    def fuse(
        self,
        text_embeds: Tensor,
        attention_mask: Tensor | None,
        image_embeds: Tensor | None,
        context_mask: Tensor | None = None,
        attend: Attend = fused_attention,
    ) -> Tensor:
        """Text that has seen an image (queries: text, keys and values: image).

        Args:
            text_embeds: float[N, T, C].
            attention_mask: [N, T] or [N, T, T], 1 = attend.
            image_embeds: float[B, P, D] where N is a multiple of B (consecutive texts share an
                image), or None.
            context_mask: [B, P], 1 = attend, index 0 is the pooled token; None = all.
            attend: cross-attention; an `AttentionRecord` keeps its probabilities.

        Returns:
            fused_embeds float[N, T, C].
        """
        contexts = (
            None if image_embeds is None else self.fusion_encoder.project_context(image_embeds)
        )
        return self.fusion_encoder(text_embeds, attention_mask, contexts, context_mask, attend)

    def image_features(self, image_embeds: Tensor) -> Tensor:
        """Contrastive features float[B, projection_size], L2-normalised."""
        self.require("contrastive")
        return self.image_projection(image_embeds)

    def text_features(self, text_embeds: Tensor) -> Tensor:
        """Contrastive features float[B, projection_size], L2-normalised."""
        self.require("contrastive")
        return self.text_projection(text_embeds)

    def match_logits(self, fused_embeds: Tensor) -> Tensor:
        """float[N, T, C] to float[N, 2]; class 1 = the text matches."""
        self.require("matching")
        return self.matching_head(fused_embeds[:, 0])

    def predict_boxes(self, fused_embeds: Tensor) -> Tensor:
        """float[N, T, C], fused with the whole image, to (cx, cy, w, h) float[N, 4] as fractions of
        its sides."""
        self.require("box")
        return self.box_head(fused_embeds[:, 0]).sigmoid()

    def patch_similarity(self, image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
        """Contrastive similarity of texts float[N, T, C] and every patch of image_embeds float[B,
        P, D], divided by the temperature: float[N, P-1], N a multiple of B."""
        texts = self.text_features(text_embeds).unflatten(0, (len(image_embeds), -1))
        patches = self.image_features(image_embeds[:, 1:].flatten(0, 1)[:, None])
        patches = patches.unflatten(0, (len(image_embeds), -1))
        return (texts @ patches.transpose(1, 2) / self.temperature).flatten(0, 1)

    def dense_boxes(self, image_embeds: Tensor, text_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """What every patch of image_embeds float[B, P, D] says of the phrases text_embeds float[N,
        T, C], see `x2vlm.modeling.dense_boxes.DenseBoxHead`."""
        self.require("dense_box")
        similarity = self.patch_similarity(image_embeds, text_embeds)
        return self.dense_box_head(image_embeds[:, 1:], self.text_features(text_embeds), similarity)

    def locate(
        self, image_embeds: Tensor, text_embeds: Tensor | None, fused_embeds: Tensor
    ) -> Tensor:
        """The boxes of phrases (cx, cy, w, h) float[N, 4]: by the dense box head where the model
        has one, else `predict_boxes`.

        Args:
            image_embeds: float[B, P, D].
            text_embeds: float[N, T, C], N a multiple of B; only the dense box head reads them.
            fused_embeds: float[N, T, C].
        """
        if self.dense_box_head is None:
            return self.predict_boxes(fused_embeds)
        return xyxy_to_cxcywh(elect_boxes(*self.dense_boxes(image_embeds, text_embeds)))

    def masked_lm_logits(self, fused_embeds: Tensor, positions: Tensor) -> Tensor:
        """Vocabulary logits float[N, M, V] at `positions` int64[N, M] of fused_embeds float[N, T,
        C]."""
        self.require("masked_lm")
        return self.masked_lm_head(_rows_at(fused_embeds, positions))

    def causal_lm_logits(self, fused_embeds: Tensor, positions: Tensor) -> Tensor:
        """As `masked_lm_logits`, of the token that follows each position; the texts must have been
        encoded and fused under a causal mask."""
        self.require("causal_lm")
        return self.causal_lm_head(_rows_at(fused_embeds, positions))

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keeps the learned temperature in [0.001, 0.5]; call once a training step."""
        if self.temperature is not None:
            self.temperature.clamp_(MIN_TEMPERATURE, MAX_TEMPERATURE)


def _rows_at(embeds: Tensor, positions: Tensor) -> Tensor:
    """float[N, T, C] at int64[N, M]: float[N, M, C]."""
    return embeds.gather(1, positions[..., None].expand(-1, -1, embeds.shape[-1]))


def region_context_mask(patch_mask: Tensor) -> Tensor:
    """[R, P-1] patches of a region to the cross-attention mask bool[R, P]: the pooled token is
    always visible."""
    return torch.cat([patch_mask.new_ones(len(patch_mask), 1), patch_mask], dim=1).bool()
