"""Bytes in, upright RGB pixels out: what the child process of `x2vlm.media` runs on files from strangers.

Every limit is checked on the header, before the work it would cost. Messages name no file; the parent adds the name.
Frame numbers are exact: all packets are listed first, a frame is known by its place in presentation order, and decoding
starts at the nearest key frame before it (or at the beginning, where time stamps are missing or repeated).
"""

import bisect
import contextlib
import io
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from .errors import MediaError, ParameterError

SEND_AGAIN = "Export it as JPEG or PNG and send it again."
RESAVE = "Save it again as MP4 (H.264) and send that."
PICTURE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
# Decoders outside this list are never started: every one is code that strangers' bytes would run through.
CODECS = (
    "h264,hevc,vp8,vp9,libdav1d,av1,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,mpeg1video,mpeg2video,h263,mjpeg,rawvideo,png,"
    "prores,dnxhd,ffv1,huffyuv,ffvhuff,theora,wmv1,wmv2,wmv3,vc1,libvpx,libvpx-vp9"
)
# A container header needs little memory; one that claims millions of frames is stopped here, long before the job's limit.
HEADER_MEMORY = 384 * 2**20
# A pause longer than this adds no decoding work, so it counts only this much towards the length limit.
LONGEST_PAUSE = 10.0


@dataclass(frozen=True)
class MediaLimits:
    """Every limit on media in one place: sizes in bytes and pixels, times in seconds."""

    image_bytes: int = 20 * 2**20
    image_pixels: int = 50_000_000
    image_side: int = 30_000
    video_bytes: int = 200 * 2**20
    video_seconds: float = 600.0
    video_pixels: int = 35_000_000  # in one frame
    video_frames: int = 40_000
    chosen_frames: int = 256
    decode_seconds: float = 20.0
    memory_bytes: int = 1536 * 2**20


def sample_frame_indices(num_frames: int, num_samples: int) -> list[int]:
    """The official rule at test time: the first frame of each of `num_samples` segments, the longer segments first.

    A clip shorter than that gives all its frames, repeated in turn, in order.
    """
    if num_frames < 1 or num_samples < 1:
        raise ParameterError(f"{num_samples} frames of a clip of {num_frames}: both must be at least 1.", "param/range")
    if num_frames <= num_samples:
        return sorted(i % num_frames for i in range(num_samples))
    length, longer = divmod(num_frames, num_samples)
    return [i * length + min(i, longer) for i in range(num_samples)]


# ---------------------------------------------------------------- what kind of file


_SIGNATURES = (
    (b"\xff\xd8\xff", "image", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "image", "PNG"),
    (b"GIF8", "image", "GIF"),
    (b"BM", "image", "BMP"),
    (b"II*\0", "image", "TIFF"),
    (b"MM\0*", "image", "TIFF"),
    (b"\x1aE\xdf\xa3", "video", "Matroska or WebM"),
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
        riff = {b"WEBP": ("image", "WebP"), b"AVI ": ("video", "AVI"), b"WAVE": (None, "a sound file")}
        return riff.get(head[8:12], (None, "an unknown RIFF file"))
    if head[4:8] == b"ftyp":
        brands = {head[8:12]} | {head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 64), 4)}
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
    return None, "no known kind of file"


