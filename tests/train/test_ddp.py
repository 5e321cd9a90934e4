"""Two processes (gloo) against one: the same samples, the same losses, the contrastive loss over
all of them included."""

import os
import signal
import time

import pytest
import torch

from tests.train.toy import ToyModel, ToyRuns, ToyTask, assert_same_state, kill, losses
from train.loader import StepData


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return ToyRuns(tmp_path_factory.mktemp("output"))


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_give_the_loss_curve_of_one(runs, tmp_path, parallel):
    settings = {"task": {"dropout": False}, "evaluate__every": 6}
    single = runs.start(tmp_path / "one", **settings)
    pair = runs.pair(tmp_path / "two", parallel=parallel, **settings)
    assert ("weights sharded" in runs.finish(single, *pair)) == (parallel == "fsdp")
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) == 12
    for step in one:
        assert two[step] == pytest.approx(one[step], abs=1e-5), step


@pytest.mark.parametrize("muon", [False, True])
def test_a_pair_that_is_killed_and_goes_on(runs, tmp_path, muon):
    """Bitwise with dropout, which differs between processes; then alone, where only the data stay
    the same."""
    runs.finish(*runs.pair(tmp_path / "whole", optimizer__muon=muon))
    folder = tmp_path / "killed"
    pair = runs.pair(folder, optimizer__muon=muon, task={"delay": 0.05})
    while not (folder / "log.jsonl").exists() or len(losses(folder)) < 5:
        assert all(process.exitcode is None for process in pair)
    kill(pair[0])
    kill(pair[1])
    runs.finish(*runs.pair(folder, optimizer__muon=muon))
    assert_same_state(tmp_path / "whole", folder)
    text = runs.finish(
        runs.start(folder, optimizer__muon=muon, max_steps=14, resume__allow_changed="max_steps")
    )
    assert "not the same last bits" in text and max(losses(folder)) == 14


def test_unreadable_samples_of_every_process_are_named(runs, tmp_path):
    text = runs.finish(*runs.pair(tmp_path, task={"bad": tuple(range(10))}, max_bad_fraction=0.5))
    named = {
        index for index in range(10) if f"toy {index}: toy.jsonl line {index}: cut off." in text
    }
    assert named == set(range(10))  # in 12 steps each process meets some of them


def test_processes_with_different_numbers_of_rows(runs, tmp_path):
    """Of 4 and 3 rows, some of them without a label, the first step is that of one process on the
    same 7."""
    task = {
        "dropout": False,
        "uneven": True,
        "losses": {"contrastive_loss": 1, "label_loss": 1, "box_l1_loss": 1},
    }
    runs.finish(*runs.pair(tmp_path, task=task, optimizer__clip=None))
    model, data = ToyModel(), StepData({"toy": ToyTask(batch_size=8, dropout=False)}, 42, 12)
    batch = data[0].batches["toy"]
    kept = [
        0,
        2,
        4,
        6,
        3,
        5,
        7,
    ]  # the first process reads every second sample from 0; the other one leaves its first out
    rows = {name: value[kept] for name, value in batch.items()}
    given = data.tasks["toy"].training_step(model, rows)
    expected = [given[name] for name in ("box_l1_loss", "contrastive_loss", "label_loss")]
    sum(expected).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert losses(tmp_path)[1] == pytest.approx(
        (norm.item(), *(value.item() for value in expected)), abs=1e-5
    )


def test_shards_are_saved_whole_and_taken_up_again(runs, tmp_path):
    runs.finish(*runs.pair(tmp_path / "whole", parallel="fsdp"))
    folder = tmp_path / "sittings"
    runs.finish(*runs.pair(folder, parallel="fsdp", stop_after_minutes=0.0))
    runs.finish(*runs.pair(folder, parallel="fsdp"))
    assert_same_state(tmp_path / "whole", folder)
    assert losses(folder).keys() == losses(tmp_path / "whole").keys()


def test_a_signal_to_one_of_two_stops_both(runs, tmp_path):
    pair = runs.pair(tmp_path, task={"delay": 0.05})
    while not (tmp_path / "log.jsonl").exists() or len(losses(tmp_path)) < 2:
        assert all(process.exitcode is None for process in pair)
    os.kill(pair[1].pid, signal.SIGTERM)
    assert runs.finish(*pair, timeout=30).count("Stopped after step") == 1


def test_a_signal_to_one_of_two_in_an_evaluation_cuts_it_short_for_neither(runs, tmp_path):
    pair = runs.pair(tmp_path, task={"evaluation_seconds": 2.0}, evaluate__every=4)
    while not (tmp_path / "log.jsonl").exists() or 4 not in losses(tmp_path):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(pair[1].pid, signal.SIGTERM)
    assert "evaluate 4/12" in runs.finish(*pair)
    assert max(losses(tmp_path)) == 5


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_no_process_outlives_one_that_dies_or_hangs(runs, tmp_path, rank, number):
    """T3: the other one ends with a sentence, the data workers end as well, and the same command
    goes on."""
    pair = runs.pair(tmp_path, task={"delay": 0.1}, num_workers=1, patience=10)
    while not (tmp_path / "log.jsonl").exists() or len(losses(tmp_path)) < 4:
        assert all(process.exitcode is None for process in pair)
    workers = [
        int(child)
        for process in pair
        for child in os.popen(f"pgrep -P {process.pid}").read().split()
    ]
    os.kill(pair[rank].pid, number)
    pair[1 - rank].join(60)
    kill(pair[rank])
    assert pair[1 - rank].exitcode == 1
    assert (
        "Another process of this run has ended, or gave no sign"
        in pair[1 - rank].output.read_text()
    )
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < deadline, "a data worker was left"
        time.sleep(0.1)
    runs.finish(*runs.pair(tmp_path))
    assert max(losses(tmp_path)) == 12


def test_a_configuration_error_reaches_both(runs, tmp_path):
    pair = runs.pair(tmp_path, task={"batch_size": 7})
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [1, 1]
    assert "cannot share evenly" in pair[0].output.read_text()
