"""Decode trusted files, such as training data, in this process: the pixels that `open_image` and
`open_video` give, without the time that a child process takes."""

from collections.abc import Sequence

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


def count_frames(data: bytes) -> int:
    """How many frames of a video can be read. Raises `MediaError` (`video/*`)."""
    return _read_video(data, indices=[0])[0]["num_frames"]


def video_seconds(data: bytes) -> float:
    """How long a video is. Raises `MediaError` (`video/*`)."""
    return _read_video(data, indices=[0])[0]["duration"]


def decode_video(
    data: bytes, indices: Sequence[int] = (), times: Sequence[float] = ()
) -> list[Image.Image]:
    """The frames of some numbers, or those shown at some seconds, in the order asked. Raises
    `MediaError` (`video/*`) or `ParameterError`."""
    choice = {"indices": list(indices)} if indices else {"times": list(times)}
    reply, frames = _read_video(data, **choice)
    images = map(Image.fromarray, frames)
    decoded = dict(zip(sorted(set(reply["indices"])), images, strict=True))
    return [decoded[index] for index in reply["indices"]]


def _read_video(data: bytes, **choice: list) -> tuple[dict, list]:
    return read(data, "video", choice | {"max_side": MAX_SIDE}, LIMITS)[1:]
