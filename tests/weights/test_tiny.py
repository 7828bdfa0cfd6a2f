"""The shipped checkpoint: complete, small, described truly, and the same program under diffusers as under ours."""

import hashlib
import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import weights
from evaluation.benchmarks.items import make_items
from evaluation.figures.activations import observed_layer, record_variance
from sampling.denoise import make_denoise
from sampling.generate import generate, make_plan, to_uint8
from sampling.sampler import State, Streams, initial_state, sample
from sampling.settings import SamplingSettings, preset
from tests.helpers import read_safetensors
from weights.load import load_pipeline
from weights.train_tiny.detect import detect

TINY = Path(weights.__file__).parent / "tiny"


@pytest.fixture(scope="module")
def tiny():
    return load_pipeline("tiny")


def test_it_is_small():
    assert sum(p.stat().st_size for p in TINY.rglob("*") if p.suffix != ".png") <= 10_000_000


def test_the_readme_names_the_files_as_they_are():
    hashes = dict(re.findall(r"`([\w/]+\.safetensors)` \| `([0-9a-f]{64})`", (TINY / "README.md").read_text()))
    files = {str(p.relative_to(TINY)): hashlib.sha256(p.read_bytes()).hexdigest() for p in TINY.rglob("*.safetensors")}
    assert hashes == files


def test_weights_are_float16():
    for path in TINY.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            dtypes = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        assert dtypes == {"F16"}, path


def test_equals_diffusers(tiny, fixtures, relative_l2):
    """diffusers' TextToVideoSDPipeline loaded this folder unchanged; same latents in, same latents and frames out."""
    metadata, tensors = read_safetensors(fixtures / "diffusers_tiny.safetensors")
    about = json.loads(metadata["about"])
    start, end, frames = (tensors[k] for k in ("start", "end", "frames"))
    settings = preset("plain", SamplingSettings(steps=about["steps"], guidance_scale=about["guidance_scale"]))
    text = tiny.text_encoder.encode(["", about["prompt"]])
    first = State(0, start, Streams((0,)))
    *_, last = sample(lambda z, t, frozen: tiny.unet(z, t, text).chunk(2), tiny.schedule, first, settings)
    assert relative_l2(last.z, end) <= 2e-5
    ours = to_uint8(tiny.vae.decode(end)).astype(int)
    assert np.abs(ours - frames.numpy().astype(int)).max() <= 1  # a value on the border between two of 256 levels


def test_it_draws_what_the_prompt_says(tiny):
    """Not a measure of quality, which `weights/tiny/README.md` reports: one video, one seed, plain sampling."""
    frames = generate(tiny, "a red ball moving over the grass", seed=0).frames
    seen = detect(frames, "red")
    assert sum(d.box is not None for d in seen) >= 6
    assert sum(d.background == "grass" for d in seen) >= 6


def test_vae_rebuilds_the_world(tiny):
    from weights.train_tiny.vae import measure

    figures = measure(tiny.vae, frames=64)
    assert figures["psnr"] >= 25  # what was reached is in weights/tiny/README.md; a broken decoder is far below
    assert figures["latent_std"] * tiny.vae.config.scaling_factor == pytest.approx(1, abs=0.1)


def test_seeds_differ_and_repeat(tiny):
    two_steps = preset("plain", SamplingSettings(steps=2, guidance_scale=2.0))
    one, same, other = (generate(tiny, "a red ball", settings=two_steps, seed=seed).latents for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_no_token_knows_another(tiny):
    """What stands behind a word and what pads the prompt know nothing of the word: only a mask can take it away."""
    ball, cross = tiny.text_encoder.encode(["a red ball over the grass", "a red cross over the grass"])
    changed = tiny.text_encoder.subject_tokens("a red ball over the grass", "ball")
    assert torch.equal(ball[~changed], cross[~changed])
    assert not torch.allclose(ball[changed], cross[changed])


def test_mask_normalization_keeps_the_variance_near_the_unmasked_runs(tiny):
    """In the second decoder block's transformer, in the paper's setting (decoder, 4 frozen steps, guidance 9): mean
    distance over those steps and 2 tracks. Not the sign, which on tiny is not the paper's: see docs/results.md."""
    base, steps = SamplingSettings(steps=25), 4
    mask_norm = preset("mask-norm", base)
    methods = {"plain": preset("plain", base), "mask": preset("mask", base)}
    methods |= {axis: replace(mask_norm, axis=axis) for axis in ("channel", "joint")}
    distances = dict.fromkeys(methods, 0.0)
    for item in make_items("keyframes", "tiny", 1, tiny.defaults.frames, first=1000):
        variance = {}
        for method, settings in methods.items():
            plan = make_plan(tiny, None, item.trajectory, settings)
            denoise = make_denoise(tiny.unet, tiny.text_encoder.encode(["", plan.prompt]), plan.control)
            start = initial_state([item.seed], plan.shape)
            with record_variance(observed_layer(tiny.unet)) as variance[method]:
                list(islice(sample(denoise, tiny.schedule, start, plan.settings, plan.boxes), steps))
        for method in methods:
            distances[method] += float(np.abs(np.subtract(variance[method], variance["plain"])).mean()) / 2
    assert distances["channel"] < distances["mask"] / 1.5
    assert distances["joint"] < distances["mask"] / 1.5
