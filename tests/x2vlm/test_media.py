"""Opening images and videos: sources, frame sampling, exact frames, names in messages, and written
videos."""

import io
import itertools

import av
import numpy as np
import pytest
from PIL import Image

from tests.bad_inputs import (
    encoded,
    number_of,
    numbered,
    oriented,
    photo,
    quadrants,
    upright,
    video,
)
from x2vlm.errors import MediaError, ParameterError
from x2vlm.media import (
    MediaLimits,
    OpenedImage,
    OpenedVideo,
    open_image,
    open_media,
    open_video,
    sample_frame_indices,
    shown_name,
    write_video,
)


@pytest.mark.parametrize(
    ("num_frames", "num_samples", "expected"),
    [
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 0, 1]),
        (3, 3, [0, 1, 2]),
        (2, 5, [0, 0, 0, 1, 1]),
        (4, 3, [0, 2, 3]),
        (7, 3, [0, 3, 5]),
        (8, 3, [0, 3, 6]),
        (10, 3, [0, 4, 7]),
        (30, 5, [0, 6, 12, 18, 24]),
        (17, 5, [0, 4, 8, 11, 14]),
    ],
)
def test_sampling_follows_the_official_rule(num_frames, num_samples, expected):
    assert sample_frame_indices(num_frames, num_samples) == expected


def test_sampling_segments_cover_the_video():
    for num_frames, num_samples in itertools.product(range(1, 40), range(1, 12)):
        indices = sample_frame_indices(num_frames, num_samples)
        assert len(indices) == num_samples
        assert indices == sorted(indices)
        assert indices[0] == 0 and indices[-1] < num_frames
        lengths = np.diff([*indices, num_frames])
        assert num_frames < num_samples or lengths.max() - lengths.min() <= 1


def test_sampling_refuses_nothing_to_sample():
    with pytest.raises(ParameterError):
        sample_frame_indices(0, 8)


