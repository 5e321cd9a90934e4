"""Samples of published datasets in their publishers' layouts, a few images each, from which the
commands of `train.prepare` make our files offline."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.train.published_corpora import CORPORA
from tests.train.published_files import (
    HEIGHT,
    WIDTH,
    coco_name,
    image,
    json_file,
    json_lines,
    text,
    video,
    zip_file,
)
from train.prepare.refcoco import DATASETS

COUNT = 6


def karpathy(folder: Path, dataset: str) -> None:
    images = []
    for number in range(1, COUNT + 1):
        split = ("train", "restval", "val", "test", "train", "test")[number - 1]
        part = "train2014" if split == "train" else "val2014"
        where = {"filename": f"{number}.jpg", "imgid": number}
        if dataset == "coco":
            where = {"filename": coco_name(part, number), "filepath": part, "cocoid": number}
        image(folder / where.get("filepath", "") / where["filename"])
        said = [{"raw": f"a dog number {number}"}, {"raw": f"an animal {number}"}]
        images.append({**where, "split": split, "sentences": said})
    zip_file(folder / "raw/caption_datasets.zip", {f"dataset_{dataset}.json": {"images": images}})


def coco(data: Path) -> None:
    karpathy(data / "coco", "coco")


def flickr30k(data: Path) -> None:
    karpathy(data / "flickr30k", "flickr30k")


def coco_objects(data: Path) -> None:
    content = {}
    for part, numbers in (("train2014", (1, 5)), ("val2014", (2, 3))):
        for number in numbers:
            image(data / "coco" / part / coco_name(part, number))
        content[f"annotations/instances_{part}.json"] = instances(part, numbers)
    zip_file(data / "raw/annotations_trainval2014.zip", content)


def instances(part: str, numbers) -> dict:
    names = [{"id": n, "file_name": coco_name(part, n)} for n in numbers]
    boxes = [
        {"id": n, "image_id": n, "bbox": [4, 3, 20, 20], "category_id": 1, "iscrowd": 0}
        for n in numbers
    ]
    return {
        "images": [{**name, "width": WIDTH, "height": HEIGHT} for name in names],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "dog"}],
    }


def refcoco(data: Path) -> None:
    for number, (dataset, (file, splits)) in enumerate(DATASETS.items()):
        first = 100 * (number + 1)
        refer(data / dataset / "raw", data / "coco/train2014", file, splits, first)


def refer(raw: Path, images: Path, file: str, splits: dict[str, int], first: int) -> None:
    numbers = range(first, first + len(splits))
    refs = [
        {
            "ref_id": n,
            "ann_id": n,
            "image_id": n,
            "split": split,
            "sentences": [{"sent": "brown dog"}, {"sent": "the dog"}],
        }
        for n, split in zip(numbers, splits, strict=True)
    ]
    for n in numbers:
        image(images / coco_name("train2014", n))
    raw.mkdir(parents=True)
    (raw / file).write_bytes(pickle.dumps(refs, protocol=2))
    json_file(raw / "instances.json", instances("train2014", numbers))


def visual_genome(data: Path) -> None:
    images, regions, attributes, questions = [], [], [], []
    for n in range(1, 4):
        image(data / f"vg/VG_100K/{n}.jpg")
        image(data / f"vqa/VG_100K/{n}.jpg")
        box = {"x": 2, "y": 2, "width": 20, "height": 20}
        images.append({"image_id": n, "width": WIDTH, "height": HEIGHT, "coco_id": None})
        regions.append({"id": n, "regions": [{**box, "phrase": "a brown dog"}]})
        found = {"x": 2, "y": 2, "w": 20, "h": 20, "names": ["dog"], "attributes": ["brown"]}
        attributes.append({"image_id": n, "attributes": [found]})
        asked = {"image_id": n, "qa_id": n, "question": "what is it?", "answer": "Dog."}
        questions.append({"id": n, "qas": [asked]})
    content = {
        "image_data": images,
        "region_descriptions": regions,
        "attributes": attributes,
        "question_answers": questions,
    }
    for raw in (data / "raw", data / "vqa/raw"):
        for name, value in content.items():
            zip_file(raw / f"{name}.json.zip", {f"{name}.json": value})


def vqa(data: Path) -> None:
    raw = data / "vqa/raw"
    for name, part in (("train", "train2014"), ("val", "val2014"), ("test", "test2015")):
        # of so many images some are surely in the minival
        numbers = range(1, 201) if name == "val" else range(1, 7)
        for n in numbers:
            image(data / "vqa" / part / coco_name(part, n))
        asked = [{"question_id": n, "image_id": n, "question": "what is it?"} for n in numbers]
        archive = f"v2_Questions_{name.capitalize()}_mscoco.zip"
        member = f"v2_OpenEnded_mscoco_{part}_questions.json"
        zip_file(raw / archive, {member: {"questions": asked}})
        answers = [{"question_id": n, "answers": [{"answer": "dog"}] * 10} for n in numbers]
        if name != "test":
            archive = f"v2_Annotations_{name.capitalize()}_mscoco.zip"
            member = f"v2_mscoco_{part}_annotations.json"
            zip_file(raw / archive, {member: {"annotations": answers}})


def nlvr2(data: Path) -> None:
    for name in ("train", "dev", "test1"):
        lines = []
        for n in range(4):
            directory = {"directory": n} if name == "train" else {}
            folder = data / "nlvr2/images" / name / (str(n) if directory else "")
            for side in (0, 1):
                image(folder / f"{name}-{n}-0-img{side}.png")
            lines.append(
                {
                    "identifier": f"{name}-{n}-0-0",
                    "sentence": "two dogs",
                    "label": "True" if n % 2 else "False",
                    **directory,
                }
            )
        json_lines(data / f"nlvr2/raw/{name}.json", lines)


def winoground(data: Path) -> None:
    example = {"id": 0, "caption_0": "a dog and two cats", "caption_1": "two dogs and a cat"}
    names = {f"image_{side}": f"ex_0_img_{side}" for side in (0, 1)}
    json_lines(data / "winoground/raw/examples.jsonl", [example | names] * 2)
    for name in names.values():
        image(data / f"winoground/images/{name}.png")


def marvl(data: Path) -> None:
    for language in ("id", "sw", "ta", "tr", "zh"):
        line = {
            "language": language,
            "concept": "1-dog",
            "left_img": "1-0.jpg",
            "right_img": "1-1.jpg",
            "caption": "two dogs",
            "label": True,
        }
        json_lines(data / f"marvl/raw/marvl-{language}.jsonl", [line])
        with_folder = {side: f"1-dog/{line[side]}" for side in ("left_img", "right_img")}
        for shots in ("1", "2", "4", "10", "10x2"):
            few = data / f"marvl/raw/marvl-{language}_train{shots}.jsonl"
            json_lines(few, [line | with_folder] * 2)
        for side in (0, 1):
            image(data / f"marvl/marvl-images/{language}/images/1-dog/1-{side}.jpg")
            image(data / f"marvl/marvl_fewshot/{language}/all/1-{side}.jpg")


def multi30k(data: Path) -> None:
    raw, names = data / "multi30k/raw", ["1.jpg", "2.jpg", "3.jpg"]
    raw.mkdir(parents=True)
    for name in names:
        image(data / "multi30k" / name)
    captions = gzip.compress(b"ein hund\nzwei hunde\ndrei hunde\n")
    for task_1, task_2 in (("train", "train"), ("val", "val"), ("test_2016_flickr", "test_2016")):
        text(raw / f"{task_2}_images.txt", "\n".join(names) + "\n")
        text(raw / f"{task_1}.txt", "\n".join(names) + "\n")
        for language in ("en", "de"):
            for number in range(1, 6):
                (raw / f"{task_2}.{number}.{language}.gz").write_bytes(captions)
        for language in ("fr", "cs"):
            (raw / f"{task_1}.{language}.gz").write_bytes(captions)


def xflickrco(data: Path) -> None:
    image(data / "xflickrco/flickr30k-images/1.jpg")
    image(data / "xflickrco/val2014" / coco_name("val2014", 2))
    for language in ("en", "de", "es", "id", "ja", "ru", "tr", "zh"):
        lines = [
            {"sentences": ["a dog"], "id": "1", "img_path": "1.jpg"},
            {"sentences": ["a cat"], "id": "2", "img_path": coco_name("val2014", 2)},
        ]
        json_lines(data / f"xflickrco/raw/{language}.jsonl", lines)
        for shots in (1, 5, 10, 25, 50, 100):
            json_lines(data / f"xflickrco/raw/{language}_train_{shots}.jsonl", lines[:1])


def xvnli(data: Path) -> None:
    image(data / "xvnli/1.jpg")
    labels = ("contradiction", "entailment", "neutral", "-")
    lines = [{"Flikr30kID": "1.jpg", "gold_label": label, "sentence2": "a dog"} for label in labels]
    for name in ("train", "dev", *(f"test_{code}" for code in ("en", "ar", "es", "fr", "ru"))):
        json_lines(data / f"xvnli/raw/{name}.jsonl", lines)
        for shots in (1, 5, 10, 20, 25, 48):
            few = f"train_{shots}_{name.removeprefix('test_')}.jsonl"
            json_lines(data / "xvnli/raw" / few, lines)


def xgqa(data: Path) -> None:
    raw = data / "xgqa/raw"
    json_file(raw / "trainval_ans2label.json", {"yes": 0, "no": 1, "dog": 2})
    numbers = range(60)
    for n in numbers:
        image(data / f"xgqa/images/{n}.jpg")
    asked = [
        {"img_id": str(n), "question_id": n, "sent": "is it a dog?", "label": {"yes": 1.0}}
        for n in numbers
    ]
    json_file(raw / "train.json", asked[:4])
    json_file(raw / "valid.json", asked)
    for language in ("en", "bn", "de", "id", "ko", "pt", "ru", "zh"):
        question = {"imageId": "1", "question": "ist es ein hund?", "answer": "yes"}
        json_file(raw / f"test_{language}.json", {"7": question})
        for shots in (1, 5, 10, 20, 25, 48):
            json_file(raw / f"{language}_train_{shots}.json", {"8": question})


def wit(data: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG")
    content = base64.b64encode(file.getvalue()).decode()
    addresses = [f"http://example.org/{n}.jpg" for n in range(3)]
    text(data / "wit/raw/images/part-0.csv", "".join(f"{a}\t{content}\n" for a in addresses))
    lines = [{"caption_reference_description": f"a dog {a}", "image_url": a} for a in addresses]
    codes = ("ar", "bg", "da", "el", "en", "et", "id", "ja", "ko", "tr", "vi")
    for name in ("train_en", "val_en", *(f"test_{code}" for code in codes)):
        json_lines(data / f"wit/raw/{name}.jsonl", lines)


def msrvtt(data: Path) -> None:
    raw, names = data / "msrvtt/raw", [f"video{n}" for n in range(504)]
    said = [{"video_id": name, "caption": f"a dog {name}"} for name in names]
    json_file(raw / "MSRVTT_data.json", {"sentences": said})
    for file, rows in (
        ("MSRVTT_train.9k.csv", [["video_id"], *([name] for name in names)]),
        ("MSRVTT_JSFUSION_test.csv", [["video_id", "sentence"], ["video0", "a dog"]]),
    ):
        with (raw / file).open("w", newline="") as table:
            csv.writer(table).writerows(rows)
    video(data / "msrvtt/videos/video0.mp4")
    for name in names[1:]:
        (data / f"msrvtt/videos/{name}.mp4").symlink_to("video0.mp4")


def video_qa(data: Path) -> None:
    for dataset in ("msrvtt_qa", "msvd_qa"):
        raw = data / dataset / "raw"
        asked = [{"video_id": 1, "question": "what is it?", "answer": "dog"}] * 2
        for name in ("train", "val", "test"):
            json_file(raw / f"{name}_qa.json", asked)
    text(data / "msvd_qa/raw/youtube_mapping.txt", "clip_1 vid1\n")
    video(data / "msrvtt_qa/videos/video1.mp4")
    video(data / "msvd_qa/videos/clip_1.mp4")


def ovad(data: Path) -> None:
    names = {n: f"{n:012d}.jpg" for n in (1, 2)}
    for name in names.values():
        image(data / "ovad/val2017" / name)
    attributes = [
        {"id": 1, "name": "color quantity:two", "is_has_att": "has", "freq_set": "head"},
        {"id": 0, "name": "maturity:young/baby", "is_has_att": "is", "freq_set": "tail"},
    ]
    boxes = [
        {"id": n, "image_id": n, "bbox": [4.5, 3, 20, 20], "area": 300.0, "att_vec": [n % 2, -1]}
        for n in names
    ]
    tiny = boxes[0] | {"id": 9, "area": 12.0}
    content = {
        "images": [{"id": n, "file_name": name} for n, name in names.items()],
        "annotations": [*boxes, tiny],
        "attributes": attributes,
    }
    json_file(data / "ovad/raw/ovad2000.json", content)


def next_qa(data: Path) -> None:
    raw = data / "next_qa/raw"
    json_file(raw / "map_vid_vidorID.json", {"4010069381": "1164/4010069381"})
    video(data / "next_qa/videos/1164/4010069381.mp4")
    columns = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    rows = [
        f"4010069381,6,32,32,why is the dog there,{n},{n},{kind},a,cat,the dog,run,left\n"
        for n, kind in enumerate(("CW", "TP", "DC"))
    ]
    for split in ("train", "val", "test"):
        text(raw / f"{split}.csv", columns + "".join(rows))


def own(data: Path) -> None:
    """CUHK-PEDES, which needs no module of its own."""
    people = []
    for n, split in enumerate(("train",) * 8 + ("val", "test") * 2):
        name = f"{('CUHK01', 'Market')[n % 2]}/{n}.png"
        image(data / "cuhk_pedes/imgs" / name)
        captions = [f"a man with dog {n}", "a man in a coat"]
        people.append({"split": split, "captions": captions, "file_path": name, "id": n})
    json_file(data / "cuhk_pedes/reid_raw.json", people)


SAMPLES: dict[str, Callable[[Path], None]] = {
    "refcoco": refcoco,
    "coco": coco,
    "flickr30k": flickr30k,
    "coco_objects": coco_objects,
    "visual_genome": visual_genome,
    "vqa": vqa,
    "nlvr2": nlvr2,
    "winoground": winoground,
    "marvl": marvl,
    "multi30k": multi30k,
    "xflickrco": xflickrco,
    "xvnli": xvnli,
    "xgqa": xgqa,
    "wit": wit,
    "msrvtt": msrvtt,
    "video_qa": video_qa,
    "ovad": ovad,
    "next_qa": next_qa,
    "own": own,
    **CORPORA,
}
"""Module of `train.prepare` -> what writes its sample below the folder `data`."""