def read(data: bytes, want: str, choice: dict, limits: MediaLimits):
    """Decode `data` as `want`: "image", "video" or "media" (the bytes decide).

    Returns:
        ("image", PIL RGB image, notes) or ("video", dict for `OpenedVideo`, frames as uint8 arrays).
    Raises:
        MediaError, ParameterError.
    """
    kind, label = sniff(data)
    area = want if want != "media" else kind or "image"
    noun = "picture" if area == "image" else "video"
    if not data:
        raise MediaError(f"the file is empty (0 bytes). Choose another {noun}.", f"{area}/empty")
    if label == "HEIC":
        raise MediaError(f"HEIC pictures are not supported. {SEND_AGAIN}", f"{area}/format")
    if kind is None:
        wanted = "picture or video" if want == "media" else noun
        way = SEND_AGAIN if area == "image" else RESAVE
        raise MediaError(f"this is not a {wanted} that can be read, it is {label}. {way}", f"{area}/format")
    if kind != area:
        other = f"a picture ({label})" if kind == "image" else f"a video ({label})"
        raise MediaError(f"there is no {noun} in this file, it is {other}. Choose a {noun}.", f"{area}/format")
    most = limits.image_bytes if kind == "image" else limits.video_bytes
    if len(data) > most:
        raise MediaError(*too_many_bytes(len(data), most, kind))
    try:
        return read_image(data, limits) if kind == "image" else read_video(data, choice, limits)
    except MemoryError:
        message = "reading it needs more memory than one file may use. Make it smaller and send it again."
        raise MediaError(message, f"{kind}/memory") from None


def too_many_bytes(size: int, most: int, kind: str) -> tuple[str, str]:
    """Message and code for a file of `size` bytes over the limit `most`."""
    return (
        f"the file has {size / 2**20:.1f} MiB; the limit is {most / 2**20:g}. Make it smaller and send it again.",
        f"{kind}/bytes",
    )


# ---------------------------------------------------------------- pictures


def read_image(data: bytes, limits: MediaLimits) -> tuple[str, Image.Image, list[str]]:
    """Decode a picture; see `read`."""
    Image.MAX_IMAGE_PIXELS = None  # our own limit below is stricter and has its own message
    damaged = MediaError("the picture is damaged or incomplete. Choose another copy of it.", "image/corrupt")
    try:
        image = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
    except MemoryError:
        raise
    except Exception:
        raise damaged from None
    check_image_size(image.size, limits)
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        several = "it has several pages" if image.format == "TIFF" else "it is animated"
        notes.append(f"{several}; the first picture is used. [image/animated]")
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:
        raise damaged from None
    if image.format in ("JPEG", "MPO") and _ends_in_filler(image, data):
        raise MediaError("the picture is cut off: its lower part is missing. Send the whole file.", "image/corrupt")
    return "image", upright_rgb(image), notes


def check_image_size(size: tuple[int, int], limits: MediaLimits) -> None:
    """Refuse a picture of no or too many pixels; `size` is (width, height)."""
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(f"{width} x {height} pixels: the picture is empty. Choose another picture.", "image/empty")
    again = "Make it smaller and send it again."
    if width * height > limits.image_pixels:
        mega, most = width * height / 1e6, limits.image_pixels / 1e6
        message = f"{width} x {height} = {mega:.{0 if mega >= 10 else 2}f} Mpixel; the limit is {most:g}. {again}"
        raise MediaError(message, "image/pixels")
    if max(size) > limits.image_side:
        message = f"{width} x {height} pixels: the longest side may have {limits.image_side}. {again}"
        raise MediaError(message, "image/pixels")


def _ends_in_filler(image: Image.Image, data: bytes) -> bool:
    """Whether a JPEG's data ran out before its last row although an end marker follows.

    The decoder then fills up with middle grey and reports success. Only such a picture changes when a few more bytes of
    data stand before the end marker; in a whole one they are surplus and ignored.
    """
    width, height = image.size
    corner = np.asarray(image.crop((max(width - 8, 0), max(height - 8, 0), width, height)))
    if corner.min() < 126 or corner.max() > 130:
        return False
    end = data.rfind(b"\xff\xd9")
    longer = Image.open(io.BytesIO(data[:end] + b"\x5a\xa5\x3c\x69" * 64 + data[end:]), formats=("JPEG",))
    try:
        return longer.tobytes() != image.tobytes()
    except OSError:
        return True


