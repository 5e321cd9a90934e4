"""What the child process runs: bytes in, pixels out. The first bytes decide the kind of file, never
its name.

Messages name no file; the parent adds the name.
"""

from ..errors import MediaError, X2VLMError
from .images import read_image
from .limits import (
    ANOTHER_COPY,
    RESAVE,
    SEND_AGAIN,
    MediaLimits,
    out_of_memory,
    timed_out,
    too_many_bytes,
)
from .videos import read_video

SPARE_BYTES = 8 * 2**20  # what a small image needs

_SIGNATURES = (
    (b"\xff\xd8\xff", "image", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "image", "PNG"),
    (b"GIF8", "image", "GIF"),
    (b"BM", "image", "BMP"),
    (b"II*\0", "image", "TIFF"),
    (b"MM\0*", "image", "TIFF"),
    (b"\x1aE\xdf\xa3", "video", "Matroska or WebM"),
    (b"ID3", None, "a sound file"),
    (b"fLaC", None, "a sound file"),
    (b"OggS", None, "an Ogg file"),
    (b"%PDF", None, "a PDF"),
    (b"%!PS", None, "an EPS drawing"),
    (b"\xc5\xd0\xd3\xc6", None, "an EPS drawing"),
    (b"PK\x03\x04", None, "a ZIP archive"),
    (b"MZ", None, "a program"),
    (b"\x7fELF", None, "a program"),
    (b"#EXTM3U", None, "a playlist"),
    (b"ffconcat", None, "a playlist"),
    (b"<mpd", None, "a playlist"),
    (b"<!doctype", None, "a web page"),
    (b"<html", None, "a web page"),
    (b"<svg", None, "an SVG drawing"),
)


def sniff(data: bytes) -> tuple[str | None, str]:
    """What the first bytes say: ("image", "video" or None) and the kind's name."""
    head = bytes(data[:512])
    if head[:4] == b"RIFF":
        riff = {
            b"WEBP": ("image", "WebP"),
            b"AVI ": ("video", "AVI"),
            b"WAVE": (None, "a sound file"),
        }
        return riff.get(head[8:12], (None, "a file of no known kind"))
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {
            head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 64), 4)
        }
        if brands & {b"avif", b"avis"}:
            return "image", "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}:
            return None, "HEIC"
        return "video", "MP4"
    if head[4:8] in (b"moov", b"mdat", b"free", b"wide", b"skip", b"moof", b"styp"):
        return "video", "MP4"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, kind, label in _SIGNATURES:
        if head.startswith(signature) or (kind is None and text.startswith(signature.lower())):
            return kind, label
    if text.startswith((b"<?xml", b"<!--")):
        return None, "an SVG drawing" if b"<svg" in text else "an XML file"
    return None, "a file of no known kind"


def read(data: bytes, want: str, choice: dict, limits: MediaLimits):
    """Decode `data` as `want`: "image", "video" or "media" (the bytes decide).

    Returns:
        ("image", PIL RGB image, notes) or ("video", dict for `OpenedVideo`, frames as uint8
        arrays).
    Raises:
        MediaError, ParameterError.
    """
    kind, label = sniff(data)
    area = want if want != "media" else kind or "image"
    noun = "picture" if area == "image" else "video"
    if not data:
        raise MediaError(f"the file is empty (0 bytes). Choose another {noun}.", f"{area}/empty")
    if label == "HEIC":
        raise MediaError(
            "HEIC pictures are not supported. Export it as JPEG or PNG and send it again.",
            f"{area}/format",
        )
    if kind is None:
        wanted = "picture or video" if want == "media" else noun
        way = SEND_AGAIN if area == "image" else RESAVE
        raise MediaError(
            f"this is {label}, not a {wanted} that can be read. {way}", f"{area}/format"
        )
    if kind != area:
        other = f"a picture ({label})" if kind == "image" else f"a video ({label})"
        raise MediaError(
            f"there is no {noun} in this file, it is {other}. Choose a {noun}.", f"{area}/format"
        )
    most = limits.image_bytes if kind == "image" else limits.video_bytes
    if len(data) > most:
        raise MediaError(*too_many_bytes(len(data), most, kind))
    try:
        return read_image(data, limits) if kind == "image" else read_video(data, choice, limits)
    except MemoryError:
        raise MediaError(*out_of_memory(kind)) from None
    except TimeoutError:
        raise MediaError(*timed_out(limits, kind)) from None
    except X2VLMError:
        raise
    except Exception:  # whatever way the libraries find to fail, their words stay here
        if not _room_left():
            raise MediaError(*out_of_memory(kind)) from None
        message = f"the {noun} is damaged or incomplete. {ANOTHER_COPY}"
        raise MediaError(message, f"{kind}/corrupt") from None


def _room_left() -> bool:
    """False if this process cannot get a little more memory: libraries say it in many ways, or call
    the file broken."""
    try:
        return bool(bytearray(SPARE_BYTES))
    except MemoryError:
        return False
