"""Open an image or a video safely, and write a video that browsers play.

Files, bytes and file objects are decoded in a child process with limits (`worker.py`), trusted ones
in this process (`trusted.py`), to the same pixels; images already in memory (PIL, NumPy) are only
put upright and into sRGB. Whatever is wrong with a file
becomes a `MediaError` that says what, why and what to do, and the next call works. Web addresses
are never fetched.
"""

from .images import upright_rgb
from .limits import MediaLimits
from .opening import OpenedImage, OpenedVideo, open_image, open_media, open_video, shown_name
from .trusted import count_frames, decode_image, decode_video, video_seconds
from .videos import sample_frame_indices
from .writing import write_video

__all__ = [
    "MediaLimits",
    "OpenedImage",
    "OpenedVideo",
    "count_frames",
    "decode_image",
    "decode_video",
    "open_image",
    "open_media",
    "open_video",
    "sample_frame_indices",
    "shown_name",
    "upright_rgb",
    "video_seconds",
    "write_video",
]
