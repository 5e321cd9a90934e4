"""Hostile and unlucky images, videos and texts, each with the outcome it must get; made here, never
downloaded.

`image_cases()`, `video_cases()` and `text_cases()` list them. `case.write(folder)` makes the file.
Ask of an accepted one that the answer is right (`case.check(opened)`), of a refused one that the
code begins with `case.code`.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import tempfile
import wave
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

ACCEPT, REFUSE, EITHER = "accept", "refuse", "either"
NOISE = random.Random(0).randbytes(4096)
WEB_PAGE = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"


@dataclass(frozen=True)
class Case:
    """One file and the outcome it must get."""

    id: str
    name: str
    make: Callable[[], bytes] | Callable[[Path], None]
    expect: str = ACCEPT
    code: str = ""
    check: Callable[[Any], None] | None = None
    makes_path: bool = False  # `make` is given the path, for what is no regular file

    def write(self, folder: Path) -> Path:
        """Make the file in `folder` and return its path."""
        path = folder / self.name
        if self.makes_path:
            self.make(path)
        else:
            path.write_bytes(self.make())
        return path


@dataclass(frozen=True)
class TextCase:
    """One text (or what a client may send in its place) and the outcome it must get."""

    id: str
    text: Any
    expect: str = ACCEPT
    code: str = ""


# ---------------------------------------------------------------- images

QUADRANTS = {
    (0, 0): (220, 30, 30),
    (1, 0): (30, 200, 30),
    (0, 1): (30, 30, 220),
    (1, 1): (240, 240, 200),
}
_UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """An image whose four quarters have different colours, so that every turn and flip shows."""
    image = Image.new("RGB", (width, height))
    for (column, row), colour in QUADRANTS.items():
        box = (
            column * width // 2,
            row * height // 2,
            (column + 1) * width // 2,
            (row + 1) * height // 2,
        )
        image.paste(colour, box)
    return image


def encoded(image: Image.Image, format: str, **options) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def colours(expected: dict, size: tuple[int, int], tolerance: int = 30) -> Callable[[Any], None]:
    """A check of the upright size and of the colour in the middle of each quarter."""

    def check(opened) -> None:
        assert opened.pixels.mode == "RGB"
        assert opened.size == size
        for (column, row), colour in expected.items():
            found = opened.pixels.getpixel(
                (size[0] * (2 * column + 1) // 4, size[1] * (2 * row + 1) // 4)
            )
            assert max(abs(a - b) for a, b in zip(found, colour)) <= tolerance, (
                column,
                row,
                found,
                colour,
            )

    return check


upright = colours(QUADRANTS, (64, 48))
GREYS = {place: (value,) * 3 for place, value in zip(QUADRANTS, (0, 85, 170, 255))}


def first_frame(opened) -> None:
    """The first frame, and the note that says so."""
    upright(opened)
    assert any("animated" in note for note in opened.notes)


def oriented(orientation: int, format: str = "JPEG") -> bytes:
    """An image stored turned, with the EXIF value that turns it upright."""
    image = quadrants()
    stored = image.transpose(_UNDO[orientation]) if orientation in _UNDO else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(stored, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))


def chunk(kind: bytes, data: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG from its parts; `rows` None gives zeros without ever holding them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    row_bytes = 1 + (width * depth * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8
    body = zeros(height * row_bytes) if rows is None else zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zeros(size: int) -> bytes:
    """`size` zero bytes, deflated: one self-contained block, compressed once and repeated."""
    unit = 2**20
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(unit)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    rest = last.compress(bytes(size % unit)) + last.flush()
    return b"\x78\xda" + block * (size // unit) + rest + struct.pack(">HH", size % 65521, 1)


def grey16(turned: bool = False) -> bytes:
    """16-bit grey: 0, 85, 170 and 255 times 257; stored upright or upside down with the EXIF value
    that says so."""
    values = np.zeros((48, 64), np.uint16)
    for (column, row), (value, _, _) in GREYS.items():
        values[row * 24 : row * 24 + 24, column * 32 : column * 32 + 32] = value * 257
    if not turned:
        return encoded(Image.fromarray(values), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 3
    return encoded(Image.fromarray(values[::-1, ::-1].copy()), "PNG", exif=exif)


def rgb16() -> bytes:
    """16-bit RGB, which Pillow cannot write."""
    pixels = np.asarray(quadrants()).astype(">u2") * 257
    return png(64, 48, 16, 2, b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2")))


def hidden(mode: str) -> bytes:
    """Red, clear to the right: what shows there must be white paper, never the hidden red."""
    image = Image.new("RGBA", (64, 48), (220, 30, 30, 255))
    image.paste((220, 30, 30, 0), (32, 0, 64, 48))
    if mode == "P":
        paletted = Image.new("P", (64, 48), 0)
        paletted.putpalette([220, 30, 30, 210, 30, 30] + [0] * 762)
        paletted.paste(1, (32, 0, 64, 48))
        return encoded(paletted, "PNG", transparency=1)
    return encoded(image.convert(mode), "PNG")


def on_white(left: tuple[int, int, int]) -> Callable[[Any], None]:
    """The check of `hidden`."""
    return colours({(0, 0): left, (1, 0): (255,) * 3, (0, 1): left, (1, 1): (255,) * 3}, (64, 48))


def animated(format: str, count: int = 12) -> bytes:
    """`quadrants`, then other images."""
    others = [Image.new("RGB", (64, 48), (i * 20 % 256, 9, 90)) for i in range(1, count)]
    options = {"lossless": True} if format == "WEBP" else {}
    return encoded(quadrants(), format, save_all=True, append_images=others, duration=50, **options)


def long_gif(count: int = 5000) -> bytes:
    """A GIF of `count` frames, its second frame repeated as bytes."""
    two = animated("GIF", 2)
    start = two.index(b"\x21\xf9\x04", two.index(b"\x2c"))
    return two[:start] + two[start:-1] * (count - 1) + b";"


def photo(width: int, height: int) -> Image.Image:
    """Coarse noise, enlarged: entropy everywhere, as in a photograph."""
    small = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def cut(data: bytes, part: float, tail: bytes = b"") -> bytes:
    """The beginning of a file."""
    return data[: int(len(data) * part)] + tail


def lying_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its data fill."""
    data = bytearray(encoded(photo(256, 256), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def lying_bmp() -> bytes:
    """A BMP of 100 bytes that claims 60000 x 60000."""
    head = b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0
    )
    return head + bytes(46)


def inflating(kind: bytes, prefix: bytes) -> bytes:
    """A PNG with a text or profile chunk that inflates to 256 MB."""
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(bytes(2**22)) for _ in range(64)) + packer.flush()
    return png(8, 8, 8, 0, bytes(72), chunk(kind, prefix + data))


