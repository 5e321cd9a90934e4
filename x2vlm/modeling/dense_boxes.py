"""The dense box head: every patch says which box a phrase has there, and how well it fits the
phrase; the patches agree on one.

Not in the paper, whose box head reads one fused token. Each patch of a region teaches this one, so
that it learns from thousands of boxes what the other learns from hundreds of thousands. A box is
told by the distances of its sides from the patch, as in FCOS (Tian et al., arXiv 1904.01355).

Shapes: B images, N phrases (a multiple of B; consecutive ones share an image), P patches, D image
width, E contrastive features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from x2vlm.boxes import box_iou

LAYERS, HEADS = 2, 4
SOFTENING = 2.0
"""Divides the scores, so that a few sure patches do not outvote all others."""


class DenseBoxHead(nn.Module):
    """Reads the frozen or trained patches of the image tower and contrastive phrase features.

    Args:
        vision_size: width of the image tower; the head is half as wide.
        feature_size: width of the contrastive features.
        grid_size: (rows, columns) of patches.
    """

    def __init__(self, vision_size: int, feature_size: int, grid_size: tuple[int, int]):
        super().__init__()
        width = vision_size // 2
        self.reduce = nn.Linear(vision_size, width)
        self.blocks = nn.ModuleList(Block(width, HEADS, 4.0, qkv_bias=True) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(width)
        self.key, self.query = nn.Linear(width, width), nn.Linear(feature_size, width)
        self.patch, self.phrase = nn.Linear(width, width), nn.Linear(feature_size, width)
        self.sides = nn.Linear(width, 4)
        nn.init.constant_(self.sides.bias, -1.3)  # softplus: a quarter of the image on each side
        rows, columns = grid_size
        y, x = (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
        y, x = torch.meshgrid(y, x, indexing="ij")
        self.register_buffer("centres", torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def forward(
        self, patches: Tensor, phrases: Tensor, similarity: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What every patch says.

        Args:
            patches: float[B, P, D]; phrases: float[N, E], L2-normalised.
            similarity: float[N, P], contrastive similarities divided by the temperature.

        Returns:
            scores float[N, P], whose softmax is each patch's share of the phrase, and boxes
            (x1, y1, x2, y2) float[N, P, 4] as fractions of the image's sides.
        """
        x = self.reduce(patches)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        group = len(phrases) // len(x)
        asked = phrases.unflatten(0, (len(x), group))
        fit = self.query(asked) @ self.key(x).transpose(1, 2) * x.shape[-1] ** -0.5
        told = F.gelu(self.patch(x)[:, None] + self.phrase(asked)[:, :, None])
        near, far = F.softplus(self.sides(told)).flatten(0, 1).split(2, dim=-1)
        boxes = torch.cat([self.centres - near, self.centres + far], dim=-1)
        return similarity + fit.flatten(0, 1), boxes


def patch_shares(scores: Tensor) -> Tensor:
    """Each patch's share of a text, float[N, P], of scores as `DenseBoxHead` gives them."""
    return (scores / SOFTENING).softmax(dim=-1)


def elect_boxes(scores: Tensor, boxes: Tensor) -> Tensor:
    """Of each phrase the box that overlaps most with those of all patches, each counted by its
    share: float[N, 4], inside the image.

    Args:
        scores, boxes: as `DenseBoxHead` gives them.
    """
    shares, boxes = patch_shares(scores), boxes.clamp(0, 1)
    votes = torch.stack([box_iou(some, some) @ share for some, share in zip(boxes, shares)])
    return boxes[torch.arange(len(boxes), device=boxes.device), votes.argmax(dim=-1)]
