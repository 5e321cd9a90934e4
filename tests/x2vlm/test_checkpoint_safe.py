"""Hostile and damaged weights files: nothing runs, every refusal is a sentence with a code, and
says nothing it should not."""

import argparse
import io
import os
import pickle
import re
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import bad_checkpoints
from x2vlm.checkpoint.safe_load import read_tensors, read_weights
from x2vlm.errors import CheckpointError
from x2vlm.modeling.build import load_model

LEAKS = re.compile(r"0x[0-9a-f]{4,}|Traceback|weights_only|/tmp|/root|/home|site-packages|\x1b|\n")
SLOWEST_SECONDS = 10

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


def refusal(path) -> CheckpointError:
    """The error that a file gets from the loader, after checking its wording."""
    start = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert time.monotonic() - start < SLOWEST_SECONDS
    error = caught.value
    assert error.code.startswith("ckpt/")
    assert not LEAKS.search(str(error)), str(error)
    assert len(error.message) < 400 and error.message.rstrip().endswith((".", "`"))
    return error


HOSTILE = sorted(bad_checkpoints.hostile(Path("canary")))
MALFORMED = bad_checkpoints.malformed()


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_hostile_file_runs(name, tmp_path):
    canary = tmp_path / "canary"
    path = tmp_path / name
    path.write_bytes(bad_checkpoints.hostile(canary)[name])
    refusal(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.th", "exec.th", "legacy.th", "bare.pth", "bare0.pth"])
def test_the_payloads_would_fire_without_the_guard(name, tmp_path):
    """The test above has teeth: read carelessly, these files do create the canary."""
    canary = tmp_path / "canary"
    data = bad_checkpoints.hostile(canary)[name]
    if name.startswith("bare"):
        pickle.loads(data)
    else:
        torch.load(io.BytesIO(data), weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("posix.th", "posix.system"),
        ("os.th", "posix.system"),
        ("bare.pth", "posix.system"),
        ("subprocess.th", "commands.call"),
    ],
)
def test_a_hostile_pickle_is_refused_by_name(name, called, tmp_path):
    path = tmp_path / name
    path.write_bytes(bad_checkpoints.hostile(tmp_path / "canary")[name])
    error = refusal(path)
    assert error.code == "ckpt/unsafe" and called in error.message and name in error.message


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_damaged_files_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(MALFORMED[name])
    refusal(path)


@pytest.mark.parametrize(
    ("name", "code", "word"),
    [
        ("empty.th", "ckpt/damaged", "empty"),
        ("cut.th", "ckpt/damaged", "cut off"),
        ("flipped.th", "ckpt/damaged", "again"),
        ("page.th", "ckpt/format", "web page"),
        ("pointer.th", "ckpt/format", "git lfs pull"),
        ("text.th", "ckpt/format", "text file"),
        ("deflated.th", "ckpt/unsafe", "compressed"),
        ("crowded.th", "ckpt/unsafe", "members"),
        ("stride0.th", "ckpt/content", "more numbers"),
        ("optimizer.th", "ckpt/content", "optimiser"),
        ("list.th", "ckpt/content", "list"),
        ("int8.th", "ckpt/content", "int8"),
        ("other_model.th", "ckpt/keys", "another model"),
        ("dotdot.tar", "ckpt/unsafe", "no archive of weights"),
        ("symlink.tar", "ckpt/unsafe", "no archive of weights"),
        ("two.tar", "ckpt/format", "a.th, b.th"),
        ("cut_data.safetensors", "ckpt/damaged", "safetensors"),
    ],
)
def test_refusals_say_what_is_wrong(name, code, word, tmp_path):
    path = tmp_path / name
    path.write_bytes(MALFORMED[name])
    error = refusal(path)
    assert error.code == code and word in error.message


@pytest.mark.parametrize("special", ["/dev/zero", "/dev/null", "/proc/self/environ"])
def test_special_files_are_not_read(special):
    if not os.path.exists(special):
        pytest.skip(f"no {special} here")
    refusal(special)


