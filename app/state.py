"""What the app remembers of a file on the stage: plain data."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class MediaRef:
    """An uploaded file and, for a video, which of its frames the model sees; with `frame`, that one
    frame as an image."""

    path: str
    num_frames: int | None = None
    indices: tuple[int, ...] | None = None
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Preview:
    """What the page shows of an encoded image or video. `size` is (width, height) of the upright
    original in pixels; all boxes are in these pixels."""

    kind: str
    name: str
    size: tuple[int, int]
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    notes: tuple[str, ...]
