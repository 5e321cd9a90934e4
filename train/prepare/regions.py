"""Boxes with texts of other corpora -> regions/<dataset>.jsonl (region-text files).

    python -m train.prepare.regions --dataset refcoco --out data --exclude ...
    python -m train.prepare.regions --dataset gqa --out data --exclude ...
    python -m train.prepare.regions --dataset flickr30k --out data
    python -m train.prepare.regions --dataset objects365 --out data
    python -m train.prepare.regions --dataset openimages --out data

| dataset    | OUT/raw holds                                  | images                        |
|------------|------------------------------------------------|-------------------------------|
| refcoco    | nothing: `train.prepare.refcoco` has run       | OUT/coco/train2014            |
| gqa        | sceneGraphs.zip (Visual Genome's image_data)   | OUT/vg/VG_100K                |
| flickr30k  | annotations.zip of Flickr30K Entities          | OUT/flickr30k                 |
| objects365 | zhiyuan_objv2_train.json                       | OUT/objects365/<patch>        |
| openimages | the boxes and class names of the training part | OUT/openimages                |

Images of COCO's evaluation splits are left out (`--exclude`), of Flickr30K those outside its
training part, of Open Images those that are not there, whose sizes are needed.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from train.data.boxes import check_units, inside, say_of_boxes
from train.prepare.common import (
    EXCLUDE,
    arguments,
    excluded,
    fetch,
    need,
    read_json,
    read_json_lines,
    read_table,
    run,
    write_json_lines,
)
from train.prepare.visual_genome import URL as GENOME
from x2vlm.errors import DataError

Box = list[float]
SOURCES = {
    "gqa": "https://cs.stanford.edu/people/dorarad/gqa/download.html",
    "flickr30k": "https://github.com/BryanPlummer/flickr30k_entities (annotations.zip)",
    "objects365": "https://www.objects365.org/download.html",
    "openimages": "https://storage.googleapis.com/openimages/web/download_v7.html",
}
_PHRASE = re.compile(r"\[/EN#(\d+)\S* ([^\]]+)\]")


@dataclass
class Corpus:
    """Where things lie, what is left out, and what `inside` did to the boxes."""

    out: Path
    raw: Path
    left_out: set[int]
    problems: Counter

    def entry(
        self, image: str, size: tuple[int, int], found: list[tuple[Box, dict[str, Any]]]
    ) -> Iterator[dict[str, Any]]:
        """The entry of an image with boxes (x, y, w, h) in pixels and what is said of each; none
        where no box is left."""
        boxes = [(inside(box, *size, self.problems), said) for box, said in found]
        elements = [{"bb": box, **said} for box, said in boxes if box and said["caption"].strip()]
        if elements:
            yield {"image": image, "elems": elements}


def refcoco(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """The training phrases of RefCOCO, RefCOCO+ and RefCOCOg, whichever are prepared."""
    files = [corpus.out / name / "train.jsonl" for name in ("refcoco", "refcoco+", "refcocog")]
    if not any(path.is_file() for path in files):
        raise DataError(
            f"None of {', '.join(str(path) for path in files)} is there. Run `python -m "
            "train.prepare.refcoco` first.",
            "data/missing",
        )
    phrases = defaultdict(lambda: defaultdict(list))
    for path in filter(Path.is_file, files):
        for entry in read_json_lines(path):
            if entry["image_id"] not in corpus.left_out:
                phrases[entry["image"]][tuple(entry["box"])].append(entry["text"])
    for image, boxes in phrases.items():
        elements = [{"bb": list(box), "caption": texts} for box, texts in boxes.items()]
        yield {"image": f"coco/{image}", "elems": elements}


def gqa(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Objects of the scene graphs with their attributes; the images are Visual Genome's."""
    archive = need("sceneGraphs.zip", corpus.raw, SOURCES["gqa"])
    graphs = read_json(archive, "train_sceneGraphs.json")
    about = fetch("image_data.json.zip", f"{GENOME}/image_data.json.zip", corpus.raw)
    of_coco = {str(i["image_id"]): i.get("coco_id") for i in read_json(about, "image_data.json")}
    check_units(
        ([o["x"], o["y"], o["w"], o["h"]] for g in graphs.values() for o in g["objects"].values()),
        "train_sceneGraphs.json",
    )
    for number, graph in graphs.items():
        if of_coco.get(number) in corpus.left_out:
            continue
        found = []
        for item in graph["objects"].values():
            said = {"caption": item["name"]}
            said |= {"attributes": [" ".join(item["attributes"])]} if item["attributes"] else {}
            found.append(([item["x"], item["y"], item["w"], item["h"]], said))
        size = (graph["width"], graph["height"])
        yield from corpus.entry(f"vg/VG_100K/{number}.jpg", size, found)


