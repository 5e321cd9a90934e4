"""Videos for training: which frames are seen, one of each of `count` equal segments, and the frames
of trusted files, of which only those are decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from x2vlm import media
from x2vlm.errors import DataError, MediaError


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


def take(frames: Sequence[Image.Image], indices: Sequence[int]) -> list[Image.Image]:
    """Some frames of a video, in the order asked. Raises `DataError` where they cannot be read."""
    if isinstance(frames, FileFrames):
        return frames.take(indices)
    return [frames[index] for index in indices]


class FileFrames(Sequence):
    """The frames of a trusted video file, with the pixels that inference sees.

    Raises:
        DataError: the file is no video or has no frames.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._naming():
            self.count = media.count_frames(path.read_bytes())

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Image.Image:
        return self.take([range(self.count)[index]])[0]

    def take(self, indices: Sequence[int]) -> list[Image.Image]:
        """The frames of some numbers, decoded together. Raises `DataError`."""
        with self._naming():
            return media.decode_video(self.path.read_bytes(), indices)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except MediaError as error:
            raise DataError(f"{self.path.name}: {error.message}", error.code) from None
