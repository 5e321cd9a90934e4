"""Samples of corpora for pre-training in their publishers' layouts, see `tests.train.published`."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tests.train.published_files import (
    HEIGHT,
    WIDTH,
    coco_name,
    image,
    json_file,
    text,
    video,
    zip_file,
)

LANGUAGES = ("cs", "de", "en", "fr", "ja", "zh")


def web_pairs(data: Path) -> None:
    addresses = {n: f"http://example.org/{n}.jpg" for n in range(4)}
    for dataset in ("sbu", "cc3m", "cc12m", "cc3m_6languages", "laion"):
        for address in addresses.values():
            name = hashlib.sha256(address.encode()).hexdigest()[:20]
            image(data / dataset / "images" / name[:2] / f"{name}.jpg")
    table = {"image_urls": list(addresses.values()), "captions": ["a dog on a lawn"] * 4}
    content = json.dumps(table).encode()
    (data / "sbu/raw").mkdir(parents=True)
    with tarfile.open(data / "sbu/raw/sbu-captions-all.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("sbu-captions-all.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    first = "".join(f"a dog\t{address}\n" for address in addresses.values())
    text(data / "cc3m/raw/Train_GCC-training.tsv", first)
    second = "".join(f"{address}\ta dog\n" for address in addresses.values())
    text(data / "cc12m/raw/cc12m.tsv", second)
    for language in LANGUAGES:
        text(data / f"cc3m_6languages/raw/Train_GCC-training_{language}.tsv", first)
    table = pyarrow.table({"URL": list(addresses.values()), "TEXT": ["a dog"] * 3 + [""]})
    (data / "laion/raw").mkdir(parents=True)
    pyarrow.parquet.write_table(table, data / "laion/raw/part-00000.parquet")


def regions(data: Path) -> None:
    """What refcoco needs, the command of that name has written."""
    objects = {"1": {"name": "dog", "x": 2, "y": 2, "w": 20, "h": 20, "attributes": ["brown"]}}
    graph = {"width": WIDTH, "height": HEIGHT, "objects": objects}
    graphs = {"1": graph, "2": graph | {"objects": {}}}
    zip_file(data / "raw/sceneGraphs.zip", {"train_sceneGraphs.json": graphs})

    entities = f"""<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>
      <object><name>7</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>24</ymax>
      </bndbox></object><object><name>8</name><scene>1</scene></object></annotation>"""
    text(data / "raw/train.txt", "1\n")
    said = "[/EN#7/animals A dog] on [/EN#8/scene a lawn] .\n"
    zip_file(data / "raw/annotations.zip", {"Annotations/1.xml": entities, "Sentences/1.txt": said})

    name = "images/v1/patch8/objects365_v1_00000001.jpg"
    image(data / "objects365/patch8/objects365_v1_00000001.jpg")
    box = {"image_id": 5, "bbox": [4, 3, 20, 20], "category_id": 2, "iscrowd": 0}
    content = {
        "images": [{"id": 5, "file_name": name, "width": WIDTH, "height": HEIGHT}],
        "annotations": [box, box | {"iscrowd": 1}],
        "categories": [{"id": 2, "name": "Cabinet/shelf"}],
    }
    json_file(data / "raw/zhiyuan_objv2_train.json", content)

    image(data / "openimages/0001.jpg")
    text(data / "raw/oidv7-class-descriptions-boxable.csv", "LabelName,DisplayName\n/m/1,Dog\n")
    columns = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    rows = [
        "0001,x,/m/1,1,0.1,0.5,0.2,0.9,0,0\n",
        "0001,x,/m/1,1,0,1,0,1,0,1\n",
        "0002,x,/m/1,1,0,1,0,1,0,0\n",
    ]
    text(data / "raw/oidv6-train-annotations-bbox.csv", columns + "".join(rows))


def webvid(data: Path) -> None:
    rows = "videoid,contentUrl,duration,page_dir,name\n7,http://x,PT1S,000,a dog\n8,x,x,0,gone\n"
    text(data / "webvid/raw/results_2M_train.csv", rows)
    video(data / "webvid/videos/000/7.mp4")


def subtitles(data: Path) -> None:
    said = {"start": [0.0, 0.5], "end": [0.5, 1.0], "text": ["a dog", "[Music]"]}
    lost = {"start": [0.0], "end": [1.0], "text": ["no such video"]}
    json_file(data / "howto100m/raw/raw_caption.json", {"abc": said, "def": lost})
    video(data / "howto100m/videos/abc.mp4")
    words = [
        {"word": word, "time": 0.1 * n} for n, word in enumerate(["a", "dog", "on", "a", "lawn"])
    ]
    entry = {"info": {"id": "xyz", "duration": 1}, "subtitles": words, "denoised": []}
    json_file(data / "yttemporal/raw/xyz.grover.json", entry)
    video(data / "yttemporal/videos/xyz.mp4")


def wikimatrix(data: Path) -> None:
    (data / "wikimatrix/raw").mkdir(parents=True)
    for pair in ("de-en", "en-fr", "cs-en", "en-ja", "en-zh"):
        lines = "1.2\tein Hund\ta dog\n1.1\teine Katze\ta cat\n1.01\tX\tY\n"
        path = data / f"wikimatrix/raw/WikiMatrix.{pair}.tsv.gz"
        path.write_bytes(gzip.compress(lines.encode()))


def coco_multilingual(data: Path) -> None:
    """On the images of `published.coco`: 1 is for training, 3 for validation, 4 for the test."""
    raw = data / "coco/raw"
    for part, numbers in (("train", (1,)), ("val", (3, 4))):
        captions = [{"image_id": n, "caption": "犬"} for n in numbers]
        json_file(raw / f"stair_captions_v1.2_{part}.json", {"annotations": captions})
    names = [coco_name("train2014", 1)[:-4], *(coco_name("val2014", n)[:-4] for n in (3, 4))]
    lines = [f"{name}#{n}\t一只狗\n" for name in names for n in (0, 1)]
    text(raw / "imageid.human-written-caption.txt", "".join(lines))
    for split, name in zip(("train", "val", "test"), names, strict=True):
        text(raw / f"coco-cn_{split}.txt", f"{name}\n")


CORPORA: dict[str, Callable[[Path], None]] = {
    "web_pairs": web_pairs,
    "regions": regions,
    "webvid": webvid,
    "subtitles": subtitles,
    "wikimatrix": wikimatrix,
    "coco_multilingual": coco_multilingual,
}
"""Module of `train.prepare` -> what writes its sample below the folder `data`."""
