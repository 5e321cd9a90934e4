"""Data sets with known truth, in every form that is read."""

import json

import pytest

from x2vlm.errors import DataError
from x2vlm.inspection.truth import read_truth


def write(path, content):
    lines = path.suffix == ".jsonl"
    path.write_text("\n".join(map(json.dumps, content)) if lines else json.dumps(content))
    return str(path)


ENTRY = {"image": "a.png", "captions": ["a dog runs"], "absent": ["a cat"]}


@pytest.mark.parametrize(
    "told",
    [
        {"regions": [{"text": "dog", "box_xywh": [10, 20, 30, 40]}]},
        {"regions": [{"text": "dog", "box_xyxy": [10, 20, 40, 60]}]},
        {"elems": [{"caption": "dog", "bb": [10, 20, 30, 40]}]},
        {"objects": [{"category": "dog", "box_xywh": [10, 20, 30, 40]}]},
        {"refs": [{"text": "dog", "box_xywh_pixels": [10, 20, 30, 40]}]},
    ],
)
def test_boxes_in_every_form(tmp_path, told):
    (truth,) = read_truth(write(tmp_path / "data.jsonl", [ENTRY | told]))
    assert truth.regions[0].text == "dog" and truth.absent == ("a cat",)
    assert truth.regions[0].pixels((100, 100)) == (10, 20, 30, 40)
    assert truth.present == ("dog",) and truth.media == str(tmp_path / "a.png")


def test_coco_files(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]},
            {"image_id": 2, "category_id": 8, "bbox": [1, 2, 3, 4], "iscrowd": 0},
            {"image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4], "iscrowd": 1},
            {"image_id": 1, "caption": "a dog"},
        ],
    }
    first, second = read_truth(write(tmp_path / "instances.json", content))
    assert [region.text for region in first.regions] == ["dog"] and first.captions == ("a dog",)
    assert (first.absent, second.absent) == (("cat",), ("dog",))


def test_a_name_of_two_things_has_no_box(tmp_path):
    box = {"category": "dog", "box_xywh": [1, 1, 2, 2]}
    (truth,) = read_truth(write(tmp_path / "annotations.json", [ENTRY | {"objects": [box, box]}]))
    assert truth.regions == () and truth.present == ("a dog runs",)


def test_absent_texts_of_other_images_are_the_same_in_every_run(tmp_path):
    entries = [{"image": f"{i}.png", "captions": [f"thing{i} here"]} for i in range(20)]
    name = write(tmp_path / "data.jsonl", entries)
    first, again = read_truth(name), read_truth(name)
    assert first == again
    assert all(len(t.absent) == 5 and t.captions[0] not in t.absent for t in first)


def test_stickers_are_those_of_the_cards():
    truths = read_truth("stickers", 2)
    assert [truth.id for truth in truths] == ["test 2000050000", "test 2000050001"]
    assert truths[0].media(64).size == (64, 64) and truths[0].regions and truths[0].absent


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.json", None, "no file"),
        ("bad.json", "{", "no JSON"),
        ("empty.jsonl", "", "nothing that could be measured"),
        ("entry.jsonl", '{"image": "a.png", "regions": [{"text": "dog"}]}', "entry 1"),
        ("file.jsonl", '{"captions": ["a"]}', "entry 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        read_truth(str(tmp_path / name))


def test_a_folder_without_annotations_is_named(tmp_path):
    with pytest.raises(DataError, match=r"annotations\.json"):
        read_truth(str(tmp_path))


def test_an_unknown_split_is_named():
    with pytest.raises(DataError, match="no split 'nowhere'"):
        read_truth("stickers:nowhere")
