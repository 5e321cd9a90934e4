"""Videos as players show them: pixels that are no squares, turned and mirrored frames, and pictures
of sound files, which are no videos."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests.bad_inputs import QUADRANTS, patched, quadrants
from x2vlm.errors import MediaError
from x2vlm.media import decode_video, open_media, open_video

ONE = 0x10000
PAL = Fraction(64, 45)
TURNS = {  # display matrix (a, b, c, d) -> what it makes of a stored image
    (ONE, 0, 0, ONE): None,
    (-ONE, 0, 0, ONE): Image.Transpose.FLIP_LEFT_RIGHT,
    (ONE, 0, 0, -ONE): Image.Transpose.FLIP_TOP_BOTTOM,
    (-ONE, 0, 0, -ONE): Image.Transpose.ROTATE_180,
    (0, ONE, -ONE, 0): Image.Transpose.ROTATE_270,
    (0, -ONE, ONE, 0): Image.Transpose.ROTATE_90,
    (0, ONE, ONE, 0): Image.Transpose.TRANSPOSE,
    (0, -ONE, -ONE, 0): Image.Transpose.TRANSVERSE,
}


def encode(out, stream, image: Image.Image, count: int = 3) -> None:
    """Muxes some frames that show an image."""
    for number in range(count):
        frame = av.VideoFrame.from_image(image).reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = number, Fraction(1, 10)
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


def video(format="mp4", codec="libx264", size=(64, 48), aspect=None, matrix=None) -> bytes:
    """Three frames of `quadrants`."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix:
            a, b, c, d = matrix
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        encode(out, stream, quadrants(*size))
    return file.getvalue()


