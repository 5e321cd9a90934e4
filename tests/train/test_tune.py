"""`x2vlm tune`: a newcomer's own data, a command each, on a tiny model."""

import json
import sys

import pytest
import torch

from tests.train.test_own_data import (
    CAPTIONS,
    COUNT,
    encoded,
    excel,
    folder,  # noqa: F401 (a fixture)
    saved_dataset,
    table,
    text_files,
    write_csv,
)
from train import tune
from train.stop import StopSignal
from x2vlm import Predictor
from x2vlm.checkpoint import save_model
from x2vlm.cli import main as x2vlm
from x2vlm.modeling.build import build_model


@pytest.fixture
def tiny(tmp_path, tiny_config, tiny_tokenizer):
    """A folder of a model with every head that the tasks need."""
    heads = ("contrastive", "matching", "box", "masked_lm", "answer_decoder")
    torch.manual_seed(0)
    return save_model(
        build_model(tiny_config.replace(heads=heads)), tmp_path / "tiny", tiny_tokenizer
    )


def flat(home):
    rows = [[f"{n}.png", f"{text} {again}"] for n, text in enumerate(CAPTIONS) for again in "ab"]
    return write_csv(home / "flat.csv", [["image", "caption"], *rows])


def boxes(home):
    content = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(COUNT)],
        "annotations": [
            {"image_id": n, "category_id": n % 2, "bbox": [4, 4, 12, 12]} for n in range(COUNT)
        ],
        "categories": [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}],
    }
    (home / "instances.json").write_text(json.dumps(content))
    return home / "instances.json"


def questions(home):
    rows = [[f"{n}.png", "what is this?", "dog" if n % 2 else "cat"] for n in range(COUNT)]
    return write_csv(home / "qa.csv", [["image", "question", "answer"], *rows])


ATTEMPTS = [
    ("caption", table),
    ("retrieval", text_files),
    ("ground", boxes),
    ("caption", saved_dataset),
    ("retrieval", flat),
    ("caption", excel),  # French, as Excel writes it
    ("ask", questions),
]


@pytest.mark.parametrize(
    ("task", "layout"), ATTEMPTS, ids=[f"{task}-{layout.__name__}" for task, layout in ATTEMPTS]
)
def test_one_command(task, layout, folder, tiny, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(StopSignal, "install", lambda self: self)
    out = tmp_path / "mine"
    given = [str(layout(folder)), "--task", task, "--model", str(tiny), "--out", str(out)]
    assert tune.main([*given, "--epochs", "1", "--batch-size", "4"]) == 0, capsys.readouterr().err
    card = (out / "model" / "README.md").read_text("utf-8")
    assert f"**{task}**" in card and "| before | after |" in card
    predictor = Predictor.from_pretrained(str(out / "model"))
    (tmp_path / "seen.png").write_bytes(encoded(0))
    if task == "ask":
        answers = predictor.answer(str(tmp_path / "seen.png"), "what is this?").answers
        assert {answer.text for answer in answers} == {"dog", "cat"}


def test_the_command_line_passes_everything_on(monkeypatch):
    given = ["pairs.csv", "--task", "caption", "--json", "-x"]
    ran = []
    monkeypatch.setattr("runpy.run_path", lambda path, run_name: ran.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "argv", ["x2vlm"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert x2vlm(["tune", *given]) == 0
    assert ran == [given]


def test_a_foreign_language_is_noted(tiny_tokenizer):
    assert "made for another language" in tune.language_note(tiny_tokenizer, ["자전거 타는 사람"])
