"""Small ICC profiles for tests, and what sRGB makes of their colours, by the formulas alone."""

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
DISPLAY_P3 = np.array(
    [[0.5151, 0.2412, -0.0011], [0.2919, 0.6922, 0.0419], [0.1572, 0.0666, 0.7841]]
)
ADOBE_RGB = np.array([[0.6097, 0.3111, 0.0195], [0.2053, 0.6257, 0.0609], [0.1492, 0.0632, 0.7446]])
SRGB = np.array([[0.4361, 0.2225, 0.0139], [0.3851, 0.7169, 0.0971], [0.1431, 0.0606, 0.7141]])
"""Rows: the XYZ (D50) of full red, green and blue, as the profiles of these spaces state them."""
SRGB_CURVE = None
"""In the place of a gamma."""


def linear(values: np.ndarray, gamma: float | None) -> np.ndarray:
    """Stored values in [0, 1] to light."""
    if gamma is not SRGB_CURVE:
        return values**gamma
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def rgb_profile(primaries: np.ndarray, gamma: float | None) -> bytes:
    """A profile of an RGB space by its primaries and its curve."""
    tags = {b"wtpt": _xyz(D50)}
    for letter, primary in zip(b"rgb", primaries, strict=True):
        tags[bytes([letter]) + b"XYZ"] = _xyz(primary)
        tags[bytes([letter]) + b"TRC"] = _curve(gamma)
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    """A profile of grey values by their curve."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": _xyz(D50), b"kTRC": _curve(gamma)})


def cmyk_profile(inks: dict[tuple[int, int, int, int], tuple[int, int, int]]) -> bytes:
    """A profile of four inks: full or none of each -> sRGB colour; white without any, black for all
    others."""
    table = bytearray()
    for corner in np.ndindex(2, 2, 2, 2):
        table += bytes(_lab(inks.get(corner, (0, 0, 0) if any(corner) else (255, 255, 255))))
    ramp = bytes(range(256))
    head = struct.pack(
        ">4sI4B9i", b"mft1", 0, 4, 3, 2, 0, *(int(v * 65536) for v in np.eye(3).flat)
    )
    lut = head + ramp * 4 + bytes(table) + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"wtpt": _xyz(D50), b"A2B0": lut})


def to_srgb(pixels: np.ndarray, primaries: np.ndarray, gamma: float | None) -> np.ndarray:
    """uint8 (..., 3) of a space to uint8 (..., 3) of sRGB, clipped to what sRGB has."""
    light = linear(pixels / 255, gamma) @ primaries @ np.linalg.inv(SRGB)
    light = light.clip(0, 1)
    stored = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * stored).round().astype(np.uint8)


def _lab(color: tuple[int, int, int]) -> list[int]:
    """An sRGB colour as a profile's 8-bit Lab."""
    ratio = linear(np.array(color) / 255, SRGB_CURVE) @ SRGB / D50
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    return [round(max(0, min(255, v))) for v in (lightness * 2.55, a + 128, b + 128)]


def _xyz(color: np.ndarray) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(value * 65536) for value in color))


def _curve(gamma: float | None) -> bytes:
    values = (65535 * linear(np.linspace(0, 1, 4096), gamma)).round().astype(">u2")
    return struct.pack(">4sII", b"curv", 0, len(values)) + values.tobytes()


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": struct.pack(">4sII5s78x", b"desc", 0, 5, b"test\0")} | tags
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s28s3i48x",
        start + len(body),
        b"test",
        0x02400000,
        kind,
        space,
        connection,
        bytes(12),
        b"acsp",
        bytes(28),
        *(round(value * 65536) for value in D50),
    )
    return head + table + body
