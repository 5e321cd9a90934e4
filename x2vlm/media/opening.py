"""Open an image or a video: get its bytes, have the child process decode them, name the file in
messages."""

import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import MediaError, ParameterError, X2VLMError
from . import worker
from .images import upright_rgb
from .limits import ANOTHER_COPY, MediaLimits, check_image_size, too_many_bytes

Source = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray
DEFAULT_LIMITS = MediaLimits()
LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image: `pixels` is upright sRGB; `notes` are sentences for the user, for example that it
    is animated."""

    pixels: Image.Image
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image: all boxes are in these pixels."""
        return self.pixels.size


@dataclass(frozen=True, eq=False)
class OpenedVideo:
    """Chosen frames of a video.

    Attributes:
        frames: RGB, turned and with square pixels as a player shows them, all of one size, at most
            `max_side` long.
        indices: each frame's number in the video, in presentation order, from 0.
        times: each frame's time in seconds from the first frame.
        duration: seconds, the last frame included.
        num_frames: frames in the video that can be read.
        fps: mean rate, frames per second.
        size: (width, height) as a player shows it, before shrinking to `max_side`.
        notes: sentences for the user, for example that the file ends early.
    """

    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...]
    times: tuple[float, ...]
    duration: float
    num_frames: int
    fps: float
    size: tuple[int, int]
    notes: tuple[str, ...] = ()


def open_image(
    source: Source,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    name: str | None = None,
    cancel: Any = None,
) -> OpenedImage:
    """Open an image at full size.

    Args:
        source: path, bytes, binary file object, PIL image or uint8 array (H, W, 3).
        limits: what is refused before it is decoded.
        name: what messages call it; the file's base name unless given.
        cancel: an object with `is_set()`, looked at while waiting.

    Raises:
        MediaError: `image/*`, `job/crashed`. Cancelled: `job/cancelled`.
    """
    return _open(source, "image", {}, limits, name, cancel)


def open_video(
    source: Source,
    num_frames: int = 8,
    *,
    indices: Sequence[int] | None = None,
    times: Sequence[float] | None = None,
    max_side: int = 1280,
    limits: MediaLimits = DEFAULT_LIMITS,
    name: str | None = None,
    cancel: Any = None,
) -> OpenedVideo:
    """Open a video and decode `num_frames` frames spread by `sample_frame_indices`, or those of
    `indices` or `times`.

    Frames are counted in presentation order, whatever the rate; a time (seconds from the first
    frame) means the frame on screen then. A frame that cannot be read is replaced by the nearest
    readable one, and a note says so.

    Raises:
        MediaError: `video/*`, `job/crashed`. ParameterError: `param/range`. Cancelled:
            `job/cancelled`.
    """
    return _open(
        source, "video", _choice(num_frames, indices, times, max_side), limits, name, cancel
    )


def open_media(
    source: Source,
    num_frames: int = 8,
    *,
    indices: Sequence[int] | None = None,
    times: Sequence[float] | None = None,
    max_side: int = 1280,
    limits: MediaLimits = DEFAULT_LIMITS,
    name: str | None = None,
    cancel: Any = None,
) -> OpenedImage | OpenedVideo:
    """Open an image or a video: the bytes decide which, not the name. See `open_image` and
    `open_video`."""
    return _open(
        source, "media", _choice(num_frames, indices, times, max_side), limits, name, cancel
    )


def _choice(
    num_frames: int, indices: Sequence[int] | None, times: Sequence[float] | None, max_side: int
) -> dict:
    if indices is not None and times is not None:
        raise ParameterError(
            "Frame numbers and times were both given. Give one of them.", "param/range"
        )
    if max_side < 1 or num_frames < 1:
        raise ParameterError(
            f"num_frames is {num_frames} and max_side {max_side}; both must be at least 1.",
            "param/range",
        )
    return {
        "num_frames": int(num_frames),
        "indices": None if indices is None else [int(i) for i in indices],
        "times": None if times is None else [float(t) for t in times],
        "max_side": int(max_side),
    }


