"""Figure 2: what masks do to the variance of activations, and what Mask Normalization makes of it.

The paper says that masks lower the variance. On the tiny checkpoint the sign depends on steps and boxes, so that the
difference from the unmasked run is kept with it.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from adaptation.trajectory import Trajectory
from sampling.generate import generate
from sampling.sampler import State
from sampling.settings import SamplingSettings
from storage import write_bytes
from weights.load import Pipeline

BASELINE = "plain"
FIGURE_2 = ("plain", "mask", "mask-norm[channel]", "mask-norm[joint]")  # the last on both axes
METHOD_COLORS = dict(zip(FIGURE_2, ("tab:green", "tab:blue", "tab:orange", "tab:red"), strict=True))


@dataclass(frozen=True)
class Activations:
    """Variance of the activations in each DDIM step; difference = that minus the unmasked run's."""

    variance: dict[str, list[float]]  # by method
    frozen_steps: int  # how many first steps were masked

    @property
    def difference(self) -> dict[str, list[float]]:
        """Variance minus that of the unmasked run, step by step, for each other method."""
        plain = np.array(self.variance[BASELINE])
        return {m: (np.array(v) - plain).tolist() for m, v in self.variance.items() if m != BASELINE}


@contextmanager
def record_variance(module: nn.Module) -> Iterator[list[float]]:
    """A list that grows by the variance of the module's output, over all its elements, with every forward call."""
    variances: list[float] = []

    def hook(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
        variances.append(output.detach().double().var(correction=0).item())

    handle = module.register_forward_hook(hook)
    try:
        yield variances
    finally:
        handle.remove()


def observed_layer(unet: nn.Module) -> nn.Module:
    """The paper's "transformer layer in the second decoder block": the block's first spatial transformer."""
    try:
        return unet.get_submodule("up_blocks.1.attentions.0")
    except AttributeError:
        raise ValueError("this U-Net has no spatial transformer in its second decoder block to observe") from None


def record_activations(
    pipeline: Pipeline,
    trajectory: Trajectory,
    methods: Mapping[str, SamplingSettings],
    seed: int = 0,
    *,
    prompt: str | None = None,
    progress: Callable[[State], None] | None = None,
    **options: Any,
) -> Activations:
    """Run each method from the same noise and record the layer's variance in each DDIM step's own U-Net call.

    methods: label -> settings, "plain" among them; progress, options: of `sampling.generate.generate`
    """
    if BASELINE not in methods:
        raise ValueError(f"activations are held against those of {BASELINE!r}, which is not among {', '.join(methods)}")
    layer = observed_layer(pipeline.unet)
    variance: dict[str, list[float]] = {label: [] for label in methods}
    for label, settings in methods.items():
        with record_variance(layer) as calls:

            def after_step(state: State, steps: list[float] = variance[label], calls: list[float] = calls) -> None:
                steps.append(calls[-1])  # the call that DDIM uses, after the M calls of the step's refinement
                if progress is not None:
                    progress(state)

            generate(pipeline, prompt, trajectory, settings, seed, progress=after_step, **options)
    return Activations(variance, max(settings.frozen_steps for settings in methods.values()))


def load_figure() -> type:
    """matplotlib's Figure, imported late: only pictures need it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('the plot needs matplotlib; install it with: pip install -e ".[evaluate]"') from None
    return Figure


def plot_activations(activations: Activations) -> bytes:
    """Figure 2 as a PNG over the DDIM steps: (a) variance, (b) its difference from the unmasked run's; masked steps are
    shaded."""
    figure = load_figure()(figsize=(9, 3.5), layout="constrained")
    panels = (("(a) variance", activations.variance), ("(b) variance minus unmasked", activations.difference))
    left, right = figure.subplots(1, 2)
    right.axhline(0, color=METHOD_COLORS[BASELINE])
    for axes, (title, curves) in zip((left, right), panels, strict=True):
        axes.axvspan(0.5, activations.frozen_steps + 0.5, color="0.92", label="masked steps")
        for label, values in curves.items():
            axes.plot(range(1, len(values) + 1), values, marker=".", color=METHOD_COLORS.get(label), label=label)
        axes.set(title=title, xlabel="DDIM step")
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def write_activations(folder: Path, activations: Activations) -> None:
    """activations.png and, with the numbers that it shows, activations.json."""
    picture = plot_activations(activations)
    numbers = {**asdict(activations), "difference": activations.difference}
    write_bytes(folder / "activations.json", (json.dumps(numbers, indent=2, allow_nan=False) + "\n").encode())
    write_bytes(folder / "activations.png", picture)
