"""Videos for training: reading trusted files, and which frames are seen: one of each of `count`
equal segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from x2vlm.errors import DataError

MOST_FRAMES = 64


def sample_frame_indices(
    num_frames: int, count: int, rng: np.random.Generator | None = None
) -> list[int]:
    """`count` sorted frame numbers.

    With `rng` (training) a random frame of each segment, and random repeats when there are too few
    frames; without it the left edge of each segment and cyclic repeats, as at inference. Segments
    are `num_frames // count` long, the rest is spread over the first ones (training: over random
    ones).
    """
    if num_frames <= count:
        if rng is None:
            return sorted(i % num_frames for i in range(count))
        return sorted(
            [*range(num_frames), *rng.integers(num_frames, size=count - num_frames).tolist()]
        )
    lengths = np.full(count, num_frames // count)
    lengths[: num_frames % count] += 1
    if rng is None:
        return [0, *np.cumsum(lengths)[:-1].tolist()]
    lengths = rng.permutation(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return (starts + rng.integers(lengths)).tolist()


def read_video(path: Path) -> list[Image.Image]:
    """At most `MOST_FRAMES` evenly spread frames of a trusted file, by decord where it is installed
    (fast seeking), else PyAV.

    Raises:
        DataError: the file is no video or has no frames.
    """
    try:
        from decord import VideoReader
    except ImportError:
        return _read_with_av(path)
    try:
        reader = VideoReader(str(path))
        frames = reader.get_batch(
            sample_frame_indices(len(reader), min(len(reader), MOST_FRAMES))
        ).asnumpy()
    except (
        Exception
    ) as error:  # decord raises its own DECORDError, which is no exception class it exports
        raise DataError(f"{path.name} is no readable video.", "data/video") from error
    return [Image.fromarray(frame) for frame in frames]


def _read_with_av(path: Path) -> list[Image.Image]:
    import av

    try:
        with av.open(
            str(path)
        ) as container:  # read twice: an image of every frame of a long video is gigabytes
            count = sum(1 for _ in container.decode(video=0))
        chosen = set(sample_frame_indices(count, min(count, MOST_FRAMES))) if count else set()
        with av.open(str(path)) as container:
            frames = [
                frame.to_image()
                for index, frame in enumerate(container.decode(video=0))
                if index in chosen
            ]
    except (av.FFmpegError, IndexError) as error:
        raise DataError(f"{path.name} is no readable video.", "data/video") from error
    if not frames:
        raise DataError(f"{path.name} has no frames.", "data/video")
    return frames
