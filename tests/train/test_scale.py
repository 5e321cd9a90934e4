"""Training beyond one GPU's memory: LoRA, gradient cache, fp16, compiled layers, and what a step
costs."""

import copy
import dataclasses
import json

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn.utils import parametrize

from tests.train.test_tasks import SCENES, batch_of, prepared
from tests.train.toy import ToyModel, ToyTask, toy_run, train_toy
from train import trainer
from train.config import LoraConfig
from train.cost import FlopCounter, StepCosts, peak_flops
from train.loader import StepData
from train.lora import add_adapters, merged
from train.step import JointStep, compile_layers, seed_step, transformer_layers
from x2vlm.errors import ConfigError
from x2vlm.losses import StepFeatures, contrastive_loss
from x2vlm.modeling.build import build_model


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def processor(tiny_processor):
    return tiny_processor


@pytest.fixture
def tiny_model(tiny_config):
    """One of our own: a Predictor that was given the shared one has packed its linear layers."""
    torch.manual_seed(0)
    return build_model(tiny_config).eval()


@pytest.fixture
def step_of(processor):
    """A task of pairs on stickers, a batch, and a function of a model: its losses."""
    task = prepared("image_text", processor, data=SCENES)
    batch = batch_of(task)

    def losses(model):
        torch.manual_seed(0)
        return task.training_step(model, batch)

    return losses


def test_adapters_change_nothing_at_first_and_merge_exactly(tiny_model, step_of):
    model = copy.deepcopy(tiny_model)
    add_adapters(model, LoraConfig(rank=2), ())
    with torch.no_grad():
        plain, adapted = step_of(tiny_model), step_of(model)
        for name, loss in plain.items():
            torch.testing.assert_close(adapted[name], loss)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
        whole = merged(model)
        learnt, expected = step_of(whole), step_of(model)
        assert learnt["contrastive_loss"] != plain["contrastive_loss"]
        for name, loss in expected.items():
            torch.testing.assert_close(learnt[name], loss)
    assert whole.state_dict().keys() == tiny_model.state_dict().keys()


def test_adapters_and_heads_learn_and_layers_do_not(tiny_model, step_of):
    model = copy.deepcopy(tiny_model)
    new = "text_encoder.layers.0.attention.query.weight"
    assert new in dict(model.named_parameters())
    add_adapters(model, LoraConfig(rank=2), {new})
    sum(step_of(model).values()).backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None}
    inside = {n for n in learns if n.startswith(("vision.", "text_encoder.", "fusion_encoder."))}
    assert {name for name in inside if "parametrizations.weight.0." not in name} == {new}
    assert {"temperature", "matching_head.0.weight"} <= learns or any("head" in n for n in learns)
    qkv = model.vision.get_submodule(
        next(n for n, m in model.vision.named_modules() if n.endswith("qkv"))
    )
    assert parametrize.is_parametrized(qkv)  # BEiT reads its weight without calling it


def test_no_layer_for_adapters_is_told(tiny_model):
    with pytest.raises(ConfigError, match="no linear layer of the model has one of"):
        add_adapters(copy.deepcopy(tiny_model), LoraConfig(linears=["qeury"]), ())


def test_a_run_with_adapters_exports_an_ordinary_model(processor, tiny_model, tmp_path):
    task = prepared("retrieval", processor, data=SCENES, reranked=0)
    run, _ = toy_run(tmp_path, steps=2, model__lora={"rank": 2}, checkpoint__every=10)
    exported = []
    trainer.train(
        run,
        copy.deepcopy(tiny_model),
        {"toy": task},
        processor=processor,
        export=lambda model, folder: exported.append(model.state_dict()),
    )
    assert exported[0].keys() == tiny_model.state_dict().keys()
    changed = {n for n, t in tiny_model.state_dict().items() if not torch.equal(exported[0][n], t)}
    assert any(name.startswith("fusion_encoder.layers") for name in changed)
    assert "text_encoder.embeddings.words.weight" not in changed


class Pairs(ToyTask):
    """With keys of positives."""

    def training_step(self, model, batch):
        images, texts = model.image_projection(batch["image"]), model.text["layers"](batch["text"])
        images, texts = (nn.functional.normalize(rows, dim=-1) for rows in (images, texts))
        keys = (batch["image"][:, 0] * 2).long()
        return {"contrastive_loss": contrastive_loss(images, texts, model.temperature, keys)}


def test_gradients_of_a_cached_step_are_those_of_the_whole_one():
    task = Pairs(batch_size=12, losses={"contrastive_loss": 1.0})
    whole, cached = ToyModel(), ToyModel()
    batch = StepData({"toy": task}, 42, 2)[0].batches
    JointStep(whole, {"toy": task})(batch)["toy/contrastive_loss"].backward()

    data = StepData({"toy": task}, 42, 2, accumulation=3)
    joint, features = JointStep(cached, {"toy": task}), StepFeatures(3)
    parts = [data[number].batches for number in range(3)]
    for number, part in enumerate(parts):
        with features.first(number), torch.no_grad():
            joint.contrast(part)
    for number, part in enumerate(parts):
        with features.part(number):
            (joint(part)["toy/contrastive_loss"] / 3).backward()
    for (name, expected), found in zip(whole.named_parameters(), cached.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["image_text", "region_text"])
