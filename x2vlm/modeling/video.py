"""Videos: every frame through the image tower, a learned position per frame, and the mean over
frames.

As in the paper there is no temporal attention: the positions add a constant, the order of frames
does not matter. Departures: a video with another number of frames than trained reads the positions
at evenly spaced places; and a model with `frame_order` adds to the mean how its tokens change from
the first frame to the last, which is what the fusion layers need to tell before from after.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pool_frames(
    frame_embeds: Tensor, frame_positions: Tensor | None, frame_change: nn.Linear | None = None
) -> Tensor:
    """Tokens of a video.

    Args:
        frame_embeds: float[B, F, P, D].
        frame_positions: float[1, F', 1, D], or None for a model trained on images only.
        frame_change: projects the slope of the tokens over time, None for a model blind to order.

    Returns:
        float[B, P, D].
    """
    if frame_positions is not None:
        frames, trained = frame_embeds.shape[1], frame_positions.shape[1]
        places = torch.arange(frames, device=frame_embeds.device) * trained // frames
        frame_embeds = frame_embeds + frame_positions[:, places]
    mean = frame_embeds.mean(dim=1)
    if frame_change is None:
        return mean
    time = torch.linspace(-1, 1, frame_embeds.shape[1], device=frame_embeds.device)
    slope = (time.to(frame_embeds.dtype)[:, None, None] * frame_embeds).mean(dim=1)
    return mean + frame_change(slope)