def test_every_source_gives_the_same_image(tmp_path):
    image = photo(90, 70)
    data = encoded(image, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [
            path,
            str(path),
            data,
            bytearray(data),
            io.BytesIO(data),
            file,
            image,
            np.asarray(image),
        ]
        opened = [open_image(source) for source in sources]
    for one in opened:
        assert one.size == (90, 70)
        assert np.array_equal(np.asarray(one.pixels), np.asarray(image))


def test_images_in_memory_are_put_upright_and_on_white():
    upright(open_image(Image.open(io.BytesIO(oriented(6)))))
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(clear).pixels.getpixel((1, 1)) == (255, 255, 255)
    assert clear.getpixel((1, 1)) == (255, 0, 0, 0)


def test_a_image_is_the_callers_own():
    image = quadrants()
    opened = open_image(image)
    opened.pixels.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) != (1, 2, 3)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("http://127.0.0.1:9/a.png", "image/reference"),
        ("file:///etc/passwd", "image/reference"),
        ("data:image/png;base64,AAAA", "image/reference"),
        ("no/such/file.png", "image/reference"),
        ("nul\0byte.png", "image/reference"),
        ("", "image/reference"),
        (io.StringIO("text"), "image/format"),
        (42, "image/format"),
        (None, "image/format"),
        (np.zeros((4, 4), np.uint8), "image/format"),
        (np.zeros((4, 4, 3), np.float32), "image/format"),
        (np.zeros((0, 4, 3), np.uint8), "image/empty"),
        (Image.new("F", (4, 4)), "image/format"),
        (Image.new("L", (30_001, 1)), "image/pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_sources_that_are_refused(source, code):
    with pytest.raises(MediaError) as caught:
        open_image(source)
    assert caught.value.code == code
    assert "/such" not in str(caught.value)


def test_limits_are_the_callers():
    data = encoded(quadrants(), "PNG")
    for limits, code in (
        (MediaLimits(image_bytes=10), "image/bytes"),
        (MediaLimits(image_pixels=64 * 48 - 1), "image/pixels"),
        (MediaLimits(image_side=63), "image/pixels"),
    ):
        with pytest.raises(MediaError) as caught:
            open_image(data, limits)
        assert caught.value.code == code
    assert open_image(
        data, MediaLimits(image_bytes=len(data), image_pixels=64 * 48, image_side=64)
    ).size == (64, 48)
    for limits, code in (
        (MediaLimits(video_bytes=10), "video/bytes"),
        (MediaLimits(video_frames=29), "video/frames"),
        (MediaLimits(video_seconds=0.5), "video/duration"),
        (MediaLimits(video_pixels=64 * 48 - 1), "video/pixels"),
    ):
        with pytest.raises(MediaError) as caught:
            open_video(video(30), limits=limits)
        assert caught.value.code == code


def test_media_goes_by_the_bytes(tmp_path):
    for name, data, kind in (
        ("a.mp4", encoded(quadrants(), "PNG"), OpenedImage),
        ("a.jpg", video(5), OpenedVideo),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert isinstance(open_media(path), kind)
    assert isinstance(open_media(quadrants()), OpenedImage)
    with pytest.raises(MediaError) as caught:
        open_video(quadrants())
    assert caught.value.code == "video/format"


@pytest.mark.parametrize("gop", [1, 7, 250])
@pytest.mark.parametrize("open_gop", ["0", "1"])
def test_any_frame_is_exact(gop, open_gop):
    data = video(90, gop=gop, bf="3", **{"x264-params": f"open-gop={open_gop}:scenecut=0"})
    rng = np.random.default_rng(gop)
    for indices in ([89], [0, 89], [45, 3, 3, 88], sorted(rng.choice(90, 10).tolist())):
        opened = open_video(data, indices=indices)
        assert opened.indices == tuple(indices)
        assert [number_of(frame) for frame in opened.frames] == indices
        assert not opened.notes


@pytest.mark.parametrize(
    ("format", "codec"),
    [("webm", "libvpx"), ("webm", "libvpx-vp9"), ("matroska", "libx264"), ("avi", "mpeg4")],
)
def test_containers_and_codecs(format, codec):
    opened = open_video(video(40, format, codec, gop=9), 10)
    assert [number_of(frame) for frame in opened.frames] == list(range(0, 40, 4))
    assert opened.num_frames == 40
    assert opened.fps == pytest.approx(30, rel=0.02)
    assert not opened.notes


def test_hidden_frames_are_not_counted():
    with av.open(io.BytesIO(video(40, "webm", "libvpx", gop=20))) as source:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        shown_key = bytes(packets[0])
        hidden = av.Packet(
            bytes([shown_key[0] & ~0x10]) + shown_key[1:]
        )  # refreshes all references, shows nothing
        hidden.stream, hidden.time_base = stream, packets[0].time_base
        hidden.pts = hidden.dts = packets[20].pts - 5
        file = io.BytesIO()
        with av.open(file, "w", format="webm") as target:
            copy = target.add_stream_from_template(stream)
            for packet in [*packets[:20], hidden, *packets[20:]]:
                packet.stream = copy
                target.mux(packet)
    opened = open_video(file.getvalue(), indices=range(40))
    assert opened.num_frames == 40
    assert [number_of(frame) for frame in opened.frames] == list(range(40))


def test_times_choose_the_frame_on_screen():
    stamps = [0, 1, 2, 30, 31, 60]
    opened = open_video(video(6, stamps=stamps), times=[0, 0.05, 0.9, 1.0, 1.99, 2.0])
    assert opened.indices == (0, 1, 2, 3, 4, 5)
    assert opened.times == pytest.approx([stamp / 30 for stamp in stamps], abs=1e-3)
    assert [number_of(frame) for frame in opened.frames] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "choice",
    [
        {"indices": [30]},
        {"indices": [-1]},
        {"indices": []},
        {"times": [-0.1]},
        {"times": [99.0]},
        {"times": [float("nan")]},
        {"num_frames": 0},
        {"num_frames": 10_000},
        {"max_side": 0},
        {"indices": [0], "times": [0.0]},
    ],
    ids=repr,
)
def test_choices_out_of_range(choice):
    with pytest.raises(ParameterError) as caught:
        open_video(video(30), **choice)
    assert caught.value.code == "param/range"


def test_frames_are_shrunk_to_max_side():
    data = video(3, size=(320, 240))
    opened = open_video(data, max_side=100)
    assert opened.size == (320, 240)
    assert {frame.size for frame in opened.frames} == {(100, 75)}
    assert [number_of(frame) for frame in opened.frames] == list(opened.indices)
    assert open_video(data, max_side=5000).frames[0].size == (320, 240)


@pytest.mark.parametrize(
    "name", ["a\u202eb.png", "a\x1b[31m.png", "a\nb.png", "\u200b.png", "\ud800.png"]
)
def test_names_are_shown_escaped(name):
    shown = shown_name(f"/secret/{name}")
    assert shown.isprintable()
    assert "secret" not in shown
    assert "\\u" in shown


def test_long_names_are_shortened():
    shown = shown_name("C:\\secret\\" + "a" * 300 + ".jpeg")
    assert len(shown) <= 60
    assert shown.endswith(".jpeg")


def test_a_given_name_is_used():
    with pytest.raises(MediaError, match=r"^holiday\.jpg: "):
        open_image(b"", name="/tmp/x/holiday.jpg")


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("size", [(64, 48), (63, 49), (1, 1)])
def test_written_videos_read_back(tmp_path, size):
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (128, 128, 128)]
    path = write_video(
        [Image.new("RGB", size, colour) for colour in colours], 12.5, tmp_path / "out.mp4"
    )
    opened = open_video(path, 4)
    assert opened.num_frames == 4
    assert opened.fps == pytest.approx(12.5)
    assert opened.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for frame, colour in zip(opened.frames, colours):
        assert np.abs(np.asarray(frame).astype(int) - colour).max() <= 6
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_written_videos_suit_browsers(tmp_path):
    path = write_video((numbered(i) for i in range(10)), 10, tmp_path / "out.mp4")
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat"), "the index must come first"
    with av.open(path) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.colorspace, codec.color_range) == (
            "h264",
            "yuv420p",
            1,
            1,
        )
    assert [number_of(frame) for frame in open_video(path, 10).frames] == list(range(10))


