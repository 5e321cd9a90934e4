"""Open an image or a video safely, and write a video that browsers play.

Files, bytes and file objects are decoded in a child process with limits (`worker.py`); images
already in memory (PIL, NumPy) are only put upright and into RGB. Whatever is wrong with a file
becomes a `MediaError` that says what, why and what to do, and the next call works. Web addresses
are never fetched.
"""

from .limits import MediaLimits
from .opening import OpenedImage, OpenedVideo, open_image, open_media, open_video, shown_name
from .videos import sample_frame_indices
from .writing import write_video

__all__ = [
    "MediaLimits",
    "OpenedImage",
    "OpenedVideo",
    "open_image",
    "open_media",
    "open_video",
    "sample_frame_indices",
    "shown_name",
    "write_video",
]
