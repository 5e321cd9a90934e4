"""Annotation files and shards: every format read, every bad entry named, nothing read that lies
outside the folder."""

import base64
import io
import json
import struct
import tarfile

import pytest
from PIL import Image

from train.data.files import FileRecords
from train.data.json_text import read_json_list
from x2vlm.errors import ConfigError, DataError, X2VLMError


def image(color="red", size=(40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(image())
    (tmp_path / "b.png").write_bytes(image("blue"))
    return tmp_path


def lines(folder, *entries, name="data.jsonl") -> str:
    path = folder / name
    path.write_text(
        "".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries),
        encoding="utf-8",
    )
    return str(path)


def test_image_text_by_path_base64_and_other_keys(folder):
    encoded = base64.b64encode(image("blue", (300, 300)) + b" " * 2000).decode()
    path = lines(
        folder,
        {"image": "a.png", "caption": ["x", "y"], "image_id": 7},
        "",
        {"binary": encoded, "desc": "z"},
    )
    records = FileRecords([path])
    assert len(records) == 2
    assert (
        records[0]["captions"] == ["x", "y"]
        and records[0]["image_id"] == 7
        and records[0]["image"].size == (40, 20)
    )
    assert records[1]["captions"] == ["z"] and records[1]["image"].getpixel((0, 0)) == (0, 0, 255)
    renamed = FileRecords(
        [lines(folder, {"picture": "a.png", "said": {"en": "x", "de": "y"}})],
        keys={"image": "picture", "caption": "said"},
    )
    assert renamed[0]["captions"] == ["x", "y"]


def test_json_list_and_several_files(folder):
    (folder / "one.json").write_text(
        json.dumps([{"image": "a.png", "caption": "1"}, {"image": "b.png", "caption": "2"}])
    )
    two = lines(folder, {"image": "b.png", "caption": "3"})
    records = FileRecords([str(folder / "one.json"), two])
    assert [record["captions"][0] for record in records] == ["1", "2", "3"]
    assert records.fingerprint() == FileRecords([str(folder / "one.json"), two]).fingerprint()
    assert records.fingerprint() != FileRecords([two]).fingerprint()


def shard(folder, members: dict[str, bytes], name="s.tar") -> str:
    with tarfile.open(folder / name, "w") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(folder / name)


def test_shards(folder):
    members = {
        "k1.jpg": image(),
        "k1.json": b'{"captions": ["x"]}',
        "d/k2.PNG": image("blue"),
        "d/k2.txt": b"y",
    }
    records = FileRecords([shard(folder, members)])
    assert [(record["captions"], record["image_id"]) for record in records] == [
        (["x"], records[0]["image_id"]),
        (["y"], records[1]["image_id"]),
    ]


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "._k.jpg",
        "d/.gitkeep",
        "__MACOSX/._k.jpg",
        "__MACOSX/k.jpg",
        "PaxHeader/k.jpg",
        "./PaxHeaders.123/k.txt",
        ".cache/k.txt",
        "Thumbs.db",
        "README",
    ],
)
def test_members_that_belong_to_no_sample_are_passed_over_and_counted(folder, name):
    members = {"k.jpg": image(), name: b"x", "k.txt": b"red", "l.jpg": image(), "l.txt": b"blue"}
    records = FileRecords([shard(folder, members)])
    assert [record["captions"] for record in records] == [["red"], ["blue"]]
    assert records.left_out == {
        f"Members of shards that are hidden or have no suffix: 1, such as s.tar, {name}.": 0.0
    }


def test_members_under_the_root_are_not_hidden(folder):
    records = FileRecords([shard(folder, {"./d/k.jpg": image(), "./d/k.txt": b"red"})])
    assert records.name(0) == "s.tar, d/k"
    assert records.left_out == {}


def test_members_of_a_sample_that_are_apart_are_told_as_the_cause(folder):
    members = {"k.jpg": image(), "l.jpg": image(), "k.txt": b"red", "l.txt": b"x", "m.jpg": image()}
    records = FileRecords([shard(folder, members | {"m.txt": b"whole"})])
    for index, key, here, there in ((0, "k", "jpg", "txt"), (2, "k", "txt", "jpg")):
        said = rf"s.tar, {key}: The members of this sample are apart: .{here} here, .{there} else"
        with pytest.raises(DataError, match=said):
            records[index]
    assert records[4]["captions"] == ["whole"]


