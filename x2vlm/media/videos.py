"""Videos: bytes to chosen frames, exactly numbered, as a player shows them: turned and mirrored by
the display matrix, pixels square.

All packets are listed first and a frame is known by its place in presentation order; decoding
starts at the nearest key frame before it, or at the beginning where time stamps are missing or
repeated.
"""

import bisect
import contextlib
import io
import itertools
import time
from dataclasses import dataclass

import numpy as np

from ..errors import MediaError, ParameterError
from .display import Turn, color_matrix, fit, pixel_aspect
from .limits import ANOTHER_COPY, RESAVE, MediaLimits, address_space, check_frame_size

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
CODECS = (
    "h264,hevc,vp8,vp9,libdav1d,av1,mpeg4,msmpeg4v1,msmpeg4v2,msmpeg4,mpeg1video,mpeg2video,h263,"
    "mjpeg,rawvideo,png,prores,dnxhd,ffv1,huffyuv,ffvhuff,theora,wmv1,wmv2,wmv3,vc1,libvpx,"
    "libvpx-vp9"
)
"""No other decoder is started, since each is code that takes a stranger's bytes."""
LONGEST_PAUSE = 10.0
"""Seconds that a pause counts at most towards the length limit: it takes no decoding work."""


def sample_frame_indices(num_frames: int, num_samples: int) -> list[int]:
    """The official rule at test time: the first frame of each of `num_samples` segments, the longer
    segments first.

    A video shorter than that gives all its frames, repeated in turn, in order.
    """
    if num_frames < 1 or num_samples < 1:
        raise ParameterError(
            f"{num_samples} frames of a video of {num_frames}: both must be at least 1.",
            "param/range",
        )
    if num_frames <= num_samples:
        return sorted(i % num_frames for i in range(num_samples))
    length, longer = divmod(num_frames, num_samples)
    return [i * length + min(i, longer) for i in range(num_samples)]