def _open(
    source: Source, want: str, choice: dict, limits: MediaLimits, name: str | None, cancel: Any
):
    name = shown_name(name or _own_name(source)) or want
    try:
        if isinstance(source, (Image.Image, np.ndarray)):
            return OpenedImage(_in_memory(source, want, limits))
        reply, pixels = worker.pool.run(
            _bytes_of(source, want, limits), want, choice, limits, cancel
        )
    except (MediaError, ParameterError) as error:
        raise type(error)(f"{name}: {error.message}", error.code) from None
    notes = tuple(f"{name}: {note}" for note in reply["notes"])
    if reply["kind"] == "image":
        return OpenedImage(
            Image.frombuffer("RGB", tuple(reply["size"]), pixels, "raw", "RGB", 0, 1), notes
        )
    return _opened_video(reply, pixels, notes)


def _opened_video(reply: dict, pixels: bytearray, notes: tuple[str, ...]) -> OpenedVideo:
    width, height = reply["frame_size"]
    length = width * height * 3
    view = memoryview(pixels)
    decoded = {
        index: Image.frombytes("RGB", (width, height), bytes(view[i * length : (i + 1) * length]))
        for i, index in enumerate(sorted(set(reply["indices"])))
    }
    return OpenedVideo(
        frames=tuple(decoded[index] for index in reply["indices"]),
        indices=tuple(reply["indices"]),
        times=tuple(reply["times"]),
        duration=reply["duration"],
        num_frames=reply["num_frames"],
        fps=reply["fps"],
        size=tuple(reply["size"]),
        notes=notes,
    )


def _in_memory(source: Image.Image | np.ndarray, want: str, limits: MediaLimits) -> Image.Image:
    if want == "video":
        raise MediaError(
            "this is a single picture, not a video. Give a video file.", "video/format"
        )
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            message = (
                f"an array of {source.dtype} {source.shape}; give uint8 of shape (height, "
                f"width, 3), RGB."
            )
            raise MediaError(message, "image/format")
        check_image_size((source.shape[1], source.shape[0]), limits)
        return Image.fromarray(source)
    check_image_size(source.size, limits)
    try:
        return upright_rgb(source)
    except X2VLMError:
        raise
    except Exception:
        message = f"the picture is damaged or incomplete. {ANOTHER_COPY}"
        raise MediaError(message, "image/corrupt") from None


def _bytes_of(source: Source, want: str, limits: MediaLimits) -> bytes:
    """The whole file, at most one byte more than the limit; only regular files are opened, so
    nothing can block."""
    area = "video" if want == "video" else "image"
    most = {"image": limits.image_bytes, "video": limits.video_bytes}.get(
        want, max(limits.image_bytes, limits.video_bytes)
    )
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = source
    elif isinstance(source, (str, os.PathLike)):
        data = _file_bytes(os.fspath(source), area, most)
    elif hasattr(source, "read"):
        data = source.read(most + 1)
    else:
        data = None
    if not isinstance(data, (bytes, bytearray, memoryview)):
        message = (
            f"{type(source).__name__} cannot be opened. Give a path, bytes, a binary file, a PIL "
            "image or an array."
        )
        raise MediaError(message, f"{area}/format")
    if len(data) > most:
        raise MediaError(*too_many_bytes(len(data), most, area))
    return data


def _file_bytes(path: str, area: str, most: int) -> bytes:
    if "://" in path or path.startswith("data:"):
        message = "web addresses are not opened. Download the file and give its path."
        raise MediaError(message, f"{area}/reference")
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(
                "this is not a file but a folder or a device. Give a file.", f"{area}/reference"
            )
        if status.st_size > most:
            raise MediaError(*too_many_bytes(status.st_size, most, area))
        with open(path, "rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise MediaError("there is no such file. Check the path.", f"{area}/reference") from None
    except (OSError, ValueError):
        raise MediaError(
            "the file cannot be read. Check its name and permissions.", f"{area}/reference"
        ) from None


def _own_name(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    name = getattr(source, "name", "")
    return name if isinstance(name, str) else ""


def shown_name(path: str) -> str:
    """The base name of `path`, fit for a message: control and direction characters escaped,
    shortened in the middle."""
    base = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    harmless = "".join(c if unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in base)
    if len(harmless) <= LONGEST_NAME:
        return harmless
    return f"{harmless[: LONGEST_NAME // 2]}…{harmless[-LONGEST_NAME // 3 :]}"
