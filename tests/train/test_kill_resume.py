"""Runs that are killed, asked to stop, run out of disk or meet damage: what is left is good, and
going on is bitwise exact."""

import hashlib
import json
import os
import random
import shutil
import signal
import time

import pytest

from tests.train.toy import ToyRuns, assert_same_state, kill, losses
from train import manifest, state
from x2vlm.errors import CheckpointError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return ToyRuns(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def whole(runs, tmp_path_factory):
    """The run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    runs.finish(runs.start(folder))
    return folder


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def verified(folder):
    """Steps of the checkpoints, each of which must verify."""
    return [state.verify(path).step for path in sorted(folder.glob("step-" + "[0-9]" * 8))]


@pytest.mark.parametrize("seed", range(2))
def test_ten_kills_change_nothing(runs, whole, tmp_path, seed):
    """T1: five kills a run, anywhere in training, and in the slowed-down window of a save every
    second time."""
    rng = random.Random(seed)
    folder = tmp_path / "run"
    for number in range(5):
        in_save = number % 2 == 1
        process = runs.start(folder, save_delay=0.03 if in_save else 0.0, task={"delay": 0.1})
        if in_save:
            wait_for(
                lambda process=process: list(folder.glob("*.tmp.*")) or process.exitcode is not None
            )
            time.sleep(rng.uniform(0, 0.2))
        else:
            wait_for((folder / "run.lock").exists)
            time.sleep(rng.uniform(0.05, 0.3))
        assert process.exitcode is None, "the run ended before it could be killed"
        kill(process)
        verified(folder)
    runs.finish(runs.start(folder))
    assert_same_state(whole, folder)
    assert losses(folder) == losses(whole)
    assert not list(folder.glob("*.tmp.*"))


def test_a_kill_at_every_file_operation_of_a_save(tmp_path):
    """T2: whatever operation is the last, a reader finds the old checkpoint or the new one,
    whole."""

    class Killed(BaseException):
        pass

    def save(folder, step):
        about = {
            "settings": {},
            "samples_read": {},
            "bad_samples": 0,
            "metrics": {},
            "world_size": 1,
        }
        folder.save({"model": {"weight": state.torch.full((3,), float(step))}}, step=step, **about)

    def open_folder(path):
        return state.RunFolder(path, state.CheckpointConfig(keep=1), state.EvaluateConfig())

    def run(path, budget):
        """Saves step 2 over step 1, dying at the operation after `budget`; the number of operations
        left."""
        left = [budget]

        def dying(function):
            def call(*arguments, **options):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return function(*arguments, **options)

            return call

        with open_folder(path) as folder, pytest.MonkeyPatch.context() as patch:
            save(folder, 1)
            patch.setattr(state.os, "fsync", dying(os.fsync))
            patch.setattr(state.Path, "rename", dying(state.Path.rename))
            patch.setattr(state.Path, "mkdir", dying(state.Path.mkdir))
            patch.setattr(state.shutil, "rmtree", dying(shutil.rmtree))
            patch.setattr(state, "open", dying(open), raising=False)
            save(folder, 2)
        return left[0]

    total = 100 - run(tmp_path / "full", 100)
    assert total >= 10
    for budget in range(total):
        path = tmp_path / str(budget)
        with pytest.raises(Killed):
            run(path, budget)
        with open_folder(path) as folder:
            found, manifest = folder.newest()
            weight = state.load_state(found, "model")["weight"]
            assert manifest.step in (1, 2) and weight.tolist() == [manifest.step] * 3
            assert not list(path.glob("*.tmp.*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_well(runs, whole, tmp_path, number):
    """T4: also when it comes twice, in the middle of a slow save, or to the data workers as
    well."""
    folder = tmp_path / "run"
    process = runs.start(folder, task={"delay": 0.05}, num_workers=1, save_delay=0.02)
    wait_for(lambda: (folder / "log.jsonl").exists() and len(losses(folder)) >= 2)
    for child in os.popen(f"pgrep -P {process.pid}").read().split():
        os.kill(int(child), number)
    os.kill(process.pid, number)
    time.sleep(0.05)
    os.kill(process.pid, number)
    assert "Stopped after step" in runs.finish(process, timeout=30)
    assert 2 <= verified(folder)[-1] < 12
    runs.finish(runs.start(folder))
    assert_same_state(whole, folder)


def test_a_signal_during_an_evaluation(runs, whole, tmp_path):
    folder = tmp_path / "run"
    process = runs.start(folder, task={"evaluation_seconds": 60}, evaluate__every=4)
    wait_for(lambda: (folder / "log.jsonl").exists() and 4 in losses(folder))
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    runs.finish(process, timeout=30)
    assert verified(folder)[-1] == 4
    runs.finish(runs.start(folder, evaluate__every=4))
    assert_same_state(whole, folder)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "evaluate"] == [
        4,
        8,
        12,
    ]  # the one cut short was made up


def test_two_runs_in_one_folder(runs, tmp_path):
    """T12: the second refuses; a lock whose process is gone does not count."""
    folder = tmp_path / "run"
    first = runs.start(folder, task={"delay": 0.1})
    wait_for(lambda: (folder / "log.jsonl").exists())
    second = runs.start(folder)
    second.join(30)
    assert second.exitcode == 1
    assert f"Another run (pid {first.pid} on " in second.output.read_text()
    kill(first)
    assert (
        f"(pid {first.pid} on" in (text := runs.finish(runs.start(folder)))
        and "did not end by itself" in text
    )


def damage_cut(path):
    os.truncate(path / "model.pt", 100)


def damage_bit(path):
    data = bytearray((path / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "optimizer.pt").write_bytes(data)


def damage_zeros(path):
    (path / "model.pt").write_bytes(bytes((path / "model.pt").stat().st_size))


def damage_missing(path):
    (path / "optimizer.pt").unlink()


def damage_no_manifest(path):
    (path / "manifest.json").unlink()


def damage_manifest(path):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": 12', '"step": 11'))


def damage_newer(path):
    document = json.loads((path / "manifest.json").read_text())
    content = document["content"] | {"format": manifest.FORMAT + 1}
    (path / "manifest.json").write_text(
        json.dumps(
            {
                "content": content,
                "sha256": hashlib.sha256(manifest._canonical(content)).hexdigest(),
            }
        )
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_cut, "model.pt of step-00000012 has 100 bytes instead of"),
        (damage_bit, "optimizer.pt of step-00000012 has changed"),
        (damage_zeros, "model.pt of step-00000012 has changed"),
        (damage_missing, "optimizer.pt of step-00000012 is missing"),
        (damage_no_manifest, "step-00000012 has no manifest.json"),
        (damage_manifest, "manifest.json of step-00000012 is damaged"),
        (damage_newer, f"step-00000012 has format {manifest.FORMAT + 1}"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    whole, tmp_path, capsys, damage, said
):
    """T6, on the folder itself; the run goes through the same `newest`."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    damage(folder / "step-00000012")
    with state.RunFolder(folder, state.CheckpointConfig(), state.EvaluateConfig()) as opened:
        path, manifest = opened.newest()
        assert (path.name, manifest.step) == ("step-00000009", 9)
        assert said in capsys.readouterr().out
        damage_missing(folder / "step-00000009")
        with pytest.raises(CheckpointError, match="Every checkpoint"):
            opened.newest()


def test_a_run_goes_on_from_the_last_good_checkpoint(runs, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    damage_bit(folder / "step-00000012")
    assert "Skipping a damaged checkpoint: optimizer.pt" in runs.finish(runs.start(folder))
    assert_same_state(whole, folder)
    assert verified(folder) == [9, 12]


def test_another_model_is_refused(runs, whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    from tests.train import toy

    model = toy.ToyModel()
    model.extra = toy.nn.Linear(2, 2)
    run, tasks = toy.toy_run(folder)
    with pytest.raises(
        CheckpointError, match=r"of another model: 2 tensors differ, for example extra\.bias"
    ):
        toy.trainer.train(run, model, tasks)
