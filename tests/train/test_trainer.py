"""The loop in this process: what is learnt, what is skipped, what is counted, and when it stops."""

import json
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from tests.train.toy import ToyModel, ToyTask, assert_same_state, losses, toy_run, train_toy
from train import loader, state, trainer
from train.cost import StepCosts
from train.faults import TrainingError
from train.loader import StepData, active_steps, build_loader
from train.log import RunLog
from train.step import freeze
from train.stop import StopSignal
from train.trainer import train
from x2vlm.errors import CheckpointError, ConfigError, DataError
from x2vlm.modeling.build import build_model


@pytest.fixture(autouse=True)
def forget_precision():
    """accelerate holds on to the first precision of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)


def no_constant(name):
    raise ValueError(f"{name} is no JSON")


def log(folder, event):
    lines = [
        json.loads(line, parse_constant=no_constant)
        for line in (folder / "log.jsonl").read_text().splitlines()
    ]
    return [line for line in lines if line["event"] == event]


def test_losses_fall_and_everything_is_written(tmp_path):
    exported = []
    run, tasks = toy_run(
        tmp_path, steps=60, log__every=10, log__trackers=["tensorboard"], evaluate__every=30
    )
    assert (
        train(run, ToyModel(), tasks, export=lambda model, folder: exported.append((model, folder)))
        == 60
    )
    totals = [sum(values[:2]) for values in losses(tmp_path).values()]
    assert len(totals) == 6 and totals[-1] < 0.5 * totals[0]
    assert [line["step"] for line in log(tmp_path, "evaluate")] == [30, 60]
    assert list((tmp_path / "tensorboard").glob("x2vlm/events*"))
    assert [folder.name for _, folder in exported] == ["final"]


def test_weights_of_losses(tmp_path):
    """A loss that is not named, or has weight 0, is neither asked for nor learnt from."""
    model = ToyModel()
    named = {"regression_loss": 2.0, "box_l1_loss": 0}
    run, tasks = toy_run(tmp_path, steps=3, task={"losses": named})
    before = [parameter.clone() for parameter in model.text.parameters()]
    train(run, model, tasks)
    assert tasks["toy"].loss_weights == {"regression_loss": 2.0}
    assert all(torch.equal(old, new) for old, new in zip(before, model.text.parameters()))
    logged = log(tmp_path, "train")[0]
    assert [key for key in logged if key.endswith("_loss")] == ["toy/regression_loss"]


def test_several_tasks_in_one_step_and_turns(tmp_path):
    run, _ = toy_run(tmp_path, steps=20)
    tasks = {
        "always": ToyTask(batch_size=4),
        "late": ToyTask(batch_size=4, from_step=5, until_step=15),
        "noisy": ToyTask(batch_size=4, turn="images", share=3, losses={"regression_loss": 1}),
        "clean": ToyTask(batch_size=4, turn="images"),
    }
    train(run, ToyModel(), tasks)
    seen = [{key.split("/")[0] for key in line if "/" in key} for line in log(tmp_path, "train")]
    assert all("always" in names and ("noisy" in names) != ("clean" in names) for names in seen)
    assert ["late" in names for names in seen] == [False] * 5 + [True] * 10 + [False] * 5
    active = active_steps(tasks, 42, 4000)
    assert 0.7 < active["noisy"].mean() < 0.8


def test_every_step_to_come_has_a_task(tmp_path):
    """A run that goes on needs tasks from the step where it stands."""
    data = StepData(
        {"early": ToyTask(batch_size=4, until_step=7), "late": ToyTask(batch_size=4, from_step=8)},
        0,
        12,
    )
    with pytest.raises(ConfigError, match="No task has a loss in step 7"):
        data.check_steps(0)
    with pytest.raises(ConfigError, match="No task has a loss in step 0"):
        train_toy(tmp_path, task={"from_step": 3})
    train_toy(tmp_path, steps=3)
    train_toy(tmp_path, task={"from_step": 3}, resume__allow_changed="max_steps")
    assert max(losses(tmp_path)) == 12


def test_frozen_and_idle_weights_stay(tmp_path):
    model = ToyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run, tasks = toy_run(tmp_path, steps=4, model__freeze=["image_projection"])
    train(run, model, tasks)
    same = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in same} == {"image_projection", "idle_head"}
    with pytest.raises(ConfigError, match=r"no parameter begins with 'imge'.*image_projection"):
        freeze(model, ["imge"])


def test_a_tower_trains_with_explicit_attention_on_a_cpu(tmp_path, tiny_config):
    """The same numbers from plain products; models made elsewhere stay with the fused kernel."""
    model, image = build_model(tiny_config).eval(), torch.randn(2, 3, 64, 64)
    before = model.encode_image(image)
    run, tasks = toy_run(tmp_path)
    trainer.Trainer(run, model, tasks, None, (), None, StopSignal())
    fused = [
        [block.attn.fused_attn for block in m.vision.tower.blocks]
        for m in (model, build_model(tiny_config))
    ]
    assert fused == [[False, False], [True, True]]
    torch.testing.assert_close(model.encode_image(image), before, rtol=0, atol=1e-5)


def test_accumulation_is_the_same_step(tmp_path):
    """Of a loss that every sample has to itself, the parts of a batch add up to the batch."""
    task = {"dropout": False, "losses": {"regression_loss": 1}}
    train_toy(tmp_path / "whole", task=task)
    train_toy(tmp_path / "parts", task=task, accumulation=4)
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    for step, values in whole.items():
        assert parts[step] == pytest.approx(values, abs=1e-5)


def test_bf16_learns(tmp_path):
    train_toy(tmp_path, steps=30, precision="bf16")
    curve = losses(tmp_path)
    assert sum(curve[30][:2]) < 0.7 * sum(curve[1][:2])


def test_workers_do_not_change_the_data(tmp_path):
    for name, workers in (("alone", 0), ("workers", 2)):
        train_toy(tmp_path / name, steps=6, num_workers=workers)
    assert_same_state(tmp_path / "alone", tmp_path / "workers")


def test_each_sample_once_an_epoch_and_the_same_from_any_step():
    task = ToyTask(batch_size=8, samples=48)
    data = StepData({"toy": task}, 1, 12, accumulation=2)
    read = [data[item].sample_ids["toy"] for item in range(24)]
    epochs = np.array(read).reshape(2, 48)
    assert (np.sort(epochs) == np.arange(48)).all() and (epochs[0] != epochs[1]).any()
    later = next(iter(build_loader(data, 5, 0, False)))
    assert later.sample_ids["toy"] == read[10]
    assert torch.equal(later.batches["toy"]["image"], data[10].batches["toy"]["image"])
    first, second = (StepData({"toy": task}, 1, 12, rank=rank, world=2)[0] for rank in range(2))
    assert sorted(first.sample_ids["toy"] + second.sample_ids["toy"]) == sorted(read[0] + read[1])
    with pytest.raises(ConfigError, match="cannot share evenly"):
        StepData({"toy": task}, 1, 12, accumulation=3)


def test_seed_decides_the_order():
    tasks = {"toy": ToyTask(batch_size=8)}
    assert StepData(tasks, 1, 2)[0].sample_ids == StepData(tasks, 1, 2)[0].sample_ids
    assert StepData(tasks, 1, 2)[0].sample_ids != StepData(tasks, 2, 2)[0].sample_ids


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_samples_are_named_counted_and_replaced(tmp_path, workers, capsys):
    train_toy(tmp_path, task={"bad": (3, 4)}, num_workers=workers)
    lines = log(tmp_path, "bad_samples")
    named = [problem for line in lines for problem in line["problems"]]
    assert (
        lines[-1]["count"] == len(named) >= 3
    )  # 96 of 50 samples read: each of the two at least once
    assert {problem.split(":")[0] for problem in named} == {"toy 3", "toy 4"}
    assert "toy.jsonl line 3: cut off" in capsys.readouterr().out


def test_files_that_are_left_out_are_named_and_limited(tmp_path, capsys):
    @dataclass(kw_only=True)
    class Torn(ToyTask):
        def left_out(self):
            return {"s1.tar is no whole tar file.": 0.02}

    run, _ = toy_run(tmp_path / "few", max_bad_fraction=0.03)
    train(run, ToyModel(), {"toy": Torn(batch_size=8)})
    assert log(tmp_path / "few", "left_out")[0]["problems"] == ["s1.tar is no whole tar file."]
    assert "Left out: s1.tar is no whole tar file." in capsys.readouterr().out
    run, _ = toy_run(tmp_path / "many")
    with pytest.raises(
        TrainingError,
        match=r"2.0% of the data of task 'toy' cannot be read, more than 1.0%: s1.tar",
    ):
        train(run, ToyModel(), {"toy": Torn(batch_size=8)})


def test_samples_a_second_are_those_of_the_interval(tmp_path):
    read = {0: 0, 2: 100, 4: 120}
    costs = StepCosts(torch.device("cpu"))
    run_log = RunLog(tmp_path, 0, 4, read.get, costs)
    for step in (2, 4):
        run_log._since = (step - 2, time.monotonic() - 10, 0)
        run_log.scalars("train", step, {})
    rates = [line["samples_per_second"] for line in log(tmp_path, "train")]
    assert rates == [pytest.approx(10, rel=0.1), pytest.approx(2, rel=0.1)]
    left = [line["hours_left"] for line in log(tmp_path, "train")]
    assert left == [pytest.approx(10 / 3600, rel=0.1), 0]


def test_too_many_unreadable_samples_stop_the_run(tmp_path):
    with pytest.raises(TrainingError, match=r"1[12] samples could not be read, more than 1\.0%"):
        train_toy(tmp_path, steps=100, task={"bad": (3, 4)})


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_sample_at_all(tmp_path, workers):
    with pytest.raises(DataError, match="20 samples of task 'toy' in a row cannot be read"):
        train_toy(tmp_path, task={"bad": tuple(range(50))}, num_workers=workers)


def test_nan_in_one_batch_is_skipped_and_named(tmp_path, capsys):
    model = train_toy(tmp_path, steps=6, task={"nan": (7,)})
    (skip,) = log(tmp_path, "skip")
    assert 7 in skip["sample_ids"][0][0]["toy"]
    assert (
        "toy/regression_loss, toy/contrastive_loss, toy/box_l1_loss not finite"
        in capsys.readouterr().out
    )
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert (
        skip["step"] + 1 not in losses(tmp_path)
        or np.isfinite(losses(tmp_path)[skip["step"] + 1]).all()
    )


def test_a_skipped_step_leaves_weights_and_moments(tmp_path):
    clean, dirty = ({"samples": 8, "nan": nan} for nan in ((), (0,)))
    train_toy(tmp_path / "two", steps=2, task=clean, optimizer__warmup=0)
    with pytest.raises(TrainingError) as error:
        train_toy(tmp_path / "stop", steps=8, task=dirty)
    assert "in step 3, the 4th in a row; all weights are finite" in error.value.message
    assert not list((tmp_path / "stop").glob("step-00000004"))


def test_nan_in_a_weight_is_never_saved(tmp_path):
    run, tasks = toy_run(tmp_path)
    train(run, ToyModel(), tasks)
    good = sorted(path.name for path in tmp_path.glob("step-*"))
    model = ToyModel()
    run, tasks = toy_run(
        tmp_path, steps=30, resume__allow_changed="max_steps", checkpoint__every=100
    )
    step = tasks["toy"].training_step

    def poisoned(model, batch):
        with torch.no_grad():
            model.text["layers"][0].weight[0, 0] = torch.nan
        return step(model, batch)

    tasks["toy"].training_step = poisoned
    with pytest.raises(TrainingError, match=r"weights already hold it: text\.layers\.0\.weight"):
        train(run, model, tasks)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == good
    idle = ToyModel()
    with torch.no_grad():
        idle.idle_head.weight[0, 0] = torch.nan  # no loss ever sees it
    run, tasks = toy_run(tmp_path / "idle")
    with pytest.raises(CheckpointError, match=r"model\.idle_head\.weight holds NaN"):
        train(run, idle, tasks)
    assert not list((tmp_path / "idle").glob("step-*"))


def test_infinite_gradients_are_skipped(tmp_path):
    run, tasks = toy_run(tmp_path, steps=2)

    def steep(model, batch):
        zero = (model.temperature * 0).sqrt()  # its gradient is infinite
        return dict.fromkeys(ToyTask.all_losses, zero)

    tasks["toy"].training_step = steep
    train(run, ToyModel(), tasks)
    assert [line["step"] for line in log(tmp_path, "skip")] == [0, 1]


def test_the_time_limit_saves_and_a_second_sitting_ends_the_run(tmp_path):
    train_toy(tmp_path / "whole")
    model = ToyModel()
    run, tasks = toy_run(tmp_path / "sittings", stop_after_minutes=0.0)
    reached = 0
    for sitting in range(1, 13):
        reached = train(run, ToyModel() if sitting > 1 else model, tasks)
        assert reached == sitting
    assert_same_state(tmp_path / "whole", tmp_path / "sittings")
    assert losses(tmp_path / "whole") == losses(tmp_path / "sittings")


def test_the_best_checkpoint_stays_and_is_exported(tmp_path):
    scores = {2: 1.0, 4: 9.0, 6: 3.0, 8: 4.0}

    @dataclass(kw_only=True)
    class Scored(ToyTask):
        def evaluate(self, model):
            self.evaluations = getattr(self, "evaluations", 0) + 1
            return {"score": scores[2 * self.evaluations]}

    exported = []
    # Every step is saved, so that the one after the best stands beside it without a score of its
    # own.
    run, _ = toy_run(
        tmp_path,
        steps=8,
        checkpoint__every=1,
        checkpoint__keep=3,
        evaluate__every=2,
        evaluate__metric="toy/score",
    )
    train(
        run,
        ToyModel(),
        {"toy": Scored(batch_size=8)},
        export=lambda model, folder: exported.append(folder.name),
    )
    assert [int(path.name[5:]) for path in sorted(tmp_path.glob("step-*"))] == [4, 6, 7, 8]
    assert exported == ["final", "best"]


def test_an_overtaken_best_folder_goes_when_final_is_complete(tmp_path):
    """A run whose best step was an early one goes on, and its last step becomes the best."""
    scores, there = {2: 9.0, 4: 1.0, 6: 20.0}, []

    @dataclass(kw_only=True)
    class Scored(ToyTask):
        def evaluate(self, model):
            self.evaluations = getattr(self, "evaluations", 0) + 1
            return {"score": scores[2 * self.evaluations]}

    def export(model, folder):
        there.append(sorted(path.name for path in tmp_path.glob("[bf]*")))
        folder.mkdir(exist_ok=True)

    task = Scored(batch_size=8)
    for steps, exported in ((4, ["best", "final"]), (6, ["final"])):
        run, _ = toy_run(
            tmp_path,
            steps=steps,
            checkpoint__every=2,
            evaluate__every=2,
            evaluate__metric="toy/score",
            resume__allow_changed="max_steps,optimizer",
        )
        train(run, ToyModel(), {"toy": task}, export=export)
        assert sorted(path.name for path in tmp_path.glob("[bf]*")) == exported
    assert there == [[], ["final"], ["best", "final"]]


def test_a_metric_that_nothing_measures(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"evaluate.metric is 'toi/bias'; it must be task/metric of one of the tasks",
    ):
        train_toy(tmp_path, evaluate__metric="toi/bias")
    with pytest.raises(
        ConfigError, match=r"evaluate.metric is 'toy/score'; this run measures toy/bias"
    ):
        train_toy(tmp_path, evaluate__every=2, evaluate__metric="toy/score")
    train_toy(
        tmp_path, evaluate__every=2, evaluate__metric="toy/bias"
    )  # what was learnt until then is not lost
    assert log(tmp_path, "resume")[0]["step"] == 2


def test_a_model_that_comes_ready_for_inference_learns_with_dropout(tmp_path):
    train_toy(tmp_path / "fresh")
    run, tasks = toy_run(tmp_path / "loaded")
    train(run, ToyModel().eval(), tasks)
    assert_same_state(tmp_path / "fresh", tmp_path / "loaded")


def test_a_dead_log_stops_nothing(tmp_path, capsys):
    (tmp_path / "log.jsonl").mkdir()
    (tmp_path / "tensorboard").write_text("not a folder")
    train_toy(tmp_path, log__trackers=["tensorboard"])
    assert "The log cannot be written" in capsys.readouterr().out
    assert (tmp_path / "step-00000012").is_dir()


def test_a_tracker_that_is_not_installed_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    train_toy(tmp_path, log__trackers=["wandb"])
    assert "wandb is not installed" in capsys.readouterr().out


def test_out_of_memory_says_what_to_lower(tmp_path):
    run, tasks = toy_run(tmp_path)

    def greedy(model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    tasks["toy"].training_step = greedy
    with pytest.raises(TrainingError) as error:
        train(run, ToyModel(), tasks)
    assert (
        "in step 0" in error.value.message
        and "[8, 6]" in error.value.message
        and "CUDA" not in error.value.message
    )


def test_a_dead_data_worker_is_named(tmp_path):
    import os
    import signal

    @dataclass(kw_only=True)
    class Deadly(ToyTask):
        def sample(self, index, rng):
            if torch.utils.data.get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().sample(index, rng)

    run, _ = toy_run(tmp_path, num_workers=1)
    with pytest.raises(TrainingError, match="data worker died"):
        train(run, ToyModel(), {"toy": Deadly(batch_size=8)})


def test_a_worker_that_dies_in_the_middle_of_a_save(tmp_path, monkeypatch):
    """torch raises it wherever the training process is; it is no full disk."""

    def interrupted(descriptor):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(state.os, "fsync", interrupted)
    with pytest.raises(TrainingError, match=r"A data worker died.*run the same command again"):
        train_toy(tmp_path)
    assert not list(tmp_path.glob("step-*"))


def test_a_slow_disk_changes_nothing(tmp_path):
    """T8: the log says how long the steps waited for data."""
    train_toy(tmp_path / "fast", steps=3, num_workers=1)
    train_toy(tmp_path / "slow", steps=3, num_workers=1, task={"reading": 0.02})
    assert_same_state(tmp_path / "fast", tmp_path / "slow")
    assert sum(line["data_seconds"] for line in log(tmp_path / "slow", "train")) > 3 * 8 * 0.02 / 2


def test_a_disk_that_does_not_answer_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "BATCH_SECONDS", 1)
    monkeypatch.setattr(loader, "GRACE_SECONDS", 1)
    with pytest.raises(TrainingError, match="gave no batch for nine minutes"):
        train_toy(tmp_path, num_workers=1, task={"reading": 60.0})


def test_epochs_are_steps_of_the_largest_data(tmp_path):
    run, tasks = toy_run(tmp_path, steps=0, epochs=2)  # 50 samples, 8 a step
    assert train(run, ToyModel(), tasks) == 13


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    """The best of the falling values is the first; the run is complete and exports it."""
    exported = []
    run, tasks = toy_run(
        tmp_path,
        steps=40,
        evaluate={"every": 2, "metric": "toy/value", "patience": 3},
        checkpoint={"every": 100, "keep": 1},
    )
    values = iter(range(40, 0, -1))
    tasks["toy"].evaluate = lambda model: {"value": next(values)}
    assert train(run, ToyModel(), tasks, export=lambda m, folder: exported.append(folder)) == 8
    assert [folder.name for folder in exported] == ["final", "best"]
    again = train(run, ToyModel(), {"toy": ToyTask(batch_size=8)})
    assert again == 8  # the same command ends again
