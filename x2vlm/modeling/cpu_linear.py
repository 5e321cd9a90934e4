"""Linear layers that are fast on a CPU, for models that serve and learn nothing.

The usual kernels rearrange the weight at every call, which for few rows (generation) takes longer
than the product. A packed layer keeps a copy of its weight in oneDNN's blocked layout. Measured by
`python -m benchmarks.inference`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 64  # that weights are packed for; any other number works
PACKED_DTYPES: set[torch.dtype] = set()
"""What this processor multiplies by packed weights. The operations are private ones of torch."""
if torch.backends.mkldnn.is_available():
    PACKED_DTYPES = {torch.float32} | (
        {torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
    )
    _pack = torch.ops.mkldnn._reorder_linear_weight.default
    _multiply = torch.ops.mkldnn._linear_pointwise.default


def pack_linears(model: nn.Module) -> None:
    """Replaces every `nn.Linear` inside a model, in place; parameters and their names stay."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))


class PackedLinear(nn.Module):
    """A linear layer with a packed copy of its weight, made at the first call and again after the
    weight was changed. Where a gradient is wanted it multiplies by the weight itself."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed: Tensor | None = None
        self._packed_from: tuple | None = None
        self.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., in_features] to float[..., out_features]."""
        weight = self.weight
        learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        alike = x.dtype == weight.dtype and x.is_cpu and weight.is_cpu
        if (
            learns
            or not alike
            or weight.dtype not in PACKED_DTYPES
            or torch.is_autocast_enabled("cpu")
        ):
            return F.linear(x, weight, self.bias)
        state = weight.data_ptr(), weight.dtype, None if weight.is_inference() else weight._version
        if state != self._packed_from:
            self._packed, self._packed_from = _pack(weight.detach(), ROWS), state
        return _multiply(x, self._packed, self.bias, "none", [], "")

    def _apply(self, *args, **kwargs) -> PackedLinear:
        """Moved or cast: the copy is of no use any more."""
        self._packed = self._packed_from = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict:
        """Without the copy, for `copy.deepcopy` and pickle: torch cannot copy its layout."""
        return {**super().__getstate__(), "_packed": None, "_packed_from": None}