def read_video(
    data: bytes, choice: dict, limits: MediaLimits
) -> tuple[str, dict, list[np.ndarray]]:
    """Decode the chosen frames of a video; see `read`.

    `choice` holds `max_side` (pixels) and one of `num_frames`, `indices` (frame numbers), `times`
    (seconds).
    """
    deadline = time.monotonic() + limits.decode_seconds
    container, stream = _open_container(data, limits)
    timeline, lost = _list_packets(container, stream, limits, deadline)
    wanted = _choose(timeline, choice, limits)
    video = _Decoder(stream, timeline, limits, choice["max_side"], deadline)
    found = video.frames(sorted(set(wanted)))
    if not found:
        raise MediaError(
            f"no frame of the video can be read: it is damaged. {ANOTHER_COPY}", "video/corrupt"
        )
    notes = []
    count = len(timeline.packets_shown)
    if lost or _ends_inside_a_box(data):
        readable = f"{count} of {count + lost}" if lost else f"{count}"
        notes.append(f"the file ends early: {readable} frames could be read. [video/partial]")
    if damaged := len(set(wanted) - set(found)):
        notes.append(
            f"{damaged} of the {len(set(wanted))} chosen frames are damaged; the nearest readable "
            "ones are used. [video/partial]"
        )
    used = [min(sorted(found), key=lambda index: abs(index - i)) for i in wanted]
    reply = {
        "indices": used,
        "times": [timeline.times[i] for i in used],
        "duration": timeline.duration,
        "num_frames": count,
        "fps": timeline.fps,
        "size": video.size,
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
    with _memory_cap(limits.header_bytes):
        container = av.open(
            io.BytesIO(data), options=options, io_open=refuse_second_file, metadata_errors="ignore"
        )
    cover = av.stream.Disposition.attached_pic  # of a sound file, or beside the video
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise MediaError("there is no video stream in this file. Choose a video.", "video/format")
    stream = streams[0]
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS.split(","):
        name = "unknown" if codec is None else codec.name
        raise MediaError(f"its video codec ({name}) is not supported. {RESAVE}", "video/format")
    if not codec.width * codec.height:  # FFmpeg drops a size over `max_pixels`
        most = f"{limits.video_pixels / 1e6:g} Mpixel"
        raise MediaError(
            f"its frames state no size, or one above the limit of {most}. {RESAVE}", "video/pixels"
        )
    check_frame_size(codec.width, codec.height, limits)
    codec.thread_count = 1
    codec.options = {"max_pixels": str(limits.video_pixels)}
    return container, stream


def _ends_inside_a_box(data: bytes) -> bool:
    """Whether an MP4 or AVI file is shorter than its outermost boxes say."""
    if data[:4] == b"RIFF":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    at = 0
    while data[4:8] == b"ftyp" and at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size == 1:  # a 64-bit size follows
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8:  # 0: up to the end of the file
            return False
        if at + size > len(data):
            return data[at + 4 : at + 8] in (b"mdat", b"moof", b"moov")
        at += size
    return False


@contextlib.contextmanager
def _memory_cap(extra: int | None):
    """Let this process grow by at most `extra` bytes (where the system can do that)."""
    used = address_space()
    if used is None or extra is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    cap = used + extra if soft == resource.RLIM_INFINITY else min(soft, used + extra)
    resource.setrlimit(resource.RLIMIT_AS, (cap, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@dataclass
class _Timeline:
    """All packets of a video in decoding order and its frames in presentation order."""

    packets: list
    packets_shown: list  # one packet a frame, in presentation order
    by_pts: bool  # every frame has its own time stamp
    times: list[float]  # seconds from the first frame
    fps: float
    duration: float


def _list_packets(container, stream, limits: MediaLimits, deadline: float) -> tuple[_Timeline, int]:
    """The video's timeline, and how many frames its header promises beyond those that are there."""
    import av

    packets, listed, end = [], 0, 0.0
    # Where the data are damaged or end, what came before can be used.
    with contextlib.suppress(av.error.FFmpegError):
        for packet in container.demux():
            if packet.dts is not None and packet.time_base:
                end = max(end, float((packet.dts + (packet.duration or 0)) * packet.time_base))
            if (
                packet.stream_index != stream.index
                or packet.is_corrupt
                or (packet.dts is None and not packet.size)
            ):
                continue
            listed += 1
            if packet.size:
                packets.append(packet)
            if listed > limits.video_frames:
                message = (
                    f"the video has more than {limits.video_frames} frames. Cut out the part you "
                    "want and send it."
                )
                raise MediaError(message, "video/frames")
            _check(deadline)
    timeline = _order(container, stream, packets)
    played = sum(min(b - a, LONGEST_PAUSE) for a, b in itertools.pairwise(timeline.times))
    if played > limits.video_seconds:
        message = (
            f"the video is {played:.0f} s long; the limit is {limits.video_seconds:g} s. Cut out "
            "the part you want."
        )
        raise MediaError(message, "video/duration")
    # Some headers state nonsense: a count beyond our own limit is not taken for a promise.
    lost = max(0, stream.frames - listed) if stream.frames <= limits.video_frames else 0
    promised = (container.duration or 0) / av.time_base
    if not stream.frames and promised > 1.05 * end + 1:  # without a count, by the stated length
        lost = round((promised - end) * timeline.fps)
    return timeline, lost


def _order(container, stream, packets: list) -> _Timeline:
    """Frames in presentation order, by time stamp where each has its own."""
    hidden = stream.codec_context.name == "vp8"  # VP8 has packets that only prepare a later frame
    shown = [p for p in packets if not p.is_discard and not (hidden and not bytes(p)[0] & 0x10)]
    if not shown:
        raise MediaError(f"the video holds no frames. {ANOTHER_COPY}", "video/corrupt")
    stamps = {p.pts for p in shown}
    by_pts = None not in stamps and len(stamps) == len(shown)
    if container.format.name == "avi":
        # AVI stores no presentation times; FFmpeg guesses those of reordered frames.
        by_pts = by_pts and all(p.is_keyframe for p in packets)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    if by_pts:
        shown.sort(key=lambda p: p.pts)
        times = [float((p.pts - shown[0].pts) * stream.time_base) for p in shown]
    else:
        times = [i / rate for i in range(len(shown))]
    duration = times[-1] + (float((shown[-1].duration or 0) * stream.time_base) or 1 / rate)
    return _Timeline(packets, shown, by_pts, times, round(len(times) / duration, 6), duration)


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError


def _choose(timeline: _Timeline, choice: dict, limits: MediaLimits) -> list[int]:
    """Frame numbers by the caller's choice: given numbers, the frames shown at given times, or an
    even sample."""
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
    """Decodes chosen frames of a video, exactly, into RGB arrays (H, W, 3) of one size, as they are
    shown."""

    def __init__(
        self, stream, timeline: _Timeline, limits: MediaLimits, max_side: int, deadline: float
    ):
        self.codec = stream.codec_context
        self.timeline = timeline
        self.limits = limits
        self.max_side = max_side
        self.deadline = deadline
        self.aspect = pixel_aspect(stream)
        self.size: tuple[int, int] | None = None  # (width, height) as shown, before shrinking
        self.found: dict[int, np.ndarray] = {}

    def frames(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Frame number -> pixels of the frames `wanted` (sorted); of a lost one, those of a
        readable one before it."""
        sought = self.timeline.by_pts and self._with_jumps(wanted)
        missing = [i for i in wanted if i not in self.found]
        if missing:
            self.codec.flush_buffers()
            try:
                self._from_start(missing)
            except TimeoutError:
                if not (self.found and sought):
                    raise
        return self.found

    def _with_jumps(self, wanted: list[int]) -> bool:
        """Start at the last key frame shown no later than the frame, unless decoding has already
        passed it.

        Returns False where a jump did not land on a true key frame: then only decoding from the
        beginning will do.
        """
        packets, shown = self.timeline.packets, self.timeline.packets_shown
        keys = sorted(
            (p.pts, i) for i, p in enumerate(packets) if p.is_keyframe and p.pts is not None
        )
        index_of = {p.pts: i for i, p in enumerate(shown)}
        wanted_pts = {shown[i].pts for i in wanted}
        position, start, latest = 0, None, None
        # `start` is the time stamp of a key frame that decoding has just jumped to.
        for target in wanted:
            pts = shown[target].pts
            if target in self.found or (latest is not None and latest >= pts):
                continue
            before = bisect.bisect_right(keys, (pts, len(packets))) - 1
            if before >= 0 and keys[before][1] > position:
                self.codec.flush_buffers()
                start, position = keys[before]
            while position <= len(packets) and (latest is None or latest < pts):
                for frame in self._decode(packets[position] if position < len(packets) else None):
                    if frame.pts is None or (start is not None and frame.pts < start):
                        continue  # shown before the key frame: needs frames that were jumped over
                    if start is not None and not frame.key_frame:
                        return False
                    start = None
                    latest = frame.pts
                    if frame.pts in wanted_pts and not frame.is_corrupt:
                        self.found[index_of[frame.pts]] = self._pixels(frame)
                position += 1
        return True

    def _from_start(self, missing: list[int]) -> None:
        """Decode everything from the beginning; the last good frame before a lost one is kept to
        stand in for it."""
        shown = self.timeline.packets_shown
        index_of = {p.pts: i for i, p in enumerate(shown)} if self.timeline.by_pts else {}
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
        """The frames that one packet (None: the end) brings out; none where its data are
        damaged."""
        import av

        _check(self.deadline)
        try:
            return self.codec.decode(packet)
        except MemoryError:
            raise
        except (av.error.FFmpegError, EOFError):
            return []

    def _pixels(self, frame) -> np.ndarray:
        check_frame_size(frame.width, frame.height, self.limits)
        turn = Turn.of(frame)
        if self.size is None:
            shown = max(1, round(frame.width * self.aspect)), frame.height
            check_frame_size(*shown, self.limits)
            self.size = shown[::-1] if turn.sideways else shown
        width, height = fit(self.size, self.max_side)
        if turn.sideways:
            width, height = height, width
        rgb = frame.reformat(
            width,
            height,
            "rgb24",
            src_colorspace=color_matrix(frame),
            interpolation="AREA" if width < frame.width else "BICUBIC",
            threads=1,
        )
        return turn.apply(rgb.to_ndarray())
