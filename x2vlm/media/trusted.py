"""Decode trusted files, such as training data, in this process: the pixels that `open_image` and
`open_video` give, without the time that a child process takes."""

from PIL import Image

from .decode import read
from .limits import MediaLimits

LIMITS = MediaLimits(
    video_bytes=2**31,
    video_seconds=4 * 3600.0,
    video_frames=500_000,
    decode_seconds=300.0,
    header_bytes=None,
)
"""Images as anywhere; videos may be long."""
MAX_SIDE = 1280
"""Of a frame, as `open_video` has it unless told otherwise."""


def decode_image(data: bytes) -> Image.Image:
    """An upright sRGB image. Raises `MediaError` (`image/*`)."""
    return read(data, "image", {}, LIMITS)[1]


def decode_video(data: bytes, num_frames: int) -> list[Image.Image]:
    """Up to `num_frames` evenly spread frames of a video in their order, each once. Raises
    `MediaError` (`video/*`)."""
    choice = {"num_frames": num_frames, "max_side": MAX_SIDE}
    return [Image.fromarray(frame) for frame in read(data, "video", choice, LIMITS)[2]]
