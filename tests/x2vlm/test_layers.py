"""The linear layer's path for a few rows gives what the plain product gives, gradients of its input included."""

import pytest
import torch
from torch import nn

from x2vlm.modeling.layers import FEW_ROWS, Linear


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("out_features", [64, 50])
@pytest.mark.parametrize("shape", [(5,), (3, 2), (1, FEW_ROWS), (1, FEW_ROWS + 1)])
def test_few_rows_equal_the_plain_product(shape, out_features, dtype, tolerance):
    torch.manual_seed(0)
    layer = Linear(48, out_features).to(dtype).requires_grad_(False)
    x = torch.randn(*shape, 48).to(dtype).requires_grad_()
    ours, plain = layer(x), nn.Linear.forward(layer, x)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    gradients = [torch.autograd.grad(out.float().pow(2).sum(), x)[0] for out in (ours, plain)]
    torch.testing.assert_close(*gradients, atol=10 * tolerance, rtol=10 * tolerance)


def test_weights_that_learn_get_gradients():
    layer = Linear(8, 32)
    layer(torch.ones(2, 8)).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
