"""Figure 2: what the hook records, when, and that it leaves nothing behind."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluation.figures.activations import (
    FIGURE_2,
    Activations,
    load_figure,
    observed_layer,
    record_activations,
    record_variance,
    write_activations,
)
from sampling.generate import method_settings

THREE = ("plain", "mask", "mask-norm")


# ---- The hook ------------------------------------------------------------------------------------------------------


def test_the_variance_of_a_known_module():
    """x -> 2 x on 0, 1, 2, 3: outputs 0, 2, 4, 6 with mean 3 and variance (9 + 1 + 1 + 9) / 4 = 5."""
    double = nn.Linear(1, 1, bias=False)
    nn.init.constant_(double.weight, 2)
    with record_variance(double) as variances:
        double(torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
        double(torch.ones(3, 1))
    assert variances == [5, 0]


def test_half_precision_is_measured_in_double():
    """600 and 0 with mean 300: the variance 90,000 is beyond float16's largest number, 65,504."""
    same = nn.Identity()
    with record_variance(same) as variances:
        same(torch.tensor([600.0, 0.0] * 50, dtype=torch.float16))
    assert variances == [90_000]


def test_the_hook_is_gone_afterwards():
    module = nn.Identity()
    with record_variance(module) as variances:
        assert len(module._forward_hooks) == 1
    module(torch.ones(2))
    assert variances == []
    with pytest.raises(KeyboardInterrupt), record_variance(module):
        raise KeyboardInterrupt
    assert not module._forward_hooks


def test_the_observed_layer_is_the_second_decoder_blocks(pipeline):
    assert observed_layer(pipeline.unet) is pipeline.unet.up_blocks[1].attentions[0]
    del pipeline.unet.up_blocks[1].attentions
    with pytest.raises(ValueError, match="no spatial transformer in its second decoder block"):
        observed_layer(pipeline.unet)
    with pytest.raises(ValueError, match="no spatial transformer in its second decoder block"):
        observed_layer(nn.Module())


# ---- The runs ------------------------------------------------------------------------------------------------------


def test_each_method_has_a_value_for_each_step(pipeline, ball):
    methods = method_settings(pipeline, THREE, {"steps": 6})
    activations = record_activations(pipeline, ball, methods)
    assert list(activations.variance) == list(THREE)
    assert all(len(values) == 6 for values in activations.variance.values())
    assert activations.frozen_steps == 4
    assert not pipeline.unet.up_blocks[1].attentions[0]._forward_hooks

    # In step 1 all see the same noise z; inside the box, a quarter of the cells, the mask leaves z / 2 or 0.9 z.
    seen = []
    layer = pipeline.unet.up_blocks[1].attentions[0]
    handle = layer.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0]))
    record_activations(pipeline, ball, {"plain": methods["plain"]})
    handle.remove()
    z, inside = seen[0].double(), ball.rasterize(4, 6)[0].double()
    for method, factor in (("plain", 1.0), ("mask", 0.5), ("mask-norm", 0.9)):
        expected = (z * (1 - inside * (1 - factor))).var(correction=0).item()
        assert activations.variance[method][0] == pytest.approx(expected, rel=1e-6)
    first = {method: values[0] for method, values in activations.variance.items()}
    assert first["mask"] < first["mask-norm"] < first["plain"]


def test_a_step_is_its_last_call(pipeline, ball):
    """M + 1 calls a step; what DDIM uses comes last, after the refinement."""
    methods = method_settings(pipeline, ["plain", "mask-norm+id"])
    calls = []
    layer = pipeline.unet.up_blocks[1].attentions[0]
    layer.register_forward_hook(lambda _, __, output: calls.append(output.double().var(correction=0).item()))
    activations = record_activations(pipeline, ball, methods)
    plain, refined = calls[:2], calls[2:]
    assert len(refined) == 2 * 3
    assert activations.variance == {"plain": plain, "mask-norm+id": refined[2::3]}
    assert len(set(refined)) == 6


def test_the_difference_from_the_unmasked_run_has_its_sign():
    activations = Activations({"plain": [1.0, 2.0], "mask": [0.25, 2.5], "mask-norm": [1.0, 1.5]}, frozen_steps=1)
    assert activations.difference == {"mask": [-0.75, 0.5], "mask-norm": [0.0, -0.5]}


def test_options_reach_the_runs(pipeline, ball):
    steps = []
    methods = method_settings(pipeline, THREE)
    one = record_activations(pipeline, ball, methods, seed=1, progress=lambda state: steps.append(state.step))
    other = record_activations(pipeline, ball, methods, seed=2)
    assert steps == [1, 2] * 3
    assert one.variance["plain"] != other.variance["plain"]
    with pytest.raises(ValueError, match="held against those of 'plain', which is not among mask"):
        record_activations(pipeline, ball, method_settings(pipeline, ["mask"]))


# ---- The picture ---------------------------------------------------------------------------------------------------

COLORS_RGB = ((44, 160, 44), (31, 119, 180), (255, 127, 14), (214, 39, 40))  # green, blue, orange, red
VARIANCE = dict(zip(FIGURE_2, ([1.0, 2.0, 3.0], [0.5, 2.5, 3.0], [1.0, 1.9, 3.0], [1.2, 2.2, 2.8]), strict=True))
NUMBERS = Activations(VARIANCE, frozen_steps=2)


def test_files(tmp_path):
    write_activations(tmp_path, NUMBERS)
    read = json.loads((tmp_path / "activations.json").read_text())
    assert read == {"variance": NUMBERS.variance, "frozen_steps": 2, "difference": NUMBERS.difference}
    picture = np.asarray(Image.open(tmp_path / "activations.png").convert("RGB")).astype(int)
    assert picture.shape[1] > 2 * picture.shape[0]  # two panels, side by side
    left, right = np.array_split(picture, 2, axis=1)
    counts = [[(np.abs(panel - color).sum(-1) < 30).sum() for color in COLORS_RGB] for panel in (left, right)]
    assert min(counts[0]) > 100  # unmasked, masked, normalized along each axis
    assert min(counts[1]) > 100  # differences, and the line at 0
    assert {path.name for path in tmp_path.iterdir()} == {"activations.json", "activations.png"}


def test_without_matplotlib_one_sentence_tells_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r'needs matplotlib; install it with: pip install -e "\.\[evaluate\]"'):
        load_figure()
    with pytest.raises(ValueError, match="matplotlib"):
        write_activations(tmp_path, NUMBERS)
    assert list(tmp_path.iterdir()) == []
