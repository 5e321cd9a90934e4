"""An image or video that was opened once and can be asked many times."""

from __future__ import annotations

import base64
import io
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from x2vlm.checks import Cancel, check_cancel, check_number
from x2vlm.errors import MediaError, ParameterError
from x2vlm.inference.models import Member
from x2vlm.media import OpenedImage, OpenedVideo, open_image, open_media, sample_frame_indices
from x2vlm.processing import patch_mask

FRAMES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Frames:
    """Images in a sequence that are one video, of one frame a second."""

    images: Sequence[Any]


@dataclass(frozen=True, eq=False)
class Embeds:
    """What one model made of a scene.

    Attributes:
        whole: float[1, P, D], of the image or of the video (mean over frames).
        frames: float[F, P, D], each frame by itself; for an image the same as `whole`.
    """

    whole: Tensor
    frames: Tensor


@dataclass(frozen=True, eq=False)
class Scene:
    """An immutable handle made by `Predictor.encode`; keep it and ask again. Threads may share it.

    Attributes:
        image: the image, upright, RGB; of a video the middle one of its frames.
        frames: what the model sees: the image alone, or the chosen frames of the video.
        indices, times: each frame's number and second in the video; (0,) and (0.0,) for an image.
        duration: seconds; 0 for an image.
        notes: sentences for the user, for example that the file ends early.
        prepared: whether a Predictor has added its own notes.
    """

    kind: Literal["image", "video"]
    frames: tuple[Image.Image, ...]
    indices: tuple[int, ...] = (0,)
    times: tuple[float, ...] = (0.0,)
    duration: float = 0.0
    notes: tuple[str, ...] = ()
    prepared: bool = field(default=False, repr=False)
    _embeds: Any = field(default_factory=weakref.WeakKeyDictionary, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def image(self) -> Image.Image:
        return self.frames[self.middle]

    @property
    def middle(self) -> int:
        """Position of `image` among the frames."""
        return len(self.frames) // 2

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `image`: all boxes are in these pixels."""
        return self.image.size

    def _repr_html_(self) -> str:
        """A small image for notebooks."""
        small = self.image.copy()
        small.thumbnail((256, 256))
        data = io.BytesIO()
        small.save(data, "PNG")
        source = base64.b64encode(data.getvalue()).decode()
        width, height = self.size
        said = f"{self.kind}, {width} x {height} pixels"
        return f'<img alt="{said}" src="data:image/png;base64,{source}"><br>{said}'

    def embeds(self, member: Member, cancel: Cancel | None = None) -> Embeds:
        """The scene through a model's image tower, computed once for each model."""
        with self._lock:
            if member not in self._embeds:
                self._embeds[member] = _encode(self, member, cancel)
            return self._embeds[member]

    @torch.no_grad()
    def region_embeds(
        self, member: Member, box: Sequence[float], cancel: Cancel | None = None
    ) -> tuple[Tensor, Tensor]:
        """A region of `image` as a model sees it: float[1, P, D], and its patches bool[1, P-1].

        Args:
            box: (x1, y1, x2, y2) as fractions.
        """
        patches = patch_mask(box, member.model.config.vision.grid_size)[None].to(member.device)
        whole = self.embeds(member, cancel).frames[self.middle : self.middle + 1]
        owner = torch.zeros(1, dtype=torch.long, device=member.device)
        return member.model.encode_regions(whole, patches, owner), patches


def open_scene(
    media: Any, num_frames: int, frame_indices: Sequence[int] | None, cancel: Cancel | None
) -> Scene:
    """Opens a path, bytes, PIL image, array, `Frames`, or what `x2vlm.media` opened. See
    `Predictor.encode`."""
    if isinstance(media, Scene):
        return media
    if isinstance(media, Frames):
        media = _video_of(media.images, num_frames, frame_indices, cancel)
    elif not isinstance(media, (OpenedImage, OpenedVideo)):
        media = open_media(media, num_frames, indices=frame_indices, cancel=cancel)
    if isinstance(media, OpenedImage):
        return Scene("image", (media.pixels,), notes=media.notes)
    return Scene("video", media.frames, media.indices, media.times, media.duration, media.notes)


@torch.no_grad()
def encode_together(
    scenes: Sequence[Scene], member: Member, cancel: Cancel | None
) -> Sequence[Scene]:
    """Images through a model's tower in one batch; videos, of several frames, each by itself."""
    check_cancel(cancel)
    waiting = [s for s in scenes if s.kind == "image" and member not in s._embeds]
    if waiting:
        images = member.processor.images([scene.image for scene in waiting])
        embeds = member.model.encode_image(images.to(member.device, member.dtype))
        for scene, one in zip(waiting, embeds.split(1), strict=True):
            with scene._lock:
                scene._embeds.setdefault(member, Embeds(one, one))
    return scenes


def whole_embeds(scenes: Sequence[Scene], member: Member, cancel: Cancel | None) -> Tensor:
    """float[B, P, D] of images, and of videos the mean over their frames."""
    encoded = encode_together(scenes, member, cancel)
    return torch.cat([scene.embeds(member, cancel).whole for scene in encoded])


def frame_embeds(
    scenes: Sequence[Scene], frames: Sequence[int], member: Member, cancel: Cancel | None
) -> Tensor:
    """float[B, P, D] of one frame of each scene, by its position."""
    encoded = encode_together(scenes, member, cancel)
    pairs = zip(encoded, frames, strict=True)
    return torch.cat([scene.embeds(member, cancel).frames[i : i + 1] for scene, i in pairs])


def chosen_frame(scene: Scene, frame: int | None) -> int:
    """The position of a frame, by default the middle one.

    Raises:
        ParameterError: there is no such frame (`param/range`).
    """
    return scene.middle if frame is None else check_number("frame", frame, 0, len(scene.frames) - 1)


def _video_of(
    images: Sequence[Any],
    num_frames: int,
    frame_indices: Sequence[int] | None,
    cancel: Cancel | None,
) -> OpenedVideo:
    """Pictures in a list as a video of one frame a second; only those that are chosen are
    opened."""
    if not images:
        raise MediaError("The video has no frames. Give at least one picture.", "video/empty")
    count = len(images)
    numbers = sample_frame_indices(count, num_frames) if frame_indices is None else frame_indices
    chosen = tuple(check_number("A frame number", number, 0, count - 1) for number in numbers)
    if not chosen:
        raise ParameterError(
            "frame_indices is empty. Give at least one frame number.", "param/range"
        )
    opened = {}
    for number in dict.fromkeys(chosen):
        check_cancel(cancel)
        opened[number] = open_image(images[number], cancel=cancel).pixels
    frames = tuple(opened[number] for number in chosen)
    if any(frame.size != frames[0].size for frame in frames):
        raise MediaError(
            "The frames of a video must have one size. Resize them first.", "video/format"
        )
    return OpenedVideo(
        frames, chosen, tuple(map(float, chosen)), float(count), count, 1.0, frames[0].size
    )


@torch.no_grad()
def _encode(scene: Scene, member: Member, cancel: Cancel | None) -> Embeds:
    model, parts = member.model, []
    for start in range(0, len(scene.frames), FRAMES_AT_ONCE):
        check_cancel(cancel)
        images = member.processor.images(scene.frames[start : start + FRAMES_AT_ONCE])
        parts.append(model.encode_image(images.to(member.device, member.dtype)))
    frames = torch.cat(parts)
    whole = model.pool_frames(frames[None]) if scene.kind == "video" else frames
    return Embeds(whole, frames)
