"""Settings that changed, disks that are full, and which checkpoints stay."""

import errno
from pathlib import Path

import pytest
import torch

from tests.train.toy import ToyModel, losses, toy_run, train_toy
from train import state
from train.trainer import train
from x2vlm.errors import CheckpointError, ConfigError

ABOUT = {"settings": {}, "samples_read": {}, "bad_samples": 0, "metrics": {}, "world_size": 1}


def test_changed_settings_are_listed_and_refused(tmp_path):
    """T10."""
    train_toy(tmp_path, steps=3)
    changes = {
        "steps": 6,
        "optimizer__lr": 0.5,
        "tasks__toy": {"type": "toy", "batch_size": 16},
        "num_workers": 1,
    }
    with pytest.raises(ConfigError) as error:
        train_toy(tmp_path, **changes)
    said = error.value.message
    for difference in (
        "max_steps: 3 -> 6",
        "optimizer.lr: 0.01 -> 0.5",
        "tasks.toy.batch_size: None -> 16",
    ):
        assert difference in said
    assert (
        "num_workers" not in said
        and "--resume.allow_changed=max_steps,optimizer.lr,tasks.toy.batch_size" in said
    )
    with pytest.raises(ConfigError, match="had other settings: max_steps: 3 -> 6"):
        train_toy(tmp_path, resume__allow_changed="optimizer,tasks.toy.batch_size", **changes)
    train_toy(tmp_path, resume__allow_changed="optimizer,tasks, max_steps", **changes)
    assert max(losses(tmp_path)) == 6


def test_other_data_are_refused(tmp_path):
    train_toy(tmp_path, steps=3)
    with pytest.raises(ConfigError, match=r"data\.toy: '50' -> '60'"):
        train_toy(tmp_path, steps=3, task={"samples": 60})


def test_a_changed_learning_rate_that_is_allowed_counts(tmp_path):
    train_toy(tmp_path / "a", steps=3, checkpoint__every=2)
    run, tasks = toy_run(
        tmp_path / "a", steps=6, optimizer__lr=0.5, resume__allow_changed="all", log__every=1
    )
    train(run, ToyModel(), tasks)
    lines = (tmp_path / "a" / "log.jsonl").read_text().splitlines()
    assert '"lr": 0.375' in lines[-2] or any('"lr": 0.375' in line for line in lines)


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train_toy(tmp_path, steps=3)
    with pytest.raises(ConfigError, match="holds a run that stands at step 3"):
        train_toy(tmp_path, steps=3, resume__enabled=False)


def test_a_finished_run_changes_nothing(tmp_path):
    train_toy(tmp_path, steps=3)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.glob("step-*/*"))
    train_toy(tmp_path, steps=3)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.glob("step-*/*")) == before


def test_no_room_at_the_start(tmp_path, monkeypatch):
    """T5, before step 1."""
    monkeypatch.setattr(state.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(CheckpointError, match=r"has 0 MB free and 0 MB are needed.*output_dir"):
        train_toy(tmp_path)
    assert not list(tmp_path.glob("step-*"))


@pytest.mark.parametrize("room", [0, 2000, 9000])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path, monkeypatch, room):
    """T5, in the middle of a save: a writer that takes `room` bytes and then has no space left."""
    train_toy(tmp_path, steps=6, stop_after_minutes=None)
    write = state._HashingFile.write

    def full(self, data):
        if self.size + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(state._HashingFile, "write", full)
    monkeypatch.setattr(
        torch, "save", lambda value, file: [file.write(b"x" * 1000) for _ in range(10)]
    )
    with pytest.raises(CheckpointError) as error:
        train_toy(tmp_path, steps=12, resume__allow_changed="max_steps")
    assert (
        "could not be written" in error.value.message and "MB are free now" in error.value.message
    )
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000003",
        "step-00000006",
    ]
    assert [state.verify(path).step for path in sorted(tmp_path.glob("step-*"))] == [3, 6]


def _open_full(path, mode):
    return open("/dev/full", mode, buffering=0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_really_full_disk(tmp_path):
    """/dev/full takes no byte: torch's writer, too, must end in our error and no file."""
    folder = state.RunFolder(tmp_path, state.CheckpointConfig(), state.EvaluateConfig())
    with folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "open", _open_full, raising=False)
        with pytest.raises(CheckpointError, match="could not be written"):
            folder.save({"model": {"weight": torch.zeros(10000)}}, step=1, **ABOUT)
    assert not list(tmp_path.glob("step-*"))


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    evaluate = state.EvaluateConfig(metric="toy/score", goal="min")
    with state.RunFolder(tmp_path, state.CheckpointConfig(keep=2), evaluate) as folder:
        for step, score in enumerate([5.0, 1.0, 4.0, 2.0, 3.0], start=1):
            folder.save(
                {"model": {"weight": torch.zeros(1)}},
                step=step,
                **{**ABOUT, "metrics": {"toy/score": score}},
            )
        assert [int(path.name[5:]) for path in folder.checkpoints()] == [2, 4, 5]
        assert folder.best().name == "step-00000002"


def test_a_damaged_newer_checkpoint_takes_no_place(tmp_path):
    with state.RunFolder(
        tmp_path, state.CheckpointConfig(keep=1), state.EvaluateConfig()
    ) as folder:
        for step in (9, 6):  # the run went on from step 3, as 9 is damaged
            folder.save({"model": {"weight": torch.zeros(1)}}, step=step, **ABOUT)
            (tmp_path / "step-00000009" / "model.pt").write_bytes(b"")
        assert [int(path.name[5:]) for path in folder.checkpoints()] == [6, 9]


def test_states_are_read_without_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return print, ("executed",)

    torch.save({"weight": Payload()}, tmp_path / "model.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        state.load_state(tmp_path, "model")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        train_toy(tmp_path / "file" / "run")
