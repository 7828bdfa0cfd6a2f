"""`without_effect` against videos: a setting that it names changes no bit of one, and any other setting does."""

import zlib
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange
from torch import nn

from adaptation.mask_normalization import axis_dims, match_distribution
from adaptation.trailblazer import TrailBlazerControl
from adaptation.trajectory import Trajectory
from sampling.generate import generate
from sampling.settings import SamplingSettings, without_effect
from tests.helpers import strength

PROMPT = "a red ball and a red box"
BOXES = torch.tensor([[[0.0, 0.1, 0.5, 0.5], [0.45, 0.3, 1.0, 1.0]]])
BALL = Trajectory(BOXES, ["red ball"], PROMPT)
BASE = SamplingSettings(
    steps=2,
    guidance_scale=3.0,
    eta=0.5,
    frozen_steps=1,
    where=("decoder", "mid"),
    iterations=1,
    c_g=strength(50.0, 4, 2, 5, 7),
    gamma=0.2,
)
OTHER = {  # another value for every setting, unlike BASE's and those of CASES
    "steps": 3,
    "guidance_scale": 2.0,
    "eta": 0.25,
    "steer": {"masks": "edit", "edit": "masks"},
    "frozen_steps": 2,
    "where": ("encoder",),
    "attention": {("self", "cross"): ("self",), ("self",): ("self", "cross"), ("cross",): ("self", "cross")},
    "grid": "cover",
    "subject_words": "ids",
    "start_token": "background",
    "mask_normalization": {True: False, False: True},
    "normalize_in": {("self", "cross"): ("self",), ("self",): ("self", "cross"), ("cross",): ("self", "cross")},
    "axis": "joint",
    "matching_gradient": "exact",
    "iterations": 2,
    "c_g": strength(20.0, 4, 2, 5, 7),
    "gamma": 0.1,
    "refine_steps": {None: 1, 0: 1},
    "prior_gradient": "text-half",
    "unit_gradient": True,
    "strengthen": 0.5,
    "weaken": 0.5,
    "trailing": 0,
}
CASES = {
    "everything": {},
    "no frozen step": {"frozen_steps": 0},
    "edit": {"steer": "edit"},
    "no normalization": {"mask_normalization": False},
    "none that is masked is normalized": {"attention": ("self",), "normalize_in": ("cross",)},
    "M = 0": {"iterations": 0},
    "no step refined": {"refine_steps": 0},
    "gamma = 0": {"gamma": 0.0},
    "c_g = 0": {"c_g": 0.0},
    "tweedie": {"prior_gradient": "tweedie"},
}


class Words:
    """Start, 7 words, end; 10 tokens in all."""

    model = None

    def encode(self, prompts):
        return torch.stack([torch.stack([self.embed(word) for word in self.split(p)]) for p in prompts])

    def split(self, prompt):
        return ["<start>", *prompt.split(), *["<end>"] * 10][:10]

    def embed(self, word):
        return torch.randn(4, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())), dtype=torch.float64)

    def subject_tokens(self, prompt, subject):
        return torch.tensor([i in (2, 3) for i in range(10)])

    def tokens_alike(self, prompt, subject):
        return torch.tensor([word in subject.split() for word in self.split(prompt)])


class Attentions(nn.Module):
    """Self- and cross-attention in each kind of block, on the whole grid and on every second cell, without weights."""

    config = SimpleNamespace(in_channels=4)

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False)

    def forward(self, z, t, text, control=None):
        eps = []
        for words in text:  # one guidance half after the other
            x = self.scale * z[0].double()
            for where, stride in (("encoder", 1), ("mid", 2), ("decoder", 1)):
                coarse = x[..., ::stride, ::stride]
                h, w = coarse.shape[-2:]
                q = rearrange(coarse, "c f h w -> f (h w) c")
                for kind, k in (("self", q), ("cross", words.expand(len(q), -1, -1))):
                    q = q + self.attend(q, k, control, where, kind, h, w)
                x = x.clone()
                x[..., ::stride, ::stride] = rearrange(q, "f (h w) c -> c f h w", h=h)
            eps.append(x)
        return torch.stack(eps)

    def attend(self, q, k, control, where, kind, h, w):
        logits = q @ k.mT
        unmasked = logits.softmax(-1) @ k
        if control is None or not control.applies(where, kind):
            return unmasked
        if isinstance(control, TrailBlazerControl):  # over (video, head, frame, cell, token)
            return control.edit(h, w)(logits.softmax(-1)[None, None])[0, 0] @ k
        closed = ~control.mask(kind, h, w).dense()
        masked = logits.masked_fill(closed, -torch.inf).softmax(-1) @ k
        if not control.normalizes(kind):
            return masked
        return match_distribution(masked, unmasked, axis_dims(control.axis), control.gradient)


@pytest.fixture(scope="module")
def video():
    """video(schedule, settings): the bytes of its latents, each made once."""
    unet, made = Attentions(), {}
    vae = SimpleNamespace(config=SimpleNamespace(downscale=1), decode=lambda z, _: z[:, :3].tanh())
    defaults = SimpleNamespace(frames=2, height=5, width=7, prompt=PROMPT, settings={})

    def make(schedule, settings):
        if settings not in made:
            parts = {"unet": unet, "vae": vae, "text_encoder": Words(), "schedule": schedule, "defaults": defaults}
            made[settings] = generate(SimpleNamespace(**parts), None, BALL, settings).latents.numpy().tobytes()
        return made[settings]

    return make


def changed(settings, name):
    other = OTHER[name]
    return replace(settings, **{name: other[getattr(settings, name)] if isinstance(other, dict) else other})


@pytest.mark.parametrize("case", CASES)
def test_what_is_named_changes_nothing_and_the_rest_does(video, schedule, case):
    settings = replace(BASE, **CASES[case])
    same = {
        field.name
        for field in fields(SamplingSettings)
        if video(schedule, changed(settings, field.name)) == video(schedule, settings)
    }
    assert same == without_effect(settings)


def test_one_frozen_step_and_one_refined_one_are_enough():
    assert "steer" not in without_effect(SamplingSettings(frozen_steps=1))
    assert "steer" in without_effect(SamplingSettings(frozen_steps=0))
    once = SamplingSettings(iterations=1, refine_steps=1, gamma=0.1, c_g=1.0)
    assert not {"gamma", "c_g", "prior_gradient"} & without_effect(once)
    assert {"gamma", "c_g"} <= without_effect(SamplingSettings(iterations=0, gamma=0.1, c_g=1.0))
