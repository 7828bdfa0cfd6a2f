"""Which of the options that save memory a run begins with, and with which it goes on where memory runs out."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from ending import is_out_of_memory
from model.config import UNetConfig, VAEConfig
from sampling.generate import HOW, Plan
from sampling.sampler import State
from weights import memory
from weights.memory import Choice, Footprint, Savings, choose_savings

MOST = Savings(checkpoint_activations=True, sequential_guidance=True, offload=True, frames_per_chunk=1)


@dataclass(frozen=True)
class Economy:
    """The savings in use, and those that come after them."""

    savings: Savings
    told: str = ""  # why these, in a line; "" where they are the user's own
    rest: tuple[Choice, ...] = ()  # to go on with in turn, once each, where memory runs out

    @property
    def how(self) -> dict[str, Any]:
        """The options of `generate` among them."""
        return {name: getattr(self.savings, name) for name in HOW}

    def take_effect(self, pipeline: Any) -> None:
        """Set the U-Net's own switch, and say what was chosen."""
        pipeline.unet.checkpoint_activations = self.savings.checkpoint_activations
        if self.told:
            print(self.told, file=sys.stderr)

    def less(self) -> Economy:
        """The next savings, of which `rest` must hold some, and the memory of what failed let go.

        Call it when the error that said so is gone, for its frames hold tensors.
        """
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        savings = self.rest[0].savings
        return Economy(
            savings, f"memory ran out; going on with {_cost(self.rest[0])}; the bits may differ", self.rest[1:]
        )


def plan_economy(pipeline: Any, plans: Sequence[Plan], named: Savings, mode: str | None) -> Economy:
    """What saves memory in a run of each of these plans.

    named: what the user switched. mode: "none" is that and no more; "auto" the least slow combination that fits into
    what is free on the GPU, with all that need less behind it; None is auto on a GPU where nothing was switched
    """
    if mode == "auto" and named != Savings():
        raise ValueError(f"--memory auto chooses what saves memory itself; leave it or {flags(named)} out")
    capacity = memory.free_bytes(pipeline)
    if mode == "none" or (mode is None and (capacity is None or named != Savings())):
        return Economy(named)
    networks = Footprint.of(pipeline)
    choices = choices_in_turn(networks, plans, math.inf if capacity is None else capacity)
    if not choices:
        return Economy(MOST)  # which `check_memory` refuses, with what would fit
    first, *rest = choices
    told = ""
    if capacity is not None and networks.known:
        told = f"memory: {_cost(first)}; about {first.bytes / 1e9:.1f} of {capacity / 1e9:.1f} GB"
    return Economy(first.savings, told, tuple(rest))


def within_memory(economy: Economy, pipeline: Any, make: Callable[..., object]) -> Economy:
    """Call `make` with options of `generate`, and where memory runs out again from its last step with the next savings.

    Returns those it was made with, for what is made after it.
    """
    last: State | None = None

    def keep(state: State) -> None:
        nonlocal last
        last = state

    while True:
        try:
            make(**economy.how, progress=keep, state=last)
            return economy
        except Exception as error:
            if not (is_out_of_memory(error) and economy.rest):
                raise
        economy = economy.less()
        economy.take_effect(pipeline)


def choices_in_turn(networks: Footprint, plans: Sequence[Plan], capacity: float) -> list[Choice]:
    """The least slow combination that fits, then each time the least slow of those that need less than the last.

    Of networks whose needs are not known nothing is said to be too large, and the order is Zeroscope's.
    """
    if not networks.known:
        networks, capacity = replace(networks, unet=UNetConfig(), vae=VAEConfig()), math.inf
    choices = []
    while (choice := choose_savings(networks, plans, capacity)) is not None:
        choices.append(choice)
        capacity = choice.bytes - 1
    return choices


def flags(savings: Savings) -> str:
    """As they are typed; "" where nothing is switched."""
    words = []
    for field in fields(Savings):
        value = getattr(savings, field.name)
        if value != field.default:
            words.append("--" + field.name.replace("_", "-") + ("" if value is True else f" {value}"))
    return " ".join(words)


def _cost(choice: Choice) -> str:
    switched = flags(choice.savings)
    if not switched:
        return "nothing has to be saved"
    return f"{switched}, {choice.time:.2f} times as long as without" if choice.time > 1 else f"{switched}, no slower"
