"""Entries of one image or video are one image with all its captions, however the files tell so."""

import base64
import io
import json
import tarfile

import pytest
from PIL import Image

from train.data.files import FileRecords
from train.data.records import DataConfig, TestRecords, open_records
from x2vlm.errors import DataError


def png(color: str, size=(40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for color in ("red", "blue"):
        (tmp_path / f"{color}.png").write_bytes(png(color))
    return tmp_path


def write(folder, entries, name="a.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(folder / name)


def inline(color: str) -> str:
    return base64.b64encode(png(color)).decode()


FLAT = {
    "image_id": [
        {"image": "red.png", "image_id": 1, "caption": "one"},
        {"image": "blue.png", "image_id": 2, "caption": "two"},
        {"image": "red.png", "image_id": 1, "caption": "three"},
    ],
    "file": [
        {"image": "red.png", "caption": "one"},
        {"image": "blue.png", "caption": "two"},
        {"image": "./red.png", "caption": "three"},
    ],
    "base64": [
        {"binary": inline("red"), "caption": "one"},
        {"binary": inline("blue"), "caption": "two"},
        {"binary": inline("red"), "caption": "three"},
    ],
    "languages": [
        {"image": "red.png", "caption": {"en": "one"}},
        {"image": "blue.png", "caption": {"en": "two"}},
        {"image": "red.png", "caption": {"de": "three"}},
    ],
}
VIDEOS = {
    "video_id": [
        {"video_frames": ["red.png"], "image_id": "v", "caption": "one"},
        {"video_frames": ["blue.png"], "image_id": "w", "caption": "two"},
        {"video_frames": ["red.png"], "image_id": "v", "caption": "three"},
    ],
    "frames": [
        {"video_frames": ["red.png", "blue.png"], "caption": "one"},
        {"video_frames": ["blue.png", "red.png"], "caption": "two"},
        {"video_frames": ["red.png", "blue.png"], "caption": "three"},
    ],
    "encoded frames": [
        {"video_frames": [inline("red")] * 2, "caption": "one"},
        {"video_frames": [inline("blue")] * 2, "caption": "two"},
        {"video_frames": [inline("red")] * 2, "caption": "three"},
    ],
}


@pytest.mark.parametrize(
    ("format", "entries"),
    [("image_text", flat) for flat in FLAT.values()]
    + [("video_text", flat) for flat in VIDEOS.values()],
    ids=[*FLAT, *VIDEOS],
)
def test_flat_entries_are_measured_as_one_record(folder, format, entries):
    data = DataConfig(files=[write(folder, entries)], format=format)
    records = TestRecords(open_records(data))
    assert [record["captions"] for record in records] == [["one", "three"], ["two"]]


@pytest.mark.parametrize(
    ("format", "entries"),
    [("image_text", flat) for flat in FLAT.values()]
    + [("video_text", flat) for flat in VIDEOS.values()],
    ids=[*FLAT, *VIDEOS],
)
def test_flat_entries_have_the_same_image_id_in_training(folder, format, entries):
    records = FileRecords([write(folder, entries)], format=format)
    first, second, third = (record["image_id"] for record in records)
    assert first == third
    assert first != second


def test_entries_of_several_files_are_one_image(folder):
    """As of a data set with a file for each language."""
    files = [
        write(folder, [{"image": "red.png", "caption": text}], f"{text}.jsonl")
        for text in ("one", "eins")
    ]
    records = TestRecords(open_records(DataConfig(files=files)))
    assert [record["captions"] for record in records] == [["one", "eins"]]


@pytest.mark.parametrize("told", [True, False])
def test_samples_of_a_shard_are_one_image(folder, told):
    """By their `image_id`, or because they hold the same image."""
    with tarfile.open(folder / "a.tar", "w") as tar:
        for key, color in enumerate(("red", "blue", "red")):
            about = {"caption": f"{key}"} | ({"image_id": color} if told else {})
            for suffix, content in (("png", png(color)), ("json", json.dumps(about).encode())):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    records = TestRecords(open_records(DataConfig(files=[str(folder / "a.tar")])))
    assert [record["captions"] for record in records] == [["0", "2"], ["1"]]


def test_the_limit_counts_images_and_keeps_all_their_captions(folder):
    data = DataConfig(files=[write(folder, FLAT["file"])])
    records = TestRecords(open_records(data), limit=1)
    assert [record["captions"] for record in records] == [["one", "three"]]


def test_an_entry_that_cannot_be_read_costs_its_caption_only(folder):
    entries = [*FLAT["file"], {"image": "red.png", "caption": ""}]
    records = TestRecords(open_records(DataConfig(files=[write(folder, entries)])))
    (group,) = records.batches(8)
    assert [record["captions"] for record in group] == [["one", "three"], ["two"]]
    assert records.unreadable == ["a.jsonl, line 4: The text is empty. [data/text]"]
    assert records.measured == 2


def test_an_image_that_cannot_be_read_costs_its_record(folder):
    entries = [{"image": "green.png", "caption": "x"}, *FLAT["file"]]
    records = TestRecords(open_records(DataConfig(files=[write(folder, entries)])))
    (group,) = records.batches(8)
    assert [record["sample"] for record in group] == ["a.jsonl, line 2", "a.jsonl, line 3"]
    with pytest.raises(DataError, match=r"line 1: green.png is not in the folder"):
        records[0]


def test_regions_of_one_image_come_together(folder):
    element = {"bb": [0, 0, 20, 20], "caption": "x"}
    entries = [{"image": "red.png", "elems": [element]}] * 2
    data = DataConfig(files=[write(folder, entries)], format="region_text")
    (record,) = TestRecords(open_records(data))
    assert len(record["regions"]) == 2


@pytest.mark.parametrize(
    ("format", "entry"),
    [
        ("labelled", {"image": "red.png", "sentence": "s", "label": 1}),
        ("image_pair", {"images": ["red.png", "blue.png"], "sentence": "s", "label": True}),
        ("question_answer", {"image": "red.png", "question": "q", "answer": "a"}),
    ],
)
def test_what_is_no_list_of_captions_stays_a_record_an_entry(folder, format, entry):
    data = DataConfig(files=[write(folder, [entry, entry])], format=format)
    assert len(TestRecords(open_records(data))) == 2
