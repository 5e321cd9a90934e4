"""Packed linear layers give what the plain product gives, and follow the weight."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from x2vlm.modeling.cpu_linear import PACKED_DTYPES, PackedLinear, pack_linears


@pytest.fixture
def layer() -> PackedLinear:
    torch.manual_seed(0)
    return PackedLinear(nn.Linear(48, 50)).requires_grad_(False)


def assert_plain(layer: PackedLinear, x: torch.Tensor, tolerance: float = 1e-5) -> None:
    plain = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), plain, atol=tolerance, rtol=tolerance)


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


def test_a_changed_or_replaced_weight_is_packed_anew(layer):
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
        layer = PackedLinear(nn.Linear(48, 50))
        assert_plain(layer, torch.randn(3, 48))


@pytest.mark.skipif(torch.float32 not in PACKED_DTYPES, reason="this torch has no oneDNN")
def test_a_weight_is_packed_once_and_its_copy_stays_with_the_layer(layer):
    layer(torch.randn(3, 48))
    first = layer._packed
    layer(torch.randn(4, 48))
    assert first is not None and layer._packed is first
    assert list(layer.state_dict()) == ["weight", "bias"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin._packed is None
        assert_plain(twin, torch.randn(3, 48))
    assert layer.to("meta")._packed is None


def test_a_packed_model_keeps_its_parameters_and_their_names(tiny_model):
    model = copy.deepcopy(tiny_model)
    before = dict(model.named_parameters(remove_duplicate=False))
    pack_linears(model)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    assert all(after[name] is parameter for name, parameter in before.items())
    kinds = {type(module) for module in model.modules()}
    assert PackedLinear in kinds
    assert nn.Linear not in kinds


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
