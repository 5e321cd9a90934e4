"""Images: bytes to upright 8-bit sRGB."""

import contextlib
import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import MediaError
from .colors import to_srgb
from .limits import SEND_AGAIN, MediaLimits, check_image_size

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")


def read_image(data: bytes, limits: MediaLimits) -> tuple[str, Image.Image, list[str]]:
    """Decode an image; see `read`."""
    Image.MAX_IMAGE_PIXELS = None  # our own limit below is stricter and has its own message
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    check_image_size(image.size, limits)
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        several = "it has several pages" if image.format == "TIFF" else "it is animated"
        notes.append(f"{several}; the first picture is used. [image/animated]")
    image.load()
    if image.format in ("JPEG", "MPO") and _ends_in_filler(image, data):
        raise MediaError(
            "the picture is cut off: its lower part is missing. Send the whole file.",
            "image/corrupt",
        )
    return "image", upright_rgb(image), notes


def _ends_in_filler(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG's data ran out before its last row although an end marker follows.

    The decoder then fills up with middle grey and reports success. Only such an image changes when
    a few more bytes of data stand before the end marker; in a whole one they are surplus and
    ignored.
    """
    width, height = image.size
    corner = np.asarray(image.crop((max(width - 8, 0), max(height - 8, 0), width, height)))
    if corner.min() < 126 or corner.max() > 130:
        return False
    end = data.rfind(b"\xff\xd9")
    longer = Image.open(
        io.BytesIO(data[:end] + b"\x5a\xa5\x3c\x69" * 64 + data[end:]), formats=("JPEG",)
    )
    return longer.tobytes() != image.tobytes()


def upright_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit sRGB copy: turned upright by its EXIF, converted by its colour profile, clear parts
    on white, 16 bits scaled to 8."""
    # Unreadable metadata never loses an image, whatever way the parser finds to fail on it.
    with contextlib.suppress(Exception):
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.mode in ("F", "LAB", "HSV"):
        raise MediaError(
            f"its pixels are of a kind that is not supported ({image.mode}). {SEND_AGAIN}",
            "image/format",
        )
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
    kept = "L" if grey else "RGB"
    if image.mode not in (kept, "CMYK"):
        image = image.convert(kept)
    image = to_srgb(image, profile)
    if alpha is None:
        return image
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=alpha)
    return paper


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits scaled to 8 (Pillow's own conversion clips, which leaves white), with
    an alpha channel where one value stands for clear."""
    values, clear = np.asarray(image), image.info.get("transparency")
    if values.min() < 0 or values.max() > 65535:
        raise MediaError(
            f"its pixels have more than 16 bits, which is not supported. {SEND_AGAIN}",
            "image/format",
        )
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
