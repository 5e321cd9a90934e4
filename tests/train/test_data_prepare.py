"""The converters on tiny originals: what they write is what our formats read."""

import base64
import gzip
import io
import json
import os
import pickle
import tarfile
from collections import Counter

import pytest
from PIL import Image

from train.data.files import FileRecords
from train.prepare import (
    coco,
    coco_objects,
    marvl,
    msrvtt,
    multi30k,
    nlvr2,
    refcoco,
    video_qa,
    visual_genome,
    vqa,
    web_pairs,
    wit,
    xflickrco,
    xgqa,
    xvnli,
)
from train.prepare.common import (
    fetch,
    need,
    read_json,
    read_plain_pickle,
    stable_share,
    write_json_lines,
)
from x2vlm.errors import DataError


def test_karpathy_split(tmp_path):
    def image(name, split, *captions):
        return {
            "filename": name,
            "cocoid": int(name[0]),
            "split": split,
            "sentences": [{"raw": c} for c in captions],
        }

    images = [
        image("1.png", "train", "a", "b "),
        image("2.png", "restval", "c", " "),
        image("3.png", "test", "d", "e"),
    ]
    for number in (1, 2, 3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    assert write_json_lines(tmp_path / "train.jsonl", coco.entries(images, "train")) == 3
    records = FileRecords([str(tmp_path / "train.jsonl")])
    assert [(record["captions"], record["image_id"]) for record in records] == [
        (["a"], 1),
        (["b"], 1),
        (["c"], 2),
    ]
    assert list(coco.entries(images, "test")) == [
        {"image": "3.png", "image_id": 3, "captions": ["d", "e"]}
    ]
    nested = [{**image("1.png", "val", "a"), "filepath": "val2014"}]
    assert next(coco.entries(nested, "val"))["image"] == "val2014/1.png"


def test_refcoco_boxes():
    refs = [
        {
            "ref_id": 1,
            "ann_id": 5,
            "image_id": 9,
            "split": "testA",
            "sentences": [{"sent": "left dog"}, {"sent": "brown"}],
        }
    ]
    instances = {
        "annotations": [{"id": 5, "bbox": [1, 2, 3, 4]}],
        "images": [{"id": 9, "file_name": "COCO_train2014_9.jpg"}],
    }
    found = list(refcoco.entries(refs, instances, "testA"))
    assert [entry["text"] for entry in found] == ["left dog", "brown"]
    assert found[0]["image"] == "train2014/COCO_train2014_9.jpg" and found[0]["box"] == [1, 2, 3, 4]
    assert found[0]["image_id"] == 9  # of COCO, so that pre-training can leave it out
    assert list(refcoco.entries(refs, instances, "val")) == []


def test_pickles_with_code_are_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.system, ("true",)

    (tmp_path / "good.p").write_bytes(pickle.dumps([{"ref_id": 1, "sent": "é"}], protocol=2))
    (tmp_path / "bad.p").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "cut.p").write_bytes(pickle.dumps([1, 2, 3])[:-4])
    assert read_plain_pickle(tmp_path / "good.p") == [{"ref_id": 1, "sent": "é"}]
    with pytest.raises(DataError, match=r"wants to import (posix|nt)\.system"):
        read_plain_pickle(tmp_path / "bad.p")
    with pytest.raises(DataError, match="no whole pickle"):
        read_plain_pickle(tmp_path / "cut.p")


def test_vqa():
    questions = [{"question_id": 1, "image_id": 42, "question": "q?"}]
    annotations = [{"question_id": 1, "answers": [{"answer": "blue"}] * 10}]
    entry = next(vqa.entries(questions, annotations, "train2014"))
    assert (
        entry["image"] == "train2014/COCO_train2014_000000000042.jpg"
        and entry["answer"] == ["blue"] * 10
    )
    assert "answer" not in next(vqa.entries(questions, [], "test2015"))
    groups = [["Two dogs."] * 10, ["2 dogs"] * 10, ["red"] * 6 + ["blue"] * 4]
    assert vqa.answer_list(groups, least=2) == ["2 dogs"] and vqa.answer_list(groups, least=1) == [
        "2 dogs",
        "red",
    ]
    qas = [
        {
            "qas": [
                {"image_id": 3, "qa_id": 1, "question": "q", "answer": "Red."},
                {"image_id": 3, "qa_id": 2, "question": "q", "answer": "x"},
            ]
        }
    ]
    assert [entry["answer"] for entry in vqa.genome(qas, {"red"}, set())] == ["red"]
    assert not list(vqa.genome(qas, {"red"}, {3}))


def test_nlvr2_images():
    lines = [
        {"identifier": "train-1-0-2", "sentence": "s", "label": "True", "directory": 7},
        {"identifier": "dev-1-0-2", "sentence": "s", "label": "False"},
    ]
    first, second = nlvr2.entries(lines, "train")
    assert first["images"] == [
        "images/train/7/train-1-0-img0.png",
        "images/train/7/train-1-0-img1.png",
    ]
    assert second["images"][1] == "images/train/dev-1-0-img1.png"


