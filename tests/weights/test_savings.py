"""The order in which savings are tried, and what becomes of the memory of what failed; the runs are in
tests/train_free/test_memory.py."""

from dataclasses import replace

import pytest
import torch

from model.config import UNetConfig, VAEConfig
from sampling.generate import Plan
from sampling.settings import preset
from weights import savings
from weights.memory import Choice, Footprint, Savings
from weights.savings import Economy, choices_in_turn, flags

ZEROSCOPE = Footprint(UNetConfig(), VAEConfig(), 2, 2 * 1_411_233_860, 2 * 83_653_863, 2 * 340_387_840)
FULL = Plan("a horse", preset("full"), (4, 24, 40, 72), torch.zeros(1, 24, 4), None)


def test_each_choice_needs_less_and_none_is_faster_than_one_before():
    choices = choices_in_turn(ZEROSCOPE, [FULL], 80e9)
    assert choices[0].savings == Savings()
    needed, times = [c.bytes for c in choices], [c.time for c in choices]
    assert needed == sorted(needed, reverse=True) and len(set(needed)) == len(needed) == 8
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("gigabytes", "chosen", "needed", "time"),
    [
        (80, "", 64.3, 1.0),
        (40, "--sequential-guidance", 35.4, 1.21),
        (24, "--checkpoint-activations", 11.2, 1.27),
        (16, "--checkpoint-activations", 11.2, 1.27),
        (12, "--checkpoint-activations", 11.2, 1.27),
        (8, "--checkpoint-activations --sequential-guidance", 7.5, 1.49),
        (7, "--checkpoint-activations --sequential-guidance --offload", 6.7, 1.49),
    ],
)
def test_what_is_chosen_for_zeroscope(gigabytes, chosen, needed, time):
    first = choices_in_turn(ZEROSCOPE, [FULL], gigabytes * 1e9)[0]
    assert (flags(first.savings), round(first.bytes / 1e9, 1), round(first.time, 2)) == (chosen, needed, time)


def test_of_networks_that_are_not_known_the_order_is_zeroscopes():
    other = replace(ZEROSCOPE, unet=UNetConfig(layers_per_block=3), unet_bytes=10**12)
    found = [choice.savings for choice in choices_in_turn(other, [FULL], 10)]
    assert found == [choice.savings for choice in choices_in_turn(ZEROSCOPE, [FULL], 80e9)]


def test_flags_are_as_they_are_typed():
    assert flags(Savings()) == ""
    assert flags(Savings(True, False, True, 1)) == "--checkpoint-activations --offload --frames-per-chunk 1"


def test_what_failed_is_let_go(monkeypatch):
    emptied = []
    monkeypatch.setattr(savings.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(savings.torch.cuda, "empty_cache", lambda: emptied.append(True))
    less = Economy(Savings(), rest=(Choice(Savings(offload=True), 1, 1.0),)).less()
    assert (less.savings, less.rest, emptied) == (Savings(offload=True), (), [True])
