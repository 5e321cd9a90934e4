"""Every limit on media, and the sentences that a file over one of them gets."""

import contextlib
from dataclasses import dataclass

from ..errors import MediaError

SEND_AGAIN = "Send it as JPEG or PNG."
RESAVE = "Save it as MP4 (H.264) and send that."
ANOTHER_COPY = "Choose another copy of it."


@dataclass(frozen=True)
class MediaLimits:
    """Every limit on media in one place: sizes in bytes and pixels, times in seconds."""

    image_bytes: int = 20 * 2**20
    image_pixels: int = 50_000_000
    image_side: int = 30_000
    video_bytes: int = 200 * 2**20
    video_seconds: float = 600.0
    video_pixels: int = 35_000_000  # in one frame
    video_frames: int = 40_000
    chosen_frames: int = 128
    decode_seconds: float = 20.0
    # On top of what the reader itself takes, which grows with the machine.
    memory_bytes: int = 1536 * 2**20
    # A container header needs little; one that claims millions of frames is stopped here, before
    # the job's limit. None: no limit, for a process that has other threads.
    header_bytes: int | None = 384 * 2**20


def too_many_bytes(size: int, most: int, kind: str) -> tuple[str, str]:
    """Message and code for a file of `size` bytes over the limit `most`."""
    return (
        f"the file has {size / 2**20:.1f} MiB; the limit is {most / 2**20:g}. Make it smaller and "
        f"send it again.",
        f"{kind}/bytes",
    )


def out_of_memory(kind: str) -> tuple[str, str]:
    """Message and code for a file that takes too much memory to decode."""
    return (
        "reading it needs more memory than one file may use. Make it smaller and send it again.",
        f"{kind}/memory",
    )


def timed_out(limits: MediaLimits, kind: str) -> tuple[str, str]:
    """Message and code for a file that takes too long to decode."""
    return (
        f"reading it took longer than {limits.decode_seconds:g} s. Make it smaller or shorter and "
        f"send it again.",
        f"{kind}/timeout",
    )


def check_image_size(size: tuple[int, int], limits: MediaLimits) -> None:
    """Refuse an image of no or too many pixels; `size` is (width, height)."""
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(
            f"{width} x {height} pixels: the picture is empty. Choose another picture.",
            "image/empty",
        )
    again = "Make it smaller and send it again."
    if width * height > limits.image_pixels:
        mega, most = width * height / 1e6, limits.image_pixels / 1e6
        message = (
            f"{width} x {height} = {mega:.{0 if mega >= 10 else 2}f} Mpixel; the limit is "
            f"{most:g}. {again}"
        )
        raise MediaError(message, "image/pixels")
    if max(size) > limits.image_side:
        message = (
            f"{width} x {height} pixels: the longest side may have {limits.image_side}. {again}"
        )
        raise MediaError(message, "image/pixels")


def check_frame_size(width: int, height: int, limits: MediaLimits) -> None:
    """Refuse frames of too many pixels."""
    if width * height > limits.video_pixels:
        message = (
            f"frames of {width} x {height} = {width * height / 1e6:.0f} Mpixel; the limit is "
            f"{limits.video_pixels / 1e6:g}. Make the video smaller and send it again."
        )
        raise MediaError(message, "video/pixels")


def address_space() -> int | None:
    """Bytes of address space this process takes now; None where the system does not tell."""
    with contextlib.suppress(ImportError, OSError), open("/proc/self/statm") as file:
        import resource

        return int(file.read().split()[0]) * resource.getpagesize()
    return None
