"""From a YAML run to weights that `load_model` reads, on a tiny model and a few sticker scenes."""

import subprocess
import sys
import time

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from transformers import BertConfig, BertForMaskedLM

from train import finetune, pretrain
from train.config import ModelSource
from train.launch import launch, load_source
from train.stop import StopSignal
from train.tasks.region_text import RegionTextTask
from x2vlm.modeling.build import load_model


@pytest.fixture(autouse=True)
def forget_precision():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def write_run(tmp_path, tiny_config, tiny_tokenizer):
    """Writes a run of two steps; `changes` replace whole blocks."""
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    sizes = tiny_config.replace(heads=("contrastive", "matching", "box", "masked_lm")).to_dict()
    stickers = {"stickers": {"kind": "scene", "count": 50}}
    run = {
        "output_dir": str(tmp_path / "run"),
        "max_steps": 2,
        "num_workers": 0,
        "device": "cpu",
        "log": {"trackers": []},
        "model": {
            "preset": "mini",
            "overrides": _plain(sizes),
            "tokenizer": str(tmp_path / "tokenizer"),
        },
        "optimizer": {"lr": 1e-3},
        "tasks": {
            "regions": {
                "type": "region_text",
                "batch_size": 2,
                "losses": dict.fromkeys(RegionTextTask.all_losses, 1),
                "data": stickers,
            }
        },
    }

    def write(**changes):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**run, **changes}))
        return ["--config", str(path)]

    return write


def _plain(value):
    """Tuples as lists, as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_pretrain_then_finetune(write_run, tmp_path, tiny_config, capsys):
    assert launch(write_run(), StopSignal()) == 0
    final = tmp_path / "run" / "final"
    assert load_model(final).config.heads == ("contrastive", "matching", "box", "masked_lm")

    questions = {
        "type": "question_answering",
        "losses": {"answer_loss": 1},
        "batch_size": 2,
        "data": {"stickers": {"kind": "scene", "count": 50}},
    }
    changes = {
        "output_dir": str(tmp_path / "joint"),
        "model": {"init_from": str(final), "overrides": {"heads": list(tiny_config.heads)}},
        "tasks": {"questions": questions},
    }
    assert launch(write_run(**changes), StopSignal(), needs_checkpoint=True) == 0
    tuned = load_model(tmp_path / "joint" / "final")
    assert set(tuned.config.heads) == set(tiny_config.heads) and tuned.tokenizer_dir is not None
    assert "heads without weights (fresh): answer_decoder, pair" in capsys.readouterr().out


def test_a_signal_before_the_start_ends_well(write_run, tmp_path):
    stop = StopSignal()
    stop.requested = True
    assert launch(write_run(), stop) == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"max_step": 3}, 2, "Unknown key 'max_step'"),
        ({"model": {}}, 2, "Name model.preset or model.init_from"),
        ({"model": {"preset": "minni"}}, 2, "Known presets: photo, mini"),
        ({"model": {"init_from": "no/such/folder"}}, 1, "no checkpoint 'folder'"),
        ({"output_dir": "/proc/run"}, 2, "cannot be written"),
    ],
)
def test_errors_are_sentences_and_exit_codes(write_run, change, code, said, capsys):
    assert launch(write_run(**change), StopSignal()) == code
    assert said in capsys.readouterr().err


def test_finetuning_needs_a_checkpoint(write_run, capsys):
    assert launch(write_run(), StopSignal(), needs_checkpoint=True) == 2
    assert "model.init_from is missing" in capsys.readouterr().err


def test_entries_show_their_usage(capsys, monkeypatch):
    monkeypatch.setattr(StopSignal, "install", lambda self: self)
    for entry in (pretrain, finetune):
        assert entry.main(["--help"]) == 0
        assert "--optimizer.lr" in capsys.readouterr().out


def test_which_parameters_are_new(write_run, tmp_path, tiny_config):
    """From scratch none is; beside a checkpoint, the heads that it lacks, but what of the decoder
    the fusion layers gave."""
    assert launch(write_run(), StopSignal()) == 0
    source = ModelSource(
        init_from=str(tmp_path / "run" / "final"), overrides={"heads": list(tiny_config.heads)}
    )
    model, _, new = load_source(source)
    assert {name.split(".")[0] for name in new} == {"answer_decoder", "pair_head"}
    assert (
        "answer_decoder.layers.1.cross_attention.key.weight" in new
    )  # text and image widths differ here
    assert "answer_decoder.layers.1.fc1.weight" not in new
    assert torch.equal(
        model.answer_decoder.layers[1].fc1.weight, model.fusion_encoder.layers[2].fc1.weight
    )

    text = tiny_config.text
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=text.vocab_size,
            hidden_size=text.hidden_size,
            num_hidden_layers=text.num_layers,
            num_attention_heads=text.num_heads,
            intermediate_size=text.intermediate_size,
            max_position_embeddings=text.max_positions,
            type_vocab_size=text.type_vocab_size,
        )
    )
    bert.save_pretrained(tmp_path / "bert")
    scratch = ModelSource(
        preset="mini",
        overrides=_plain(tiny_config.to_dict()),
        tokenizer=str(tmp_path / "tokenizer"),
    )
    assert load_source(scratch)[2] == set()
    scratch.text_from = str(tmp_path / "bert")
    model, _, new = load_source(scratch)
    assert "text_encoder.embeddings.words.weight" not in new and "vision.tower.cls_token" in new
    assert torch.equal(
        model.text_encoder.embeddings.words.weight, bert.bert.embeddings.word_embeddings.weight
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_signal_handler_stands_before_torch_is_loaded():
    """T4: a signal in the seconds of the imports must not kill the run."""
    with subprocess.Popen(
        [sys.executable, "-m", "train.pretrain"], stderr=subprocess.DEVNULL
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while (
                not caught(process.pid, 15)
                and process.poll() is None
                and time.monotonic() < deadline
            ):
                time.sleep(0.001)
            with open(f"/proc/{process.pid}/maps", encoding="utf-8") as maps:
                assert "libtorch" not in maps.read()
            assert caught(process.pid, 15) and caught(process.pid, 10)
        finally:
            process.kill()


def caught(pid, number):
    """Whether a process has a handler of its own for a signal."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        mask = next(line for line in status if line.startswith("SigCgt"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)
