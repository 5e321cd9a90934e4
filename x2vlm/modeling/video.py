"""Videos: every frame through the image tower, a learned position per frame, and the mean over
frames.

As in the paper there is no temporal attention: the positions add a constant, the order of frames
does not matter. Departure: a video with another number of frames than trained reads the positions
at evenly spaced places.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool_frames(frame_embeds: Tensor, frame_positions: Tensor | None) -> Tensor:
    """Tokens of a video.

    Args:
        frame_embeds: float[B, F, P, D].
        frame_positions: float[1, F', 1, D], or None for a model trained on images only.

    Returns:
        float[B, P, D].
    """
    if frame_positions is not None:
        frames, trained = frame_embeds.shape[1], frame_positions.shape[1]
        places = torch.arange(frames, device=frame_embeds.device) * trained // frames
        frame_embeds = frame_embeds + frame_positions[:, places]
    return frame_embeds.mean(dim=1)