def shows(frame: Image.Image, expected: Image.Image) -> bool:
    """Whether the four quarters of both have the same colours."""
    points = [(x, y) for x in (1, 3) for y in (1, 3)]
    near = [
        np.abs(
            np.subtract(
                frame.getpixel((frame.width * x // 4, frame.height * y // 4)),
                expected.getpixel((expected.width * x // 4, expected.height * y // 4)),
            )
        ).max()
        < 40
        for x, y in points
    ]
    return all(near)


FORMATS = [
    ("mp4", "libx264"),
    ("mov", "libx264"),
    ("mov", "mpeg4"),
    ("mp4", "mpeg4"),
    ("matroska", "libx264"),
    ("matroska", "mpeg4"),
    ("avi", "mpeg4"),
]


@pytest.mark.parametrize(("format", "codec"), FORMATS)
@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [
        ((72, 56), Fraction(64, 45), (102, 56)),
        ((72, 48), Fraction(8, 9), (64, 48)),
        ((144, 108), Fraction(4, 3), (192, 108)),
        ((64, 48), Fraction(1, 1), (64, 48)),
    ],
)
def test_pixels_that_are_no_squares(format, codec, stored, aspect, shown):
    opened = open_video(video(format, codec, stored, aspect), 2)
    assert opened.size == shown
    assert {frame.size for frame in opened.frames} == {shown}
    assert shows(opened.frames[0], quadrants())


def test_the_container_counts_before_the_codec():
    """`pasp` of MP4, over square pixels in the stream."""
    data = video(aspect=Fraction(1, 1))
    at = data.index(b"pasp")
    assert struct.unpack(">II", data[at + 4 : at + 12]) == (1, 1)
    assert open_video(patched(data, b"pasp", 4, 2, 1), 1).size == (128, 48)


@pytest.mark.parametrize("ratio", [(0, 1), (1, 0), (0, 0), (100_000, 1), (0xFFFFFFF0, 5)])
def test_absurd_pixels_are_taken_for_squares(ratio):
    data = video("mp4", "mpeg4", aspect=Fraction(1, 1))
    assert open_video(patched(data, b"pasp", 4, *ratio), 1).size == (64, 48)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_display_size_of_webm(codec):
    """DisplayWidth (0x54B0) twice the stored one, in the bytes of the element Language."""
    stored = b"\xb0\x81\x40\xba\x81\x30"
    data = video("webm", codec).replace(b"\x22\xb5\x9c\x83und", b"\xec\x80", 1)
    wide = data.replace(b"\xe0\x86" + stored, b"\xe0\x8b" + stored + b"\x54\xb0\x82\0\x80", 1)
    assert open_video(wide, 1).size == (128, 48)


def test_long_frames_are_shrunk_as_shown():
    opened = open_video(video(size=(72, 56), aspect=PAL), 1, max_side=51)
    assert opened.size == (102, 56)
    assert opened.frames[0].size == (51, 28)


@pytest.mark.parametrize("matrix", TURNS)
@pytest.mark.parametrize("format", ["mp4", "mov"])
def test_turns_and_mirrors(format, matrix):
    expected = quadrants()
    if TURNS[matrix] is not None:
        expected = expected.transpose(TURNS[matrix])
    opened = open_video(video(format, matrix=matrix), 2)
    assert opened.size == expected.size
    assert opened.frames[0].size == expected.size
    assert shows(opened.frames[0], expected)


@pytest.mark.parametrize("matrix", [(-ONE, 0, 0, -ONE), (0, ONE, -ONE, 0), (0, -ONE, ONE, 0)])
def test_turns_in_matroska(matrix):
    expected = quadrants().transpose(TURNS[matrix])
    opened = open_video(video("matroska", matrix=matrix), 1)
    assert opened.size == expected.size
    assert shows(opened.frames[0], expected)


@pytest.mark.parametrize("matrix", [(0, ONE, -ONE, 0), (0, ONE, ONE, 0)])
def test_a_turned_video_whose_pixels_are_no_squares(matrix):
    opened = open_video(video(size=(72, 56), aspect=PAL, matrix=matrix), 1)
    assert opened.size == (56, 102)
    assert shows(opened.frames[0], quadrants().transpose(TURNS[matrix]))


@pytest.mark.parametrize(
    ("height", "named", "matrix"),
    [
        (720, None, "ITU709"),
        (718, None, "ITU601"),
        (720, "ITU601", "ITU601"),
        (48, "ITU709", "ITU709"),
    ],
)
def test_colours_without_a_named_matrix_are_those_of_players(height, named, matrix):
    """HD is BT.709 and what is smaller BT.601, unless the stream says otherwise."""
    green, file = (30, 200, 30), io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        if named:
            stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 6}[named]
        image = av.VideoFrame.from_ndarray(np.full((height, 64, 3), green, np.uint8))
        frame = image.reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace, frame.pts, frame.time_base = 2, 0, Fraction(1, 10)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (shown,) = open_video(file.getvalue(), 1).frames
    assert np.abs(np.asarray(shown).astype(int) - green).max() <= 3


@pytest.mark.parametrize("options", [{"aspect": PAL}, {"matrix": (0, -ONE, -ONE, 0)}])
def test_training_sees_the_same_frames(options):
    data = video(**options)
    trained, opened = decode_video(data, [0, 2]), open_video(data, indices=[0, 2]).frames
    assert [frame.size for frame in trained] == [frame.size for frame in opened]
    assert [frame.tobytes() for frame in trained] == [frame.tobytes() for frame in opened]


def test_boxes_are_in_pixels_as_shown(tiny_predictor):
    scene = tiny_predictor.encode(video(size=(72, 56), aspect=PAL, matrix=(0, ONE, -ONE, 0)))
    assert scene.size == (56, 102)
    (found,) = tiny_predictor.ground(scene, "a dog")
    cx, cy, w, h = found.box_cxcywh
    assert found.box_xyxy[2] - found.box_xyxy[0] == pytest.approx(56 * w, abs=0.01)
    assert found.box_xyxy[3] - found.box_xyxy[1] == pytest.approx(102 * h, abs=0.01)
    assert 0 <= cx <= 1 and 0 <= cy <= 1


def sound(format="mp4", codec="aac", covers=1, film=False, film_first=False) -> bytes:
    """A second of silence with cover art, and a video if wanted."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as out:
        video = add_film(out) if film and film_first else None
        voice = out.add_stream(codec, rate=48000)
        pictures = []
        for _ in range(covers):
            art = out.add_stream("mjpeg" if format != "flac" else "png", rate=1)
            art.width = art.height = 64
            art.pix_fmt = "yuvj420p" if format != "flac" else "rgb24"
            art.disposition = av.stream.Disposition.attached_pic
            pictures.append(art)
        video = add_film(out) if film and not film_first else video
        for art in pictures:
            grey = np.full((64, 64, 3), 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=art.pix_fmt)
            frame.pts = 0
            for packet in (*art.encode(frame), *art.encode(None)):
                out.mux(packet)
        kind = {"libmp3lame": ("fltp", np.float32), "flac": ("s16", np.int16)}
        kind = kind.get(codec, ("fltp", np.float32))
        for start in range(0, 48000, 1152):
            shape = (2, 1152) if kind[0] == "fltp" else (1, 2304)
            samples = av.AudioFrame.from_ndarray(
                np.zeros(shape, kind[1]), format=kind[0], layout="stereo"
            )
            samples.sample_rate, samples.pts = 48000, start
            for packet in voice.encode(samples):
                out.mux(packet)
        for packet in voice.encode(None):
            out.mux(packet)
        if video is not None:
            encode(out, video, quadrants())
    return file.getvalue()


def add_film(out):
    stream = out.add_stream("libx264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    return stream


SOUNDS = [("mp4", "aac", 1), ("mp4", "aac", 2), ("mp3", "libmp3lame", 1), ("flac", "flac", 1)]


@pytest.mark.parametrize(("format", "codec", "covers"), SOUNDS)
@pytest.mark.parametrize("open_it", [open_video, open_media])
def test_cover_art_is_no_video(format, codec, covers, open_it):
    with pytest.raises(MediaError) as caught:
        open_it(sound(format, codec, covers), name="song")
    assert caught.value.code in ("video/format", "image/format")
    assert "no video" in str(caught.value) or "a sound file" in str(caught.value)


@pytest.mark.parametrize("film_first", [True, False])
def test_a_video_beside_its_cover(film_first):
    opened = open_video(sound(film=True, film_first=film_first), 2)
    assert opened.size == (64, 48)
    assert opened.num_frames == 3
    assert shows(opened.frames[0], quadrants())


def test_the_quarters_differ():
    assert len(set(QUADRANTS.values())) == 4
