"""Shared by the parity tests: where the reference outputs lie, and the formula that stands for their weights."""

import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# On a machine that is busy elsewhere OpenMP's threads else burn their time waiting for each other: minutes for seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when torch is imported

import torch

# Property tests draw the same cases everywhere, and a busy machine does not fail them.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("steady")

sys.path.append(str(Path(__file__).parents[1]))  # so that every test file can import tests.helpers
FIXTURES = Path(__file__).parent / "fixtures"


def _formula(name: str, shape: torch.Size) -> torch.Tensor:
    """The reference outputs were made with these weights: seeded by the parameter's name alone."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) == 1 and name.endswith("weight"):
        return torch.from_numpy(1 + np.float32(0.05) * draw)
    std = 0.05
    if name.endswith((".to_q.weight", ".to_k.weight")):
        std = 0.15
    elif name.endswith((".to_v.weight", ".to_out.0.weight", ".proj_out.weight")):
        std = 0.12
    return torch.from_numpy(np.float32(std) * draw)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def trailblazer():
    """What TrailBlazer's released code computes: its arguments, and its tensors.

    CASE.out is of the code as it is, which makes its maps in float16; CASE.exact of the same code in float32 or more,
    so that it tells rounding from meaning.
    """
    from tests.helpers import read_safetensors

    about, tensors = read_safetensors(FIXTURES / "trailblazer.safetensors")
    return {key: json.loads(about[key]) for key in ("edit", "layer", "unet", "pipeline", "tokens")}, tensors


@pytest.fixture(scope="session")
def formula_weights():
    """Fill a module with the formula's weights, in place."""

    def fill(module: torch.nn.Module) -> torch.nn.Module:
        state = {name: _formula(name, p.shape) for name, p in module.state_dict().items()}
        module.load_state_dict(state)
        return module.eval().requires_grad_(False)

    return fill


@pytest.fixture(scope="session")
def relative_l2():
    return lambda ours, theirs: float((ours.double() - theirs.double()).norm() / theirs.double().norm())