def expected_equal(read, content):
    assert read.keys() == content.keys()
    assert all(torch.equal(read[key], value) for key, value in content.items())


def test_every_container_gives_the_same_tensors(tmp_path):
    content = bad_checkpoints.good(
        half=torch.ones(2, dtype=torch.float16), count=torch.arange(3), flag=torch.tensor(True)
    )
    raw, wrapped = (
        bad_checkpoints.torch_file(content),
        bad_checkpoints.torch_file({"model": content, "config": {"a": [1]}}),
    )
    files = {
        "raw.th": raw,
        "wrapped.pth": wrapped,
        "torch_file.tar": wrapped,
        "no_suffix": wrapped,
        "old.pt": bad_checkpoints.torch_file(
            {"model": content}, _use_new_zipfile_serialization=False
        ),
        "archive.tar": bad_checkpoints.tar({"x/notes.txt": b"hello", "x/model.th": wrapped}),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    save_file(content, tmp_path / "weights.safetensors")
    (tmp_path / "inner.tar").write_bytes(
        bad_checkpoints.tar({"w.safetensors": (tmp_path / "weights.safetensors").read_bytes()})
    )
    for name in [*files, "weights.safetensors", "inner.tar"]:
        expected_equal(read_tensors(tmp_path / name), content)


def test_a_tar_with_a_folder_entry_is_fine(tmp_path):
    path = tmp_path / "folder.tar"
    (tmp_path / "model.th").write_bytes(
        bad_checkpoints.torch_file({"model": bad_checkpoints.good()})
    )
    (tmp_path / "empty").mkdir()
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "empty", "x")
        archive.add(tmp_path / "model.th", "x/model.th")
    expected_equal(read_tensors(path), bad_checkpoints.good())


def test_the_checksum_is_what_catches_a_flipped_bit(tmp_path):
    """Only the archive's checksum differs from the good file: sizes and structure are the same."""
    good = bad_checkpoints.torch_file({"model": bad_checkpoints.good()})
    assert len(good) == len(MALFORMED["flipped.th"])
    assert zipfile.ZipFile(io.BytesIO(good)).testzip() is None
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(MALFORMED["flipped.th"])).read("archive/data/0")


@pytest.mark.parametrize("remainder", range(256))
def test_safetensors_are_told_by_their_structure(remainder, tmp_path):
    """A header of 0x80 bytes begins like a pickle."""
    header = b'{"a.b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    header += b" " * ((remainder - len(header)) % 256)
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.5))
    assert read_tensors(path)["a.b"].tolist() == [1.5]


@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=1e-4, model=argparse.Namespace(size=3)),
        np.float64(0.5),
        {"epoch": np.int64(3), "best": np.float32(0.1)},
    ],
    ids=["namespace", "scalar", "scalars"],
)
def test_values_beside_the_weights_are_read_over(beside, tmp_path):
    path = tmp_path / "x.th"
    torch.save({"model": {"a.b": torch.ones(2)}, "args": beside}, path)
    assert read_tensors(path)["a.b"].tolist() == [1, 1]


def test_the_pair_that_the_official_checkpointer_writes_is_read(tmp_path):
    path = tmp_path / "run.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("run/model_state_epoch_9.th", {"model": {"a.b": torch.ones(2)}}),
            ("run/training_state_latest.th", {"optimizer": {"state": {}}, "epoch": 9}),
        ):
            torch.save(content, tmp_path / "member")
            archive.add(tmp_path / "member", name)
    assert read_tensors(path)["a.b"].tolist() == [1, 1]


def test_the_wrapper_that_was_taken_is_told(tmp_path):
    path = tmp_path / "x.th"
    state, average = {"a.b": torch.ones(2)}, {"a.b": torch.zeros(2)}
    torch.save({"model_state_dict": {"module": state}, "model_ema": average}, path)
    weights = read_weights(path)
    assert weights.tensors["a.b"].tolist() == [1, 1]
    assert weights.notes == ("weights taken from model_state_dict.module, not model_ema",)