def flickr30k(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Phrases of the captions with the boxes of what they name."""
    archive = need("annotations.zip", corpus.raw, SOURCES["flickr30k"])
    names = need("train.txt", corpus.raw, SOURCES["flickr30k"]).read_text("utf-8").split()
    try:
        with zipfile.ZipFile(archive) as content:
            for name in names:
                tree = ElementTree.fromstring(content.read(f"Annotations/{name}.xml"))
                text = content.read(f"Sentences/{name}.txt").decode("utf-8")
                size = tuple(int(tree.findtext(f"size/{side}")) for side in ("width", "height"))
                yield from corpus.entry(f"flickr30k/{name}.jpg", size, _entities(tree, text))
    except (KeyError, zipfile.BadZipFile, ElementTree.ParseError, TypeError) as error:
        raise DataError(
            f"annotations.zip is not as expected ({error}): it should hold Annotations/*.xml and "
            f"Sentences/*.txt. It comes from {SOURCES['flickr30k']}.",
            "data/format",
        ) from None


def _entities(tree: ElementTree.Element, text: str) -> list[tuple[Box, dict[str, Any]]]:
    phrases: dict[str, list[str]] = defaultdict(list)
    for number, phrase in _PHRASE.findall(text):
        if phrase not in phrases[number]:
            phrases[number].append(phrase)
    found = []
    for item in tree.iter("object"):
        box = item.find("bndbox")
        if box is not None:
            left, top, right, bottom = (
                float(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            found += [
                ([left, top, right - left, bottom - top], {"caption": phrase})
                for name in item.findall("name")
                for phrase in phrases[name.text]
            ]
    return found


def objects365(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Objects with the names of their categories, crowds left out."""
    content = read_json(need("zhiyuan_objv2_train.json", corpus.raw, SOURCES["objects365"]))
    names = {category["id"]: category["name"].lower() for category in content["categories"]}
    check_units((a["bbox"] for a in content["annotations"]), "zhiyuan_objv2_train.json")
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            said = {"caption": names[annotation["category_id"]].replace("/", " or ")}
            of_image[annotation["image_id"]].append((annotation["bbox"], said))
    for image in content["images"]:
        place = "/".join(PurePosixPath(image["file_name"]).parts[-2:])
        size = (image["width"], image["height"])
        yield from corpus.entry(f"objects365/{place}", size, of_image[image["id"]])


def openimages(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Objects with the names of their classes; groups left out."""
    source = SOURCES["openimages"]
    boxes = need("oidv6-train-annotations-bbox.csv", corpus.raw, source)
    classes = need("oidv7-class-descriptions-boxable.csv", corpus.raw, source)
    wanted = ("LabelName", "DisplayName")
    names = {row[wanted[0]]: row[wanted[1]].lower() for row in read_table(classes, wanted, source)}
    sides = ("XMin", "XMax", "YMin", "YMax")
    rows = read_table(boxes, ("ImageID", "LabelName", "IsGroupOf", *sides), source)
    for number, group in groupby(rows, key=lambda row: row["ImageID"]):
        path = corpus.out / f"openimages/{number}.jpg"
        if not path.is_file():
            corpus.problems["of images that are not there"] += len(list(group))
            continue
        with Image.open(path) as image:
            width, height = image.size
        found = []
        for row in group:
            left, right, top, bottom = (float(row[side]) for side in sides)
            box = [left * width, top * height, (right - left) * width, (bottom - top) * height]
            if row["IsGroupOf"] != "1":
                found.append((box, {"caption": names[row["LabelName"]]}))
        yield from corpus.entry(f"openimages/{number}.jpg", (width, height), found)


DATASETS: dict[str, Callable[[Corpus], Iterator[dict[str, Any]]]] = {
    "refcoco": refcoco,
    "gqa": gqa,
    "flickr30k": flickr30k,
    "objects365": objects365,
    "openimages": openimages,
}


def main() -> None:
    options = arguments(
        __doc__.splitlines()[0],
        dataset={"required": True, "choices": list(DATASETS)},
        exclude=EXCLUDE,
    )
    corpus = Corpus(options.out, options.raw, excluded(options.exclude), Counter())
    path = options.out / f"regions/{options.dataset}.jsonl"
    write_json_lines(path, DATASETS[options.dataset](corpus))
    say_of_boxes(corpus.problems)


if __name__ == "__main__":
    run(main)
