"""What several test files draw, build, compare or read alike."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn

from adaptation.attention_masks import AttentionControl
from adaptation.trajectory import Trajectory
from model.config import UNetConfig
from sampling.sampler import State, initial_state

SHAPE = (2, 3, 4, 5)  # C, F, H, W of the latents that `start` draws
SMALL_UNET = UNetConfig(  # attention on the grid going down and up, and on half of it in the middle
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    block_out_channels=(16, 16),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=16,
    attention_head_dim=8,
)
TWO_GRIDS = replace(  # attention on both grids, going down and up
    SMALL_UNET,
    down_block_types=("CrossAttnDownBlock3D",) * 2,
    up_block_types=("CrossAttnUpBlock3D",) * 2,
)
MOVING = torch.tensor([[[0.0, 0.0, 0.6, 0.5], [0.2, 0.25, 0.8, 0.75], [0.4, 0.5, 1.0, 1.0]]])  # a box for its F = 3


def f64(*values) -> Tensor:
    """Numbers, or nested lists of them, in float64."""
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same up to rounding in every dtype."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def strength(number: float, C: int, F: int, H: int, W: int) -> float:
    """The setting c_g with which Eq. 2 has this number on latents of shape (C, F, H, W)."""
    return number * (23 * 4 * 40 * 72) / ((F - 1) * C * H * W)


def bools(*rows: str) -> Tensor:
    """Rows of 0 and 1, spaces ignored, as a bool matrix."""
    return torch.tensor([[c == "1" for c in row.replace(" ", "")] for row in rows])


def track(*boxes, prompt="a red ball", subject="red ball") -> Trajectory:
    """One subject with a box for each frame."""
    return Trajectory(torch.tensor([boxes], dtype=torch.float32), [subject], prompt)


def same(a: Tensor, b) -> bool:
    """Whether two sets of boxes are equal, absent ones (NaN) included."""
    return torch.equal(a.nan_to_num(-1), torch.as_tensor(b, dtype=a.dtype).nan_to_num(-1))


@st.composite
def boxes(draw) -> list[float]:
    """One box in eighths, so that every number is exact."""
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(st.integers(0, 8), min_size=2, max_size=2, unique=True))) for _ in range(2)
    )
    return [x1 / 8, y1 / 8, x2 / 8, y2 / 8]


@st.composite
def controls(draw, **settings) -> AttentionControl:
    """Up to 3 subjects, overlapping or absent, over up to 3 frames; each owns one token, two are left over."""
    K, F = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    H, W = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cells = draw(st.binary(min_size=K * F * H * W, max_size=K * F * H * W))
    regions = torch.tensor(list(cells)).reshape(K, F, H, W) % 2 == 1
    if draw(st.booleans()):
        regions[0] = True  # a box over the whole frame
    tokens = torch.cat([torch.zeros(K, 1), torch.eye(K), torch.zeros(K, 1)], dim=1).bool()
    settings.setdefault("start_token", draw(st.sampled_from(["hidden", "background"])))
    settings.setdefault("grid", draw(st.sampled_from(["stride", "cover"])))
    return AttentionControl(regions, tokens, **settings)


def coarse(control: AttentionControl, level: int) -> tuple[int, int]:
    """The grid after `level` halvings, each rounded up."""
    H, W = control.regions.shape[-2:]
    return math.ceil(H / 2**level), math.ceil(W / 2**level)


def start(*seeds: int) -> State:
    """The state before the first step, in float64; of seed 0 if none is named."""
    state = initial_state(seeds or (0,), SHAPE)
    return replace(state, z=state.z.double())


def file_names(folder: Path) -> list[str]:
    """All files below a folder, by their paths from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a file."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def second_block(layer: nn.Module) -> nn.ModuleList:
    """The up_blocks of a U-Net that has only this layer, where the first spatial transformer of the second block is."""
    blocks = nn.ModuleList([nn.Module(), nn.Module()])
    blocks[1].attentions = nn.ModuleList([layer])
    return blocks