def test_a_cached_step_of_the_model_with_dropout(kind, processor, tiny_config):
    """The first pass sees the same dropout as the second one: a part that is alone in its step
    gives what a plain step gives."""
    task = prepared(kind, processor, data=SCENES)
    config = tiny_config.replace(
        vision=dataclasses.replace(tiny_config.vision, drop_path=0.3),
        text=dataclasses.replace(tiny_config.text, dropout=0.3),
    )
    model = build_model(config).train()
    joint, batch = JointStep(model, {"it": task}), {"it": batch_of(task)}
    seed_step(1)
    plain = joint(batch)
    features = StepFeatures(1)
    seed_step(1)
    with features.first(0), torch.no_grad():
        joint.contrast(batch)
    seed_step(1)
    with features.part(0):
        cached = joint(batch)
    for name, loss in plain.items():
        torch.testing.assert_close(cached[name], loss)
    kept = [rows for rows in features.rows[0] if rows.is_floating_point()]
    assert len(kept) == 2


def test_a_run_with_a_gradient_cache_has_the_loss_curve_of_one_without_parts(tmp_path):
    losses = {"contrastive_loss": 1.0}
    task = {"losses": losses, "dropout": False, "batch_size": 8}
    train_toy(tmp_path / "whole", task=task)
    train_toy(tmp_path / "cached", task=task, accumulation=4, gradient_cache=True)
    train_toy(tmp_path / "parts", task=task, accumulation=4)
    whole, cached, parts = (
        [line["toy/contrastive_loss"] for line in train_lines(tmp_path / name)]
        for name in ("whole", "cached", "parts")
    )
    assert cached == pytest.approx(whole, abs=1e-5)
    assert parts != pytest.approx(whole, abs=0.1)


def train_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "train"]


def test_fp16_lowers_the_scale_of_the_loss_until_gradients_are_finite(tmp_path, monkeypatch):
    """On a CPU accelerate refuses fp16, which works there, too, but slowly."""
    build, scalers = trainer.build_accelerator, []

    def scaled(run):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = build(run)
        accelerator.scaler = torch.amp.GradScaler("cpu")
        accelerator.native_amp, accelerator.state._mixed_precision = True, "fp16"
        scalers.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr(trainer, "build_accelerator", scaled)
    task = {"losses": {"regression_loss": 1000.0}}
    train_toy(tmp_path / "scaled", task=task, steps=24)
    events = (tmp_path / "scaled" / "log.jsonl").read_text()
    lowered = events.count('"loss_scale"')
    assert lowered > 3 and '"skip"' not in events
    assert scalers[0].get_scale() == 2.0 ** (16 - lowered)
    assert train_lines(tmp_path / "scaled")[-1]["step"] == 24
    train_toy(tmp_path / "scaled", task=task, steps=26, resume__allow_changed="max_steps")
    assert scalers[1].get_scale() == scalers[0].get_scale()


def test_fp16_without_a_gpu_is_told(tmp_path):
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train_toy(tmp_path, precision="fp16")


@pytest.mark.slow
def test_compiled_layers_learn_the_same(tiny_model, step_of):
    model = copy.deepcopy(tiny_model)
    compile_layers(model)
    assert len(list(transformer_layers(model))) == 9  # 2 + 2 + 3 and a decoder of 2
    for name, loss in step_of(tiny_model).items():
        torch.testing.assert_close(step_of(model)[name], loss, atol=1e-4, rtol=1e-4)


def test_operations_of_a_product_and_of_attention():
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    with FlopCounter() as counter:
        (a @ b).sum().backward()
    assert counter.flops == 3 * 2 * 3 * 5 * 7
    q = torch.randn(2, 4, 9, 8)
    with FlopCounter() as counter:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert counter.flops == 2 * 2 * (2 * 4) * 9 * 9 * 8


def test_steps_of_one_kind_are_counted_once():
    costs = StepCosts(torch.device("cpu"))
    for size in (2, 3):
        with costs.of("products"):
            torch.ones(size, size) @ torch.ones(size, size)
    assert costs.flops == 2 * (2 * 2**3) and costs.peak is None
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12 and peak_flops("TITAN") is None


def test_a_run_logs_what_it_costs(tmp_path):
    train_toy(tmp_path)
    lines = train_lines(tmp_path)
    assert all(line["teraflops"] > 0 and line["memory_gb"] > 0.01 for line in lines)
    assert [line["hours_left"] > 0 for line in lines] == [True] * 11 + [False]
