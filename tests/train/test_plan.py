"""What `train.plan` says of a run against what its steps do."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.test_tasks import SCENES, batch_of, prepared
from train import plan
from train.config import RunConfig, build, load_run
from train.cost import FlopCounter, peak_flops
from train.launch import model_config
from train.step import JointStep, freeze
from x2vlm.errors import ConfigError
from x2vlm.modeling.build import build_model

CONFIGS = Path(__file__).parents[2] / "train" / "configs"
RUN = {"output_dir": "run", "max_steps": 10, "tasks": {"it": {}}, "optimizer": {"lr": 1e-4}}


def run_of(**changes) -> RunConfig:
    return build(RunConfig, RUN | changes)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("image_text", {}),
        ("region_text", {"max_texts": 6}),
        ("captioning", {"captions_per_image": 2}),
        ("question_answering", {}),
        ("grounding", {"phrases_per_image": 2}),
        ("retrieval", {}),
    ],
)
@pytest.mark.parametrize("frozen", [[], ["vision."]])
def test_operations_and_memory_of_a_step(kind, settings, frozen, tiny_processor, monkeypatch):
    """Counted in a real step, and planned for texts of its length."""
    task = prepared(kind, tiny_processor, data=SCENES, **settings)
    batch = batch_of(task)
    lengths = {key: value.shape[1] for key, value in batch.items() if value.ndim == 2}
    task.max_tokens = next(length for key, length in lengths.items() if key.endswith("_ids"))
    if "masked_positions" in lengths:
        task.masking = replace(task.masking, max_masks=lengths["masked_positions"])
    monkeypatch.setattr(plan, "ANSWER_TOKENS", lengths.get("answer_ids", 0))
    model = build_model(tiny_processor.config).train()
    freeze(model, frozen)
    with plan._kept(model) as kept, FlopCounter() as counter:
        total = sum(JointStep(model, {"it": task})({"it": batch}).values())
        size = sum(kept.values())
        total.backward()
    run = run_of(model={"freeze": frozen})
    found = plan.plan(run, {"it": task}, tiny_processor.config, gpus=1)
    assert found.flops == pytest.approx(counter.flops, rel=0.03)
    assert found.kept == pytest.approx(size, rel=0.1)


def test_what_a_run_can_save(tiny_processor):
    task = prepared("image_text", tiny_processor, data=SCENES)
    task.batch_size = 8

    def found(gpus=1, **changes):
        return plan.plan(run_of(**changes), {"it": task}, tiny_processor.config, gpus)

    plain, again, parts = found(), found(gradient_checkpointing=True), found(accumulation=4)
    assert again.kept < 0.7 * plain.kept and again.flops > 1.1 * plain.flops
    assert parts.kept < 0.4 * plain.kept
    assert parts.flops == pytest.approx(plain.flops, rel=0.01)
    assert found(precision="bf16").kept < 0.9 * plain.kept
    assert found(gpus=2, parallel="fsdp").weights == pytest.approx(plain.weights / 2, rel=0.01)
    adapted = found(model={"lora": {"rank": 2}})
    assert adapted.trained < 0.5 * plain.trained and adapted.weights < plain.weights


def test_the_papers_base_run_fits_its_hardware():
    """8 x A100 80 GB, a week."""
    run, tasks = load_run(["--config", str(CONFIGS / "pretrain_base_4m.yaml")])
    found = plan.plan(run, tasks, model_config(run.model), gpus=8)
    assert found.steps == 504_495
    assert 200e6 < found.parameters < 300e6
    assert 10e9 < found.memory < 80e9
    assert 40 < found.hours(0.3 * peak_flops("A100")) < 170


def test_the_command_tells_hours_and_cost(capsys):
    arguments = ["--config", str(CONFIGS / "retrieval_flickr30k_base.yaml"), "--gpus", "8"]
    assert plan.main([*arguments, "--price", "2"]) == 0
    said = capsys.readouterr().out
    assert "GPU hours" in said and "at 2 a GPU hour" in said
    assert plan.main(["--config", str(CONFIGS / "mini.yaml")]) == 2
    assert "not those of `mini` and `photo`" in capsys.readouterr().err


def test_a_model_of_unknown_size_is_told():
    run = run_of(model={"init_from": "somewhere"})
    with pytest.raises(ConfigError, match=r"give --model\.preset"):
        model_config(run.model)
