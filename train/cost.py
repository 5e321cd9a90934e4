"""What a step costs in floating-point operations, and what processors reach at best."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

TERA = 1e12
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125, "V100": 125}
"""Part of a GPU's name -> its peak in bf16 (V100: fp16) tensor products, in 10^12 operations a
second, by the data sheets, without sparsity."""

_aten = torch.ops.aten
_SAME_COST = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _aten._scaled_dot_product_flash_attention_backward
    ),
}
"""Attention kernels of a CPU, which torch does not count -> those of a GPU that do as much."""


class FlopCounter(TorchDispatchMode):
    """Adds up the operations of matrix products, convolutions and attention, forward and backward,
    within `with`.

    Attributes:
        flops: a multiplication and an addition are two.
    """

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        kernel = func._overloadpacket
        formula = flop_registry.get(_SAME_COST.get(kernel, kernel))
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


class StepCosts:
    """The operations of the steps so far, counted once for each kind of step.

    Attributes:
        flops: of all steps that were told, on this process.
        peak: operations a second that the device reaches at best, None where that is not known.
    """

    def __init__(self, device: torch.device, counts: bool = True):
        self.flops, self.counts = 0, counts
        self.peak = peak_flops(torch.cuda.get_device_name()) if device.type == "cuda" else None
        self._known: dict[Hashable, int] = {}

    @contextlib.contextmanager
    def of(self, kind: Hashable) -> Iterator[None]:
        """Adds what happens within the block; what blocks of one kind cost is counted once."""
        if self.counts and kind not in self._known:
            with FlopCounter() as counter:
                yield
            self._known[kind] = counter.flops
        else:
            yield
        self.flops += self._known.get(kind, 0)


def peak_flops(name: str) -> float | None:
    """Operations a second of a GPU by its name; None for one that is not in `PEAKS`."""
    return next((TERA * peak for part, peak in PEAKS.items() if part in name), None)
