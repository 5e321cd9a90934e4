"""Image towers: BEiT-2 (X2-VLM), Swin (X-VLM) and CLIP's ViT, each a thin wrapper over timm.

All answer in one form: normalised patch tokens with their plain mean in front as the pooled token.
The learned class token of BEiT-2 and CLIP takes part in attention, and its output is dropped (norm
first, pool second).

Shapes: B images, P tokens incl. pooled, D width, R regions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.beit import Attention, Beit
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from x2vlm.config import IMAGE_MEAN, IMAGE_STD, SWIN_PATCH, VisionConfig
from x2vlm.errors import ParameterError
from x2vlm.modeling.feature_tower import FeatureTower
from x2vlm.modeling.positions import SINCOS_AMPLITUDE, sincos_positions


class VisionEncoder(nn.Module):
    """One image tower.

    Args:
        tower: timm model whose `forward_features` yields the tokens.
        config: its sizes.
    """

    def __init__(self, tower: nn.Module, config: VisionConfig):
        super().__init__()
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
            image: float[B, 3, H, W] of the tower's size.

        Returns:
            float[B, P, D]: the pooled token, then the patches row by row.

        Raises:
            ParameterError: an image of another size (`param/range`).
        """
        height, width = image.shape[-2:]
        if (height, width) != self.config.size:
            wanted = " x ".join(map(str, self.config.size))
            given = height if height == width else (height, width)
            raise ParameterError(
                f"The picture tensor is {height} x {width} pixels (height x width), this tower "
                f"takes {wanted}. Resize it, or load the checkpoint with image_size={given}.",
                "param/range",
            )
        return self._with_pooled(self.tower.forward_features(image))

    def from_maps(self, maps: Tensor) -> Tensor:
        """`forward` from what a frozen `timm` backbone made of the images, `FeatureTower.maps`."""
        return self._with_pooled(self.tower.tokens(maps))

    def _with_pooled(self, tokens: Tensor) -> Tensor:
        """The tower's tokens, normalised, without its class token, behind their mean."""
        if self.config.tower == "swin":
            patches = tokens.flatten(1, 2)
        elif self.config.tower == "beit2":
            patches = self.tower.fc_norm(tokens[:, 1:])
        elif self.config.tower == "clip":
            patches = tokens[:, 1:]
        else:
            patches = tokens
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


class RelativeAttention(nn.Module):
    """BEiT's attention with its position bias gathered as attention wants it, head by head; timm's
    way turns it round first. It takes over the parts of timm's attention."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        self.q_bias, self.v_bias = attention.q_bias, attention.v_bias
        self.relative_position_bias_table = attention.relative_position_bias_table
        index = attention.relative_position_index
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, shared_rel_pos_bias: None = None) -> Tensor:
        """(B, N, D) to (B, N, D); keys have no bias."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        positions = self._position_bias()
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=positions)
        return self.proj(out.transpose(1, 2).flatten(2))

    def _position_bias(self) -> Tensor:
        table = self.relative_position_bias_table.T.contiguous()
        index = self.relative_position_index
        gathered = table.gather(1, index.flatten().expand(len(table), -1))
        return gathered.view(1, len(table), *index.shape)


def share_position_index(tower: nn.Module) -> None:
    """Gives all blocks with relative positions the index of the first one: at 768 px each copy is
    42 MB."""
    attentions = [module for module in tower.modules() if isinstance(module, RelativeAttention)]
    for attention in attentions:
        attention.relative_position_index = attentions[0].relative_position_index


def build_tower(config: VisionConfig) -> nn.Module:
    """The timm model of a configuration, freshly initialised."""
    if config.tower == "swin":
        tower = SwinTransformer(
            img_size=config.size,
            patch_size=SWIN_PATCH,
            embed_dim=config.swin_embed_dim,
            depths=config.swin_depths,
            num_heads=config.swin_num_heads,
            window_size=config.swin_window_size,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            num_classes=0,
        )
        _square_windows(tower, config)
        return tower
    if config.tower == "timm":
        return _feature_tower(config)
    shared = {
        "img_size": config.size,
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
            block.attn = RelativeAttention(block.attn)
        share_position_index(tower)
    else:
        tower.pos_embed.requires_grad_(False)
        with torch.no_grad():
            tower.pos_embed.zero_()
            tower.pos_embed[0, 1:] = SINCOS_AMPLITUDE * sincos_positions(
                config.grid_size, config.hidden_size
            )
    return tower


def _square_windows(tower: SwinTransformer, config: VisionConfig) -> None:
    """Gives stages whose shorter side is no longer than a window the official windows: squares of
    that side, not shifted. timm shortens and shifts each side by itself, which is another thing
    where an image is not square."""
    for (grid, side), stage in zip(config.swin_stages, tower.layers, strict=True):
        if grid[0] == grid[1] or min(grid) > config.swin_window_size:
            continue
        for block in stage.blocks:
            old = block.attn
            block.window_size, block.window_area = (side, side), side**2
            block.shift_size = block.target_shift_size = (0, 0)
            block.attn_mask = None
            block.attn = WindowAttention(old.dim, old.num_heads, window_size=side)
            block.attn.qkv, block.attn.proj = old.qkv, old.proj


def _feature_tower(config: VisionConfig) -> FeatureTower:
    return FeatureTower(
        config.backbone,
        config.patch_size,
        config.grid_size,
        config.hidden_size,
        config.num_layers,
        config.num_heads,
        config.mlp_ratio,
        config.drop_path,
        IMAGE_MEAN,
        IMAGE_STD,
    )