def test_a_key_that_comes_again_whole_is_another_sample(folder):
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name, content in [("k.jpg", image()), ("k.txt", b"x"), ("l.txt", b"")] * 2:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    records = FileRecords([str(folder / "s.tar")])
    assert [records[index]["captions"] for index in (0, 2)] == [["x"], ["x"]]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"k.json": b'{"caption": "x"}'}, "s.tar, k: the entry has no 'image'"),
        ({"k.jpg": image()}, "s.tar, k: the entry has no 'caption'"),
        (
            {"k.jpg": image()[:60], "k.txt": b"x"},
            "s.tar, k: the encoded image: the picture is damaged",
        ),
        ({"k.jpg": image(), "k.json": b"{"}, "s.tar, k: The text is not JSON"),
    ],
)
def test_bad_samples_of_a_shard_are_named(folder, members, message):
    with pytest.raises(DataError, match=message):
        FileRecords([shard(folder, members)])[0]


def test_bad_shards(folder):
    whole = shard(folder, {"k.jpg": image(size=(200, 200)), "k.txt": b"x"})
    content = (folder / "s.tar").read_bytes()
    (folder / "zeros.tar").write_bytes(bytes(10240))
    (folder / "junk.tar").write_bytes(b"junk" * 1000)
    with pytest.raises(DataError, match=r"zeros.tar has no entries"):
        FileRecords([whole, str(folder / "zeros.tar")])
    with pytest.raises(DataError, match=r"junk.tar is no whole tar"):
        FileRecords([str(folder / "junk.tar")])
    (folder / "cut.tar").write_bytes(content[:700])
    with pytest.raises(DataError, match=r"cut.tar"):
        FileRecords([str(folder / "cut.tar")])[0]


def test_a_damaged_shard_is_left_out_and_named(folder):
    """tarfile takes a damaged or missing header for the end of the file; what comes after it would
    be lost without a word."""
    members = {f"{key}.txt": b"x" * 100 for key in "abcdef"} | {"f.jpg": image()}
    whole = shard(folder, members)
    content = (folder / "s.tar").read_bytes()
    flipped = bytearray(content)
    flipped[2 * 1024 + 5] ^= 1  # the name in the third header
    for name, damaged in {
        "flipped": bytes(flipped),
        "cut": content[: 4 * 1024],
        "inside": content[: 4 * 1024 + 200],
    }.items():
        (folder / f"{name}.tar").write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}.tar is no whole tar file"):
            FileRecords([str(folder / f"{name}.tar")])
        records = FileRecords([whole, str(folder / f"{name}.tar")])
        assert len(records) == 6
        assert records.left_out == {
            f"{name}.tar is no whole tar file (damaged or cut at byte "
            f"{4096 if name != 'flipped' else 2048:,}). Copy or write it again.": len(damaged)
            / (len(content) + len(damaged))
        }
    assert FileRecords([whole]).left_out == {}


def test_files_that_vanish_while_they_are_read(folder):
    """T8: entries of a removed shard or file are unreadable samples, named as others are."""
    tar, text = (
        shard(folder, {"k.jpg": image(), "k.txt": b"x"}),
        lines(folder, {"image": "a.png", "caption": "x"}),
    )
    records = FileRecords([tar, text])
    assert records[0]["captions"] == records[1]["captions"] == ["x"]
    (folder / "s.tar").unlink()
    (folder / "data.jsonl").unlink()
    for index, name in enumerate(("s.tar, k", "data.jsonl, line 1")):
        with pytest.raises(DataError, match=rf"{name}: the file cannot be read now \(No such file"):
            records[index]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "data.jsonl, line 2: The text is not JSON"),
        ("[1]", "line 2: The entry is not a JSON object"),
        ('{"image": "a.png"}', "line 2: the entry has no 'caption'"),
        ('{"caption": "x"}', "line 2: the entry has no 'image'"),
        ('{"image": "a.png", "caption": ""}', "line 2: The text is empty"),
        ('{"image": "a.png", "caption": null}', "line 2: "),
        ('{"image": "a.png", "caption": []}', "line 2: The text is empty"),
        ('{"image": "a.png", "caption": 5}', "line 2: "),
        ('{"image": "a.png", "caption": NaN}', "line 2: NaN is no JSON number"),
        ('{"image": "nowhere.png", "caption": "x"}', "line 2: nowhere.png is not in the folder"),
        ('{"image": "../a.png", "caption": "x"}', "line 2: ../a.png is not a path below"),
        ('{"image": "/etc/passwd", "caption": "x"}', "line 2: /etc/passwd is not a path below"),
        (
            '{"image": "http://x/a.png", "caption": "x"}',
            "line 2: http://x/a.png is not a path below",
        ),
        ('{"image": "data.jsonl", "caption": "x"}', "line 2: data.jsonl: this is a file of no"),
        ('{"image": "", "caption": "x"}', "line 2: '' names no image"),
        (
            '{"image": "a.png", "caption": "..."}',
            "line 2: The caption has no words, only punctuation",
        ),
        ('{"image": 7, "caption": "x"}', "line 2: 7 names no image"),
    ],
)
def test_bad_lines_are_named(folder, line, message):
    records = FileRecords([lines(folder, {"image": "a.png", "caption": "good"}, line)])
    assert records[0]["captions"] == ["good"]
    with pytest.raises(X2VLMError, match=message):
        records[1]


