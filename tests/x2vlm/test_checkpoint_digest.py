"""One flipped bit in saved weights is found."""

import json
import shutil

import pytest

from x2vlm import hub
from x2vlm.checkpoint import save_model
from x2vlm.checkpoint.digest import DIGEST, verify
from x2vlm.checkpoint.source import WEIGHTS
from x2vlm.cli import main
from x2vlm.errors import CheckpointError
from x2vlm.modeling.build import load_model


def flip_a_bit(folder):
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (folder / WEIGHTS).write_bytes(content)


@pytest.fixture
def saved(tiny_model, tmp_path):
    return save_model(tiny_model, tmp_path / "saved")


def test_a_saved_folder_verifies(saved):
    assert verify(saved) == hub.sha256_of(saved / WEIGHTS)


def test_one_flipped_bit_is_found(saved):
    flip_a_bit(saved)
    with pytest.raises(CheckpointError, match="SHA-256") as caught:
        verify(saved)
    assert caught.value.code == "ckpt/damaged"


@pytest.mark.parametrize("name", [WEIGHTS, DIGEST])
def test_what_is_not_there_is_named(name, saved):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}") as caught:
        verify(saved)
    assert caught.value.code == "ckpt/source"


def test_bundled_weights_are_verified_whenever_they_are_loaded(saved, monkeypatch):
    monkeypatch.setattr(hub, "bundled_dir", lambda name: saved if name == "mini" else None)
    assert load_model("mini").path == saved / WEIGHTS
    flip_a_bit(saved)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_model("mini")


@pytest.mark.parametrize("name", hub.BUNDLED)
def test_the_bundled_models_carry_their_digest(name):
    folder = hub.bundled_dir(name)
    if folder is None:
        pytest.skip(f"{name} is not part of this clone")
    verify(folder)


def test_the_command_line_verifies(saved, capsys):
    assert main(["doctor", "--verify", str(saved), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == hub.sha256_of(saved / WEIGHTS)
    flip_a_bit(saved)
    assert main(["doctor", "--verify", str(saved)]) == 3


def test_a_folder_without_its_configuration_says_so(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json") as caught:
        load_model(tmp_path / "bare")
    assert caught.value.code == "ckpt/source"
