"""Every shipped configuration is valid and says what it costs and what it should reach."""

import json
from pathlib import Path

import pytest

from train.config import load_run
from x2vlm.known import BUNDLED
from x2vlm.settings import Settings

CONFIGS = Path(__file__).parents[2] / "train" / "configs"

RECIPES = json.loads((Path(__file__).parent / "recipe_losses.json").read_text())
"""`file task` -> the losses of a task that trains, with their weights."""


def recipe(name: str, tasks: dict) -> dict[str, dict[str, float]]:
    return {
        f"{name} {task_name}": task.loss_weights
        for task_name, task in tasks.items()
        if task.loss_weights and task.until_step != 0
    }


def recorded(name: str) -> dict[str, dict[str, float]]:
    return {key: weights for key, weights in RECIPES.items() if key.startswith(f"{name} ")}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_run_is_valid_and_described(path):
    run, tasks = load_run(["--config", str(path)])
    assert all(
        task.loss_weights or task.test for task in tasks.values()
    )  # a task that never trains is there to measure
    if run.evaluate.metric:
        name, _, metric = run.evaluate.metric.partition("/")
        assert any(metric.startswith(f"{data}_") for data in tasks[name].validation)
    assert recipe(path.name, tasks) == recorded(path.name)
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    for word in ("command", "hardware", "hours", "expected", "paper"):
        assert f"# {word}  " in head, word
    assert f"--config train/configs/{path.name}" in head or path.stem == "forkme"


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_is_measured_as_it_is_shipped(name):
    """The pointing game on the maps that the app shows."""
    _, tasks = load_run(["--config", str(CONFIGS / f"{name}.yaml")])
    shown = Settings.read(CONFIGS.parents[1] / "assets" / name).maps.phrase
    measured = tasks["grounding"]
    assert (measured.explain_method, measured.explain_layer) == (shown.method, shown.layer)


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "ablations").glob("*.yaml")), ids=lambda path: path.stem
)
def test_ablation_changes_the_base_run(path):
    base = ["--config", str(CONFIGS / "pretrain_base_4m.yaml")]
    plain, plain_tasks = load_run(base)
    run, tasks = load_run([*base, "--config", str(path)])
    assert run.output_dir != plain.output_dir
    assert recipe(f"ablations/{path.name}", tasks) == recorded(f"ablations/{path.name}")
    assert tasks != plain_tasks or run.model != plain.model


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "few_shot").glob("*.yaml")), ids=lambda path: path.stem
)
def test_few_shots_go_on_from_the_run_of_their_name(path):
    base = ["--config", str(CONFIGS / path.name)]
    plain, plain_tasks = load_run(base)
    run, tasks = load_run([*base, "--config", str(path)])
    assert run.model.init_from == f"{plain.output_dir}/best"
    assert run.model.overrides == plain.model.overrides
    assert run.epochs and not run.evaluate.metric and run.output_dir != plain.output_dir
    for name, task in tasks.items():
        assert task.loss_weights == plain_tasks[name].loss_weights
        assert task.test == plain_tasks[name].test and task.data != plain_tasks[name].data


def test_a_loss_is_listed_where_it_is_computed():
    """The tasks read the lists of the task models; some tasks compute losses themselves."""
    files = (CONFIGS.parents[1] / "train" / "tasks").glob("*.py")
    lists = {path.stem for path in files if "all_losses: ClassVar" in path.read_text("utf-8")}
    assert lists == {
        *("base", "dense_boxes", "matching", "photos", "scene"),
        *("multiple_choice", "self_critical", "text_assignment"),
    }
