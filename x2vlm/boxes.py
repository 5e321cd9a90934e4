"""Box formats and overlaps, on top of torchvision.ops. Boxes are (..., 4) float tensors; the format
is in every name."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou, generalized_box_iou

__all__ = [
    "box_iou",
    "cxcywh_to_xyxy",
    "generalized_box_iou",
    "generalized_iou_pairs",
    "xywh_to_cxcywh",
    "xyxy_to_cxcywh",
]


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) to (x1, y1, x2, y2)."""
    return box_convert(boxes, "cxcywh", "xyxy")


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) to (cx, cy, w, h)."""
    return box_convert(boxes, "xyxy", "cxcywh")


def xywh_to_cxcywh(boxes: Tensor) -> Tensor:
    """(x, y, w, h) with the top-left corner to (cx, cy, w, h)."""
    return box_convert(boxes, "xywh", "cxcywh")


def generalized_iou_pairs(boxes_xyxy: Tensor, targets_xyxy: Tensor) -> Tensor:
    """GIoU of matched pairs, (R,) in [-1, 1] (Rezatofighi et al., arXiv 1902.09630); never NaN,
    also for degenerate boxes."""
    top_left = torch.maximum(boxes_xyxy[:, :2], targets_xyxy[:, :2])
    bottom_right = torch.minimum(boxes_xyxy[:, 2:], targets_xyxy[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1) + (
        targets_xyxy[:, 2:] - targets_xyxy[:, :2]
    ).prod(dim=1)
    union = areas - intersection
    hull = torch.maximum(boxes_xyxy[:, 2:], targets_xyxy[:, 2:]) - torch.minimum(
        boxes_xyxy[:, :2], targets_xyxy[:, :2]
    )
    hull = hull.clamp(min=0).prod(dim=1)
    tiny = torch.finfo(union.dtype).tiny
    return intersection / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
