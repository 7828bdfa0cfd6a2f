"""The account of memory: storages counted from birth to death, and equal to what autograd keeps."""

import gc
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from memory import CHECKPOINTED, CONDITIONAL, FULL, PLAIN, LiveBytes, account, live_peak, prepared_control
from sizes import SIZES, make_latents, make_text, make_unet

SIZE = replace(SIZES["tiny"], frames=4, height=8, width=8)


@pytest.fixture(scope="module")
def network():
    return make_unet(SIZE, "cpu", torch.bfloat16)


@pytest.fixture
def inputs():
    return make_latents(SIZE, "cpu"), make_text(SIZE, "cpu", torch.bfloat16)


def test_storages_are_counted_once_and_until_they_die():
    """Three tensors of 400 bytes, one of which dies before the third is born; a view adds nothing."""
    with LiveBytes() as live:
        a = torch.ones(100)
        b = a + 1
        view = b.reshape(10, 10)
        assert (live.now, live.peak) == (800, 800)
        del b
        assert live.now == 800  # the view holds it
        del view
        assert live.now == 400
        c = torch.zeros(100)
        assert (live.now, live.peak) == (800, 800)
        del a, c
    assert live.now == 0


def test_what_lives_after_a_forward_pass_is_what_autograd_keeps(network, inputs):
    """Storages that were packed for the backward pass, each once, and the result; nothing else outlives the pass."""
    z, text = inputs
    z.requires_grad_()
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x.detach() if x.is_leaf else x

    existing = {x.untyped_storage().data_ptr() for x in (*network.parameters(), z, text)}
    with LiveBytes() as live:
        for x in (*network.parameters(), z, text):
            live.count(x)
        before = live.now
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            eps = network(z, 500, text)
        gc.collect()
        held = live.now - before
    kept[eps.untyped_storage().data_ptr()] = eps.untyped_storage().nbytes()
    assert held == sum(size for address, size in kept.items() if address not in existing)
    assert held > 1_000_000


@pytest.mark.parametrize("case", [PLAIN, FULL, CHECKPOINTED, CONDITIONAL], ids=lambda case: case.name)
def test_shapes_alone_account_for_what_a_real_run_holds(network, inputs, case):
    """The same numbers, up to the masks' indices, which are made beforehand where there are shapes only."""
    control = prepared_control(SIZE)
    weights, beside = live_peak(network, lambda: case.call(network, *inputs, control))
    assert weights == sum(p.nbytes for p in network.parameters())
    accounted = account(SIZE, case, torch.bfloat16)
    assert accounted[0] == weights
    assert accounted[1] == pytest.approx(beside, rel=0.01)
