"""The linear layer's arranged weights give what the plain product gives, and follow the weight."""

import copy
import pickle

import pytest
import torch
from torch import nn

from x2vlm.modeling.layers import ARRANGED_DTYPES, Linear


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    return Linear(48, 50).requires_grad_(False)


def assert_plain(layer: Linear, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        layer(x), nn.Linear.forward(layer, x), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize("shape", [(5,), (3, 2), (0,), (2, 100)])
def test_any_rows_equal_the_plain_product(layer, shape, dtype, tolerance):
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


@pytest.mark.skipif(torch.float32 not in ARRANGED_DTYPES, reason="this torch has no oneDNN")
def test_a_weight_is_arranged_once_and_its_copy_stays_with_the_layer(layer):
    layer(torch.randn(3, 48))
    first = layer._arranged
    layer(torch.randn(4, 48))
    assert first is not None and layer._arranged is first
    assert list(layer.state_dict()) == ["weight", "bias"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._arranged is None
        assert_plain(twin, torch.randn(3, 48))
    assert layer.train(False)._arranged is first and layer.train()._arranged is None
    assert layer.to("meta")._arranged is None


@pytest.mark.skipif(torch.float32 not in ARRANGED_DTYPES, reason="this torch has no oneDNN")
def test_towers_arrange_their_weights_too(tiny_model):
    visual = torch.randn(1, 3, *[tiny_model.config.vision.image_size] * 2)
    with torch.no_grad():
        tiny_model.encode_image(visual)
    tower = [module for module in tiny_model.vision.modules() if isinstance(module, nn.Linear)]
    assert any(module._arranged is not None for module in tower)


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
