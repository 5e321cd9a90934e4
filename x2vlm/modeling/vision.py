"""Image towers: BEiT-2 (X2-VLM), Swin (X-VLM) and CLIP's ViT, each a thin wrapper over timm.

All answer in one form: normalised patch tokens with their plain mean in front as the pooled token.
The learned class token of BEiT-2 and CLIP takes part in attention, and its output is dropped (norm
first, pool second).

Shapes: B images, P tokens incl. pooled, D width, R regions.
"""

from __future__ import annotations

import math

import torch
from timm.models.beit import Attention, Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from x2vlm.config import VisionConfig
from x2vlm.errors import ParameterError
from x2vlm.modeling.layers import Linear

SINCOS_AMPLITUDE = 0.5
"""Absolute positions at half amplitude: what let towers trained from scratch localise (see
`VisionConfig.position`)."""


class VisionEncoder(nn.Module):
    """One image tower.

    Args:
        tower: timm model whose `forward_features` yields the tokens.
        config: its sizes.
    """

    def __init__(self, tower: nn.Module, config: VisionConfig):
        super().__init__()
        for module in tower.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # timm builds plain ones
        self.tower = tower
        self.config = config

    def _apply(self, *args, **kwargs) -> VisionEncoder:
        """Moved or cast, which would leave each block with a copy of its own."""
        super()._apply(*args, **kwargs)
        share_position_index(self.tower)
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Encodes normalised images.

        Args:
            image: float[B, 3, image_size, image_size].

        Returns:
            float[B, P, D]: the pooled token, then the patches row by row.

        Raises:
            ParameterError: an image of another size (`param/range`).
        """
        size = self.config.image_size
        if image.shape[-2:] != (size, size):
            raise ParameterError(
                f"The picture tensor is {image.shape[-1]} x {image.shape[-2]} pixels, this tower "
                f"takes {size} x {size}. Resize it, or load the checkpoint with "
                f"image_size={image.shape[-1]}.",
                "param/range",
            )
        tokens = self.tower.forward_features(image)
        if self.config.tower == "swin":
            patches = tokens.flatten(1, 2)
        elif self.config.tower == "beit2":
            patches = self.tower.fc_norm(tokens[:, 1:])
        else:
            patches = tokens[:, 1:]
        return torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)


def pool_regions(image_embeds: Tensor, patch_mask: Tensor, image_index: Tensor) -> Tensor:
    """Region tokens from whole-image tokens: the pooled token becomes the mean inside the region,
    all patches stay.

    Args:
        image_embeds: float[B, P, D].
        patch_mask: bool[R, P-1], 1 inside the region.
        image_index: int64[R], the image each region belongs to.

    Returns:
        float[R, P, D] (arXiv 2211.12402, section 3.1).
    """
    patches = image_embeds[:, 1:].index_select(0, image_index)
    weights = patch_mask.to(patches.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([torch.einsum("rp,rpd->rd", weights, patches)[:, None], patches], dim=1)


class RelativeAttention(Attention):
    """BEiT's attention with its position bias gathered as attention wants it, head by head; timm's
    way turns it round first."""

    def _get_rel_pos_bias(self) -> Tensor:
        table, index = (
            self.relative_position_bias_table.T.contiguous(),
            self.relative_position_index,
        )
        return table.gather(1, index.flatten().expand(len(table), -1)).view(
            1, len(table), *index.shape
        )


def share_position_index(tower: nn.Module) -> None:
    """Gives all blocks with relative positions the index of the first one: at 768 px each copy is
    42 MB."""
    attentions = [module for module in tower.modules() if isinstance(module, RelativeAttention)]
    for attention in attentions:
        attention.relative_position_index = attentions[0].relative_position_index


def sincos_positions(grid_size: int, width: int) -> Tensor:
    """Fixed two-dimensional positions, float[grid_size**2, width]: a quarter of the width each for
    sin and cos of x and y."""
    frequencies = torch.exp(torch.arange(width // 4) * (-math.log(1e4) / (width // 4)))
    angles = torch.arange(grid_size)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[:, None].expand(-1, grid_size, -1)
    columns = axis[None].expand(grid_size, -1, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


def build_tower(config: VisionConfig) -> nn.Module:
    """The timm model of a configuration, freshly initialised."""
    if config.tower == "swin":
        return SwinTransformer(
            img_size=config.image_size,
            patch_size=4,
            embed_dim=config.swin_embed_dim,
            depths=config.swin_depths,
            num_heads=config.swin_num_heads,
            window_size=config.swin_window_size,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            num_classes=0,
        )
    shared = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": config.mlp_ratio,
        "drop_path_rate": config.drop_path,
        "num_classes": 0,
    }
    if config.tower == "clip":
        return VisionTransformer(
            **shared, pre_norm=True, act_layer="quick_gelu", norm_layer=nn.LayerNorm, global_pool=""
        )
    absolute = config.position == "sincos"
    tower = Beit(
        **shared,
        init_values=config.layer_scale,
        use_abs_pos_emb=absolute,
        use_rel_pos_bias=not absolute,
        global_pool="avg",
    )
    if not absolute:
        for block in tower.blocks:
            block.attn.__class__ = (
                RelativeAttention  # timm's block names its class of attention itself
            )
        share_position_index(tower)
    else:
        tower.pos_embed.requires_grad_(False)
        with torch.no_grad():
            tower.pos_embed.zero_()
            tower.pos_embed[0, 1:] = SINCOS_AMPLITUDE * sincos_positions(
                config.grid_size, config.hidden_size
            )
    return tower