def test_visual_genome_boxes_are_repaired_and_counted(tmp_path):
    problems, sizes = Counter(), {1: (40, 20)}
    boxes = [(0, 0, 10, 10), (-5, 0, 10, 10), (35, 15, 50, 50), (50, 0, 5, 5), (3, 3, 0, 5)]
    regions = [
        {"x": x, "y": y, "width": w, "height": h, "phrase": f"r{i}"}
        for i, (x, y, w, h) in enumerate(boxes)
    ]
    images = [{"id": 1, "regions": regions}, {"id": 2, "regions": regions}]
    found = list(visual_genome.regions(images, sizes, problems))
    assert [e["bb"] for e in found[0]["elems"]] == [
        [0, 0, 10, 10],
        [0, 0, 5, 10],
        [35, 15, 5, 5],
    ] and len(found) == 1
    assert problems == {"without area": 2, "cut to the picture": 2}
    items = [
        {"x": 0, "y": 0, "w": 5, "h": 5, "names": ["dog"], "attributes": ["brown ", "small"]},
        {"x": 0, "y": 0, "w": 5, "h": 5, "names": ["cat"]},
    ]
    found = list(visual_genome.objects([{"image_id": 1, "attributes": items}], sizes, problems))
    (tmp_path / "vg/VG_100K").mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(tmp_path / "vg/VG_100K/1.jpg")
    write_json_lines(tmp_path / "o.jsonl", found)
    record = FileRecords([str(tmp_path / "o.jsonl")], format="region_text")[0]
    assert [region["text"] for region in record["regions"]] == ["brown small dog", "cat"]


def test_coco_objects_without_crowds_and_evaluation_images(tmp_path):
    names = [{"id": 18, "name": "dog"}]
    images = [
        {"id": i, "width": 40, "height": 20, "file_name": f"COCO_train2014_{i}.jpg"}
        for i in (1, 2, 3)
    ]
    boxes = [
        (1, [0, 0, 50, 10], 0),
        (1, [0, 0, 9, 9], 1),
        (2, [0, 0, 9, 9], 0),
        (3, [1, 1, 0, 9], 0),
    ]
    objects = [
        {"image_id": i, "bbox": box, "category_id": 18, "iscrowd": crowd} for i, box, crowd in boxes
    ]
    problems = Counter()
    content = {"categories": names, "images": images, "annotations": objects}
    found = list(coco_objects.objects(content, "train2014", {2}, problems))
    elements = [{"bb": [0, 0, 40, 10], "caption": "dog"}]
    assert found == [{"image": "coco/train2014/COCO_train2014_1.jpg", "elems": elements}]
    assert problems == {"cut to the picture": 1, "without area": 1}


