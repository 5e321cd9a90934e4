"""Corpora for pre-training, from samples in their publishers' layouts: what the commands write, and
what they say of files that are not as they should be."""

import gzip
import json
import sys
from importlib import import_module

import pyarrow
import pyarrow.parquet
import pytest

from tests.train import published_corpora
from tests.train.published import SAMPLES
from tests.train.published_files import HEIGHT, WIDTH
from train.data.files import FileRecords
from train.prepare import marvl, ovad, web_pairs, wikimatrix
from train.prepare.common import read_table, run, with_text
from x2vlm.errors import DataError


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Runs the command of a module on the samples of some modules; gives the folder `data`."""

    def command(module, *words, samples=()):
        monkeypatch.chdir(tmp_path)
        for name in samples:
            SAMPLES[name](tmp_path / "data")
        monkeypatch.setattr(sys, "argv", [module, *words])
        import_module(f"train.prepare.{module}").main()
        return tmp_path / "data"

    return command


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_boxes_of_four_publishers(prepare):
    needed = ("regions", "visual_genome")
    data = prepare("regions", "--dataset", "gqa", "--out", "data", samples=needed)
    element = {"bb": [2, 2, 20, 20], "caption": "dog", "attributes": ["brown"]}
    assert lines(data / "regions/gqa.jsonl") == [{"image": "vg/VG_100K/1.jpg", "elems": [element]}]
    prepare("regions", "--dataset", "flickr30k", "--out", "data")
    assert lines(data / "regions/flickr30k.jsonl") == [
        {"image": "flickr30k/1.jpg", "elems": [{"bb": [3, 4, 17, 20], "caption": "A dog"}]}
    ]
    prepare("regions", "--dataset", "objects365", "--out", "data")
    (entry,) = lines(data / "regions/objects365.jsonl")
    assert entry["elems"] == [{"bb": [4, 3, 20, 20], "caption": "cabinet or shelf"}]
    prepare("regions", "--dataset", "openimages", "--out", "data")
    (entry,) = lines(data / "regions/openimages.jsonl")  # of the image that is there, no group
    (element,) = entry["elems"]
    assert element["caption"] == "dog"
    assert element["bb"] == pytest.approx([0.1 * WIDTH, 0.2 * HEIGHT, 0.4 * WIDTH, 0.7 * HEIGHT])
    record = FileRecords([str(data / "regions/openimages.jsonl")], str(data), "region_text")[0]
    assert record["regions"][0]["box"] == pytest.approx([0.3, 0.55, 0.4, 0.7])


def test_phrases_of_one_box_are_alternatives(prepare):
    prepare("refcoco", "--out", "data/refcoco+", samples=("refcoco",))
    data = prepare("regions", "--dataset", "refcoco", "--out", "data")
    (entry,) = lines(data / "regions/refcoco.jsonl")
    assert entry["elems"] == [{"bb": [4, 3, 20, 20], "caption": ["brown dog", "the dog"]}]
    (held_out,) = {line["image_id"] for line in lines(data / "refcoco+/train.jsonl")}
    exclude = data / "held_out.jsonl"
    exclude.write_text(json.dumps({"image_id": held_out}))
    prepare("regions", "--dataset", "refcoco", "--out", "data", "--exclude", str(exclude))
    assert lines(data / "regions/refcoco.jsonl") == []


def test_chinese_test_images_are_in_no_training_part(prepare):
    data = prepare("coco_multilingual", "--out", "data/coco", samples=("coco", "coco_multilingual"))
    train = {
        language: {e["image_id"] for e in lines(data / f"coco/multilingual_train_{language}.jsonl")}
        for language in ("en", "ja", "zh")
    }
    assert train["zh"] == train["ja"] == {1} and train["en"] == {1, 2, 5}
    (test,) = lines(data / "coco/multilingual_test_zh.jsonl")
    assert test["image_id"] == 4 and test["captions"] == ["一只狗", "一只狗"]
    assert lines(data / "coco/multilingual_val_ja.jsonl")[0]["captions"] == ["犬"]


def test_subtitles_become_pieces_with_two_frames_each(prepare):
    data = prepare(
        "subtitles", "--dataset", "howto100m", "--out", "data/howto100m", samples=("subtitles",)
    )
    (piece,) = lines(data / "howto100m/howto100m.jsonl")  # the other video is not there
    assert piece["text"] == ["a dog", "[Music]"] and piece["is_continuous"]
    assert [len(frames) for frames in piece["video_frames"]] == [2, 2]
    files = [str(data / "howto100m/howto100m.jsonl")]
    record = FileRecords(files, format="video_text")[0]
    assert record["captions"] == ["a dog"] and len(record["frames"]) == 2
    assert record["frames"][0].getpixel((5, 5)) != record["frames"][1].getpixel((5, 5))
    prepare("subtitles", "--dataset", "yttemporal", "--out", "data/yttemporal")
    (piece,) = lines(data / "yttemporal/yttemporal.jsonl")
    assert piece["text"] == ["a dog on a lawn"]


def test_translations_keep_their_sides(prepare):
    data = prepare(
        "wikimatrix", "--out", "data/wikimatrix", "--languages", "de", "fr", samples=("wikimatrix",)
    )
    first = lines(data / "wikimatrix/de.jsonl")  # German stands before English
    assert first[0] == {"source_text": "a dog", "target_text": "ein Hund"} and len(first) == 2
    second = lines(data / "wikimatrix/fr.jsonl")[0]
    assert second == {"source_text": "ein Hund", "target_text": "a dog"}


def test_captions_in_six_languages_share_an_image(prepare):
    data = prepare(
        *("web_pairs", "--dataset", "cc3m_6languages", "--out", "data/cc3m_6languages"),
        samples=("web_pairs",),
    )
    (path,) = (data / "cc3m_6languages").glob("*.jsonl")
    assert set(lines(path)[0]["caption"]) == set(published_corpora.LANGUAGES)
    assert FileRecords([str(path)])[0]["captions"] == ["a dog"] * 6


def test_few_shots_of_marvl_lie_in_another_folder():
    line = {"language": "id", "concept": "1-x", "caption": "c", "label": True}
    shown = {"left_img": "1-x/1-n-5.jpg", "right_img": "1-x/1-0.jpg"}
    (entry,) = marvl.entries([line | shown], few=True)
    assert entry["images"] == ["marvl_fewshot/id/all/1-n-5.jpg", "marvl_fewshot/id/all/1-0.jpg"]


def test_files_of_another_layout_say_where_they_come_from(tmp_path, prepare):
    table = tmp_path / "results.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"results.csv has no column 'name'.*comes from https://x"):
        list(read_table(table, ("name", "a"), "https://x"))
    rows = [{"name": "dog"}, {"name": " "}, {"name": None}]
    with pytest.raises(DataError, match=r"f.csv: the text is empty in 2 of 3 rows.*https://x"):
        list(with_text(rows, lambda row: row["name"], "f.csv", "https://x"))
    with pytest.raises(DataError, match="empty in 0 of 0 rows"):
        list(with_text([], lambda row: row["name"], "f.csv", "https://x"))
    assert len(list(with_text(rows[:1] * 3 + rows[1:2], lambda row: row["name"], "f", "x"))) == 3

    with gzip.open(tmp_path / "w.tsv.gz", "wt") as file:
        file.write("no score\n")
    with pytest.raises(DataError, match=r"w.tsv.gz, line 1: expected are a score and two"):
        list(wikimatrix.pairs(tmp_path / "w.tsv.gz", True))
    wrong = pyarrow.table({"url": ["x"]})
    pyarrow.parquet.write_table(wrong, tmp_path / "part.parquet")
    with pytest.raises(DataError, match=r"part.parquet has the columns url; expected are URL and"):
        list(web_pairs.pairs_of_laion(tmp_path))
    with pytest.raises(DataError, match=r"no results_2M_train.csv.*github.com/m-bain/webvid"):
        prepare("webvid", "--out", "data/webvid")
    with pytest.raises(DataError, match=r"sceneGraphs.zip is not in raw/. It comes from"):
        prepare("regions", "--dataset", "gqa", "--out", "data")


def test_a_command_tells_what_it_expects_instead_of_a_traceback(tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "ovad2000.json").write_text('{"images": [], "annotations": []}')
    monkeypatch.setattr(sys, "argv", ["ovad", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        run(ovad.main)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("ovad2000.json is not as its publisher has it (KeyError: 'attributes').")
    assert "https://lmb.informatik.uni-freiburg.de" in said
    (raw / "ovad2000.json").unlink()
    with pytest.raises(SystemExit):
        run(ovad.main)
    assert "ovad2000.json is not in raw/. It comes from" in capsys.readouterr().err


def test_another_number_than_the_published_one_is_told(prepare, capsys):
    prepare("winoground", "--out", "data/winoground", samples=("winoground",))
    said = capsys.readouterr().out
    assert "test.jsonl: 2 entries instead of the 400 published: a file is cut" in said
