"""Videos for training: reading trusted files, and which frames are seen: one of each of `count`
equal segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from x2vlm import media
from x2vlm.errors import DataError, MediaError

MOST_FRAMES = 64


def sample_frame_indices(
    num_frames: int, count: int, rng: np.random.Generator | None = None
) -> list[int]:
    """`count` sorted frame numbers.

    With `rng` (training) a random frame of each segment, and random repeats when there are too few
    frames; without it those of inference, see `x2vlm.media.sample_frame_indices`. Segments are
    `num_frames // count` long, the rest is spread over random ones.
    """
    if rng is None:
        return media.sample_frame_indices(num_frames, count)
    if num_frames <= count:
        return sorted(
            [*range(num_frames), *rng.integers(num_frames, size=count - num_frames).tolist()]
        )
    lengths = np.full(count, num_frames // count)
    lengths[: num_frames % count] += 1
    lengths = rng.permutation(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return (starts + rng.integers(lengths)).tolist()


def read_video(path: Path) -> list[Image.Image]:
    """At most `MOST_FRAMES` evenly spread frames of a trusted file. Raises `DataError`."""
    try:
        return media.decode_video(path.read_bytes(), MOST_FRAMES)
    except MediaError as error:
        raise DataError(f"{path.name}: {error.message}", error.code) from None
