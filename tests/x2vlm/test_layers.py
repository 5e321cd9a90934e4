"""The linear layer's path for a few rows gives what the plain product gives, and follows its weight."""

import copy
import gc

import pytest
import torch
from torch import nn

from x2vlm.modeling import layers
from x2vlm.modeling.layers import FEW_ROWS, Linear


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(48, 50).requires_grad_(False)


def assert_plain(layer: Linear, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(layer(x), nn.Linear.forward(layer, x), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", [(5,), (3, 2), (0,), (1, FEW_ROWS), (1, FEW_ROWS + 1)])
def test_few_rows_equal_the_plain_product(layer, shape, dtype, tolerance):
    layer, x = layer.to(dtype), torch.randn(*shape, 48).to(dtype)
    assert layer(x).is_contiguous()
    assert_plain(layer, x, tolerance)


def test_rows_that_do_not_lie_one_after_the_other(layer):
    assert_plain(layer, torch.randn(48, 3).T)


def test_a_changed_or_replaced_weight_is_arranged_anew(layer):
    x = torch.randn(3, 48)
    assert_plain(layer, x)
    layer.weight.mul_(2)
    assert_plain(layer, x)
    layer.load_state_dict({"weight": torch.randn(50, 48), "bias": torch.zeros(50)})
    assert_plain(layer, x)
    layer.to(torch.bfloat16)
    assert_plain(layer, x.bfloat16(), 2e-2)
    other = copy.deepcopy(layer).float()
    other.weight.neg_()
    assert_plain(other, x)
    assert_plain(layer, x.bfloat16(), 2e-2)


def test_a_weight_made_in_inference_mode_works():
    with torch.inference_mode():
        layer = Linear(48, 50)
        assert_plain(layer, torch.randn(3, 48))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_one_copy_of_a_weight_is_kept_as_long_as_the_weight_is():
    layer = Linear(48, 50).requires_grad_(False)
    weight = layer.weight
    layer(torch.randn(3, 48))
    copied = layers.arranged(weight)
    layer(torch.randn(4, 48))
    assert layers.arranged(weight) is copied
    gc.collect()
    kept = len(layers._ARRANGED)
    del layer, weight
    gc.collect()
    assert len(layers._ARRANGED) == kept - 1


def test_gradients_of_weights_and_of_inputs(layer):
    x = torch.randn(2, 48, requires_grad=True)
    (frozen,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(frozen, layer.weight.sum(0).expand(2, -1))
    layer.requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(50, -1))


def test_autocast_is_obeyed(layer):
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 48)).dtype == torch.bfloat16
