"""Write a video that browsers play."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import ParameterError
from .images import upright_rgb


def write_video(
    frames: Iterable[Image.Image | np.ndarray], fps: float, path: str | os.PathLike
) -> Path:
    """Write an MP4 (H.264, yuv420p, BT.709, index first) that browsers play; the file appears whole
    or not at all.

    Args:
        frames: PIL images or uint8 arrays (H, W, 3), all of one size. An odd side grows by
            repeating its last row.
        fps: frames per second.
        path: target; its folder must exist.

    Raises:
        ParameterError: no frames, frames of different sizes, or a rate that is not positive; code
            `param/range`.
    """
    path = Path(path)
    if not 0 < fps <= 1000:
        raise ParameterError(f"fps is {fps}; give a number above 0, 1000 at most.", "param/range")
    handle, temporary = tempfile.mkstemp(suffix=".mp4", prefix=".", dir=path.parent)
    os.close(handle)
    try:
        _encode(frames, Fraction(fps).limit_denominator(1001), temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return path


def _encode(frames: Iterable[Image.Image | np.ndarray], rate: Fraction, path: str) -> None:
    import av

    shape = None
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        for frame in frames:
            pixels = np.asarray(upright_rgb(frame) if isinstance(frame, Image.Image) else frame)
            if shape is None:
                shape = pixels.shape
                stream = container.add_stream(
                    "libx264", rate=rate, options={"crf": "18", "preset": "veryfast"}
                )
                stream.height, stream.width = (side + side % 2 for side in shape[:2])
                stream.pix_fmt = "yuv420p"
                codec = stream.codec_context
                codec.colorspace = codec.color_primaries = codec.color_trc = (
                    1  # BT.709, so that no player has to guess
                )
                codec.color_range = 1
            if pixels.shape != shape or pixels.dtype != np.uint8 or shape[2:] != (3,):
                message = (
                    f"a frame of {pixels.shape} {pixels.dtype} after {shape}. Give uint8 RGB "
                    "frames of one size."
                )
                raise ParameterError(message, "param/range")
            even = np.pad(pixels, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")
            image = av.VideoFrame.from_ndarray(even, format="rgb24")
            container.mux(stream.encode(image.reformat(format="yuv420p", dst_colorspace="ITU709")))
        if shape is None:
            raise ParameterError("There are no frames to write. Give at least one.", "param/range")
        container.mux(stream.encode())
