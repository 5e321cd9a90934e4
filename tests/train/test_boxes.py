"""Boxes in the wrong unit are refused with the way to mend them; only real cuts are counted."""

import json
import random
from collections import Counter

import pytest
from PIL import Image

from train.data.boxes import LEFT_OUT, inside, say_of_boxes
from train.data.files import FileRecords
from train.prepare import coco_objects, photo, refcoco, visual_genome
from x2vlm.checks import check_box
from x2vlm.errors import DataError, ParameterError

FRACTIONS = [0.16, 0.10, 0.31, 0.21]
PIXELS = [102, 48, 198, 100]


@pytest.fixture
def read(tmp_path):
    """The only record of an entry, whose image has 640 x 480 pixels."""
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")

    def read(format: str, **entry):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"image": "a.png"} | entry))
        return FileRecords([str(path)], format=format)[0]

    return read


@pytest.mark.parametrize(
    ("format", "entry"),
    [
        ("referring", {"text": "x", "box": FRACTIONS}),
        ("region_text", {"elems": [{"bb": FRACTIONS, "caption": "x"}]}),
        ("region_text", {"elems": [{"bb": [0, 0, 1, 1], "caption": "x"}]}),
        ("region_text", {"elems": [{"bb": [0.5, 0.5, 1.0, 0.25], "caption": "x"}]}),
        ("referring", {"text": "x", "box": [-0.01, 0.2, 0.4, 0.3]}),
        ("referring", {"text": "x", "box": [1.2, 7.5, 0.4, 0.3]}),
    ],
)
def test_boxes_that_should_be_in_pixels(read, format, entry):
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: The box .*fractions") as caught:
        read(format, **entry)
    assert "in pixels" in str(caught.value)
    assert caught.value.code == "data/box"


def test_the_message_tells_the_pixels(read):
    with pytest.raises(DataError, match=r"640 x 480 that is \(102\.4, 48\.0, 198\.4, 100\.8\)"):
        read("referring", text="x", box=FRACTIONS)


def test_boxes_in_pixels_are_read(read):
    region = read("referring", text="x", box=PIXELS)["regions"][0]
    assert region["box"] == pytest.approx([201 / 640, 98 / 480, 198 / 640, 100 / 480])


