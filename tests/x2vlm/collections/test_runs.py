"""Whole runs of the command over collections."""

import json
import random
import sys
import time

import pytest

from x2vlm.inference.predictor import Predictor


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_images):
    return make_images(tmp_path_factory.mktemp("collection") / "photos", 10)


def records(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}, len(lines)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["caption", "FOLDER", "--max-new-tokens", "4"], "captions"),
        (["ask", "FOLDER", "who?"], "answers"),
        (["ground", "FOLDER", "dog", "a red car"], "groundings"),
        (["match", "FOLDER", "dog", "a red car"], "matches"),
        (["explain", "FOLDER", "a red car"], "maps"),
    ],
)
def test_every_command_writes_a_record_an_image(run, folder, tmp_path, command, key):
    command = [folder if word == "FOLDER" else word for word in command]
    code, out, err = run(*command, "--out", tmp_path / "out.jsonl")
    found, lines = records(tmp_path / "out.jsonl")
    assert code == 0 and not out and "10 items" in err
    assert lines == len(found) == 10 and all(key in record for record in found.values())


def test_records_are_what_one_image_gives(run, folder, tmp_path):
    run("match", folder, "dog", "--out", tmp_path / "out.jsonl")
    found, _ = records(tmp_path / "out.jsonl")
    for name in ("000.png", "007.png"):
        single = json.loads(run("match", folder / name, "dog", "--json")[1])["matches"]
        own = found[f"{folder}/{name}"]["matches"]
        assert own[0]["probability"] == pytest.approx(single[0]["probability"], abs=1e-4)


def test_without_out_records_are_printed(run, folder):
    code, out, _ = run("match", folder / "000.png", folder / "001.png", "--text", "dog")
    assert code == 0 and [json.loads(line)["id"][-7:] for line in out.splitlines()] == [
        "000.png",
        "001.png",
    ]


def test_a_question_for_each_row(run, folder, tmp_path):
    table = folder.parent / "asked.csv"
    table.write_text("image,question\nphotos/000.png,who?\nphotos/000.png,where?\n")
    code, _, _ = run("ask", table, "--text-column", "question", "--out", tmp_path / "o.jsonl")
    found, lines = records(tmp_path / "o.jsonl")
    assert code == 0 and lines == 2
    assert [record["question"] for record in found.values()] == ["who?", "where?"]


def test_one_bad_file_is_one_error_record(run, tmp_path, make_images):
    folder = make_images(tmp_path / "photos", 12)
    (folder / "005.png").write_bytes(b"no image at all")
    code, _, err = run("match", folder, "dog", "--out", tmp_path / "out.jsonl")
    found, lines = records(tmp_path / "out.jsonl")
    assert code == 0 and lines == 12 and "1 of them errors" in err
    bad = found[f"{folder}/005.png"]
    assert bad["error"]["code"].startswith("image/") and "005.png" in bad["error"]["message"]
    assert sum("matches" in record for record in found.values()) == 11


def test_many_errors_are_a_bad_end(run, tmp_path, make_images):
    folder = make_images(tmp_path / "photos", 4)
    (folder / "001.png").write_bytes(b"")
    command = ("match", folder, "dog", "--out", tmp_path / "out.jsonl")
    assert run(*command)[0] == 1
    assert run(*command, "--max-errors", "0.5")[0] == 0


def test_finished_items_are_not_done_again(run, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    run("match", folder, "dog", "--out", out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:6]) + lines[6][:20])
    asked = []
    original = Predictor.match
    monkeypatch.setattr(
        Predictor,
        "match",
        lambda self, scenes, *rest, **options: (
            asked.append(len(scenes)) or original(self, scenes, *rest, **options)
        ),
    )
    assert run("match", folder, "dog", "--out", out)[0] == 0
    assert sum(asked) == 4 and records(out)[1] == 10


def test_another_question_into_the_same_file_is_refused(run, folder, tmp_path):
    run("match", folder, "dog", "--out", tmp_path / "out.jsonl")
    code, _, err = run("match", folder, "cat", "--out", tmp_path / "out.jsonl")
    assert code == 1 and "its texts differed" in err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["caption", "nowhere/", "--out", "o.jsonl"], "no file or folder"),
        (["caption", "LIST", "--image-column", "path", "--out", "o.jsonl"], "no column 'path'"),
        (["ask", "LIST", "--text-column", "q", "--out", "o.jsonl"], "no column 'q'"),
        (["caption", "LIST", "--out", "none/o.jsonl"], "does not exist"),
        (["search", "nowhere", "dog"], "no folder nowhere"),
    ],
)
def test_what_is_missing_is_named_before_the_model_loads(
    run, folder, tmp_path, command, said, monkeypatch
):
    table = tmp_path / "list.csv"
    table.write_text("image\na.png\n")

    def loaded(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Predictor, "from_pretrained", loaded)
    code, _, err = run(*[table if word == "LIST" else word for word in command])
    assert code == 1 and said in err


def test_inputs_and_texts_cannot_both_come_from_standard_input(run):
    assert run("ground", "-", "-")[0] == 2


def test_search_finds_the_image_whose_features_fit(run, folder, tmp_path, tiny_predictor):
    images = sorted(folder.iterdir())
    features = tiny_predictor.text_features("a red car")
    cosines = [float(tiny_predictor.image_features(str(path)) @ features) for path in images]
    best = images[max(range(len(images)), key=cosines.__getitem__)]
    options = ("--index", tmp_path / "index", "--json", "--top", "3")
    code, out, _ = run("search", folder, "a red car", *options, "--no-rerank")
    found = json.loads(out)["images"]
    assert code == 0 and len(found) == 3 and found[0]["path"] == str(best)
    assert found[0]["similarity"] == pytest.approx(max(cosines), abs=1e-4)
    ranked = json.loads(run("search", folder, "a red car", *options)[1])["images"]
    assert [one["match"] for one in ranked] == sorted((o["match"] for o in ranked), reverse=True)


@pytest.mark.parametrize(
    ("count", "kills"), [(40, 1), pytest.param(500, 10, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_and_resume(start, run, tmp_path, make_images, count, kills):
    folder, out = make_images(tmp_path / "photos", count), tmp_path / "killed.jsonl"
    rng = random.Random(3)
    for number in range(1, kills + 1):  # each time after some more records
        process, deadline = start("match", folder, "dog", "--out", out), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") >= number * count // (kills + 1):
                time.sleep(rng.random() * 0.05)
                break
            time.sleep(0.002)
        process.kill()
        process.communicate()
    assert run("match", folder, "dog", "--out", out)[0] == 0
    assert run("match", folder, "dog", "--out", tmp_path / "whole.jsonl")[0] == 0
    killed, lines = records(out)
    whole, _ = records(tmp_path / "whole.jsonl")
    assert lines == len(killed) == count and killed.keys() == whole.keys()
    for name, record in whole.items():
        match, own = record["matches"][0], killed[name]["matches"][0]
        assert own["probability"] == pytest.approx(match["probability"], abs=1e-4), name