def test_a_image_whose_reader_fails_in_its_own_way(folder, monkeypatch):
    def fails(file):
        raise struct.error("unpack requires a buffer of 4 bytes")

    records = FileRecords([lines(folder, {"image": "a.png", "caption": "x"})])
    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(DataError, match=r"line 1: a.png: the picture is damaged"):
        records[0]


def test_encodings(folder):
    (folder / "bom.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"image": "a.png", "caption": "é"}).encode()
    )
    assert FileRecords([str(folder / "bom.jsonl")])[0]["captions"] == ["é"]
    (folder / "latin.jsonl").write_bytes('{"image": "a.png", "caption": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl, line 1: The text is not UTF-8"):
        FileRecords([str(folder / "latin.jsonl")])[0]


def test_files_that_cannot_be_used(folder):
    (folder / "empty.jsonl").write_text("")
    (folder / "dict.json").write_text("{}")
    (folder / "bad.json").write_text("[\n{,\n]")
    for path, message in {
        "empty.jsonl": "empty.jsonl has no entries",
        "dict.json": "dict.json does not hold a list",
        "bad.json": "bad.json, line 2: the text is not JSON",
        "nowhere.jsonl": "does not exist",
        "no*.tar": "does not exist",
        "a.png": "neither .jsonl, .json nor .tar",
    }.items():
        with pytest.raises(DataError, match=message):
            FileRecords([str(folder / path)])
    with pytest.raises(ConfigError, match="Unknown data format"):
        FileRecords([lines(folder, {})], format="nonsense")
    with pytest.raises(DataError, match="cannot be read"):
        read_json_list(str(folder / "answers.json"))


def test_regions(folder):
    elements = [
        {"bb": [10, 5, 20, 10], "caption": "a dog", "attributes": ["brown"]},
        {"bb": [0, 0, 40, 20], "caption": ["all of it"]},
        {
            "bb": [0, 0, 40, 20],
            "caption": {"en": "a dog", "de": "ein Hund"},
            "attributes": ["big", "old"],
        },
    ]
    record = FileRecords(
        [lines(folder, {"image": "a.png", "caption": "c", "elems": elements})], format="region_text"
    )[0]
    assert record["captions"] == ["c"]
    assert record["regions"] == [
        {"text": "brown a dog", "box": [0.5, 0.5, 0.5, 0.5]},
        {"text": "all of it", "box": [0.5, 0.5, 1.0, 1.0]},
        {
            "text": "big a dog",
            "texts": ["big a dog", "big ein Hund", "old a dog", "old ein Hund"],
            "box": [0.5, 0.5, 1.0, 1.0],
        },
    ]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([35, 0, 20, 5], "leaves the picture of 40 x 20"),
        ([40, 0, 1, 5], "lies outside the picture of 40 x 20"),
        ([-3, 0, 20, 5], "leaves the picture"),
        ([0, 0, 0, 5], "has no area"),
        ([10, 10, -5, 5], "has no area"),
        ([0, 0, 5], "is not four numbers"),
        (["0", "0", "5", "5"], "no finite number"),
        ([], "is not four numbers"),
        ([1e12, 0, 1, 1], "leaves the picture"),
        (None, "is not four numbers"),
    ],
)
def test_bad_boxes(folder, box, message):
    path = lines(folder, {"image": "a.png", "elems": [{"bb": box, "caption": "x"}]})
    with pytest.raises(DataError, match=f"line 1: The box .*{message}"):
        FileRecords([path], format="region_text")[0]


