"""`x2vlm inspect`: its numbers are those of `train.evaluate`, its report stands alone."""

import html.parser
import json
import re

import pytest

from tests.tree import ROOT
from tests.x2vlm.collections.conftest import png
from train.data.records import DataConfig
from train.data.stickers import StickerData
from train.evaluate import evaluate
from train.tasks.captioning import Captioning
from train.tasks.grounding import Grounding
from train.tasks.matching import Matching
from train.tasks.retrieval import Retrieval
from x2vlm.cli import main
from x2vlm.modeling.build import load_model
from x2vlm.processing import Processor
from x2vlm.settings import Settings


def evaluated(folder, data, *tasks):
    """What `train.evaluate` says of a data set."""
    loaded = load_model(folder)
    processor = Processor.from_pretrained(loaded.tokenizer_dir, loaded.config)
    settings = Settings.read(folder)
    shared = {"losses": {}, "batch_size": 1, "data": data, "test": {"x": data}}
    shared["max_tokens"] = settings.max_tokens
    rules = ("min_length", "no_repeat_ngram_size")
    writing = {rule: getattr(settings, rule) for rule in rules}
    made = {
        "grounding": Grounding(
            **shared,
            explain_method=settings.maps.phrase.method,
            explain_layer=settings.maps.phrase.layer,
        ),
        "matching": Matching(**shared),
        "captions": Captioning(**shared, **writing, ranked=True),
        "retrieval": Retrieval(**shared, reranked=0),
    }
    results = evaluate({name: made[name] for name in tasks}, loaded.model, processor)
    return {name.partition("/")[0]: numbers for name, numbers in results.items()}


def inspected(tmp_path, *arguments):
    assert main(["inspect", *map(str, arguments), "--out", str(tmp_path / "report")]) == 0
    summary = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    return [
        {name: found["value"] for name, found in model["measures"].items()}
        for model in summary["models"]
    ]


CAPTION_MEASURES = ("cider_d", *(f"{of}_r@{k}" for of in ("text", "image") for k in (1, 5, 10)))


def equal_on_captions(found, expected):
    truth = expected["captions"] | expected["retrieval"]
    for name in CAPTION_MEASURES:
        assert found[name] == pytest.approx(truth[name], abs=1e-4), name


def equal_on_stickers(tmp_path, model, count):
    folder = ROOT / "assets" / model
    stickers = StickerData(kind="scene", split="test", first=50_000, count=count)
    tasks = ("grounding", "matching", "captions", "retrieval")
    expected = evaluated(folder, DataConfig(stickers=stickers), *tasks)
    options = ("--limit", count, "--checkpoint", folder, "--faithfulness", "0")
    (found,) = inspected(tmp_path, "stickers", *options)
    assert found["accuracy"] == pytest.approx(expected["grounding"]["accuracy"], abs=1e-5)
    assert found["pointing"] == pytest.approx(expected["grounding"]["pointing"], abs=1e-5)
    assert found["auc"] == pytest.approx(expected["matching"]["auc"], abs=1e-5)
    equal_on_captions(found, expected)


def test_numbers_on_stickers_are_those_of_evaluate(tmp_path):
    equal_on_stickers(tmp_path, "mini", 12)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mini", "photo"])
def test_numbers_on_300_scenes_are_those_of_evaluate(tmp_path, model):
    equal_on_stickers(tmp_path, model, 300)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mini", "photo"])
def test_numbers_on_coco_are_those_of_evaluate(tmp_path, shared_dir, model):
    folder, data = ROOT / "assets" / model, shared_dir / "data" / "coco_mini"
    regions = tmp_path / "regions.jsonl"
    with regions.open("w") as file:
        for entry in json.loads((data / "annotations.json").read_text()):
            names = [one["category"] for one in entry["objects"]]
            elements = [
                {"bb": one["box_xywh_pixels"], "caption": one["text"]} for one in entry["refs"]
            ]
            elements += [
                {"bb": one["box_xywh"], "caption": one["category"]}
                for one in entry["objects"]
                if names.count(one["category"]) == 1
            ]
            if elements:
                entry = {"image": entry["file"], "elems": elements}
                file.write(json.dumps(entry) + "\n")
    files = DataConfig(files=[str(regions)], media=str(data), format="region_text")
    expected = evaluated(folder, files, "grounding")["grounding"]
    options = ("--checkpoint", folder, "--faithfulness", "0")
    (found,) = inspected(tmp_path, data, *options)
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-5)
    assert found["pointing"] == pytest.approx(expected["pointing"], abs=1e-5)


def test_captions_of_a_flat_list_are_measured_as_evaluate_does(tmp_path, tiny_folder):
    """A row a caption, several of one image."""
    captions = tmp_path / "captions.json"
    rows = [(0, "a dog runs"), (1, "two cats"), (0, "the dog is red"), (2, "a man with a ball")]
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    entries = [{"image": f"{number}.png", "caption": text} for number, text in rows]
    captions.write_text(json.dumps(entries))
    files = DataConfig(files=[str(captions)], media=str(tmp_path), format="image_text")
    expected = evaluated(tiny_folder, files, "captions", "retrieval")
    (found,) = inspected(tmp_path, captions, "--checkpoint", tiny_folder, "--faithfulness", "0")
    equal_on_captions(found, expected)
    assert found["accuracy"] is None and found["auc"] is not None


class Links(html.parser.HTMLParser):
    """Addresses that a page asks for."""

    def __init__(self):
        super().__init__()
        self.found, self.images = [], 0

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "srcset"):
                self.images += tag == "img"
                self.found.append(value)


def test_the_report_of_two_models_stands_alone(tmp_path, tiny_folder):
    data, entries = tmp_path / "data.jsonl", []
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        regions = [{"text": text, "box_xywh": [4, 4, 20, 20]} for text in ("a <red> car", "шапка")]
        entries.append({"image": f"{number}.png", "regions": regions, "absent": ["a dog"]})
    entries.append({"image": "nowhere.png", "captions": ["a dog"], "absent": ["a cat"]})
    data.write_text("\n".join(map(json.dumps, entries)))
    options = ("--checkpoint", tiny_folder, "--checkpoint", tiny_folder, "--faithfulness", "1")
    first, second = inspected(tmp_path, data, *options)
    assert first == second and first["faithfulness"] is not None
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert links.images > 4 and all(link.startswith("data:image/") for link in links.found)
    assert not re.search(r"https?://|<script|@import|url\(", text)
    assert "second - first" in text and "a &lt;red&gt; car" in text
    summary = json.loads((tmp_path / "report.json").read_text())
    assert summary["differences"]["accuracy"] == {"value": 0.0, "interval": [0.0, 0.0]}
    unreadable = summary["models"][0]["unreadable"]
    assert sum("шапка" in problem for problem in unreadable) == 6
    assert sum("nowhere.png" in problem for problem in unreadable) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "no file nowhere.json"),
        (["stickers", *["--checkpoint", "mini"] * 3], "two to compare"),
        (["stickers", "--out", "none/report"], "--out does not exist"),
        (["stickers", "--limit", "0"], "--limit"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_loads(arguments, said, capsys):
    assert main(["inspect", *arguments]) == 1
    assert said in capsys.readouterr().err
