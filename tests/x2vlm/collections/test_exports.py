"""Boxes for COCO, FiftyOne and supervision, columns for datasets, tables for notebooks."""

import json

import numpy as np
import pytest

from x2vlm.cli import main
from x2vlm.collections.exports import to_coco, to_fiftyone, to_supervision
from x2vlm.errors import DataError, ParameterError


def grounding(phrase, verdict="found"):
    return {"phrase": phrase, "box_xyxy": [10, 20, 40, 60], "match": 0.9, "verdict": verdict}


RECORDS = [
    {
        "id": "a.png",
        "size": [100, 200],
        "groundings": [grounding("dog"), grounding("cat", "absent")],
    },
    {"id": "b.png", "error": {"message": "bad", "code": "image/format"}},
    {"id": "c.png", "size": [100, 100], "groundings": [grounding("car"), grounding("dog")]},
]


def test_coco():
    found = to_coco(RECORDS)
    assert [image["file_name"] for image in found["images"]] == ["a.png", "c.png"]
    assert found["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}]
    first = found["annotations"][0]
    assert first["bbox"] == [10, 20, 30, 40] and first["area"] == 1200 and first["score"] == 0.9
    assert len(found["annotations"]) == 3


def test_coco_opens_in_its_own_tools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    (tmp_path / "boxes.json").write_text(json.dumps(to_coco(RECORDS)))
    opened = coco.COCO(str(tmp_path / "boxes.json"))
    assert len(opened.getAnnIds(imgIds=[2])) == 2


def test_fiftyone():
    labels, manifest = to_fiftyone(RECORDS)
    assert labels["classes"] == ["dog", "car"] and list(manifest.values()) == ["a.png", "c.png"]
    (first,) = labels["labels"]["00000000"]
    assert first["bounding_box"] == pytest.approx([0.1, 0.1, 0.3, 0.2])


def test_supervision(tiny_predictor, photo):
    groundings = tiny_predictor.ground(photo, ["dog", "a red car"], thresholds=(0, 0))
    arguments = to_supervision(groundings)
    assert arguments["xyxy"].shape == (2, 4) and arguments["xyxy"].dtype == np.float32
    assert arguments["data"]["class_name"].tolist() == ["dog", "a red car"]
    supervision = pytest.importorskip("supervision")
    assert len(supervision.Detections(**arguments)) == 2


def test_export_on_the_command_line(tmp_path):
    records = tmp_path / "out.jsonl"
    records.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    assert main(["export", str(records), str(tmp_path / "coco.json")]) == 0
    assert json.loads((tmp_path / "coco.json").read_text())["images"]
    assert main(["export", str(records), str(tmp_path / "f"), "--format", "fiftyone"]) == 0
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"labels.json", "data.json"}
    assert main(["export", "nowhere.jsonl", str(tmp_path / "x.json")]) == 1


def test_records_without_boxes_are_refused():
    with pytest.raises(DataError, match="no boxes"):
        to_coco([{"id": "a", "captions": []}])


def test_columns_of_a_data_set(tiny_predictor, photo):
    columns = {"picture": [photo, "nowhere.png"], "q": ["who?", "who?"]}
    answered = tiny_predictor.batch("answer", image="picture", text="q")(columns)
    assert answered["answer"] == [tiny_predictor.answer(photo, "who?").best, None]
    assert answered["error"][0] is None and "nowhere.png" in answered["error"][1]
    boxes = tiny_predictor.batch("ground", ["dog", "cat"], image="picture")(columns)
    assert len(boxes["boxes"][0]) == 2 and boxes["boxes"][1] is None
    assert tiny_predictor.batch("caption", image="picture")(columns)["caption"][1] is None
    assert len(tiny_predictor.batch("match", "dog", image="picture")(columns)["scores"][0]) == 1


def test_columns_through_datasets(tiny_predictor, photo):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"image": [photo] * 3})
    mapped = data.map(tiny_predictor.batch("caption", max_new_tokens=4), batched=True)
    assert mapped["caption"] == [tiny_predictor.caption(photo, max_new_tokens=4)[0].text] * 3


def test_an_unknown_task_is_refused(tiny_predictor):
    with pytest.raises(ParameterError):
        tiny_predictor.batch("sing")


def test_results_and_scenes_are_tables_in_notebooks(tiny_predictor, photo):
    (found,) = tiny_predictor.ground(photo, "a <red> car")
    assert "a &lt;red&gt; car" in found._repr_html_() and "array 4 x 4" in found._repr_html_()
    assert "120 x 80 pixels" in tiny_predictor.encode(photo)._repr_html_()
