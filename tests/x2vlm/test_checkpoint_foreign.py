"""Checkpoints as other people's training scripts save them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.x2vlm.test_checkpoint import CONFIGS, same_weights
from x2vlm.checkpoint import official_state_dict, save_model
from x2vlm.cli import main
from x2vlm.errors import CheckpointError
from x2vlm.inference.predictor import Predictor
from x2vlm.modeling.build import build_model, load_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIGS["retrieval"]).eval()


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.model."])
def test_prefixes_of_frameworks_are_removed_and_told(prefix, ours, model, tmp_path):
    state = model.state_dict() if ours else official_state_dict(model)
    torch.save({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt")
    assert same_weights(loaded.model, model)
    assert loaded.report.notes == (f"prefix {prefix} removed from the names",)
    assert all(key.startswith(prefix) for key in loaded.report.renamed)
    assert not loaded.report.matched


def test_single_modules_that_were_compiled(model, tmp_path):
    state = {
        key.replace("vision_encoder.", "vision_encoder._orig_mod."): tensor
        for key, tensor in official_state_dict(model).items()
    }
    torch.save(state, tmp_path / "m.pt")
    assert same_weights(load_model(tmp_path / "m.pt").model, model)


def test_a_wrapper_is_told_in_the_report(model, tmp_path):
    torch.save({"model_ema": official_state_dict(model)}, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").report.notes == ("weights taken from model_ema",)


def test_missing_and_extra_weights_are_named_as_in_the_file(model, tmp_path):
    state = {f"module.{key}": tensor for key, tensor in official_state_dict(model).items()}
    torch.save(state | {"module.prd_head.weight": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"module\.prd_head\.weight.*--allow-extra"):
        load_model(tmp_path / "more.pt")
    loaded = load_model(tmp_path / "more.pt", allow_extra=True)
    assert loaded.report.unexpected == ("module.prd_head.weight",)
    del state["module.text_encoder.encoder.layer.0.output.dense.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"module\.text_encoder\.encoder\.layer\.0\.output"):
        load_model(tmp_path / "less.pt")


def test_a_value_that_is_not_finite_is_named_as_in_the_file(model, tmp_path):
    state = {f"module.{key}": tensor.clone() for key, tensor in official_state_dict(model).items()}
    state["module.itm_head.0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"module\.itm_head\.0\.weight"):
        load_model(tmp_path / "m.pt")


def test_queues_and_momentum_copies_may_be_left_out(model, tmp_path):
    state = official_state_dict(model)
    extra = {
        "image_queue": torch.ones(4, 8),
        "queue_ptr": torch.zeros(1, dtype=torch.int64),
        "vision_encoder_m.patch_embed.proj.weight": torch.ones(1),
        "text_encoder_m.encoder.layer.0.output.dense.bias": torch.ones(1),
    }
    torch.save({"model": state | extra}, tmp_path / "m.pt")
    loaded = load_model(tmp_path / "m.pt", allow_extra=True)
    assert same_weights(loaded.model, model)
    assert set(loaded.report.unexpected) == extra.keys()


def test_a_predictor_lists_what_it_left_out(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.sha256").unlink()
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors | {"prd_head.weight": torch.ones(2)}, tmp_path / "m" / "model.safetensors")
    with pytest.raises(CheckpointError, match="prd_head"):
        Predictor.from_pretrained(tmp_path / "m")
    predictor = Predictor.from_pretrained(tmp_path / "m", allow_extra=True)
    assert predictor.info.left_out == ("prd_head.weight",)


def test_the_command_line_lists_what_it_left_out(tiny_folder, tmp_path, photo, capsys):
    shutil.copytree(tiny_folder, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.sha256").unlink()
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    save_file(tensors | {"prd_head.weight": torch.ones(2)}, tmp_path / "m" / "model.safetensors")
    photo.save(tmp_path / "photo.png")
    arguments = ["match", str(tmp_path / "photo.png"), "a dog", "--model", str(tmp_path / "m")]
    assert main(arguments) == 3
    assert main([*arguments, "--allow-extra"]) == 0
    assert "left out of the checkpoint: prd_head.weight" in capsys.readouterr().err


@pytest.fixture
def sharded(model, tmp_path):
    """A folder as transformers writes it, in two shards."""
    save_model(model, tmp_path / "whole")
    tensors = load_file(tmp_path / "whole" / "model.safetensors")
    folder = tmp_path / "sharded"
    folder.mkdir()
    (folder / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    listed = {}
    for part in range(2):
        name = f"model-0000{part + 1}-of-00002.safetensors"
        mine = {key: tensors[key] for key in sorted(tensors)[part::2]}
        save_file(mine, folder / name)
        listed |= dict.fromkeys(mine, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return folder


def test_shards_are_read_by_their_index(sharded, model):
    assert same_weights(load_model(sharded).model, model)
    assert load_model(sharded).config == model.config


def test_shards_of_torch_files(sharded, model):
    index = sharded / "model.safetensors.index.json"
    listed = json.loads(index.read_text())["weight_map"]
    for name in set(listed.values()):
        torch.save(load_file(sharded / name), sharded / name.replace(".safetensors", ".bin"))
        (sharded / name).unlink()
    renamed = {key: name.replace(".safetensors", ".bin") for key, name in listed.items()}
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": renamed}))
    index.unlink()
    assert same_weights(load_model(sharded).model, model)


def test_a_shard_that_is_not_there_is_named(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002") as caught:
        load_model(sharded)
    assert caught.value.code == "ckpt/source"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {"a": "../b.safetensors"}}', '{"weight_map": [1]}']
)
def test_an_index_that_is_none_is_refused(text, sharded):
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="no index") as caught:
        load_model(sharded)
    assert caught.value.code == "ckpt/damaged"


def test_the_digest_of_shards_changes_with_each_of_them(sharded):
    before = load_model(sharded).sha256
    part = sharded / "model-00002-of-00002.safetensors"
    tensors = {key: tensor * 2 for key, tensor in load_file(part).items()}
    save_file(tensors, part)
    assert load_model(sharded).sha256 != before


def test_a_folder_with_pytorch_model_bin(model, tmp_path):
    torch.save(official_state_dict(model), tmp_path / "pytorch_model.bin")
    torch.save({}, tmp_path / "training_args.bin")
    assert same_weights(load_model(tmp_path).model, model)