def test_web_lists_and_images(tmp_path):
    (tmp_path / "cc3m.tsv").write_text("a caption\thttp://x/1.jpg\nbroken line\n", encoding="utf-8")
    (tmp_path / "cc12m.tsv").write_text("http://x/2.jpg\tanother\n", encoding="utf-8")
    assert list(web_pairs.pairs_of_table(tmp_path / "cc3m.tsv", False)) == [
        ("http://x/1.jpg", "a caption")
    ]
    assert list(web_pairs.pairs_of_table(tmp_path / "cc12m.tsv", True)) == [
        ("http://x/2.jpg", "another")
    ]
    content = json.dumps({"image_urls": ["http://x/3.jpg"], "captions": ["c"]}).encode()
    with tarfile.open(tmp_path / "sbu.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("sbu/sbu-captions-all.json")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    assert list(web_pairs.pairs_of_sbu(tmp_path / "sbu.tar.gz")) == [("http://x/3.jpg", "c")]
    buffer = io.BytesIO()
    Image.new("RGB", (2000, 1000)).save(buffer, "PNG")
    assert web_pairs.shrink(buffer.getvalue(), tmp_path / "images/ab/x.jpg")
    assert Image.open(tmp_path / "images/ab/x.jpg").size == (1024, 512)
    assert web_pairs.store("file:///etc/passwd", tmp_path / "images") is None


def test_videos_and_labels():
    questions = [
        {"answer": a, "question": "q", "video_id": 5} for a in ("man", "man", "dog", "cat")
    ]
    known = video_qa.labels(questions, 2)
    assert known == {"man": 0, "cat": 1}
    assert [entry["label"] for entry in video_qa.entries(questions, known, {})] == [0, 0, -100, 1]
    assert next(video_qa.entries(questions, known, {5: "abc_1_2"}))["video"] == "videos/abc_1_2.mp4"
    assert next(msrvtt.entries(["video7"], {"video7": ["a"]})) == {
        "video": "videos/video7.mp4",
        "captions": ["a"],
        "image_id": "video7",
    }
    lines = [
        {"gold_label": "neutral", "Flikr30kID": "12.jpg", "sentence2": "s"},
        {"gold_label": "-", "Flikr30kID": "1", "sentence2": "s"},
    ]
    assert list(xvnli.entries(lines)) == [{"image": "12.jpg", "sentence": "s", "label": 2}]


def test_multi30k(tmp_path):
    images, texts = multi30k.sources("test", "de")
    assert (
        images == "task2/image_splits/test_2016_images.txt"
        and texts[4] == "task2/raw/test_2016.5.de.gz"
    )
    assert multi30k.sources("test", "cs")[1] == ["task1/raw/test_2016_flickr.cs.gz"]
    with gzip.open(tmp_path / "x.de.gz", "wt", encoding="utf-8") as file:
        file.write("ein Hund \u2028im Gras\n\n")  # that character ends no line
    first, second = multi30k.read_lines(tmp_path / "x.de.gz"), ["zwei", "drei"]
    train = list(multi30k.entries(["1.jpg", "2.jpg"], [first, second], "train"))
    assert [(entry["image"], entry["caption"]) for entry in train] == [
        ("1.jpg", "ein Hund \u2028im Gras"),
        ("1.jpg", "zwei"),
        ("2.jpg", "drei"),
    ]
    assert [
        entry["captions"] for entry in multi30k.entries(["1.jpg", "2.jpg"], [first, second], "val")
    ][1] == ["drei"]
    with pytest.raises(ValueError, match="zip"):
        list(multi30k.entries(["1.jpg"], [first], "val"))


def test_questions_and_statements_in_other_languages(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "7.png")
    questions = [
        {"img_id": "7", "label": {"yes": 1.0}, "question_id": 1, "sent": "q?"},
        {"img_id": "7", "label": {"blue": 0.3, "navy": 0.9}, "question_id": 2, "sent": "q?"},
        {"img_id": "7", "label": {}, "question_id": 3, "sent": "q?"},
    ]
    found = [{**entry, "image": "7.png"} for entry in xgqa.english(questions)]
    write_json_lines(tmp_path / "train.jsonl", found)
    records = FileRecords([str(tmp_path / "train.jsonl")], format="question_answer")
    assert [record["questions"][0]["answers"] for record in records] == [
        {"yes": 1.0},
        {"blue": 0.5, "navy": 0.5},
    ]
    german = xgqa.translated(
        {"9": {"imageId": "n1", "question": "wo?", "answer": "left", "isBalanced": True}}
    )
    assert list(german) == [
        {"image": "images/n1.jpg", "question_id": "9", "question": "wo?", "answer": "left"}
    ]
    line = {
        "concept": "3-A",
        "language": "id",
        "caption": "c",
        "left_img": "3-1.jpg",
        "right_img": "3-2.jpg",
        "label": True,
    }
    assert next(marvl.entries([line]))["images"] == [
        f"marvl-images/id/images/3-A/3-{side}.jpg" for side in (1, 2)
    ]
    lines = [
        {"sentences": ["a", ""], "id": "1", "img_path": "1.jpg"},
        {"sentences": ["b"], "id": "2", "img_path": "COCO_val2014_2.jpg"},
        {"sentences": [" "], "id": "3", "img_path": "3.jpg"},
    ]
    assert [(entry["image"], entry["captions"]) for entry in xflickrco.entries(lines)] == [
        ("flickr30k-images/1.jpg", ["a"]),
        ("val2014/COCO_val2014_2.jpg", ["b"]),
    ]


def test_wit_finds_the_images_of_addresses(tmp_path):
    pixels = io.BytesIO()
    Image.effect_noise((40, 20), 99).convert("RGB").save(pixels, "PNG")
    content = base64.b64encode(pixels.getvalue()).decode()
    (tmp_path / "1.csv").write_text(f"http://a\tAAAA\nhttp://b\t{content}\n")
    images = wit.places([tmp_path / "1.csv"])
    texts = (
        ("http://b", "first"),
        ("http://gone", "x"),
        ("http://b", "second"),
        ("http://b", "."),
        ("http://a", None),
    )
    lines = [
        {"image_url": address, "caption_reference_description": text} for address, text in texts
    ]
    assert write_json_lines(tmp_path / "test.jsonl", wit.entries(lines, images, "test_en")) == 1
    record = FileRecords([str(tmp_path / "test.jsonl")])[0]
    assert record["captions"] == ["first", "second"] and record["image"].size == (40, 20)
    assert [entry["caption"] for entry in wit.entries(lines, images, "train")] == [
        "first",
        "second",
    ]


def test_files_that_are_missing_or_damaged(tmp_path):
    (tmp_path / "source.json").write_text("{}")
    raw = tmp_path / "raw"
    raw.mkdir()
    assert read_json(fetch("copy.json", (tmp_path / "source.json").as_uri(), raw)) == {}
    with pytest.raises(DataError, match=r"nowhere.json cannot be downloaded .* put it into raw/"):
        fetch("nowhere.json", (tmp_path / "nowhere.json").as_uri(), raw)
    with pytest.raises(DataError, match=r"clips.csv is not in raw/. It comes from the authors"):
        need("clips.csv", raw, "the authors")
    (raw / "bad.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"bad.zip is damaged"):
        read_json(raw / "bad.zip", "x.json")
    assert sorted(path.name for path in raw.iterdir()) == ["bad.zip", "copy.json"]
    assert 0 <= stable_share("x") < 1 and stable_share("x") == stable_share("x") != stable_share(
        "y"
    )
