"""The command line: what it prints, what it saves, its exit codes."""

import io
import json
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from x2vlm.checkpoint import save_model
from x2vlm.cli import main
from x2vlm.settings import Settings


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    pixels = np.random.default_rng(4).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("media") / "photo.png"
    Image.fromarray(pixels).resize((120, 80), Image.Resampling.BICUBIC).save(path)
    return str(path)


@pytest.fixture
def run(tiny_folder, capsys):
    """Run a verb on the tiny model: exit code, standard output, standard error."""

    def call(*arguments, model=True):
        code = main([*arguments, *(["--model", str(tiny_folder)] if model else [])])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def parsed(result):
    code, out, _ = result
    assert code == 0
    return json.loads(out)


def test_every_verb_answers_in_json(run, image, tiny_predictor):
    scene = tiny_predictor.encode(image)
    caption = parsed(run("caption", image, "--json", "--max-new-tokens", "5", "--candidates", "2"))
    expected = tiny_predictor.caption(scene, max_new_tokens=5, num_captions=2)
    assert [c["text"] for c in caption["captions"]] == [c.text for c in expected]
    assert caption["model"]["name"] == "tiny" and caption["media"]["size"] == [120, 80]

    ask = parsed(run("ask", image, "what color is it?", "--json"))
    assert (
        ask["answers"][0]["text"] == tiny_predictor.answer(scene, "what color is it?").best
        and ask["mode"] == "rank"
    )

    ground = parsed(run("ground", image, "a red car", "dog", "--json"))
    assert ground["box"] == "x1 y1 x2 y2 in pixels" and [
        g["phrase"] for g in ground["groundings"]
    ] == ["a red car", "dog"]
    np.testing.assert_allclose(
        ground["groundings"][1]["box_xyxy"],
        tiny_predictor.ground(scene, "dog")[0].box_xyxy,
        atol=1e-2,
    )

    match = parsed(run("match", image, "a red car", "dog", "--json"))
    assert [m["probability"] for m in match["matches"]] == pytest.approx(
        [m.probability for m in tiny_predictor.match(scene, ["a red car", "dog"])], abs=1e-5
    )

    explain = parsed(run("explain", image, "a red car", "--json", "--layer", "1", "--check"))
    assert np.array(explain["maps"]).shape == (3, 4, 4) and explain["layer"] == 1
    assert len(explain["deletion_check"]["by_heat"]) == 21


def test_every_verb_answers_people(run, image):
    code, out, _ = run("ground", image, "a red car", "dog")
    lines = out.splitlines()
    assert (
        code == 0
        and len(lines) == 2
        and lines[0].startswith("a red car: ")
        and "heat inside" in lines[0]
    )
    assert run("caption", image, "--max-new-tokens", "3")[1].count("match") == 1
    assert len(run("ask", image, "who?", "--choices", "man", "dog")[1].splitlines()) == 2
    assert run("explain", image, "a red car")[1].splitlines()[-1].startswith("score 0.")
    assert "cosine" in run("match", image, "dog")[1]
    assert "cut after 72 characters" in run("match", image, "red car " * 30)[1]


def test_lists_from_standard_input(run, image, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red car\n\n dog \n"))
    assert [m["text"] for m in parsed(run("match", image, "-", "--json"))["matches"]] == [
        "a red car",
        "dog",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert run("ground", image, "-")[0] == 1


def test_images_and_maps_are_saved_whole_or_not_at_all(run, image, tmp_path):
    assert run("ground", image, "dog", "--out", str(tmp_path / "boxes.png"))[0] == 0
    drawn = np.asarray(Image.open(tmp_path / "boxes.png"))
    assert drawn.shape == (80, 120, 3) and (drawn != np.asarray(Image.open(image))).any()
    assert run("explain", image, "a red car", "--out", str(tmp_path / "heat.png"))[0] == 0
    assert Image.open(tmp_path / "heat.png").width > 400
    explain = parsed(
        run("explain", image, "a red car", "--json", "--out", str(tmp_path / "heat.npz"))
    )
    with np.load(tmp_path / "heat.npz") as stored:
        np.testing.assert_array_equal(stored["maps"], np.array(explain["maps"], np.float32))
        assert (
            stored["words"].tolist() == ["a", "red", "car"] and str(stored["method"]) == "gradient"
        )
    assert run("explain", image, "dog", "--out", str(tmp_path / "heat.npz"))[0] == 0
    assert run("explain", image, "dog", "--out", str(tmp_path / "LOUD.NPZ"))[0] == 0
    assert (tmp_path / "LOUD.NPZ").read_bytes() == (tmp_path / "heat.npz").read_bytes()
    for bad in ("heat.jpg", "none/heat.png"):
        assert run("explain", image, "a red car", "--out", str(tmp_path / bad))[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "LOUD.NPZ",
        "boxes.png",
        "heat.npz",
        "heat.png",
    ]


def test_suite_on_the_command_line(run, image, tiny_folder):
    suite = ["--model", f"caption={tiny_folder}", "--model", f"ground={tiny_folder}"]
    assert run("caption", image, "--max-new-tokens", "3", *suite, model=False)[0] == 0
    assert run("caption", image, *suite)[0] == 1  # a task and a bare name do not mix


def test_a_path_may_hold_an_equals_sign(run, image, tiny_folder, tmp_path):
    (tmp_path / "lr=1e-4").mkdir()
    (tmp_path / "lr=1e-4" / "final").symlink_to(tiny_folder)
    folder = str(tmp_path / "lr=1e-4" / "final")
    assert run("match", image, "dog", "--model", folder, model=False)[0] == 0
    assert run("match", image, "dog", "--model", f"match={folder}", model=False)[0] == 0
    code, _, err = run(
        "match", image, "dog", "--model", folder, "--model", "sing=mini", model=False
    )
    assert code == 1 and "Tasks: caption" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["ask", "PICTURE", " "], 1),
        (["ask", "nowhere.png", "who?"], 1),
        (["ground", "PICTURE", "dog", "--thresholds", "0.9", "0.1"], 1),
        (["explain", "PICTURE", "dog", "--layer", "9"], 1),
        (["caption", "PICTURE", "--beams", "99"], 1),
        (["caption", "PICTURE", "--device", "toaster"], 1),
        (["caption"], 2),
        (["sing", "PICTURE"], 2),
        (["caption", "PICTURE", "--loud"], 2),
        (["caption", "PICTURE", "--beams", "many"], 2),
    ],
)
def test_exit_codes(run, image, arguments, code):
    found, out, err = run(*[image if argument == "PICTURE" else argument for argument in arguments])
    assert found == code and not out and err and "Traceback" not in err


