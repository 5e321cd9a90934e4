"""Photos as training data: views and mosaics are functions of their numbers, their texts are true
of their boxes, and a frozen backbone's maps stand in for the images."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.train.photos import COLOURS, toy_record, write_photos
from train import bundle, features, pretrain
from train.config import load_run
from train.data.mosaics import HIDDEN, View, _covered, sample_tiles
from train.data.photos import PhotoData, PhotoRecords, _texts, mosaic_texts, view_box
from train.data.vocabulary import learn_vocabulary, save_tokenizer
from train.launch import load_source
from train.tasks.photos import similar, topics
from x2vlm.errors import CheckpointError, ConfigError, DataError
from x2vlm.inference.domain import outside_note
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import load_model
from x2vlm.processing import normalize, to_pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def shard(folder):
    return str(write_photos(folder / "train.tar"))


@pytest.fixture(scope="module")
def run_file(folder, shard):
    """A smoke twin of photo.yaml: the same tasks and losses at toy scale."""
    texts = [text for name in COLOURS for text in toy_record(name)["captions"]]
    questions = [
        q["question"] + q["answer"] for name in COLOURS for q in toy_record(name)["questions"]
    ]
    save_tokenizer(learn_vocabulary(texts + questions, 300, min_count=1), folder / "tokenizer")
    (folder / "answers.json").write_text(json.dumps([*COLOURS, "yes", "no"]))
    photo = yaml.safe_load(Path("train/configs/photo.yaml").read_text(encoding="utf-8"))
    layers = {"hidden_size": 32, "num_layers": 1, "num_heads": 2}
    photo["output_dir"], photo["max_steps"], photo["num_workers"] = str(folder / "run"), 2, 0
    photo["precision"], photo["log"] = "fp32", {"trackers": []}
    photo["model"] = {
        "preset": "photo",
        "tokenizer": str(folder / "tokenizer"),
        "freeze": ["vision.tower.backbone."],
        "overrides": {
            "vision": {**layers, "backbone": "test_efficientnet", "image_size": 64},
            "text": {**layers, "vocab_size": 300, "intermediate_size": 32, "max_positions": 64},
            "fusion": {"num_layers": 2, "num_heads": 2, "intermediate_size": 32},
            "decoder": {"num_layers": 1},
        },
    }
    for name, task in photo["tasks"].items():
        task["batch_size"] = 2
        for data in (
            task["data"],
            *task.get("validation", {}).values(),
            *task.get("test", {}).values(),
        ):
            photos = data["photos"]
            photos["files"] = [shard]
            if "features" in photos:
                photos["features"] = str(folder / f"{name}-{photos.get('views', 1)}.npy")
            if "count" in photos:
                photos["count"] = 5
        if "answer_list" in task:
            task["answer_list"] = str(folder / "answers.json")
    path = folder / "photo.yaml"
    path.write_text(yaml.safe_dump(photo))
    return str(path)


@pytest.fixture(scope="module")
def finished(run_file, folder):
    """The run of `run_file`, with its features written first."""
    assert features.main(["--config", run_file]) == 0
    assert pretrain.main(["--config", run_file]) == 0
    return folder / "run" / "final"


@pytest.mark.parametrize("kind", ["photos", "nouns", "mosaics", "tiles"])
def test_a_record_is_a_function_of_its_number(shard, kind):
    data = PhotoData(files=[shard], kind=kind, views=2, count=12)
    first, second = (PhotoRecords(data, 64)[7] for _ in range(2))
    assert np.array_equal(np.asarray(first.pop("image")), np.asarray(second.pop("image")))
    assert first == second


def test_other_numbers_give_other_mosaics(shard):
    records = PhotoRecords(PhotoData(files=[shard], kind="mosaics", count=12), 64)
    assert len({records[i]["image"].tobytes() for i in range(12)}) == 12


@pytest.mark.parametrize("seed", range(20))
def test_tiles_lie_on_the_canvas_and_hide_little_of_each_other(seed):
    boxes = [tile.box for tile in sample_tiles(np.random.default_rng(seed), 9)]
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for x0, y0, x1, y1 in boxes)
    assert all(_covered(a, b) <= HIDDEN for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_a_region_of_a_mosaic_shows_its_colour(shard):
    """The pixel in the middle of each phrase's box has the colour that the phrase names, unless a
    later tile lies over it."""
    records = PhotoRecords(PhotoData(files=[shard], kind="mosaics", count=30), 128)
    right = []
    for record in (records[i] for i in range(30)):
        pixels = np.asarray(record["image"], dtype=int)
        for region in record["regions"]:
            if region["text"].endswith("square") and region["text"].startswith("a "):
                cx, cy, *_ = region["box"]
                found = pixels[min(127, int(cy * 128)), min(127, int(cx * 128))]
                wanted = np.array(COLOURS[region["text"].split()[1]])
                right.append(np.abs(found - wanted).max() < 60)
    assert len(right) > 20 and np.mean(right) > 0.85


def test_what_two_tiles_show_is_no_phrase_of_either():
    tiles = sample_tiles(np.random.default_rng(3), 9)
    entries = [toy_record("red") for _ in tiles]
    texts = mosaic_texts(tiles, entries, [toy_record("red")], np.random.default_rng(0))
    assert {region["text"] for region in texts["regions"]} <= {*toy_record("red")["captions"]}
    assert "red" not in texts["absent"]


def test_a_box_follows_a_mirrored_window():
    assert view_box([0.25, 0.5, 0.2, 0.2], View((0.0, 0.0, 0.5, 1.0), flip=True)) == pytest.approx(
        [0.5, 0.5, 0.4, 0.2]
    )


def test_a_box_that_is_cut_away_is_left_out():
    assert view_box([0.9, 0.5, 0.2, 0.2], View((0.0, 0.0, 0.85, 1.0))) is None


def test_a_mirrored_view_says_nothing_of_sides(folder):
    fields = toy_record("red") | {"captions": ["a square on the left", "a red square"]}
    assert _texts(fields, View(flip=True))["captions"] == ["a red square"]


@pytest.mark.parametrize("count", [1, 7, 40, 61])
def test_similar_captions_stand_together(count):
    nouns = ["dog", "cat", "car", "boat", "bird"]
    said = [f"a {nouns[i % 5]} beside {i}" for i in range(count)]
    points = topics([[text] for text in said])
    order = similar(points, 4, np.random.default_rng(0))
    assert sorted(order) == list(range(count))
    if count >= 40:
        own = [said[i].split()[1] for i in order]
        pairs = sum(first == second for first, second in pairwise(own))
        assert pairs > 2 * count / 5  # chance is a fifth


def test_no_views_are_refused(shard):
    with pytest.raises(ConfigError, match="views"):
        PhotoData(files=[shard], views=0)


def test_features_of_other_photos_are_refused(shard, tmp_path):
    np.save(tmp_path / "few.npy", np.zeros((3, 8), np.float16))
    data = PhotoData(files=[shard], features=str(tmp_path / "few.npy"))
    with pytest.raises(DataError, match="3 rows for 6 records"):
        PhotoRecords(data, 64)


def test_missing_features_say_how_they_are_written(shard, tmp_path):
    data = PhotoData(files=[shard], features=str(tmp_path / "none.npy"))
    with pytest.raises(DataError, match=r"train\.features"):
        PhotoRecords(data, 64)


def test_maps_from_the_file_give_what_the_images_give(run_file, finished):
    run, tasks = load_run(["--config", run_file])
    torch.manual_seed(run.seed)
    model = load_source(run.model)[0].eval()
    data = tasks["mosaics"].data.photos
    stored = PhotoRecords(data, 64)[3]["maps"]
    drawn = PhotoRecords(PhotoData(files=data.files, kind="mosaics", count=5), 64)[3]["image"]
    with torch.no_grad():
        maps = model.vision.tower.maps(normalize(to_pixels(drawn, 64))[None])[0]
    assert np.corrcoef(stored.astype(float), maps)[0, 1] > 0.999


def test_the_smoke_twin_trains_every_loss(run_file, finished):
    said = (finished.parent / "log.jsonl").read_text(encoding="utf-8")
    _, tasks = load_run(["--config", run_file])
    wanted = {f"{name}/{loss}" for name, task in tasks.items() for loss in task.loss_weights}
    assert all(name in said for name in wanted)


def test_the_dense_box_head_is_learnt_above_the_finished_model(run_file, finished, folder):
    boxes = yaml.safe_load(Path("train/configs/photo_boxes.yaml").read_text(encoding="utf-8"))
    photo = yaml.safe_load(Path(run_file).read_text(encoding="utf-8"))
    boxes |= {"output_dir": str(folder / "boxes"), "max_steps": 2, "log": {"trackers": []}}
    boxes["model"]["init_from"] = str(finished)
    for name, task in boxes["tasks"].items():
        task["batch_size"], task["data"] = 2, photo["tasks"][name]["data"]
    path = folder / "photo_boxes.yaml"
    path.write_text(yaml.safe_dump(boxes), encoding="utf-8")
    assert pretrain.main(["--config", str(path)]) == 0
    before, after = (load_model(place).model for place in (finished, folder / "boxes" / "final"))
    changed = {
        name.partition(".")[0]
        for name, tensor in after.state_dict().items()
        if not torch.equal(tensor, before.state_dict().get(name, torch.tensor(torch.nan)))
    }
    assert changed == {"dense_box_head"}
    records = PhotoRecords(PhotoData(files=photo["tasks"]["photos"]["data"]["photos"]["files"]), 64)
    found = Predictor.from_pretrained(folder / "boxes" / "final").ground(
        records[0]["image"], "a red square"
    )
    assert len(found) == 1


def test_photos_without_boxes_teach_no_boxes(folder):
    path = folder / "unboxed.tar"
    write_photos(path, regions=False)
    records = PhotoRecords(PhotoData(files=[str(path)], views=2), 64)
    assert not any(records.has_boxes(i) for i in range(len(records)))
    mosaics = PhotoRecords(PhotoData(files=[str(path)], kind="mosaics", count=3), 64)
    assert all(mosaics.has_boxes(i) for i in range(3))


def test_a_bundle_has_settings_of_its_validation_photos(run_file, finished, folder):
    out = folder / "bundle"
    assert bundle.main(["--config", run_file, "--model", str(finished), "--out", str(out)]) == 0
    predictor = Predictor.from_pretrained(out)
    assert 0 <= predictor.info.thresholds[0] <= predictor.info.thresholds[1] <= 1
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert predictor.answer(noise, "what color is the square?").best in [*COLOURS, "yes", "no"]


def test_a_bundle_without_a_run_says_so(run_file, tmp_path, capsys):
    given = ["--config", run_file, "--model", str(tmp_path / "no"), "--out", str(tmp_path / "out")]
    assert bundle.main(given) == 2
    assert "[ckpt/source]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folders", [("final",), ("best", "final")])
def test_a_bundle_takes_the_weights_that_validation_chose(run_file, tmp_path, monkeypatch, folders):
    for name in folders:
        (tmp_path / name).mkdir()
    loaded = []

    def load(path):
        loaded.append(Path(path).name)
        raise CheckpointError("Seen.", "ckpt/source")

    monkeypatch.setattr(bundle, "load_model", load)
    given = ["--config", run_file, f"--output_dir={tmp_path}", "--out", str(tmp_path / "out")]
    assert bundle.main(given) == 2
    assert loaded == [folders[0]]


def test_an_image_outside_the_domain_gets_a_note(finished, folder):
    predictor = Predictor.from_pretrained(folder / "bundle")
    member = next(iter(predictor._serving.values()))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pooled = predictor.encode(noise).embeds(member).whole[:, 0]
    note = outside_note("bundle")
    assert (note in predictor.encode(noise).notes) == bool(
        member.domain.distance(pooled) > member.domain.limit
    )