def upright_rgb(image: Image.Image) -> Image.Image:
    """An 8-bit RGB copy: turned upright by its EXIF, clear parts on white, 16 bits scaled to 8."""
    if image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.mode in ("F", "LAB", "HSV"):
        raise MediaError(f"its pixels are of a kind that is not supported ({image.mode}). {SEND_AGAIN}", "image/format")
    # Unreadable metadata never loses a picture, whatever way the parser finds to fail on it.
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(image, mask=image.getchannel("A"))
        return paper
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits scaled to 8 (Pillow's own conversion clips, which leaves white)."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise MediaError(f"its pixels have more than 16 bits, which is not supported. {SEND_AGAIN}", "image/format")
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    grey.info["exif"] = image.getexif().tobytes()
    return grey


# ---------------------------------------------------------------- videos


def read_video(data: bytes, choice: dict, limits: MediaLimits) -> tuple[str, dict, list[np.ndarray]]:
    """Decode the chosen frames of a clip; see `read`.

    `choice` holds `max_side` (pixels) and one of `num_frames`, `indices` (frame numbers), `times` (seconds).
    """
    import av

    deadline = time.monotonic() + limits.decode_seconds
    container, stream = _open_container(data, limits)
    timeline, expected = _list_packets(container, stream, limits, deadline)
    wanted = _choose(timeline, choice, limits)
    clip = _Decoder(stream, timeline, limits, choice["max_side"], deadline)
    try:
        found = clip.frames(sorted(set(wanted)))
    except av.error.FFmpegError:
        found = clip.found
    if not found:
        raise MediaError(f"no frame of the video can be read: it is damaged. {RESAVE}", "video/corrupt")
    notes = []
    count = len(timeline.packets_shown)
    if count < expected:
        notes.append(f"the file ends early: {count} of {expected} frames could be read. [video/partial]")
    readable = sorted(found)
    if lost := len(set(wanted) - set(readable)):
        notes.append(
            f"{lost} of the {len(set(wanted))} chosen frames are damaged; the nearest readable ones are used instead. "
            "[video/partial]"
        )
    used = [min(readable, key=lambda index: abs(index - i)) for i in wanted]
    reply = {
        "indices": used,
        "times": [timeline.times[i] for i in used],
        "duration": timeline.duration,
        "num_frames": count,
        "fps": timeline.fps,
        "size": clip.size,
        "notes": notes,
    }
    return "video", reply, [found[i] for i in sorted(set(used))]


def _open_container(data: bytes, limits: MediaLimits):
    """The container and its video stream, after the checks that its header allows."""
    import av

    def refuse_second_file(*_):
        raise PermissionError

    options = {
        "format_whitelist": CONTAINERS,
        "codec_whitelist": CODECS,
        "protocol_whitelist": "none",
        "max_pixels": str(limits.video_pixels),
    }
    try:
        with memory_cap(HEADER_MEMORY):
            container = av.open(io.BytesIO(data), options=options, io_open=refuse_second_file, metadata_errors="ignore")
    except MemoryError:
        raise
    except Exception:
        raise MediaError(
            f"the video is damaged or incomplete: its header cannot be read. {RESAVE}", "video/corrupt"
        ) from None
    if not container.streams.video:
        raise MediaError("there is no video stream in this file. Choose a video.", "video/format")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS.split(","):
        name = "unknown" if codec is None else codec.name
        raise MediaError(f"its video codec ({name}) is not supported. {RESAVE}", "video/format")
    _check_frame_size(codec.width, codec.height, limits)
    codec.thread_count = 1
    codec.options = {"max_pixels": str(limits.video_pixels)}
    return container, stream


def _check_frame_size(width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.video_pixels:
        message = (
            f"frames of {width} x {height} = {width * height / 1e6:.0f} Mpixel; the limit is "
            f"{limits.video_pixels / 1e6:g}. Make the video smaller and send it again."
        )
        raise MediaError(message, "video/pixels")


@contextlib.contextmanager
def memory_cap(extra: int):
    """Let this process grow by at most `extra` bytes (where the system can do that)."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    cap = used + extra if soft == resource.RLIM_INFINITY else min(soft, used + extra)
    resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass
class _Timeline:
    """All packets of a clip in decoding order and its frames in presentation order."""

    packets: list
    packets_shown: list  # one packet a frame, in presentation order
    by_pts: bool  # every frame has its own time stamp
    times: list[float]  # seconds from the first frame
    fps: float
    duration: float


def _list_packets(container, stream, limits: MediaLimits, deadline: float) -> tuple[_Timeline, int]:
    """The clip's timeline and the number of frames that its header promises (0: no promise)."""
    import av

    packets, end = [], 0.0
    with contextlib.suppress(av.error.FFmpegError):  # the data end here; what came before can be used
        for packet in container.demux():
            if packet.dts is not None and packet.time_base:
                end = max(end, float((packet.dts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or not packet.size or packet.is_corrupt:
                continue
            packets.append(packet)
            if len(packets) > limits.video_frames:
                message = (
                    f"the video has more than {limits.video_frames} frames. Cut out the part you want and send that."
                )
                raise MediaError(message, "video/frames")
            _check_deadline(deadline, limits)
    hidden = stream.codec_context.name == "vp8"  # VP8 has packets that only prepare a later frame
    shown = [p for p in packets if not p.is_discard and not (hidden and not bytes(p)[0] & 0x10)]
    if not shown:
        raise MediaError(f"the video holds no frames. {RESAVE}", "video/corrupt")
    stamps = {p.pts for p in shown}
    by_pts = None not in stamps and len(stamps) == len(shown)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    if by_pts:
        shown.sort(key=lambda p: p.pts)
        times = [float((p.pts - shown[0].pts) * stream.time_base) for p in shown]
    else:
        times = [i / rate for i in range(len(shown))]
    duration = times[-1] + 1 / rate
    played = sum(min(b - a, LONGEST_PAUSE) for a, b in zip(times, times[1:]))
    if played > limits.video_seconds:
        message = (
            f"the video is {played:.0f} s long; the limit is {limits.video_seconds:g} s. Cut out the part you want."
        )
        raise MediaError(message, "video/duration")
    expected = stream.frames
    promised = (container.duration or 0) / av.time_base
    if not expected and promised > 1.05 * end + 1 > 1:
        expected = round(len(shown) * promised / max(end, 1 / rate))
    return _Timeline(packets, shown, by_pts, times, len(times) / duration, duration), expected


def _check_deadline(deadline: float, limits: MediaLimits) -> None:
    if time.monotonic() > deadline:
        raise MediaError(*timed_out(limits, "video"))


def timed_out(limits: MediaLimits, kind: str) -> tuple[str, str]:
    """Message and code for a file that takes too long to decode."""
    return (
        f"reading it took longer than {limits.decode_seconds:g} s. Make it smaller or shorter and send it again.",
        f"{kind}/timeout",
    )


def _choose(timeline: _Timeline, choice: dict, limits: MediaLimits) -> list[int]:
    """Frame numbers by the caller's choice: given numbers, the frames shown at given times, or an even sample."""
    count = len(timeline.times)
    if choice.get("times") is not None:
        outside = [t for t in choice["times"] if not 0 <= t <= timeline.duration]
        indices = [bisect.bisect_right(timeline.times, t) - 1 for t in choice["times"]]
        rule = f"seconds from 0 to {timeline.duration:.3f}"
    elif choice.get("indices") is not None:
        indices = choice["indices"]
        outside = [i for i in indices if not 0 <= i < count]
        rule = f"frame numbers from 0 to {count - 1}"
    else:
        indices, outside, rule = sample_frame_indices(count, choice["num_frames"]), [], ""
    if outside:
        raise ParameterError(f"{outside[0]:g} lies outside the video. Give {rule}.", "param/range")
    if not 1 <= len(indices) <= limits.chosen_frames:
        message = f"{len(indices)} frames were asked for. Ask for 1 to {limits.chosen_frames}."
        raise ParameterError(message, "param/range")
    return indices


class _Decoder:
    """Decodes chosen frames of a clip, exactly, into upright RGB arrays of one size (H, W, 3)."""

    def __init__(self, stream, timeline: _Timeline, limits: MediaLimits, max_side: int, deadline: float):
        self.codec = stream.codec_context
        self.timeline = timeline
        self.limits = limits
        self.max_side = max_side
        self.deadline = deadline
        self.size: tuple[int, int] | None = None  # upright (width, height) as stored
        self.found: dict[int, np.ndarray] = {}

    def frames(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Decode the frames `wanted` (sorted); those that cannot be read are left out, or stand-ins are found for all."""
        if self.timeline.by_pts:
            self._with_jumps(wanted)
        if not set(wanted) <= set(self.found):
            self.codec.flush_buffers()
            self._from_start(wanted)
        return self.found

    def _with_jumps(self, wanted: list[int]) -> None:
        """Start at the last key frame shown no later than the frame, unless decoding has already passed it."""
        packets, shown = self.timeline.packets, self.timeline.packets_shown
        keys = [i for i, p in enumerate(packets) if p.is_keyframe and p.pts is not None]
        index_of = {p.pts: i for i, p in enumerate(shown)}
        wanted_pts = {shown[i].pts for i in wanted}
        position, jumped, latest = 0, False, None
        for target in wanted:
            pts = shown[target].pts
            if target in self.found or (latest is not None and latest >= pts):
                continue
            key = max((k for k in keys if packets[k].pts <= pts), default=0)
            if key > position:
                self.codec.flush_buffers()
                position, jumped = key, True
            while position <= len(packets) and (latest is None or latest < pts):
                for frame in self._decode(packets[position] if position < len(packets) else None):
                    if jumped and not frame.key_frame:
                        return  # not a true key frame: decode from the start instead
                    jumped = False
                    if frame.pts is None:
                        continue
                    latest = frame.pts
                    if frame.pts in wanted_pts and not frame.is_corrupt:
                        self.found[index_of[frame.pts]] = self._pixels(frame)
                position += 1

    def _from_start(self, wanted: list[int]) -> None:
        """Count frames from the beginning; keeps the last good frame before a lost one as its stand-in."""
        shown = self.timeline.packets_shown
        index_of = {p.pts: i for i, p in enumerate(shown)} if self.timeline.by_pts else {}
        missing = [i for i in wanted if i not in self.found]
        count, good = 0, None
        for packet in [*self.timeline.packets, None]:
            for frame in self._decode(packet):
                index = index_of.get(frame.pts) if self.timeline.by_pts else count
                count += 1
                if frame.is_corrupt or index is None:
                    continue
                while missing and missing[0] < index:
                    missing.pop(0)
                    if good is not None:
                        self.found.setdefault(good[0], self._pixels(good[1]))
                good = index, frame
                if missing and missing[0] == index:
                    self.found[missing.pop(0)] = self._pixels(frame)
            if not missing:
                return
        if good is not None:
            self.found.setdefault(good[0], self._pixels(good[1]))

    def _decode(self, packet) -> list:
        """The frames that one packet (None: the end) brings out; none where its data are damaged."""
        import av

        _check_deadline(self.deadline, self.limits)
        try:
            return self.codec.decode(packet)
        except MemoryError:
            raise
        except (av.error.FFmpegError, EOFError):
            return []

    def _pixels(self, frame) -> np.ndarray:
        _check_frame_size(frame.width, frame.height, self.limits)
        turns = round(frame.rotation / 90) % 4
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        if self.size is None:
            self.size = width, height
        width, height = fit(self.size, self.max_side)
        if turns % 2:
            width, height = height, width
        area = "AREA" if width < frame.width else "BICUBIC"
        rgb = frame.reformat(width, height, "rgb24", interpolation=area, threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, turns))


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """`size` (width, height), shrunk so that no side is longer than `max_side`; never below one pixel."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