@pytest.mark.parametrize(
    ("frames", "fps"),
    [
        ([], 10),
        ([numbered(0)], 0),
        ([numbered(0)], float("nan")),
        ([numbered(0), numbered(1, 32, 32)], 10),
    ],
    ids=["none", "rate-0", "rate-nan", "two-sizes"],
)
def test_a_failed_write_leaves_what_was_there(tmp_path, frames, fps):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")
    with pytest.raises(ParameterError):
        write_video(frames, fps, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- real files


def test_real_photographs(shared_dir):
    paths = sorted((shared_dir / "data/coco_mini/images").glob("*.jpg"))[:20]
    if not paths:
        pytest.skip("no photographs in the shared data")
    for path in paths:
        opened = open_image(path)
        assert np.array_equal(
            np.asarray(opened.pixels), np.asarray(Image.open(path).convert("RGB"))
        )
        assert not opened.notes


def test_real_videos_match_a_decode_from_the_start(shared_dir):
    paths = sorted((shared_dir / "data/videos").glob("*.mp4"))
    if not paths:
        pytest.skip("no videos in the shared data")
    for path in paths:
        opened = open_video(path, indices=[5, 60, 61], max_side=10_000)
        with av.open(str(path)) as container:
            wanted = dict(enumerate(itertools.islice(container.decode(video=0), 62)))
        for index, frame in zip(opened.indices, opened.frames):
            expected = wanted[index].to_ndarray(format="rgb24")
            assert np.abs(np.asarray(frame).astype(int) - expected).max() <= 2