def test_the_one_pixel_of_an_image(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "text": "x", "box": [0, 0, 1, 1]}')
    record = FileRecords([str(tmp_path / "a.jsonl")], format="referring")[0]
    assert record["regions"][0]["box"] == [0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("key", ["regions", "objects"])
@pytest.mark.parametrize(
    "box", [PIXELS, [0.9, 0.5, 0.4, 0.2], [0.5, 0.5, 0, 0.1], [0.5, 0.5], [None] * 4, "x"]
)
def test_records_hold_fractions(read, key, box):
    entry = {"images_as": "image", "image_members": ["a.png"], "captions": ["x"]}
    good = [{"text": "x", "box": [0.5, 0.5, 1.0, 1.0]}]
    assert read("record", **entry, **{key: good})[key] == good
    with pytest.raises(DataError, match=r"line 1: The box .*") as caught:
        read("record", **entry, **{key: [*good, {"text": "x", "box": box}]})
    assert caught.value.code == "data/box"


def coco(boxes) -> dict:
    return {
        "categories": [{"id": 18, "name": "dog"}],
        "images": [{"id": 1, "width": 640, "height": 480, "file_name": "1.jpg"}],
        "annotations": [
            {"id": i, "image_id": 1, "bbox": box, "category_id": 18, "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }


def from_coco(boxes, problems):
    return list(coco_objects.objects(coco(boxes), "val2014", (), problems))


def from_regions(boxes, problems):
    names = ("x", "y", "width", "height")
    regions = [dict(zip(names, box, strict=True)) | {"phrase": "dog"} for box in boxes]
    images = [{"id": 1, "regions": regions}]
    return list(visual_genome.regions(images, {1: (640, 480)}, problems))


def from_objects(boxes, problems):
    items = [dict(zip("xywh", box, strict=True)) | {"names": ["dog"]} for box in boxes]
    images = [{"image_id": 1, "attributes": items}]
    return list(visual_genome.objects(images, {1: (640, 480)}, problems))


def from_refcoco(boxes, problems):
    refs = [
        {"split": "val", "image_id": 1, "ref_id": 1, "ann_id": i, "sentences": [{"sent": "dog"}]}
        for i in range(len(boxes))
    ]
    return list(refcoco.entries(refs, coco(boxes), "val"))


CONVERTERS = [from_coco, from_regions, from_objects, from_refcoco]


@pytest.mark.parametrize("convert", CONVERTERS)
def test_converters_refuse_files_in_fractions(convert):
    with pytest.raises(DataError, match=r"boxes of \S+\.json are smaller .* in pixels") as caught:
        convert([FRACTIONS, [0, 0, 1, 1], PIXELS], Counter())
    assert caught.value.code == "data/box"


@pytest.mark.parametrize("convert", CONVERTERS)
def test_converters_keep_pixels(convert):
    found = convert([PIXELS, [0, 0, 30, 40]], problems := Counter())
    assert len(found) == (2 if convert is from_refcoco else 1)
    assert not +problems


@pytest.mark.parametrize("convert", CONVERTERS[:3])
def test_a_single_odd_box_is_left_out_and_counted(convert):
    found = convert([PIXELS, [0, 0, 1, 1], [3, 4, 50, 60]], problems := Counter())
    assert [element["bb"] for element in found[0]["elems"]] == [PIXELS, [3, 4, 50, 60]]
    assert problems == {LEFT_OUT: 1}


def test_machine_boxes_in_fractions():
    with pytest.raises(DataError, match="--boxes are smaller than a pixel"):
        photo.machine_boxes([[0.1, 0.1, 0.5, 0.9, 0.9, 16]], 416)


def test_only_real_cuts_are_counted():
    """Boxes up to the edge of their image, stated by corners, as sums of rounded numbers."""
    rng, problems = random.Random(0), Counter()
    for _ in range(370):
        x, y = round(rng.uniform(0, 600), 2), round(rng.uniform(0, 400), 2)
        w, h = round(640 - x, 2), round(rng.uniform(2, 480 - y), 2)
        assert inside([x, y, w, h], 640, 480, problems)
    assert not +problems
    assert inside([600, 0, 40.05, 9], 640, 480, problems) == [600, 0, 40, 9]
    assert not +problems
    for cut in ([600, 0, 41, 9], [-1, 0, 9, 9], [0, 470, 9, 10.5], [5, -0.5, 9, 9]):
        inside(cut, 640, 480, problems)
    assert problems == {"cut to the picture": 4}


def test_what_is_said_of_boxes(capsys):
    say_of_boxes(Counter({"cut to the picture": 0}))
    assert capsys.readouterr().out == "no box needed a change\n"
    say_of_boxes(Counter({"cut to the picture": 2, LEFT_OUT: 1}))
    said = "2 boxes cut to the picture, 1 boxes left out as fractions: they should be in pixels\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "box", [(0.1, 0.2, 0.5, 0.9), (0, 0, 1, 1), (-0.02, 0, 0.5, 1.01), (40.2, 30.1, 40.9, 31)]
)
def test_region_in_fractions(box):
    with pytest.raises(ParameterError, match="fractions of the sides") as caught:
        check_box(box, (640, 480))
    assert caught.value.code == "box/invalid"
    assert "Give it in pixels" in str(caught.value)


@pytest.mark.parametrize(
    ("box", "size"),
    [((0, 0, 1, 1), (1, 1)), ((10, 20, 11, 21), (640, 480)), ((0, 0, 2, 2), (640, 480))],
)
def test_small_regions_in_pixels(box, size):
    x1, y1, x2, y2 = check_box(box, size)
    assert (x2 - x1) * size[0] == pytest.approx(box[2] - box[0])
    assert (y2 - y1) * size[1] == pytest.approx(box[3] - box[1])


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (1, 1, 0, 0), (0.5, 0.2, 0.5, 0.9)])
def test_regions_without_area(box):
    with pytest.raises(ParameterError, match="no area"):
        check_box(box, (640, 480))