def many_chunks() -> bytes:
    """200,000 empty text chunks."""
    return png(8, 8, 8, 0, bytes(72), chunk(b"tEXt", b"a\0b") * 200_000)


def webp_bomb() -> bytes:
    """A WebP header of 16383 x 16383 over the data of a small one."""
    data = bytearray(encoded(quadrants(), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", 16382 | 16382 << 14)
    return bytes(data)


def svg(script: bool) -> bytes:
    """A drawing, harmless or with a script and an entity that names a file."""
    if script:
        return (
            b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><text>&x;</text></svg>'
        )
    return (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" '
        b'height="9"/></svg>'
    )


NAMES = (
    "👩\u200d👩\u200d👧.png",
    "gnp.\u202egpj.png",
    "zero\u200bwidth.png",
    "-rf.png",
    "two\nlines.png",
    "%s%n%d.png",
    "..%2f..%2fetc.png",
    "<img src=x onerror=alert(1)>.png",
    "quo'te\"s`.png",
    "a" * 240 + ".png",
    "CON",
    "trailing.png.",
    ".hidden.png",
    "e\u0301te\u0301.png",
    "back\\slash.png",
    "  spaces  .png",
    "\x1b[31mred.png",
)


def _format(area: str) -> dict:
    return {"expect": REFUSE, "code": f"{area}/format"}


CORRUPT = {"expect": REFUSE, "code": "image/corrupt"}
PIXELS = {"expect": REFUSE, "code": "image/pixels"}


def image_cases() -> list[Case]:
    """Every image of the catalogue that reaches this package."""
    return [
        *_good_images(),
        *_strange_images(),
        *_broken_images(),
        *_image_bombs(),
        *_paths(),
        *_names(),
    ]


def _good_images() -> Iterator[Case]:
    for orientation in range(1, 9):
        yield Case(
            f"exif-{orientation}", "photo.jpg", lambda o=orientation: oriented(o), check=upright
        )
    yield Case("exif-9", "photo.jpg", lambda: oriented(9), check=upright)
    yield Case(
        "exif-garbage",
        "photo.jpg",
        lambda: encoded(quadrants(), "JPEG", exif=b"Exif\0\0II*\0" + NOISE[:400]),
        check=upright,
    )
    yield Case("exif-png", "photo.png", lambda: oriented(6, "PNG"), check=upright)
    yield Case(
        "cmyk",
        "print.jpg",
        lambda: encoded(quadrants().convert("CMYK"), "JPEG", quality=95),
        check=upright,
    )
    yield Case("grey-16", "scan.png", grey16, check=colours(GREYS, (64, 48), 1))
    yield Case(
        "grey-16-turned", "scan.png", lambda: grey16(True), check=colours(GREYS, (64, 48), 1)
    )
    yield Case("rgb-16", "scan.png", rgb16, check=upright)
    two = colours({place: (255 if place[0] else 0,) * 3 for place in QUADRANTS}, (64, 48), 0)
    stripes = bytes([0, *[0] * 4, *[255] * 4]) * 48
    yield Case("1-bit", "fax.png", lambda: png(64, 48, 1, 0, stripes), check=two)
    yield Case("rgba", "logo.png", lambda: hidden("RGBA"), check=on_white((220, 30, 30)))
    yield Case("la", "logo.png", lambda: hidden("LA"), check=on_white((87, 87, 87)))
    yield Case("palette-clear", "logo.png", lambda: hidden("P"), check=on_white((220, 30, 30)))
    for format in ("GIF", "WEBP", "PNG"):
        yield Case(
            f"animated-{format}",
            f"moving.{format.lower()}",
            lambda f=format: animated(f),
            check=first_frame,
        )
    yield Case("gif-5000", "moving.gif", long_gif, check=first_frame)
    plain = encoded(quadrants(), "PNG")
    for name in ("photo.jpg", "photo.JPG", "photo"):
        yield Case(f"png-named-{name}", name, lambda: plain, check=upright)
    yield Case(
        "photo-24-mp",
        "photo.jpg",
        lambda: encoded(photo(6000, 4000), "JPEG"),
        check=colours({}, (6000, 4000)),
    )
    yield Case(
        "jpeg-and-zip",
        "photo.jpg",
        lambda: encoded(quadrants(), "JPEG") + b"PK\x03\x04" + NOISE,
        check=upright,
    )
    yield Case("tiff", "scan.tiff", lambda: encoded(quadrants(), "TIFF"), check=upright)
    grey = Image.new("RGB", (64, 48), (128, 128, 128))
    middle = colours({place: (128,) * 3 for place in QUADRANTS}, (64, 48), 1)
    yield Case("really-grey", "grey.jpg", lambda: encoded(grey, "JPEG"), check=middle)


def _strange_images() -> Iterator[Case]:
    for size in ((1, 1), (20000, 1), (1, 20000), (2, 3000)):
        yield Case(
            f"size-{size[0]}x{size[1]}",
            "line.png",
            lambda s=size: encoded(Image.new("RGB", s), "PNG"),
            EITHER,
        )
    yield Case("no-iend", "cut.png", lambda: encoded(photo(64, 48), "PNG")[:-12], EITHER)
    yield Case("zip-text", "a.png", lambda: inflating(b"zTXt", b"key\0\0"), EITHER)
    yield Case("zip-profile", "a.png", lambda: inflating(b"iCCP", b"key\0\0"), EITHER)
    yield Case("many-chunks", "a.png", many_chunks, EITHER)

    def noisy() -> bytes:
        data = bytearray(encoded(photo(256, 256), "JPEG"))
        data[len(data) // 2 : len(data) // 2 + 200] = NOISE[:200]
        return bytes(data)

    yield Case("jpeg-noise", "noise.jpg", noisy, EITHER)


def _broken_images() -> Iterator[Case]:
    yield Case("empty", "empty.jpg", bytes, REFUSE, "image/empty")
    yield Case("one-byte", "one.jpg", lambda: b"\xff", **_format("image"))
    named = {
        "random": NOISE,
        "text": b"hello\n" * 50,
        "404": WEB_PAGE,
        "pdf": b"%PDF-1.7\n%x",
        "exe": b"MZ" + bytes(500),
    }
    for what, data in named.items():
        yield Case(f"{what}-named-jpg", f"{what}.jpg", lambda d=data: d, **_format("image"))
    jpeg, frames = encoded(photo(256, 256), "JPEG"), quadrants(300, 300)
    for part in (0.1, 0.5, 0.98):
        yield Case(f"jpeg-cut-{part}", "cut.jpg", lambda p=part: cut(jpeg, p), **CORRUPT)
    for format in ("PNG", "WEBP", "GIF"):
        yield Case(
            f"{format}-cut",
            f"cut.{format.lower()}",
            lambda f=format: cut(encoded(photo(256, 256), f), 0.5),
            **CORRUPT,
        )
    yield Case("jpeg-cut-and-ended", "cut.jpg", lambda: cut(jpeg, 0.5, b"\xff\xd9"), **CORRUPT)
    early = encoded(photo(256, 256), "JPEG", progressive=True)
    yield Case("progressive-cut", "cut.jpg", lambda: cut(early, 0.06, b"\xff\xd9"), **CORRUPT)

    def flipped() -> bytes:
        data = bytearray(encoded(photo(64, 48), "PNG"))
        data[data.index(b"IDAT") + 200] ^= 0x40
        return bytes(data)

    yield Case("idat-flip", "flip.png", flipped, **CORRUPT)
    yield Case(
        "width-0", "zero.png", lambda: png(0, 48, 8, 0, bytes(48)), expect=REFUSE, code="image/"
    )
    yield Case("svg", "drawing.png", lambda: svg(False), **_format("image"))
    yield Case("svg-script", "drawing.svg", lambda: svg(True), **_format("image"))
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + NOISE
    yield Case("heic", "IMG_0031.heic", lambda: heic, **_format("image"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(w) run\n"
    yield Case("eps", "drawing.jpg", lambda: eps, **_format("image"))
    yield Case("gif-script", "poly.gif", lambda: b"GIF89a/*" + b"*/=1;alert(1)//" * 9, **CORRUPT)
    yield Case("zip", "archive.jpg", lambda: b"PK\x03\x04" + NOISE, **_format("image"))
    yield Case("gzip", "archive.jpg", lambda: gzip.compress(frames.tobytes()), **_format("image"))
    yield Case("mp4-named-jpg", "clip.jpg", lambda: video(3), **_format("image"))


def _image_bombs() -> Iterator[Case]:
    yield Case("png-65535-1-bit", "big.png", lambda: png(65535, 65535, 1, 0), **PIXELS)
    yield Case("png-30000-grey", "big.png", lambda: png(30000, 30000, 8, 0), **PIXELS)
    yield Case(
        "gif-65535",
        "big.gif",
        lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
        **PIXELS,
    )
    yield Case("png-13000-rgba", "scan.png", lambda: png(13000, 13000, 8, 6), **PIXELS)
    yield Case("jpeg-65500", "big.jpg", lambda: lying_jpeg(65500, 65500), **PIXELS)
    yield Case("jpeg-12000", "big.jpg", lambda: lying_jpeg(12000, 12000), **PIXELS)
    yield Case("jpeg-2000-of-256", "grey.jpg", lambda: lying_jpeg(2000, 2000), **CORRUPT)
    yield Case("bmp-lying", "big.bmp", lying_bmp, **PIXELS)
    yield Case("webp-16383", "big.webp", webp_bomb, expect=REFUSE, code="image/")
    yield Case(
        "png-tail",
        "long.png",
        lambda: encoded(quadrants(), "PNG") + bytes(25 * 2**20),
        REFUSE,
        "image/bytes",
    )


def _paths() -> Iterator[Case]:
    reference = {"expect": REFUSE, "code": "image/reference", "makes_path": True}
    yield Case("folder", "folder.jpg", Path.mkdir, **reference)
    if hasattr(os, "mkfifo"):
        yield Case("fifo", "fifo.jpg", os.mkfifo, **reference)
    yield Case("dangling", "link.jpg", lambda path: path.symlink_to("nowhere"), **reference)
    secret = {"expect": REFUSE, "code": "image/format", "makes_path": True}
    yield Case("link-to-passwd", "link.jpg", lambda path: path.symlink_to("/etc/passwd"), **secret)


def _names() -> Iterator[Case]:
    plain = encoded(quadrants(), "PNG")
    for i, name in enumerate(NAMES):
        yield Case(f"name-{i}", name, lambda: plain, check=upright)


# ---------------------------------------------------------------- videos


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A frame (H, W, 3) that shows its number as eight black and white bars, over a red and a blue
    half."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        frame[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    frame[height // 2 :, : width // 2] = (220, 30, 30)
    frame[height // 2 :, width // 2 :] = (30, 30, 220)
    return frame


def number_of(frame: Image.Image) -> int:
    """Reads `numbered`; also sees to it that the frame stands upright."""
    width, height = frame.size
    red, blue = (frame.getpixel((width * x // 4, height * 3 // 4)) for x in (1, 3))
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 60, "not upright"
    bars = [frame.getpixel((width * (2 * bit + 1) // 16, height // 4))[1] for bit in range(8)]
    return sum((value > 127) << bit for bit, value in enumerate(bars))


def exact(count: int, size: tuple[int, int] = (64, 48)) -> Callable[[Any], None]:
    """A check that each frame is the one its index says, and that nothing is reported missing."""

    def check(opened) -> None:
        assert opened.num_frames == count
        assert opened.size == size
        assert not opened.notes
        assert [number_of(frame) for frame in opened.frames] == [
            index % 256 for index in opened.indices
        ]

    return check


def partial(opened) -> None:
    """A check that what is shown is right, and that something is said to be missing."""
    assert any("[video/partial]" in note for note in opened.notes)
    assert [number_of(frame) for frame in opened.frames] == [
        index % 256 for index in opened.indices
    ]


def video(
    count: int = 30,
    format: str = "mp4",
    codec: str = "libx264",
    *,
    size: tuple[int, int] = (64, 48),
    rate: int = 30,
    gop: int = 15,
    stamps: list[int] | None = None,
    flags: str = "",
    turns: int = 0,
    pixels: str = "yuv420p",
    **options: str,
) -> bytes:
    """A video of `numbered` frames; `stamps` are presentation times in 1/`rate` seconds."""
    settings = {"g": str(gop), "crf": "12", "preset": "veryfast", **options}
    stored = size[::-1] if turns % 2 else size
    with (
        tempfile.NamedTemporaryFile() as file
    ):  # a real file: the muxer reads it again to put the index first
        with av.open(
            file.name, "w", format=format, options={"movflags": flags} if flags else {}
        ) as container:
            stream = container.add_stream(codec, rate=rate, options=settings)
            stream.width, stream.height = stored
            stream.pix_fmt = pixels
            stream.codec_context.gop_size = gop
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(
                    np.rot90(numbered(i, *size), turns).copy()
                ).reformat(format=pixels)
                frame.pts, frame.time_base = (stamps[i] if stamps else i), Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return file.read()


def patched(data: bytes, box: bytes, offset: int, *values: int, format: str = ">I") -> bytes:
    """Overwrite numbers `offset` bytes after the first place where `box` stands."""
    out, at = bytearray(data), data.index(box) + offset
    for i, value in enumerate(values):
        size = struct.calcsize(format)
        out[at + i * size : at + (i + 1) * size] = struct.pack(format, value)
    return bytes(out)


def turned(degrees: int) -> bytes:
    """A video stored turned, with the display matrix that turns it upright (clockwise by
    `degrees`)."""
    one, turns = 0x10000, degrees // 90
    cosine, sine = ((0, one), (-one, 0), (0, -one))[turns - 1]
    return patched(
        video(turns=turns),
        b"tkhd",
        44,
        cosine,
        sine,
        0,
        -sine,
        cosine,
        0,
        0,
        0,
        0x40000000,
        format=">i",
    )


def media_bytes(data: bytes, change: Callable[[bytearray], None]) -> bytes:
    """A video with its coded data changed in place."""
    at = data.index(b"mdat")
    end = at - 4 + int.from_bytes(data[at - 4 : at])
    body = bytearray(data[at + 4 : end])
    change(body)
    return data[: at + 4] + bytes(body) + data[end:]


def scribble(start: float, length: float, noise: bool = True) -> Callable[[bytearray], None]:
    """A change for `media_bytes`."""

    def change(body: bytearray) -> None:
        first, count = int(len(body) * start), int(len(body) * length)
        body[first : first + count] = random.Random(1).randbytes(count) if noise else bytes(count)

    return change


def remuxed(pieces: list[bytes], format: str, repeat: int = 1) -> bytes:
    """The packets of several videos, one after another, in a container that follows the first."""
    file, number = io.BytesIO(), 0
    with av.open(file, "w", format=format) as target:
        stream = None
        for piece in pieces * repeat:
            with av.open(io.BytesIO(piece)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.time_base = stream, Fraction(1, 30)
                        packet.pts = packet.dts = number
                        packet.duration, number = 1, number + 1
                        target.mux(packet)
    return file.getvalue()


def endless(width: int, height: int, count: int, rate: int) -> bytes:
    """One key frame, then sixteen near-empty H.264 frames again and again: `count` frames in a few
    bytes each.

    The encoder's frame number counts modulo 16 here, so that the repeated frames follow one another
    legally.
    """
    settings = "keyint=15:intra-refresh=1:bframes=0:scenecut=0:ref=1:sliced-threads=0:threads=1"
    grey = av.VideoFrame.from_ndarray(
        np.full((height * 3 // 2, width), 128, np.uint8), format="yuv420p"
    )
    packets, file = [], io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": settings}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(33):
            grey.pts, grey.time_base = i, Fraction(1, rate)
            packets += [bytes(packet) for packet in stream.encode(grey)]
        for i in range(count):
            packet = av.Packet(packets[i] if i < 33 else packets[17 + (i - 17) % 16])
            packet.stream, packet.time_base, packet.pts, packet.dts = (
                stream,
                Fraction(1, rate),
                i,
                i,
            )
            packet.is_keyframe = i == 0
            container.mux(packet)
    return file.getvalue()


def claiming(count: int) -> bytes:
    """A one-frame video whose tables claim one chunk of `count` frames of one byte."""
    data = patched(video(1), b"stsz", 8, 1, count)
    return patched(patched(data, b"stts", 12, count), b"stsc", 16, count)


def huge_frames(width: int, height: int, honest: bool) -> bytes:
    """Motion JPEG whose images claim `width` x `height` over a few kilobytes; the container's
    header may say less."""
    data = bytearray(video(3, "avi", "mjpeg", pixels="yuvj420p"))
    at = -1
    while (at := data.find(b"\xff\xc0\x00\x11", at + 1)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return patched(bytes(data), b"strf", 12, width, height, format="<I") if honest else bytes(data)


def eight_k() -> bytes:
    """Five frames of 7680 x 4320 as Motion JPEG."""
    return remuxed(
        [patched(video(1, "avi", "mjpeg", pixels="yuvj420p", size=(7680, 4320)), b"RIFF", 0)],
        "avi",
        5,
    )


def sound() -> bytes:
    """A WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(16000))
    return file.getvalue()


def sound_mp4() -> bytes:
    """An MP4 with sound alone."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


BROKEN = {"expect": REFUSE, "code": "video/"}


def video_cases(address: str = "127.0.0.1:9", neighbour: str = "other.mp4") -> list[Case]:
    """Every video of the catalogue that reaches this package; lists name `address` and the file
    `neighbour`."""
    return [
        *_good_videos(),
        *_odd_times(),
        *_odd_avis(),
        *_broken_videos(),
        *_damaged_videos(),
        *_video_bombs(),
        *_lists(address, neighbour),
    ]


def _good_videos() -> Iterator[Case]:
    yield Case("intra", "clip.mp4", lambda: video(gop=1), check=exact(30))
    yield Case("gop-15", "clip.mp4", video, check=exact(30))
    yield Case(
        "one-gop", "clip.mp4", lambda: video(200, gop=1000, sc_threshold="0"), check=exact(200)
    )
    yield Case("faststart", "clip.mp4", lambda: video(flags="faststart"), check=exact(30))
    yield Case(
        "fragmented", "clip.mp4", lambda: video(flags="frag_keyframe+empty_moov"), check=exact(30)
    )
    for format in ("mov", "avi"):
        make = lambda f=format: video(30, f, "mjpeg", pixels="yuvj420p", q="2")
        yield Case(f"mjpeg-{format}", f"clip.{format}", make, check=exact(30))
    yield Case("h264-avi", "clip.avi", lambda: video(format="avi"), check=exact(30))
    yield Case(
        "webm",
        "clip.webm",
        lambda: video(40, "webm", "libvpx-vp9", deadline="realtime"),
        check=exact(40),
    )
    yield Case("wrong-extension", "clip.avi", video, check=exact(30))
    yield Case("no-extension", "clip", video, check=exact(30))
    for count in (1, 2, 3):
        yield Case(f"frames-{count}", "clip.mp4", lambda n=count: video(n), check=exact(count))
    for degrees in (90, 180, 270):
        yield Case(f"rotated-{degrees}", "clip.mp4", lambda d=degrees: turned(d), check=exact(30))
    yield Case("size-66x50", "clip.mp4", lambda: video(size=(66, 50)), check=exact(30, (66, 50)))
    yield Case("size-2x2", "clip.mp4", lambda: video(size=(2, 2)), EITHER)
    yield Case("size-16x2048", "clip.mp4", lambda: video(size=(16, 2048)), EITHER)
    yield Case(
        "display-65535",
        "clip.mp4",
        lambda: patched(video(), b"tkhd", 80, 65535 << 16, 65535 << 16),
        check=exact(30, (48, 48)),  # a square on the screen
    )
    for name in ("frame_%03d.mp4", "concat:x.mp4", "-i.mp4"):
        yield Case(f"name-{name}", name, video, check=exact(30))


def _odd_times() -> Iterator[Case]:
    vary = [i + i // 3 * 4 for i in range(30)]
    yield Case("variable-rate", "clip.mp4", lambda: video(stamps=vary), check=exact(30))
    hour = [i if i < 15 else i + 3600 * 30 for i in range(30)]
    yield Case("hour-between", "clip.mp4", lambda: video(stamps=hour), check=exact(30))
    yield Case("same-times", "clip.mp4", lambda: patched(video(bf="0"), b"stts", 16, 0), EITHER)
    signed = patched(video(), b"ctts", 4, 0x01000000)
    yield Case(
        "negative-ctts",
        "clip.mp4",
        lambda: patched(signed, b"ctts", 16, -512, format=">i"),
        EITHER,
    )
    yield Case("edit-skips-all", "clip.mp4", lambda: patched(video(), b"elst", 16, 10**8), EITHER)
    yield Case(
        "delay-10-s",
        "clip.mp4",
        lambda: video(stamps=[i + 300 for i in range(30)]),
        check=exact(30),
    )


def _odd_avis() -> Iterator[Case]:
    def avi(**values: int) -> bytes:
        data = video(format="avi", codec="mjpeg", pixels="yuvj420p")
        for field, value in values.items():
            data = patched(
                data, b"strh", {"scale": 28, "rate": 32, "length": 40}[field], value, format="<I"
            )
        return data

    yield Case("avi-rate-0", "clip.avi", lambda: avi(rate=0), EITHER)
    yield Case("avi-scale-0", "clip.avi", lambda: avi(scale=0), EITHER)
    yield Case("avi-1e9-fps", "clip.avi", lambda: avi(rate=10**9, scale=1), EITHER)
    yield Case("avi-no-index", "clip.avi", lambda: avi().replace(b"idx1", b"JUNK"), EITHER)
    garbage = lambda: patched(avi(), b"idx1", 8, *[0x7FFFFFF0] * 100)
    yield Case("avi-garbage-index", "clip.avi", garbage, EITHER)
    yield Case("avi-length-2e9", "clip.avi", lambda: avi(length=2 * 10**9), EITHER)
    small, large = (
        video(10, "avi", "mjpeg", pixels="yuvj420p", size=s) for s in ((64, 48), (128, 96))
    )
    yield Case("size-changes-avi", "clip.avi", lambda: remuxed([small, large], "avi"), EITHER)
    yield Case("size-changes-mov", "clip.mov", lambda: remuxed([small, large], "mov"), EITHER)
    h264 = [video(10, "h264", size=s) for s in ((64, 48), (128, 96))]
    yield Case("new-sps", "clip.avi", lambda: remuxed(h264, "avi"), EITHER)


def _broken_videos() -> Iterator[Case]:
    yield Case("empty", "clip.mp4", bytes, REFUSE, "video/empty")
    for what, data in {"random": NOISE, "text": b"hello\n" * 50, "html": WEB_PAGE}.items():
        yield Case(what, "clip.mp4", lambda d=data: d, **_format("video"))
    yield Case("header-only", "clip.mp4", lambda: video()[:32], **BROKEN)
    yield Case(
        "codec-unknown", "clip.mp4", lambda: video().replace(b"avc1", b"zzzz"), **_format("video")
    )
    yield Case("wav", "sound.mp4", sound, **_format("video"))
    yield Case("sound-only", "sound.mp4", sound_mp4, **_format("video"))
    yield Case("jpeg", "photo.mp4", lambda: encoded(quadrants(), "JPEG"), **_format("video"))
    yield Case("gif", "moving.mp4", lambda: animated("GIF"), EITHER)


def _damaged_videos() -> Iterator[Case]:
    fast = lambda: video(60, flags="faststart", gop=10)
    yield Case("cut-index-lost", "clip.mp4", lambda: cut(video(), 0.5), **BROKEN)
    yield Case("cut-faststart-half", "clip.mp4", lambda: cut(fast(), 0.6), check=partial)
    yield Case("cut-faststart-tenth", "clip.mp4", lambda: cut(fast(), 0.1), EITHER, check=partial)
    long = lambda: video(200, gop=1000, sc_threshold="0", flags="faststart")
    yield Case("cut-long-gop", "clip.mp4", lambda: cut(long(), 0.6), EITHER, check=partial)
    fragmented = lambda: video(60, gop=10, flags="frag_keyframe+empty_moov")
    yield Case("cut-fragmented", "clip.mp4", lambda: cut(fragmented(), 0.5), EITHER)
    yield Case(
        "cut-avi",
        "clip.avi",
        lambda: cut(video(60, "avi", "mjpeg", pixels="yuvj420p"), 0.5),
        EITHER,
        check=partial,
    )
    yield Case("noise", "clip.mp4", lambda: media_bytes(video(60), scribble(0, 1)), **BROKEN)
    yield Case(
        "quarter-noise",
        "clip.mp4",
        lambda: media_bytes(video(60, gop=5), scribble(0.5, 0.25)),
        EITHER,
    )
    yield Case(
        "zeroed", "clip.mp4", lambda: media_bytes(video(60), scribble(0, 1, noise=False)), **BROKEN
    )
    yield Case("no-key-frame", "clip.mp4", lambda: patched(video(), b"stss", 8, 0), EITHER)
    keys = lambda: video(200, gop=100, sc_threshold="0").replace(b"stss", b"free")
    yield Case("wrong-key-table", "clip.mp4", keys, EITHER, check=exact(200))
    yield Case(
        "garbage-avcc",
        "clip.mp4",
        lambda: patched(video(), b"avcC", 4, *[0xDEADBEEF] * 8),
        **BROKEN,
    )
    yield Case("no-sample-table", "clip.mp4", lambda: video().replace(b"stbl", b"free"), **BROKEN)
    yield Case("zero-samples", "clip.mp4", lambda: patched(video(), b"stsz", 12, 0), **BROKEN)


def _video_bombs() -> Iterator[Case]:
    for count in (2 * 10**9, 5 * 10**7):
        yield Case(f"claims-{count}", "clip.mp4", lambda n=count: claiming(n), **BROKEN)
    yield Case(
        "frames-142-mp", "clip.avi", lambda: huge_frames(11920, 11920, True), REFUSE, "video/pixels"
    )
    yield Case(
        "frames-142-mp-hidden", "clip.avi", lambda: huge_frames(11920, 11920, False), **BROKEN
    )
    yield Case("8k", "clip.avi", eight_k, EITHER)
    yield Case(
        "4k-20-minutes",
        "clip.mp4",
        lambda: endless(3840, 2160, 36_000, 30),
        REFUSE,
        "video/duration",
    )
    yield Case(
        "4k-60-seconds",
        "clip.mp4",
        lambda: endless(3840, 2160, 36_000, 600),
        REFUSE,
        "video/timeout",
    )
    yield Case("100000-frames", "clip.mp4", lambda: endless(16, 16, 100_000, 1000), EITHER)
    yield Case(
        "claims-100-hours", "clip.mp4", lambda: patched(video(), b"mvhd", 20, 360_000_000), EITHER
    )


def _lists(address: str, neighbour: str) -> Iterator[Case]:
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    lists = {
        "hls-local": hls.format(neighbour),
        "hls-http": hls.format(f"http://{address}/a.ts"),
        "hls-passwd": hls.format("/etc/passwd"),
        "concat-relative": f"ffconcat version 1.0\nfile {neighbour}\n",
        "concat-http": f"ffconcat version 1.0\nfile http://{address}/a.mp4\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video "
        f"{address[-4:]} RTP/AVP 96\n",
        "dash": f'<?xml version="1.0"?><MPD><BaseURL>http://{address}/</BaseURL></MPD>',
    }
    for what, text in lists.items():
        yield Case(what, "clip.mp4", lambda t=text: t.encode(), **_format("video"))
    yield Case("hls-m3u8", "clip.m3u8", lambda: hls.format(neighbour).encode(), **_format("video"))


# ---------------------------------------------------------------- texts


def text_cases() -> list[TextCase]:
    """Every text of the catalogue. One over the length that the model takes may be cut if that is
    said."""
    blank = {
        "empty": "",
        "blank": "   ",
        "nbsp": "\u00a0\u00a0",
        "zero-width": "\u200b\u200b",
        "controls": "\x00\x01\x1b\r\n",
    }
    odd = {
        "punctuation": "?!...",
        "one-letter": "a",
        "long-word": "b" * 5000,
        "emoji": "a 🐈 on a 🛹",
        "emoji-only": "🐈🛹👩\u200d👩\u200d👧",
        "rtl": "قطة على بساط",
        "bidi": "a cat \u202etac a\u202c sits",
        "chinese": "一只猫坐在垫子上",
        "combining": "e" + "\u0301" * 300,
        "nfd": "cafe\u0301 au lait",
        "surrogate": "a \ud83d cat",
        "nul": "a\x00cat",
        "script": "<script>alert(1)</script> cat",
        "img-onerror": "<img src=x onerror=alert(1)>",
        "svg-onload": "<svg onload=alert(1)>",
        "markdown": "[cat](http://127.0.0.1:9/) ![x](http://127.0.0.1:9/x.png)",
        "entities": "&lt;b&gt; &amp; &#x27;",
        "latex": r"$\href{javascript:alert(1)}{x}$",
        "braces": "{{7*7}} ${7*7} {0} %s",
        "special-tokens": "[CLS] a [MASK] on a [SEP] mat [PAD]",
        "masks": "[MASK] " * 200,
        "csv-formula": '=HYPERLINK("http://127.0.0.1:9","x")',
        "ansi": "\x1b[31mred\x1b[0m \x1b]0;title\x07",
        "log-line": "cat\nINFO: user admin logged in",
        "path": "/etc/passwd",
        "url": "http://127.0.0.1:9/x",
        "no-noun": "is quickly being",
    }
    long = {"letters-10000": "cat " * 2500, "megabyte": "cat " * 262_144}
    wrong = {
        "null": None,
        "number": 7,
        "float": 1.5,
        "true": True,
        "list": ["cat"],
        "dict": {"a": 1},
        "bytes": b"cat",
        "nan": np.nan,
    }
    return [
        *(TextCase(name, text, REFUSE, "text/empty") for name, text in blank.items()),
        *(TextCase(name, text) for name, text in odd.items()),
        *(TextCase(name, text, EITHER, "text/long") for name, text in long.items()),
        *(TextCase(f"type-{name}", value, REFUSE, "text/type") for name, value in wrong.items()),
    ]
