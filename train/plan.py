"""Says before a run what it will take: steps, memory of each GPU, hours and cost.

    python -m train.plan --config train/configs/pretrain_base_4m.yaml --gpus 8 --gpu A100
    python -m train.plan --config RUN --gpus 1 --gpu H100 --price 2.5 --model.lora.rank=16

The model is built without weights and the passes of a step run without numbers, forward and
backward, at the sizes of the run, with texts as long as `max_tokens`; operations and what is kept
for the backward pass are counted. Hours follow from the peak of the GPU and the share of it that
training reaches (`--mfu`; the log of a run has its own). No data are needed, except for `epochs`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from train.config import RunConfig, load_run
from train.cost import PEAKS, TERA, FlopCounter
from train.data.records import open_records
from train.launch import model_config
from train.lora import add_adapters
from train.step import checkpoint_layers, freeze, transformer_layers
from train.tasks.base import Task
from x2vlm.checkpoint.loading import WithoutMatrices
from x2vlm.config import X2VLMConfig
from x2vlm.errors import ConfigError, X2VLMError
from x2vlm.modeling.build import build_model
from x2vlm.modeling.x2vlm import X2VLM

FUSIONS = {"matching_loss": 3, "classification_loss": 1, "pair_loss": 2, "answer_loss": 1}
"""How often a text that is read as it is goes through the fusion layers, by loss; boxes are
predicted from one more pass."""
MASKED = ("masked_lm_loss", "caption_loss")
"""Losses that read a text with masks, and fuse it once."""
UNPLANNED = ("Scene", "Photos")
ANSWER_TOKENS = 6
OVERHEAD = 1.1
"""Of memory, for fragments and workspaces."""


@dataclass(frozen=True)
class Plan:
    """What a run takes; memory in bytes of one GPU.

    Attributes:
        flops: operations of an average step on one GPU, forward and backward.
        weights: with gradients and moments.
        kept: for the backward pass, by the largest step.
    """

    steps: int
    parameters: int
    trained: int
    flops: float
    weights: int
    kept: int

    @property
    def memory(self) -> float:
        return OVERHEAD * (self.weights + self.kept)

    def hours(self, reached: float) -> float:
        """At so many operations a second of each GPU."""
        return self.steps * self.flops / reached / 3600


def plan(run: RunConfig, tasks: dict[str, Task], config: X2VLMConfig, gpus: int) -> Plan:
    """Counts the passes of `run`.

    Raises:
        ConfigError: a task that is not planned, or `epochs` of data that are drawn.
    """
    with WithoutMatrices():
        model = build_model(config).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _forget_weights(model)
        if run.model.lora:
            add_adapters(model, run.model.lora, ())
        freeze(model, run.model.freeze)
        if run.gradient_checkpointing:
            checkpoint_layers(model)
        steps = run.max_steps or _steps(run, tasks)
        costs = {
            name: _cost(model, task, run, gpus) for name, task in tasks.items() if task.loss_weights
        }
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    parameters, trained = sum(size for size, _ in sizes), sum(size for size, on in sizes if on)
    shared = gpus if run.parallel == "fsdp" else 1
    turns = {tasks[name].turn or name for name in costs}
    return Plan(
        steps,
        parameters,
        trained,
        run.accumulation * sum(_part(tasks, n, steps) * cost[0] for n, cost in costs.items()),
        4 * (parameters + 3 * trained) // shared,
        sum(
            max(cost[1] for name, cost in costs.items() if (tasks[name].turn or name) == turn)
            for turn in turns
        ),
    )


def _part(tasks: dict[str, Task], name: str, steps: int) -> float:
    """The share of the steps in which a task takes part."""
    task = tasks[name]
    together = [t for t in tasks.values() if t.turn == task.turn and t.loss_weights]
    turns = task.share / sum(t.share for t in together) if task.turn else 1.0
    end = steps if task.until_step is None else min(task.until_step, steps)
    return turns * max(0, end - task.from_step) / steps


def _steps(run: RunConfig, tasks: dict[str, Task]) -> int:
    """Steps of `epochs`, as `train.loader.in_steps`, by counting the data."""
    largest = max(
        len(open_records(task.data)) / task.batch_size
        for task in tasks.values()
        if task.loss_weights
    )
    return -int(-run.epochs * largest // 1)


def _forget_weights(model: X2VLM) -> None:
    """Leaves nothing of weights and buffers but their shapes."""
    twins: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                twin = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
                module._parameters[name] = twins.setdefault(id(p), twin)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _cost(model: X2VLM, task: Task, run: RunConfig, gpus: int) -> tuple[float, int]:
    """Operations and kept bytes of one part of a step on one GPU."""
    if type(task).__name__ in UNPLANNED:
        raise ConfigError(
            "train.plan knows the paper's tasks, not those of `mini` and `photo`.", "config/value"
        )
    half = torch.autocast("cpu", torch.bfloat16, enabled=run.precision != "fp32")
    counter = FlopCounter()
    with _kept(model) as kept, counter, half:
        total = sum(output.float().sum() for output in _outputs(model, task, run, gpus))
        size = sum(kept.values())
        total.backward()
    for parameter in model.parameters():
        parameter.grad = None
    return counter.flops, size


@contextlib.contextmanager
def _kept(model: X2VLM) -> Iterator[dict[int, int]]:
    """Storage -> bytes of all that is kept for the backward pass, without the weights; inputs of
    layers count, too, since checkpointing keeps those alone."""
    kept: dict[int, int] = {}
    alive = []  # so that no storage takes the place of another
    own = {p.untyped_storage()._cdata for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            alive.append(tensor)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def keep_input(_, inputs: tuple[Tensor, ...]) -> None:
        keep(inputs[0])

    hooks = [layer.register_forward_pre_hook(keep_input) for layer in transformer_layers(model)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
    for hook in hooks:
        hook.remove()


def _outputs(model: X2VLM, task: Task, run: RunConfig, gpus: int) -> Iterator[Tensor]:
    """What the losses of a task are computed of."""
    config, wanted = model.config, task.loss_weights
    images = max(1, task.batch_size // gpus // run.accumulation)
    texts = getattr(task, "max_texts", 0) or images * _texts_per_image(task)
    ids = torch.ones(texts, task.max_tokens, dtype=torch.long)
    context = None
    if task.needs[0] != "captions":  # there is something to see
        pair = 2 if "pair_loss" in wanted else 1
        video = task.data.format == "video_text" or "classification_loss" in wanted
        frames = [config.num_frames] if video and config.num_frames else []
        height, width = config.vision.size
        seen = model.encode_visual(torch.empty(pair * images, *frames, 3, height, width))
        yield seen
        own = texts if hasattr(task, "max_texts") else images  # a region is an image of its own
        context = seen[:1].expand(own, -1, -1).contiguous()
    elif "contrastive_loss" in wanted:  # texts in another language stand in for images
        seen = context = model.encode_text(ids, torch.ones_like(ids))
        yield seen
    if any(loss not in MASKED for loss in wanted):
        embeds = model.encode_text(ids, torch.ones_like(ids))
        yield embeds
        fusions = sum(FUSIONS.get(loss, 0) for loss in wanted)
        fusions += any(loss.startswith("box_") for loss in wanted)
        for _ in range(fusions):
            fused = model.fuse(embeds, torch.ones_like(ids), context)
            yield fused
        if "answer_loss" in wanted:
            yield _answers(model, fused)
    if any(loss in MASKED for loss in wanted):
        embeds = model.encode_text(ids, torch.ones_like(ids))
        fused = model.fuse(embeds, torch.ones_like(ids), context)
        places = torch.zeros(texts, task.masking.max_masks, dtype=torch.long)
        yield model.masked_lm_logits(fused, places)


def _answers(model: X2VLM, states: Tensor) -> Tensor:
    decoder = model.answer_decoder
    ids = torch.ones(len(states), ANSWER_TOKENS, dtype=torch.long)
    return decoder.head(decoder(ids, decoder.project_context(states), None))


def _texts_per_image(task: Task) -> int:
    names = ("captions_per_image", "phrases_per_image", "questions_per_image", "max_regions")
    return next((getattr(task, name) for name in names if hasattr(task, name)), 1)


def report(run: RunConfig, found: Plan, gpus: int, reached: float, price: float | None) -> str:
    hours, giga = found.hours(reached), 1e9
    lines = [
        f"steps                {found.steps:,}",
        f"parameters           {found.parameters:,}, {found.trained:,} of them trained",
        f"operations a step    {found.flops / TERA:,.2f} x 10^12 on each of {gpus} GPU(s)",
        f"memory of a GPU      {found.memory / giga:.1f} GB: {found.weights / giga:.1f} weights, "
        f"gradients and moments, {found.kept / giga:.1f} kept for the backward pass, a tenth "
        "besides",
        f"seconds a step       {found.flops / reached:.2f}, if data and network keep up",
        f"hours                {hours:,.1f} ({hours / 24:.1f} days), {gpus * hours:,.0f} GPU hours",
    ]
    if price is not None:
        lines.append(f"cost                 {gpus * hours * price:,.0f} at {price:g} a GPU hour")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train.plan", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--config", required=True, help="YAML of the run; --a.b=c changes a key")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--gpu", default="A100", choices=sorted(PEAKS))
    parser.add_argument("--peak", type=float, help="10^12 operations a second of another processor")
    parser.add_argument("--mfu", type=float, default=0.3, help="share of it reached (default 0.3)")
    parser.add_argument("--price", type=float, help="of a GPU hour")
    options, overrides = parser.parse_known_args(arguments)
    try:
        run, tasks = load_run(["--config", options.config, *overrides])
        found = plan(run, tasks, model_config(run.model), options.gpus)
    except X2VLMError as error:
        print(error, file=sys.stderr)
        return 2
    reached = TERA * (options.peak or PEAKS[options.gpu]) * options.mfu
    print(report(run, found, options.gpus, reached, options.price))
    return 0


if __name__ == "__main__":
    sys.exit(main())
