"""How processes share a run: devices and precision, DDP or FSDP, and whole tensors made of shards.

One process, DDP and mixed precision come from accelerate. FSDP comes from torch itself, because
accelerate's does not run on CPUs, where it can be tested.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from accelerate import (
    Accelerator,
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    PartialState,
)
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import distribute_tensor

from train.config import RunConfig
from x2vlm.errors import CheckpointError, ConfigError, X2VLMError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others."""


def build_accelerator(run: RunConfig) -> Accelerator:
    """Devices and precision; the processes themselves are started by `accelerate launch` or
    `torchrun`."""
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = not run.deterministic
    # Its successor is not known to the older versions of torch that we support.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    torch.set_float32_matmul_precision("highest" if run.deterministic else "high")
    on_cpu = run.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and run.precision == "fp16":
        raise ConfigError(
            "precision fp16 needs a GPU; a CPU trains in fp32 or bf16.", "config/value"
        )
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="no" if run.precision == "fp32" else run.precision,
        log_with=run.log.trackers or None,
        project_config=ProjectConfiguration(run.output_dir, f"{run.output_dir}/tensorboard"),
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            ),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def shard(accelerator: Accelerator, module: nn.Module) -> nn.Module:
    """Puts `module` on the device in its precision and shards it over all processes (FSDP)."""
    module = accelerator.prepare_model(module, evaluation_mode=True)  # no wrapper
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    return fully_shard(module, mesh=mesh, ignored_params=scalars(module))


@contextlib.contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Within the block every process holds all weights of a sharded module."""
    if not isinstance(module, FSDPModule):
        yield
        return
    module.unshard()
    try:
        yield
    finally:
        module.reshard()


def on_main(function: Callable[[], Any]) -> Any:
    """Runs `function` on the main process; every process gets its result or its error."""
    outcome = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = function()
        except X2VLMError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def scalars(module: nn.Module) -> set[nn.Parameter]:
    """Parameters of no dimension, which cannot be sharded."""
    return {parameter for parameter in module.parameters() if parameter.ndim == 0}


def full(tensor: Tensor) -> Tensor:
    """The whole tensor where a process holds a shard of it (FSDP)."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` on the device of `parameter`, and sharded as it is."""
    tensor = tensor.to(parameter.device)
    if not hasattr(parameter, "full_tensor") or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)


def weights(model: nn.Module, main: bool = True) -> dict[str, Tensor]:
    """The model's whole state dict on the CPU; on processes that only have to hand over their
    shards, {}."""
    whole = ((name, full(tensor.detach())) for name, tensor in model.state_dict().items())
    return {name: tensor.cpu() for name, tensor in whole if main}


def load_weights(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Inverse of `weights`. Raises `CheckpointError` (`ckpt/keys`) for another model's weights."""
    own = model.state_dict()
    shapes = [
        {(name, tensor.shape) for name, tensor in tensors.items()} for tensors in (own, saved)
    ]
    wrong = {name for name, _ in shapes[0] ^ shapes[1]}
    if wrong:
        raise CheckpointError(
            f"The checkpoint is of another model: {len(wrong)} tensors differ, for example "
            f"{min(wrong)}.",
            "ckpt/keys",
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(like(saved[name], tensor))


def moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, main: bool = True
) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by parameter name, as `weights`; learning rates are no part of it, the
    configuration has them."""
    named = (
        (name, optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state
    )
    whole = ((name, {key: full(value) for key, value in values.items()}) for name, values in named)
    return {
        name: {key: value.cpu() for key, value in values.items()} for name, values in whole if main
    }


def load_moments(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, dict[str, Tensor]]
) -> None:
    """Inverse of `moments`; parameters that were never trained have none."""
    for name, parameter in model.named_parameters():
        if name in saved:
            optimizer.state[parameter] = {
                key: like(value, parameter) for key, value in saved[name].items()
            }
