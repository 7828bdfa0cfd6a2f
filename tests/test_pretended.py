"""The pretended device finds what is wrong on a GPU, each fault planted by itself, and computes what the CPU does."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.pretended import DEVICE, MixedDevices, Pretended, pretended


@pytest.fixture
def device():
    with pretended() as device:
        yield device


@pytest.fixture
def x(device):
    """1, 2, 3 there."""
    x = torch.tensor([1.0, 2.0, 3.0]).to(DEVICE)
    device.notes.clear()
    return x


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: y * x.sum(),  # a number of the device, and a tensor of the CPU
        lambda x, y: torch.stack([x[0], y[0]]),
        lambda x, y: torch.where(y > 0, x, 0.0),
        lambda x, y: x.index_select(0, y.long() - 1),
        lambda x, y: y[x.long() - 1],
        lambda x, y: nn.functional.linear(x, torch.ones(1, 3)),
        lambda x, y: torch.addcmul(x, x, x, out=y),
        lambda x, y: x.index_put((y.long() - 1,), y),
    ],
)
def test_tensors_of_two_devices_are_refused(x, mix):
    with pytest.raises(MixedDevices, match=r"on lazy.*on the CPU|on the CPU.*on lazy"):
        mix(x, torch.ones(3))


def test_what_a_gpu_allows_is_allowed(x):
    """A number of the CPU entry by entry, an index from there, and copies."""
    assert (x * torch.tensor(2.0)).tolist() == [2, 4, 6]
    assert x[torch.tensor([2, 0])].tolist() == [3, 1]
    assert torch.ones(3).copy_(x).numpy().tolist() == [1, 2, 3]


@pytest.mark.parametrize("take", [lambda x: x.numpy(), np.asarray, lambda x: np.stack([x])])
def test_numpy_is_refused(x, take):
    with pytest.raises(RuntimeError, match="numpy"):
        take(x)


class Doubled(torch.autograd.Function):
    """Its gradient is made of a tensor that lies on the CPU."""

    @staticmethod
    def forward(context, x):
        return 2 * x

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.full((3,), 2.0)


def test_a_fault_in_a_backward_pass_is_found(x):
    y = Doubled.apply(x.requires_grad_()).sum()
    with pytest.raises(MixedDevices, match=r"mul\.Tensor"):
        torch.autograd.grad(y, x)


def test_a_fault_in_what_checkpointing_computes_again_is_found(x):
    factors = iter([torch.full((3,), 2.0).to(DEVICE), torch.full((3,), 2.0)])
    y = checkpoint(lambda x: (x * next(factors)).sin(), x.requires_grad_(), use_reentrant=False)
    with pytest.raises(MixedDevices, match=r"mul\.Tensor"):
        torch.autograd.grad(y.sum(), x)


def test_outside_the_context_nothing_can_be_done():
    with pretended():
        x = torch.ones(3, device=DEVICE)
    with pytest.raises(MixedDevices, match="outside"):
        x + 1


# ---- What is noted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "noted"),
    [
        (lambda x: x.sum().item(), ["waited: aten._local_scalar_dense.default ()"]),
        (lambda x: bool((x > 0).all()), ["waited: aten._local_scalar_dense.default ()"]),
        (lambda x: (x > 1).nonzero(), ["waited: aten.nonzero.default (3,)"]),
        (lambda x: x.unique(), ["waited: aten._unique2.default (3,)"]),
        (lambda x: x[x > 1], ["waited: aten.index.Tensor (3,)"]),
        (lambda x: torch.equal(x, x), ["waited: aten.equal.default (3,), (3,)"]),
        (lambda x: x.tolist(), ["copied to the CPU: aten._to_copy.default (3,)"]),
        (lambda x: x.cpu().numpy(), ["copied to the CPU: aten._to_copy.default (3,)"]),
        (lambda x: x[torch.tensor([0])], ["copied to the device: aten.index.Tensor (1,)"]),
        (lambda x: torch.zeros(2).to(x), ["copied to the device: aten._to_copy.default (2,)"]),
        (lambda x: torch.tensor([1.0], device=x.device), ["copied to the device: torch.tensor (1,)"]),
        (lambda x: x.copy_(torch.ones(3)), ["copied to the device: aten.copy_.default (3,)"]),
        (lambda x: torch.arange(3, device=x.device) + x.to(DEVICE).double().cumsum(0) * 2, []),
    ],
)
def test_copies_and_waiting_are_noted(device, x, do, noted):
    do(x)
    assert device.notes == noted


# ---- What is computed ------------------------------------------------------------------------------------------------


def test_numbers_are_the_cpus(x):
    """Views, changes in place, a network that moves there and back, a gradient."""
    y = torch.zeros(2, 3, device=DEVICE)
    y[1] = x
    y.mul_(2)[0].add_(1)
    assert y.tolist() == [[1, 1, 1], [2, 4, 6]]

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.SiLU())
    here = network(y.cpu()).square().sum()
    weight = network[0].weight
    (expected,) = torch.autograd.grad(here, weight)
    network.to(DEVICE)
    assert isinstance(network[0].weight, Pretended) and network[0].weight.device.type == DEVICE
    there = network(y).square().sum()
    (gradient,) = torch.autograd.grad(there, network[0].weight)
    assert gradient.device.type == DEVICE
    torch.testing.assert_close(gradient.cpu(), expected)
    torch.testing.assert_close(there.cpu().detach(), here.detach())
    assert not isinstance(network.cpu()[0].weight, Pretended)
