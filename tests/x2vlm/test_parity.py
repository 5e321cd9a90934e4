"""The parity runner over the recorded folders, and that it notices what it must: tampering and the
unknown."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.__main__ import check_folder, main
from tests.parity.quantities import INPUTS

FOLDERS = (
    "captioning", "cclm", "cclm-3m", "gradcam", "grounding-resized", "nlvr", "pretrain-base",
    "pretrain-large", "retrieval", "video-qa", "vqa", "xvlm-captioning", "xvlm-nlvr", "xvlm-swin",
)  # fmt: skip


@pytest.fixture
def recorded(shared_dir) -> Path:
    if not (shared_dir / "parity").is_dir():
        pytest.skip("the recorded outputs are not here")
    return shared_dir / "parity"


@pytest.fixture
def copy(recorded, tmp_path):
    """A writable copy of a recorded folder."""

    def make(name: str) -> Path:
        shutil.copytree(recorded / name, tmp_path / name, copy_function=shutil.copyfile)
        (tmp_path / name).chmod(0o755)
        return tmp_path / name

    return make


@pytest.mark.parametrize("name", FOLDERS)
def test_every_recorded_quantity_agrees(name, recorded):
    results = list(check_folder(recorded / name))
    assert not [str(result) for result in results if not result.passed]
    outputs = load_file(recorded / name / "cases.safetensors").keys() - INPUTS
    assert outputs and outputs <= {result.name for result in results}


def test_exit_codes(recorded, capsys):
    assert main([str(recorded / "nlvr")]) == 0
    assert "PASS" in capsys.readouterr().out
    assert main([]) == 1 and main([str(recorded / "nowhere")]) == 1


def test_what_is_no_folder_is_one_failed_line(tmp_path, capsys):
    (tmp_path / "notes.md").touch()
    assert main([str(tmp_path / "notes.md"), str(tmp_path / "nowhere")]) == 1
    file, nowhere, count = capsys.readouterr().out.splitlines()
    assert (
        "This is a file." in file and "There is no such folder." in nowhere and count == "2 failed"
    )


def change(folder: Path, name: str, tensor: torch.Tensor) -> None:
    cases = load_file(folder / "cases.safetensors")
    cases[name] = tensor
    save_file(cases, folder / "cases.safetensors")


def failures(folder: Path) -> list[str]:
    return [result.name for result in check_folder(folder) if not result.passed]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("nlvr", "logits"), ("vqa", "top6_prob"), ("gradcam", "fusion1_gradcam"),
    ("pretrain-base", "loss_bbox_giou"),
     ("cclm", "loss_parallel_mlm"), ("captioning", "train_loss"),
     ("grounding-resized", "rel_pos_table_block0")],
)  # fmt: skip
def test_a_tampered_number_fails(folder, name, copy):
    folder = copy(folder)
    tensor = load_file(folder / "cases.safetensors")[name]
    tensor.view(-1)[-1] += 2e-4 * tensor.abs().max()
    change(folder, name, tensor)
    assert failures(folder) == [name]


def test_a_number_within_the_limit_passes(copy):
    folder = copy("nlvr")
    tensor = load_file(folder / "cases.safetensors")["logits"]
    tensor.view(-1)[0] += 5e-5 * tensor.abs().max()
    change(folder, "logits", tensor)
    assert failures(folder) == []


def test_not_a_number_fails(copy):
    folder = copy("nlvr")
    change(folder, "logits", torch.full((2, 2), float("nan")))
    assert failures(folder) == ["logits"]


@pytest.mark.parametrize(
    ("folder", "name"), [("vqa", "all_index"), ("vqa", "question_ids"), ("vqa", "answer_atts")]
)
def test_a_tampered_id_fails(folder, name, copy):
    folder = copy(folder)
    tensor = load_file(folder / "cases.safetensors")[name]
    tensor.view(-1)[1] = (tensor.view(-1)[1] + 1) % 14
    change(folder, name, tensor)
    assert name in failures(folder)


@pytest.mark.parametrize("name", ["speed", "image_embeds_v2", "fusionx_attention"])
def test_an_unknown_quantity_fails(name, copy):
    folder = copy("nlvr")
    change(folder, name, torch.ones(2))
    assert failures(folder) == [name]


def test_an_input_that_nothing_checks_fails(copy):
    folder = copy("nlvr")
    change(folder, "masked_ids", torch.ones(2, 3, dtype=torch.int64))
    assert failures(folder) == ["masked_ids"]


def test_a_quantity_of_a_head_that_is_not_there_fails(copy):
    folder = copy("nlvr")
    change(folder, "similarity", torch.ones(2, 2))
    assert failures(folder) == ["similarity"]


@pytest.mark.parametrize(
    ("path", "value", "failing"),
    [
        (("runs", 2, "token_ids", 0, 0), 5, "runs[2].token_ids"),
        (("runs", 1, "text", 0), "a cat", "runs[1].text"),
        (("runs", 0, "speed"), 3, "runs[0].speed"),
        (("prompt_ids", 1), 5, "prompt_ids"),
        (("label_smoothing",), 0.2, "train_loss"),
        (("secret",), 1, "secret"),
        (("architecture", "vision", "depth"), 4, "architecture"),
        (("architecture", "text", "pad_token_id"), 3, "architecture"),
        (("architecture", "vision", "registers"), 4, "architecture"),
    ],
)
def test_tampered_meta_fails(path, value, failing, copy):
    folder = copy("captioning")
    meta = json.loads((folder / "meta.json").read_text())
    place = meta
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "meta.json").write_text(json.dumps(meta))
    assert failing in failures(folder)


def test_a_damaged_checkpoint_is_one_failed_line(copy, capsys):
    folder = copy("nlvr")
    (folder / "checkpoint.th").write_bytes(b"")
    assert main([str(folder)]) == 1
    assert "empty" in capsys.readouterr().out