def test_videos_and_texts(folder):
    frames = ["a.png", "b.png"]
    entries = [
        {"video_frames": frames, "text": "t"},
        {
            "video_frames": [frames, frames, frames],
            "text": ["one", "[Music]", "two"],
            "is_continuous": True,
        },
        {"video_frames": [frames, frames], "text": ["[Music]", "x"], "is_continuous": False},
        {"video_frames": [frames], "text": ["[Music]"]},
        {"video_frames": [], "text": "t"},
    ]
    records = FileRecords([lines(folder, *entries)], format="video_text")
    assert [(len(records[i]["frames"]), records[i]["captions"]) for i in range(3)] == [
        (2, ["t"]),
        (4, ["one two"]),
        (2, ["x"]),
    ]
    for index, message in (
        (3, "line 4: Every video is only music"),
        (4, "line 5: The video has no frames"),
    ):
        with pytest.raises(DataError, match=message):
            records[index]
    pair = FileRecords(
        [lines(folder, {"source_text": "a", "target_text": "b"})], format="parallel_text"
    )[0]
    assert pair["captions"] == ["a", "b"]
    assert FileRecords([lines(folder, {"text": "a"})], format="text")[0]["captions"] == ["a"]


def test_a_number_too_large_for_a_label_is_named(folder):
    entry = '{"image": "a.png", "sentence": "s", "label": 1e999}'
    with pytest.raises(DataError, match="line 1: the entry is not as the format wants it"):
        FileRecords([lines(folder, entry)], format="labelled")[0]


def test_fine_tuning_formats(folder):
    ten = ["blue"] * 7 + ["red"] * 3
    entries = [
        {"image": "a.png", "question": "q", "answer": ten},
        {"image": "a.png", "question": "q", "answer": "red", "dataset": "vg"},
    ]
    first, second = FileRecords([lines(folder, *entries)], format="question_answer")
    assert (
        first["questions"][0]["answers"] == {"blue": 0.7, "red": 0.3}
        and first["questions"][0]["annotations"] == ten
    )
    assert second["questions"] == [{"question": "q", "answers": {"red": 0.5}}]
    two = FileRecords(
        [lines(folder, {"image": "a.png", "question": "q", "answer": ["red", "red"]})],
        format="question_answer",
    )
    assert two[0]["questions"] == [
        {"question": "q", "answers": {"red": 1.0}}
    ]  # VQA's accuracy of ten would say 0.33
    unanswered = {"image": "a.png", "question": "q"}
    with pytest.raises(DataError, match=r"line 1: .*no answer"):
        FileRecords([lines(folder, unanswered | {"answer": []})], format="question_answer")[0]
    of_a_test_part = FileRecords([lines(folder, unanswered)], format="question_answer")[0]
    assert of_a_test_part["questions"] == [{"question": "q"}]
    found = FileRecords(
        [lines(folder, {"image": "a.png", "text": "t", "box": [0, 0, 20, 20]})], format="referring"
    )[0]
    assert found["regions"] == [{"text": "t", "box": [0.25, 0.5, 0.5, 1.0]}]
    pairs = [
        {"images": ["a.png", "b.png"], "sentence": "s", "label": label}
        for label in ("True", False, "maybe")
    ]
    records = FileRecords([lines(folder, *pairs)], format="image_pair")
    assert [records[0]["label"], records[1]["label"]] == [True, False]
    with pytest.raises(DataError, match="neither true nor false"):
        records[2]
    labelled = FileRecords(
        [lines(folder, {"video_frames": ["a.png"], "question": "q", "label": -100})],
        format="labelled",
    )[0]
    assert labelled["label"] == -100 and len(labelled["frames"]) == 1


def test_turned_photo_is_upright(folder):
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)
    assert FileRecords([lines(folder, {"image": "turned.jpg", "caption": "x"})])[0][
        "image"
    ].size == (20, 40)
