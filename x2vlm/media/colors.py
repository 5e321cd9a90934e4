"""Colours as a viewer shows them: pixels of an ICC profile to sRGB."""

import contextlib
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""Mode of an image -> colour space of a profile that says what its numbers mean."""
REMEMBERED = 8
"""Profiles: those of printing presses take megabytes each."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB copy of an L, RGB or CMYK image.

    A grey image may have an RGB profile, as some programs save it. A profile that is damaged, or of
    another colour space than the image, is passed over, as browsers do.
    """
    if profile and image.mode == "L" and _space(profile) == "RGB":
        image = image.convert("RGB")
    transform = _transform(profile, image.mode) if profile else None
    image = _apply(transform, image) if transform else image.convert("RGB")
    image.info.pop("icc_profile", None)  # it is no longer true
    return image


@lru_cache(maxsize=REMEMBERED)
def _space(profile: bytes) -> str:
    """The colour space that a profile is of; "" for a damaged one."""
    with contextlib.suppress(Exception):
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    return ""


@lru_cache(maxsize=REMEMBERED)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What takes pixels to sRGB; None where there is nothing to do or the profile does not fit."""
    if _space(profile) != SPACES.get(mode):
        return None
    with contextlib.suppress(Exception):
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            # Of grey values only 256 are ever asked for, see `_apply`; the optimised way errs by
            # up to 10 in the darkest ones.
            flags=ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE,
        )
        return None if mode == "RGB" and _is_identity(transform) else transform
    return None


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    if image.mode != "L":
        return ImageCms.applyTransform(image, transform)
    ramp = ImageCms.applyTransform(Image.frombytes("L", (256, 1), bytes(range(256))), transform)
    return Image.merge("RGB", [image.point(list(band.tobytes())) for band in ramp.split()])


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether RGB values stay what they are, but for rounding: the profile is sRGB itself."""
    steps = np.linspace(0, 255, 16).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(16, -1, 3)
    there = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    return np.abs(there.astype(int) - grid).max() <= 1
