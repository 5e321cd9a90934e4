"""Parameter groups and schedule against the official rules, by name, on the real model at tiny
size."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.train.toy import ToyRuns
from train.config import OptimizerConfig
from train.optim import build_optimizer, lr_factor, no_decay_names, orthogonalize, set_learning_rate
from x2vlm.modeling.build import build_model


@pytest.fixture(scope="module")
def model(tiny_config):
    vision = dataclasses.replace(tiny_config.vision, position="relative", layer_scale=0.1)
    return build_model(tiny_config.replace(vision=vision))


def groups_by_name(model, optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p]: (group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_what_decays(model):
    undecayed = no_decay_names(model)
    for name in (
        "vision.tower.blocks.0.attn.relative_position_bias_table",
        "vision.tower.blocks.0.attn.q_bias",
        "vision.tower.blocks.1.norm2.weight",
        "vision.tower.fc_norm.weight",
        "text_encoder.embeddings.norm.weight",
        "text_encoder.layers.0.attention_norm.weight",
        "fusion_encoder.layers.0.cross_attention_norm.weight",
        "masked_lm_head.norm.weight",
        "answer_decoder.layers.1.mlp_norm.weight",
        "matching_head.1.bias",
        "box_head.3.bias",
    ):
        assert name in undecayed, name
    names = {name for name, _ in model.named_parameters()}
    for name in (
        "temperature",
        "frame_positions",
        "vision.tower.cls_token",
        "vision.tower.blocks.0.gamma_1",
        "vision.tower.blocks.0.attn.qkv.weight",
        "text_encoder.embeddings.words.weight",
        "text_encoder.embeddings.positions.weight",
        "matching_head.1.weight",
        "box_head.1.weight",
        "pair_head.1.weight",
        "image_projection.weight",
    ):
        assert name in names and name not in undecayed, name


def test_every_trainable_parameter_is_in_one_group(model):
    model.temperature.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-3))
    model.temperature.requires_grad_(True)
    listed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(listed) == len(set(listed)) == len(list(model.parameters())) - 1
    assert {(group["base_lr"], group["weight_decay"]) for group in optimizer.param_groups} == {
        (1e-3, 0.01),
        (1e-3, 0.0),
    }
    assert optimizer.defaults["betas"] == (0.9, 0.98)


def test_new_and_split_rates(model):
    config = OptimizerConfig(lr=1e-3, lr_mult=2, vision_lr=1e-4, text_lr=2e-4)
    fresh = {"matching_head.0.weight", "text_encoder.layers.0.fc1.weight"}
    rates = groups_by_name(model, build_optimizer(model, config, fresh))
    assert rates["matching_head.0.weight"] == (2e-3, 0.01)
    assert rates["text_encoder.layers.0.fc1.weight"] == (
        2e-4,
        0.01,
    )  # a split rate wins over newness
    assert rates["fusion_encoder.layers.0.fc1.bias"] == (2e-4, 0.0)  # fusion follows text
    assert rates["vision.tower.cls_token"] == (1e-4, 0.01)
    assert rates["box_head.0.weight"] == (1e-3, 0.01)
    apart = dataclasses.replace(config, cross_lr=5e-4)
    assert groups_by_name(model, build_optimizer(model, apart))[
        "fusion_encoder.layers.0.fc1.weight"
    ] == (5e-4, 0.01)


@pytest.mark.parametrize("warmup", [10, 0.1, 10.0])
def test_schedule(warmup):
    factors = [lr_factor(step, 100, warmup) for step in range(101)]
    assert factors[0] == 0 and factors[5] == 0.5 and factors[10] == 1
    assert factors[55] == pytest.approx(0.5) and factors[100] == 0
    assert factors == [*sorted(factors[:11]), *sorted(factors[11:], reverse=True)]


def test_schedule_without_warmup_and_with_a_floor():
    assert lr_factor(0, 100, 0) == 1
    assert lr_factor(100, 100, 10, 0.2) == pytest.approx(0.2) and lr_factor(
        55, 100, 10, 0.2
    ) == pytest.approx(0.6)


def test_official_schedule_without_floor():
    """LambdaLR of the official code, min_rate 0: s / W, then (T - s) / (T - W)."""
    for step in range(0, 100, 7):
        official = step / 10 if step < 10 else (100 - step) / 90
        assert lr_factor(step, 100, 10) == pytest.approx(official)


def test_set_learning_rate_keeps_ratios(model):
    optimizer = build_optimizer(model, OptimizerConfig(lr=1e-3, vision_lr=1e-4, text_lr=1e-4))
    set_learning_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {5e-4, 5e-5}


def test_one_step_is_adamw():
    """First step of Adam: every decayed weight shrinks by lr * wd and moves by lr against the sign
    of its gradient."""
    layer = torch.nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, OptimizerConfig(lr=0.1))
    (layer.weight.sum() + layer.bias.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.01) - 0.1)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_orthogonalized_matrices_keep_their_directions_and_lose_their_scale(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalize(matrix).float()
    assert torch.linalg.svdvals(found).min() > 0.5 and torch.linalg.svdvals(found).max() < 1.3
    assert (
        torch.nn.functional.cosine_similarity(found.flatten(), (left @ right).flatten(), dim=0)
        > 0.95
    )
    torch.testing.assert_close(orthogonalize(1000 * matrix).float(), found, atol=0.02, rtol=0.02)


def test_muon_moves_the_matrices_of_the_layers_and_adamw_the_rest(model):
    config = OptimizerConfig(lr=1e-3, weight_decay=0.0, muon=True)
    optimizer = build_optimizer(model, config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    marked = {
        names[p] for group in optimizer.param_groups if group["muon"] for p in group["params"]
    }
    assert {"vision.tower.blocks.0.attn.qkv.weight", "fusion_encoder.layers.0.fc1.weight"} <= marked
    assert not [
        name
        for name in marked
        if "embed" in name or "head" in name or name.endswith(("bias", "bias_table"))
    ]
    assert any(name.endswith("relative_position_bias_table") for name in names.values())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    change = {
        name: parameter.detach() - before[name] for name, parameter in model.named_parameters()
    }
    for name in marked:
        expected = orthogonalize(dict(model.named_parameters())[name].grad).float()
        assert (
            torch.nn.functional.cosine_similarity(
                change[name].flatten(), -expected.flatten(), dim=0
            )
            > 0.99
        ), name
        assert 0.5 * 0.2e-3 < change[name].square().mean().sqrt() < 1.5 * 0.2e-3, name
    head = "matching_head.1.weight"
    torch.testing.assert_close(
        change[head].abs(), torch.full_like(change[head], 1e-3), rtol=0.01, atol=0
    )
    assert {group["muon"] for group in optimizer.param_groups} == {True, False}
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_muon_takes_the_steps_of_torch(shape):
    torch.manual_seed(0)
    layers = torch.nn.ModuleList([torch.nn.Linear(*shape, bias=False)])
    encoder = torch.nn.ModuleDict({"encoder": torch.nn.ModuleDict({"layers": layers})})
    (matrix,) = encoder.parameters()
    theirs = torch.nn.Parameter(matrix.detach().clone())
    config = OptimizerConfig(lr=0.1, weight_decay=0.05, muon=True)
    optimizers = (
        build_optimizer(encoder, config),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        matrix.grad = torch.randn_like(matrix)
        theirs.grad = matrix.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(matrix, theirs)


def muon_steps(rank: int, world: int, folder: Path) -> None:
    """Two steps of the same gradients on every process; each writes its weights."""
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", f"file://{folder}/meeting", rank=rank, world_size=world
        )
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"layers": torch.nn.Sequential(*(torch.nn.Linear(8, 8 * n) for n in (1, 2, 3)))}
    )
    body = torch.nn.ModuleDict({"body": model})
    optimizer = build_optimizer(body, OptimizerConfig(lr=0.1, muon=True))
    for _ in range(2):
        for parameter in body.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    torch.save(body.state_dict(), folder / f"{world}-{rank}")


def test_processes_that_share_the_orthogonalising_move_as_one_would(tmp_path):
    muon_steps(0, 1, tmp_path)
    processes = ToyRuns(tmp_path).context  # whose server has torch at hand
    pair = [processes.Process(target=muon_steps, args=(rank, 2, tmp_path)) for rank in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(60)
    assert [process.exitcode for process in pair] == [0, 0]
    one, *two = (torch.load(tmp_path / name) for name in ("1-0", "2-0", "2-1"))
    for weights in two:
        assert all(torch.equal(weights[name], one[name]) for name in one)


def test_without_muon_a_step_waits_for_no_other_process(monkeypatch):
    for name, value in {"is_initialized": True, "get_rank": 0, "get_world_size": 2}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda tensor: pytest.fail("it spoke to the others")
    )
    layer = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(layer, OptimizerConfig(lr=0.1))
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
