"""Every configuration of the paper at toy size: its own preparation commands on samples in the
publishers' layouts, two steps, one evaluation."""

import re
import shlex
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from tests.train.published import SAMPLES
from train import trainer
from train.config import RunConfig, _merge, build
from train.evaluate import evaluate
from train.strict_yaml import read_yaml
from train.tasks.text import ParallelText
from x2vlm.modeling.build import build_model
from x2vlm.processing import Processor

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
OTHERS = (
    *("photo", "photo_boxes", "mini", "mini_pretrain", "forkme"),
    *("flickr8k_captioning", "flickr8k_retrieval", "swap_stickers", "swap_stickers_text"),
)
"""Runs of the bundled models and on one's own data, which other tests take."""
PATHS = [path for path in sorted(CONFIGS.glob("*.yaml")) if path.stem not in OTHERS]
FEW_SHOT = sorted((CONFIGS / "few_shot").glob("*.yaml"))
"""Each lies over the run of its name."""
PRETRAINED = ("contrastive", "matching", "box", "masked_lm")
COMMAND = re.compile(r"python -m train\.prepare\.(\w+) (.*?)(?:\s+# and (\w+))?$", re.MULTILINE)


def commands(head: str) -> list[tuple[str, list[str]]]:
    """Module and arguments of the preparation commands of a header, braces expanded."""
    found = []
    for module, options, other in COMMAND.findall(head):
        words = [word for part in shlex.split(options) for word in expanded(part)]
        found.append((module, words))
        if other:  # `--dataset sbu --out data/sbu    # and cc3m`
            first = words[words.index("--dataset") + 1]
            found.append((module, [word.replace(first, other) for word in words]))
    return found


def expanded(word: str) -> list[str]:
    """`a{b,c}d` as the shell expands it, nested braces too."""
    match = re.search(r"\{([^{}]*)\}", word)
    if not match:
        return [word]
    before, after = word[: match.start()], word[match.end() :]
    return [w for inner in match[1].split(",") for w in expanded(before + inner + after)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which the commands of all configurations have run."""
    folder = tmp_path_factory.mktemp("published")
    for sample in SAMPLES.values():
        sample(folder / "data")
    heads = "\n".join(path.read_text("utf-8").split("\n\n")[0] for path in [*PATHS, *FEW_SHOT])
    order = list(SAMPLES)
    wanted = {(module, tuple(words)) for module, words in commands(heads)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for module, words in sorted(wanted, key=lambda found: (order_of(order, found[0]), found)):
            patch.setattr(sys, "argv", [module, *words])
            run = import_module(f"train.prepare.{module}").main
            run("flickr30k") if module == "flickr30k" else run()
    return folder


def order_of(order: list[str], module: str) -> int:
    return order.index(module) if module in order else -1


def toy(values: dict) -> dict:
    """The run with two samples a step, two steps, on a CPU."""
    tasks = {
        name: {**task, "batch_size": 2, "max_tokens": min(task.get("max_tokens", 40), 64)}
        for name, task in values["tasks"].items()
    }
    for task in tasks.values():
        task.pop("from_step", None)
        task.pop("until_step", None)
    return {
        **values,
        "output_dir": "run",
        "max_steps": 2,
        "epochs": 0,
        "precision": "fp32",
        "num_workers": 0,
        "device": "cpu",
        "model": {"preset": "mini"},
        "log": {"trackers": []},
        "evaluate": {},
        "checkpoint": {"every": 100},
        "tasks": tasks,
    }


@pytest.mark.parametrize(
    "path",
    [  # at toy size a large model is the base one again
        pytest.param(
            path,
            id=f"{path.parent.stem}/{path.stem}",
            marks=[pytest.mark.slow] * ("_large" in path.stem),
        )
        for path in [*PATHS, *FEW_SHOT]
    ],
)
def test_run_trains_and_is_measured(
    path, prepared, tiny_config, tiny_tokenizer, tmp_path, monkeypatch
):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.chdir(prepared)
    values = read_yaml(path)
    if path in FEW_SHOT:
        values = _merge(read_yaml(CONFIGS / path.name), values)
    changed = values["model"].get("overrides", {})
    twins = changed.get("fusion", {}).get("twin_layers", False)
    config = tiny_config.replace(
        heads=tuple(changed.get("heads", PRETRAINED)),
        num_labels=changed.get("num_labels", 2),
        fusion=replace(tiny_config.fusion, twin_layers=twins),
    )
    run = build(RunConfig, {**toy(values), "output_dir": str(tmp_path)})
    tasks = run.build_tasks()
    if any(isinstance(task, ParallelText) for task in tasks.values()):
        # The source sentence stands where an image would, so both have one width.
        vision = replace(config.vision, hidden_size=config.text.hidden_size)
        config = config.replace(vision=vision)
    processor = Processor(config, tiny_tokenizer)
    for task in tasks.values():
        task.open_data()
        task.validation = {}  # opened, and of the same form as the test data
    model = build_model(config)
    if any(task.loss_weights for task in tasks.values()):
        assert trainer.train(run, model, tasks, processor=processor) == 2
    results = evaluate(tasks, model.eval(), processor, limit=2)
    tests = {f"{name}/{test}" for name, task in tasks.items() for test in task.test}
    assert results.keys() >= tests
    assert not any("unreadable" in found for found in results.values())
