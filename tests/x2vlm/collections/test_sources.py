"""What a collection may be made of, and what is told before a model is loaded."""

import io
import json
import tarfile

import pytest

from tests.x2vlm.collections.conftest import png
from x2vlm.collections.sources import Columns, is_collection, open_collection
from x2vlm.errors import DataError, MediaError


def ids(*args, **options):
    return [item.id for item in open_collection(*args, **options)]


@pytest.fixture
def folder(tmp_path, make_images):
    make_images(tmp_path / "photos", 3)
    make_images(tmp_path / "photos" / "more", 1)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def shard(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def test_a_folder_gives_its_images_in_order(folder):
    assert ids([str(folder)]) == [f"{folder}/{number:03}.png" for number in range(3)]


def test_recursive_goes_deeper(folder):
    found = open_collection([str(folder)], recursive=True)
    assert found.count == 4 and f"{folder}/more/000.png" in [item.id for item in found]


def test_a_pattern(folder):
    assert ids([f"{folder}/00[12].png"]) == [f"{folder}/001.png", f"{folder}/002.png"]


def test_files_and_folders_one_after_the_other(folder):
    assert ids([f"{folder}/002.png", str(folder / "more")]) == [
        f"{folder}/002.png",
        f"{folder}/more/000.png",
    ]


def test_a_list_on_standard_input():
    assert ids(["-"], stdin=io.StringIO("a.png\n\n b.png \n")) == ["a.png", "b.png"]


@pytest.mark.parametrize(("suffix", "mark"), [("csv", ","), ("tsv", "\t")])
def test_columns_of_a_table(tmp_path, suffix, mark):
    table = tmp_path / f"list.{suffix}"
    table.write_text(f"path{mark}question\na.png{mark}who?\nb.png{mark}where?\n", encoding="utf-8")
    found = list(open_collection([str(table)], Columns("path", "question")))
    assert [(item.id, item.media, item.texts) for item in found] == [
        (f"{table}#1", str(tmp_path / "a.png"), ("who?",)),
        (f"{table}#2", str(tmp_path / "b.png"), ("where?",)),
    ]


def test_json_lines_with_several_phrases(tmp_path):
    table = tmp_path / "list.jsonl"
    rows = [{"image": "a.png", "phrases": ["dog", "cat"]}, {"image": "/b.png", "phrases": "car"}]
    table.write_text("\n".join(map(json.dumps, rows)))
    found = list(open_collection([str(table)], Columns(text="phrases")))
    assert [item.texts for item in found] == [("dog", "cat"), ("car",)]
    assert found[1].media == "/b.png"


def test_a_row_that_lacks_something_is_an_error_of_its_own(tmp_path):
    table = tmp_path / "list.jsonl"
    table.write_text('{"image": "a.png"}\nno json\n{"other": 1}\n{"image": "d.png"}\n')
    found = list(open_collection([str(table)]))
    assert [isinstance(item.media, MediaError) for item in found] == [False, True, True, False]
    assert [item.id for item in found] == [f"{table}#{number}" for number in (1, 2, 3, 4)]


def test_a_shard(tmp_path):
    name = shard(
        tmp_path / "a.tar",
        [
            ("000.png", png()),
            ("000.json", b'{"question": "who?"}'),
            ("x/001.png", png(1)),
            ("x/001.json", b'{"question": "what?"}'),
        ],
    )
    found = list(open_collection([name], Columns(text="question")))
    assert [(item.id, item.texts) for item in found] == [
        (f"{name}/000", ("who?",)),
        (f"{name}/x/001", ("what?",)),
    ]
    assert found[0].media == png()


def test_the_end_of_a_shard_that_is_cut_off_is_one_error(tmp_path):
    name = shard(tmp_path / "a.tar", [(f"{i:03}.png", png(i)) for i in range(4)])
    with open(name, "r+b") as file:
        file.truncate(3 * (512 + len(png())) - 2000)
    found = list(open_collection([name]))
    assert isinstance(found[-1].media, MediaError) and len(found) > 1


@pytest.mark.parametrize(
    ("make", "columns", "said"),
    [
        (lambda p: "nowhere", Columns(), "no file or folder nowhere"),
        (lambda p: str(p / "*.gif"), Columns(), "No file fits"),
        (lambda p: str(p), Columns(), "holds no images"),
        (lambda p: _table(p, "path,b\n1,2\n"), Columns(), "no column 'image'; its columns: path"),
        (lambda p: _table(p, "image,b\n1,2\n"), Columns(text="q"), "no column 'q'"),
        (lambda p: _table(p, "image\n"), Columns(), "no rows"),
        (lambda p: shard(p / "a.tar", [("a.png", png())]), Columns(text="q"), "no field 'q'"),
        (lambda p: shard(p / "a.tar", [("a.txt", b"")]), Columns(), "no sample"),
        (lambda p: "s3://bucket/photos", Columns(), "--engine ray"),
    ],
)
def test_what_is_missing_is_named(tmp_path, make, columns, said):
    with pytest.raises(DataError, match="^.*" + said):
        open_collection([make(tmp_path)], columns)


def _table(folder, text):
    (folder / "list.csv").write_text(text)
    return str(folder / "list.csv")


def test_one_file_is_no_collection(folder):
    assert not is_collection([f"{folder}/000.png"])
    assert not is_collection(["nowhere.png"])
    assert is_collection([str(folder)]) and is_collection(["-"]) and is_collection(["a", "b"])
