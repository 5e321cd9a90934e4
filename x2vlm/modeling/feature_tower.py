"""The `timm` tower: a convolutional backbone whose maps of two resolutions become tokens, and a few
transformer layers above them.

Not in the paper. A published ImageNet backbone knows the names of things after minutes of training;
the layers above it bring in context and position.

Shapes: B images, G patches a side, P patches, D width, C channels.
"""

from __future__ import annotations

import math

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from x2vlm.batch_norm import folded
from x2vlm.modeling.positions import SINCOS_AMPLITUDE, sincos_positions


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with fixed statistics, folded into a scale and a shift of each channel.

    Small batches of mixed images would spoil the published statistics; and so all that a tower
    knows is in its parameters.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(tensor) for tensor in folded(norm))
        self.act = getattr(norm, "act", nn.Identity())  # timm's batch norms activate too

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        scale, shift = (p.to(x.dtype)[:, None, None] for p in (self.weight, self.bias))
        return self.act(torch.addcmul(shift, x, scale))


def freeze_batch_norms(module: nn.Module) -> nn.Module:
    """Replaces every batch norm below `module` by a `FrozenBatchNorm`; returns the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm(child))
        else:
            freeze_batch_norms(child)
    return module


class FeatureTower(nn.Module):
    """Backbone, one linear layer for its joined maps, positions, transformer layers, LayerNorm.

    Args:
        backbone: name of a timm model with feature maps.
        patch_size: pixels per side of a patch; the backbone's map of such cells is joined with its
            last one, stretched to the same grid.
        grid_size: (rows, columns) of patches.
        image_mean, image_std: statistics that the images are normalised with; the backbone gets
            its own.
    """

    def __init__(
        self,
        backbone: str,
        patch_size: int,
        grid_size: tuple[int, int],
        width: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
        drop_path: float,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
    ):
        super().__init__()
        model = timm.create_model(backbone, num_classes=0)
        levels = [info["reduction"] for info in model.feature_info]
        self.level = max(i for i, stride in enumerate(levels) if stride == patch_size)
        channels = model.feature_info[self.level]["num_chs"], model.num_features
        last = (side * patch_size // max(levels) for side in grid_size)
        self.shapes = ((channels[0], *grid_size), (channels[1], *last))
        self.backbone = freeze_batch_norms(model)
        own_mean, own_std = (torch.tensor(model.pretrained_cfg[key]) for key in ("mean", "std"))
        mean, std = torch.tensor(image_mean), torch.tensor(image_std)
        self.register_buffer("pixel_scale", (std / own_std)[:, None, None], persistent=False)
        self.register_buffer(
            "pixel_shift", ((mean - own_mean) / own_std)[:, None, None], persistent=False
        )
        self.join = nn.ModuleList(
            [nn.Linear(channels[0], width), nn.Linear(channels[1], width, bias=False)]
        )
        self.pos_embed = nn.Parameter(
            torch.empty(1, math.prod(grid_size), width), requires_grad=False
        )
        self.blocks = nn.ModuleList(
            Block(width, num_heads, mlp_ratio, qkv_bias=True, drop_path=drop_path)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():
            self.pos_embed.copy_(SINCOS_AMPLITUDE * sincos_positions(grid_size, width))

    def maps(self, image: Tensor) -> Tensor:
        """float[B, 3, H, W] to the backbone's two maps, flat in a row: float[B, N].

        They depend on the backbone alone, so while that is frozen they can be kept.
        """
        image = torch.addcmul(self.pixel_shift, image, self.pixel_scale)
        image = image.contiguous(memory_format=torch.channels_last)
        last, (middle,) = self.backbone.forward_intermediates(
            image, indices=[self.level], norm=False
        )
        return torch.cat([middle.flatten(1), last.flatten(1)], dim=1)

    def tokens(self, maps: Tensor) -> Tensor:
        """What `maps` gave to patch tokens float[B, P, D], row by row."""
        sizes = [channels * height * width for channels, height, width in self.shapes]
        middle, last = (
            part.unflatten(1, shape)
            for part, shape in zip(maps.split(sizes, dim=1), self.shapes, strict=True)
        )
        x = self.join[0](middle.flatten(2).transpose(1, 2))
        # A linear layer and a stretch commute; the small map is projected while it is small.
        coarse = self.join[1](last.flatten(2).transpose(1, 2)).transpose(1, 2)
        coarse = coarse.unflatten(2, last.shape[-2:])
        fine = F.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        x = x + fine.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_features(self, image: Tensor) -> Tensor:
        """float[B, 3, H, W] to patch tokens float[B, P, D]."""
        return self.tokens(self.maps(image))