def test_unknown_model_is_three_and_json_carries_the_code(run, image):
    code, out, err = run("caption", image, "--model", "x2vlm_bose_4m", "--json", model=False)
    assert (
        code == 3
        and json.loads(out)["error"]["code"] == "ckpt/source"
        and "Did you mean x2vlm_base_4m" in err
    )


def test_interrupted_is_130(run, image, monkeypatch):
    from x2vlm.inference.predictor import Predictor

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "caption", interrupted)
    assert run("caption", image)[0] == 130


def test_convert_reports_and_leaves_nothing_half_written(run, tiny_folder, tmp_path, capsys):
    weights, target = str(tiny_folder / "model.safetensors"), tmp_path / "copy"
    code, out, _ = run(
        "convert", weights, str(target), "--tokenizer", str(tiny_folder), "--report", model=False
    )
    assert code == 0 and "matched" in out and "heads:" in out
    assert {path.name for path in target.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    report = parsed(
        run("convert", weights, str(target), "--tokenizer", str(tiny_folder), "--json", model=False)
    )
    assert report["missing"] == [] and report["unexpected"] == []
    (tmp_path / "bad.th").write_bytes(b"<html>")
    assert run("convert", str(tmp_path / "bad.th"), str(tmp_path / "out"), model=False)[0] == 3
    assert not (tmp_path / "out").exists()


def test_extra_weights_are_left_out_on_request(run, tiny_folder, image, tmp_path):
    folder = tmp_path / "extra"
    shutil.copytree(tiny_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"prd_head.weight": torch.ones(2)}, folder / "model.safetensors")
    arguments = ("caption", image, "--model", str(folder))
    code, _, err = run(*arguments, model=False)
    assert code == 3 and "prd_head.weight" in err
    assert run(*arguments, "--allow-extra", model=False)[0] == 0


def test_convert_tells_what_is_still_to_do(run, tiny_folder, tmp_path):
    code, _, err = run(
        "convert", str(tiny_folder / "model.safetensors"), str(tmp_path / "whole"), model=False
    )
    assert code == 0 and not err
    (tmp_path / "model.safetensors").symlink_to(tiny_folder / "model.safetensors")
    (tmp_path / "config.json").symlink_to(tiny_folder / "config.json")
    for more in ([], ["--json"]):
        code, _, err = run(
            "convert",
            str(tmp_path / "model.safetensors"),
            str(tmp_path / "out"),
            *more,
            model=False,
        )
        assert code == 0 and "note: no tokenizer was found" in err


def test_control_characters_do_not_reach_the_terminal(run, image):
    _, out, _ = run("match", image, "a \x1b[31mred\x1b[0m car\r\x07")
    assert "\x1b" not in out and "\x07" not in out and "red" in out


def test_doctor(run, monkeypatch):
    findings = parsed(run("doctor", "--json", model=False))
    assert findings["packages"]["torch"] and findings["packages"]["av"]
    assert findings["device"] in ("cpu", "cuda")
    assert "opencv" in run("doctor", model=False)[1]
    from x2vlm import doctor

    monkeypatch.setattr(doctor, "_version", lambda name: "5.0")
    assert any("OpenCV builds" in warning for warning in doctor.examine()["warnings"])


def test_module_runs_as_a_command(tiny_folder, image, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["x2vlm", "match", image, "dog", "--json", "--model", str(tiny_folder)]
    )
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("x2vlm", run_name="__main__")
    assert stop.value.code == 0
    assert json.loads(capsys.readouterr().out)["matches"][0]["text"] == "dog"


def test_version(run):
    code, out, _ = run("--version", model=False)
    assert code == 0 and out.startswith("x2vlm ")


def test_a_question_that_is_not_understood_is_said_to_be(
    tiny_model, tiny_processor, tiny_tokenizer, tmp_path, image, capsys
):
    settings = Settings(answers=("yes", "no"), sure=1.0, example="is there a dog?")
    save_model(tiny_model, tmp_path / "model", tiny_tokenizer, settings=settings)
    assert main(["ask", image, "asdf", "--model", str(tmp_path / "model")]) == 0
    first, *perhaps = capsys.readouterr().out.splitlines()
    assert first.startswith("unsure: ") and "is there a dog?" in first
    assert all(line.startswith("  perhaps ") for line in perhaps) and len(perhaps) == 2
