"""Every command that reads data opens them before it loads or downloads a model."""

import json

import pytest

from train import bundle, evaluate, features, finetune, pretrain
from train.stop import StopSignal

ENTRIES = {
    "pretrain": (pretrain, []),
    "finetune": (finetune, []),
    "evaluate": (evaluate, ["--checkpoint", "no/model"]),
    "bundle": (bundle, ["--out", "bundle", "--model", "no/model"]),
    "features": (features, []),
}
SOURCES = {
    "files": {"files": ["missing.jsonl"]},
    "photos": {"photos": {"files": ["missing.tar"], "features": "features.npy"}},
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("entry", ENTRIES)
def test_missing_data_are_told_before_the_model(entry, source, tmp_path, monkeypatch, capsys):
    if (entry, source) == ("features", "files"):
        pytest.skip("features are those of photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StopSignal, "install", lambda self: self)
    data = SOURCES[source]
    run = {
        "output_dir": "run",
        "max_steps": 1,
        "device": "cpu",
        "model": {"init_from": "no/model"},
        "optimizer": {"lr": 1e-3},
        "tasks": {
            "captions": {
                "type": "captioning",
                "batch_size": 1,
                "losses": {"caption_loss": 1},
                "data": data,
                "test": {"test": dict(data)},
            }
        },
    }
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    module, options = ENTRIES[entry]
    assert module.main(["--config", "run.yaml", *options]) != 0
    said = capsys.readouterr().err
    assert "missing." in said and "does not exist" in said
    assert "no/model" not in said
