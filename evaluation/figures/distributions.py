"""Figure 3: the empirical CDFs of A_u, of A_m, and of what Mask Normalization makes of A_m."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptation.trajectory import Trajectory
from evaluation.figures.activations import load_figure, observed_layer
from model.attention import Attention
from sampling.denoise import make_denoise
from sampling.generate import make_plan
from sampling.sampler import initial_state, sample
from sampling.settings import SamplingSettings
from storage import write_bytes
from weights.load import Pipeline

CURVES = {"A_u": "tab:green", "A_m": "tab:blue", "matched": "tab:orange"}  # colours as in the paper's Figure 2
POINTS = 1001  # of a curve


@dataclass(frozen=True, eq=False)
class Matching:
    """What Mask Normalization was given in one attention, and what it made of it; each (G B F, N, C)."""

    A_u: Tensor
    A_m: Tensor
    matched: Tensor


@contextmanager
def watch(attention: Attention) -> Iterator[list[Matching]]:
    """A list that grows by every Mask Normalization in this attention, with the very tensors of the network."""
    matchings: list[Matching] = []

    def hook(_module: Attention, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        normalize = named.get("normalize")
        if normalize is None:
            return None

        def watched(A_m: Tensor, A_u: Tensor) -> Tensor:
            matched = normalize(A_m, A_u)
            matchings.append(Matching(A_u.detach(), A_m.detach(), matched.detach()))
            return matched

        return positional, {**named, "normalize": watched}

    handle = attention.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield matchings
    finally:
        handle.remove()


@torch.no_grad()  # `sample` lifts it where the temporal prior needs a gradient
def record_matching(
    pipeline: Pipeline,
    trajectory: Trajectory,
    settings: SamplingSettings,
    seed: int = 0,
    *,
    prompt: str | None = None,
    negative_prompt: str = "",
    **size: int | None,
) -> dict[str, Matching]:
    """Mask Normalization in the first step of a run, in the layer of Figure 2: "self" and "cross" to its tensors.

    Without an attention that the settings leave unmasked or do not normalize. size: frames, height, width
    """
    plan = make_plan(pipeline, prompt, trajectory, settings, **size)
    text = pipeline.text_encoder.encode([negative_prompt, plan.prompt])
    denoise = make_denoise(pipeline.unet, text, plan.control)
    start = initial_state([seed], plan.shape, next(pipeline.unet.parameters()).device)
    block: Any = observed_layer(pipeline.unet).get_submodule("transformer_blocks.0")
    with watch(block.attn1) as in_self, watch(block.attn2) as in_cross:
        next(sample(denoise, pipeline.schedule, start, plan.settings, plan.boxes))
    return {kind: matchings[0] for kind, matchings in (("self", in_self), ("cross", in_cross)) if matchings}


def cdf(values: Tensor, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """The empirical CDF of all values as a curve: x (points,) and the share of values <= x (points,)."""
    ordered = np.sort(values.double().flatten().cpu().numpy())
    share = np.linspace(1 / len(ordered), 1, points)
    return ordered[np.ceil(share * len(ordered) - 0.5).astype(int).clip(1) - 1], share


def plot_distributions(matchings: Mapping[str, Matching]) -> bytes:
    """Figure 3 as a PNG: for each kind of attention the three CDFs over all its values."""
    figure = load_figure()(figsize=(4.5 * len(matchings), 3.5), layout="constrained")
    panels = figure.subplots(1, len(matchings), squeeze=False)[0]
    for axes, (kind, matching) in zip(panels, matchings.items(), strict=True):
        for name, color in CURVES.items():
            style = "--" if name == "matched" else "-"  # it lies on A_u, which has to be seen below it
            axes.plot(*cdf(getattr(matching, name)), color=color, linestyle=style, label=name)
        low, high = np.percentile(matching.A_u.double().cpu(), (0.1, 99.9))
        axes.set(title=f"{kind}-attention", xlabel="value", ylabel="share of values below", xlim=(low, high))
        axes.legend(frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def write_distributions(folder: Path, matchings: Mapping[str, Matching]) -> None:
    """distributions.png, where there is anything to show."""
    if matchings:
        write_bytes(folder / "distributions.png", plot_distributions(matchings))
