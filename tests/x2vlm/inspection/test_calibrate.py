"""The heat maps that point best are found by measuring, and stored."""

import json
import shutil

import pytest

from x2vlm.cli import main
from x2vlm.errors import DataError
from x2vlm.inspection.calibrate import calibrate
from x2vlm.inspection.truth import Truth, read_truth
from x2vlm.options import USES, MapChoice, MapChoices


@pytest.fixture(scope="module")
def found(tiny_predictor):
    return calibrate(tiny_predictor, read_truth("stickers:val", 2), MapChoices())


@pytest.mark.parametrize("use", USES)
def test_every_use_gets_what_pointed_best(found, use):
    measured = found.pointing[use]
    assert measured[getattr(found.choices, use)] == max(measured.values())


def test_targets_methods_layers_and_heads_are_searched(found):
    tried = found.pointing["query"]
    assert {choice.target for choice in tried} == {"phrase", "match", "box", "caption"}
    assert {choice.method for choice in tried} == {"gradient", "attention", "rollout", "similarity"}


def test_a_layer_and_a_head_that_point_are_chosen(tiny_predictor, monkeypatch):
    """With a measure that knows which choice is right."""
    right = MapChoice("box", "attention", 1, "max")

    def likeness(predictor, use, cases, choice):
        same = [getattr(choice, name) == getattr(right, name) for name in vars(right)]
        return sum(same) / len(same)

    monkeypatch.setattr("x2vlm.inspection.calibrate._pointing", likeness)
    found = calibrate(tiny_predictor, read_truth("stickers:val", 1), MapChoices())
    assert found.choices.phrase == right


def test_data_without_boxes_are_refused(tiny_predictor, photo):
    truths = [Truth("1", lambda size: photo, captions=("a dog",))]
    with pytest.raises(DataError, match="no phrases with boxes"):
        calibrate(tiny_predictor, truths, MapChoices())


def test_the_command_writes_the_settings(tiny_folder, tmp_path, capsys):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    assert main(["calibrate", str(folder), "stickers:val", "--limit", "1"]) == 0
    settings = json.loads((folder / "predictor.json").read_text(encoding="utf-8"))
    assert set(settings["maps"]) == set(USES)
    assert settings["note"] == "knows nothing"
    assert "of 1 texts" not in (told := capsys.readouterr().out) and "query: " in told


def test_a_file_is_told_to_be_converted_first(tmp_path, capsys):
    assert main(["calibrate", str(tmp_path / "model.th"), "stickers"]) == 1
    assert "x2vlm convert" in capsys.readouterr().err
