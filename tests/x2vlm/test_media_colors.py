"""Colour profiles: pixels of any space come out as a viewer shows them, in sRGB."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.bad_inputs import encoded
from tests.icc import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    SRGB_CURVE,
    cmyk_profile,
    grey_profile,
    linear,
    rgb_profile,
    to_srgb,
)
from x2vlm.media import open_image, upright_rgb
from x2vlm.media.colors import to_srgb as converted

NEAR = 3
"""Of 255: what rounding may make of a colour."""
LEVELS = np.linspace(0, 255, 8).round().astype(np.uint8)
GRID = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), axis=-1).reshape(16, 32, 3)
SPACES = {"p3": (DISPLAY_P3, SRGB_CURVE), "adobe": (ADOBE_RGB, 563 / 256)}


def distance(image: Image.Image, expected: np.ndarray) -> int:
    assert image.mode == "RGB"
    return np.abs(np.asarray(image).astype(int) - expected).max()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("space", SPACES)
def test_rgb(space, format):
    data = encoded(
        Image.fromarray(GRID), format, icc_profile=rgb_profile(*SPACES[space]), lossless=True
    )
    assert distance(open_image(data).pixels, to_srgb(GRID, *SPACES[space])) <= NEAR


@pytest.mark.parametrize("space", SPACES)
def test_jpeg(space):
    red = np.full((16, 16, 3), (200, 60, 40), np.uint8)
    data = encoded(
        Image.fromarray(red), "JPEG", quality=100, icc_profile=rgb_profile(*SPACES[space])
    )
    stored = np.asarray(Image.open(io.BytesIO(data)))
    assert distance(open_image(data).pixels, to_srgb(stored, *SPACES[space])) <= NEAR


def test_transparency_is_kept():
    image = Image.fromarray(GRID).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 16, 16))
    data = encoded(image, "PNG", icc_profile=rgb_profile(*SPACES["p3"]))
    expected = to_srgb(GRID, *SPACES["p3"])
    expected[:16, :16] = 255
    assert distance(open_image(data).pixels, expected) <= NEAR


def test_palette():
    image = Image.fromarray(GRID).quantize(64)
    data = encoded(image, "PNG", icc_profile=rgb_profile(*SPACES["p3"]))
    expected = to_srgb(np.asarray(image.convert("RGB")), *SPACES["p3"])
    assert distance(open_image(data).pixels, expected) <= NEAR


@pytest.mark.parametrize("clear", [False, True], ids=["grey", "clear grey"])
def test_grey(clear):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    image = Image.fromarray(ramp)
    if clear:
        image.putalpha(255)
    data = encoded(image, "PNG", icc_profile=grey_profile(1.8))
    expected = to_srgb(np.stack([ramp] * 3, axis=-1), SRGB, 1.8)
    assert distance(open_image(data).pixels, expected) <= NEAR


def test_grey_of_16_bits():
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (4, 1))
    data = encoded(Image.fromarray(ramp), "PNG", icc_profile=grey_profile(1.0))
    expected = to_srgb(np.stack([ramp // 257] * 3, axis=-1), SRGB, 1.0)
    assert distance(open_image(data).pixels, expected) <= NEAR


def test_grey_with_an_rgb_profile():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    data = encoded(Image.fromarray(ramp), "PNG", icc_profile=rgb_profile(ADOBE_RGB, 1.0))
    expected = to_srgb(np.stack([ramp] * 3, axis=-1), ADOBE_RGB, 1.0)
    assert distance(open_image(data).pixels, expected) <= NEAR


INKS = {
    (1, 0, 0, 0): (0, 140, 200),
    (0, 1, 0, 0): (210, 30, 120),
    (0, 0, 1, 0): (240, 220, 60),
    (0, 0, 0, 1): (40, 38, 36),
}


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), *INKS])
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(ink, format):
    image = Image.new("CMYK", (16, 16), tuple(255 * part for part in ink))
    data = encoded(image, format, icc_profile=cmyk_profile(INKS))
    expected = np.full((16, 16, 3), INKS.get(ink, (255, 255, 255)))
    assert distance(open_image(data).pixels, expected) <= NEAR


def test_images_in_memory_are_converted_too():
    image = Image.open(
        io.BytesIO(encoded(Image.fromarray(GRID), "PNG", icc_profile=rgb_profile(*SPACES["p3"])))
    )
    assert distance(open_image(image).pixels, to_srgb(GRID, *SPACES["p3"])) <= NEAR


@pytest.mark.parametrize(
    "profile",
    [
        rgb_profile(SRGB, SRGB_CURVE),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"",
        b"no profile at all",
        rgb_profile(*SPACES["p3"])[:300],
        grey_profile(1.8),
        cmyk_profile(INKS),
    ],
    ids=["own sRGB", "sRGB", "empty", "text", "cut", "of grey", "of inks"],
)
def test_profiles_that_change_nothing(profile):
    data = encoded(Image.fromarray(GRID), "PNG", icc_profile=profile)
    assert distance(open_image(data).pixels, GRID) == 0


def test_no_image_is_converted_twice():
    image = Image.fromarray(GRID)
    image.info["icc_profile"] = rgb_profile(*SPACES["p3"])
    once = upright_rgb(image)
    assert upright_rgb(once).tobytes() == once.tobytes()
    inks = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    inks.info["icc_profile"] = rgb_profile(*SPACES["p3"])
    once = upright_rgb(inks)
    assert upright_rgb(once).tobytes() == once.tobytes()


def test_the_image_of_the_caller_is_left_alone():
    image = Image.fromarray(GRID)
    image.info["icc_profile"] = profile = rgb_profile(*SPACES["p3"])
    converted(image, profile)
    assert distance(image, GRID) == 0
    assert image.info["icc_profile"] == profile


def test_the_formulas_of_the_test_agree_with_themselves():
    assert np.allclose(linear(np.array([0.5]), SRGB_CURVE), 0.2140, atol=1e-4)
    assert np.abs(to_srgb(GRID, SRGB, SRGB_CURVE).astype(int) - GRID).max() <= 1
