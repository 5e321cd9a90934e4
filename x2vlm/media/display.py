"""How a player lays a stored frame on the screen: pixels that are no squares, turns and mirrors,
colours."""

from dataclasses import dataclass

import numpy as np

PIXEL_ASPECTS = (1 / 16, 16)
"""Widths of a pixel, in heights, beyond which a header is taken for damaged."""
HD_ROWS = 720
UNNAMED = 2
"""AVCOL_SPC_UNSPECIFIED, the colour matrix of a frame that names none."""


def pixel_aspect(stream) -> float:
    """Width of a pixel in heights; the container's word counts before the codec's."""
    aspect = float(stream.sample_aspect_ratio or 1)
    least, most = PIXEL_ASPECTS
    return aspect if least <= aspect <= most else 1.0


def color_matrix(frame) -> str | None:
    """The matrix of a frame that names none: BT.709 for HD, as players have it, and BT.601 below;
    None where FFmpeg knows it by itself."""
    return "ITU709" if frame.colorspace == UNNAMED and frame.height >= HD_ROWS else None


@dataclass(frozen=True)
class Turn:
    """One of the eight ways to lay an image: mirrored along its diagonal (`sideways`), then its
    columns or rows put in reverse order."""

    sideways: bool = False
    columns: bool = False
    rows: bool = False

    @classmethod
    def of(cls, frame) -> "Turn":
        """The nearest to the frame's display matrix, which takes a stored place (x, y) to the shown
        one (a x + c y, b x + d y)."""
        from av.sidedata.sidedata import Type

        found = [data for data in frame.side_data if data.type == Type.DISPLAYMATRIX]
        if not found:
            return cls()
        a, b, _, c, d = np.frombuffer(found[0], np.int32)[:5].astype(int)
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, bool(a < 0), bool(d < 0))
        return cls(True, bool(c < 0), bool(b < 0))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored to (H, W, 3), or (W, H, 3) if `sideways`, as shown."""
        if self.sideways:
            pixels = pixels.swapaxes(0, 1)
        rows, columns = (slice(None, None, -1 if back else 1) for back in (self.rows, self.columns))
        return np.ascontiguousarray(pixels[rows, columns])


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """`size` (width, height), shrunk so that no side is longer than `max_side`; never below one
    pixel."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
