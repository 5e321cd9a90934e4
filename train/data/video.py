"""Which frames of a clip are seen: one of each of `count` equal segments."""

from __future__ import annotations

import numpy as np


def sample_frame_indices(num_frames: int, count: int, rng: np.random.Generator | None = None) -> list[int]:
    """`count` sorted frame numbers.

    With `rng` (training) a random frame of each segment, and random repeats when there are too few frames; without it the
    left edge of each segment and cyclic repeats, as at inference. Segments are `num_frames // count` long, the rest is spread
    over the first ones (training: over random ones).
    """
    if num_frames <= count:
        if rng is None:
            return sorted(i % num_frames for i in range(count))
        return sorted([*range(num_frames), *rng.integers(num_frames, size=count - num_frames).tolist()])
    lengths = np.full(count, num_frames // count)
    lengths[: num_frames % count] += 1
    if rng is None:
        return [0, *np.cumsum(lengths)[:-1].tolist()]
    lengths = rng.permutation(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return (starts + rng.integers(lengths)).tolist()
