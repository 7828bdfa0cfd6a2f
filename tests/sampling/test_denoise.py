"""The guidance halves in one call or apart: equal numbers and gradients, and what is kept for the backward pass."""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adaptation.attention_masks import AttentionControl
from adaptation.trailblazer import TrailBlazerControl
from adaptation.trajectory import Trajectory
from sampling import generate as generate_module
from sampling.denoise import make_denoise, off_device
from sampling.generate import generate
from sampling.sampler import gradients
from sampling.settings import SamplingSettings
from tests.helpers import normal, strength

BOXES = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.7, 0.7], [0.5, 0.5, 1.0, 1.0]]])
BALL = Trajectory(BOXES, ["ball"], "a ball")
TOKENS = torch.tensor([[False, True, False, False]])
ALPHA_BAR = torch.tensor(0.3, dtype=torch.float64)
TWO = SamplingSettings(steps=2, frozen_steps=1, iterations=1, c_g=strength(50.0, 4, 3, 6, 8))


@pytest.fixture
def unet(networks):
    return copy.deepcopy(networks[0])


@pytest.fixture
def latents():
    return normal(1, 4, 3, 6, 8, seed=1)


@pytest.fixture
def text():
    return normal(2, 4, 16, seed=2)


CONTROLS = {
    "none": lambda: None,
    "masks": lambda: AttentionControl(Trajectory(BOXES, ["ball"], "").rasterize(6, 8), TOKENS, normalize=True),
    "edit": lambda: TrailBlazerControl(BOXES, TOKENS, strengthen=0.1, weaken=0.01),
}


# ---- Equal results -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_halves_apart_equal_the_guidance_batch(unet, latents, text, control, dtype, tolerance):
    unet.to(dtype)
    made = CONTROLS[control]()
    with torch.no_grad():
        together, apart = (
            make_denoise(unet, text, made, sequential=sequential)(latents.to(dtype), 500, True)
            for sequential in (False, True)
        )
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    assert (together[0] - together[1]).abs().max() > 100 * tolerance  # the halves are not the same


@pytest.mark.parametrize(("how", "calls"), [({}, [6]), ({"sequential": True}, [3, 3])])
def test_each_of_three_videos_has_its_own_halves(how, calls):
    """A network that answers with its text: that of [uncond, text] is 0 1 2 for the one half, 3 4 5 for the other."""
    seen = []

    def unet(z, t, text, control):
        seen.append(len(text))
        return text[:, :, :1, None, None].expand(-1, *z.shape[1:])

    text, z = torch.arange(6.0, dtype=torch.float64).reshape(6, 1, 1), normal(3, 1, 2, 2, 2)
    denoise = make_denoise(unet, text, None, **how)
    for halves in (denoise(z, 500, True), denoise.differentiable(z, 500, True, "text-half")):
        assert [eps.shape for eps in halves] == [z.shape, z.shape]
        assert [eps[:, 0, 0, 0, 0].tolist() for eps in halves] == [[0, 1, 2], [3, 4, 5]]
    assert seen == [*calls, 3, 3]


def test_a_control_acts_in_frozen_steps_alone(unet, latents, text):
    unet.double()
    plain, masked = (make_denoise(unet, text, CONTROLS[name](), sequential=True) for name in ("none", "masks"))
    with torch.no_grad():
        assert torch.equal(masked(latents, 500, False)[1], plain(latents, 500, False)[1])
        assert not torch.equal(masked(latents, 500, True)[1], plain(latents, 500, True)[1])


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("control", ["none", "masks"])
@pytest.mark.parametrize("prior_gradient", ["unet", "text-half", "tweedie"])
def test_gradients_are_those_of_the_guidance_batch(unet, latents, text, control, prior_gradient, checkpointed):
    unet.double().checkpoint_activations = checkpointed
    settings, made = SamplingSettings(prior_gradient=prior_gradient), CONTROLS[control]()

    def plain(z, t, frozen):  # one call, differentiated as a whole
        return unet(z, t, text, made if frozen else None).chunk(2)

    def both(**how):
        return gradients(make_denoise(unet, text, made, **how), latents, 500, True, ALPHA_BAR, settings, BOXES)

    expected = gradients(plain, latents, 500, True, ALPHA_BAR, settings, BOXES)
    for sequential in (False, True):
        for one, other in zip(both(sequential=sequential), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert expected[0].abs().max() > 1e-5


# ---- What is kept, and what is run ---------------------------------------------------------------------------------


@contextmanager
def kept_bytes(kept):
    """Records {address: bytes} of every storage that autograd keeps; the packed tensors stay as they are."""

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield


def kept_by(unet, predict, z):
    """Bytes that autograd keeps beside the weights after predict(z)."""
    kept = {}
    with kept_bytes(kept):
        outputs = predict(z.clone().requires_grad_())  # alive, so that no address is used twice
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    del outputs
    return sum(size for address, size in kept.items() if address not in weights)


def test_each_way_keeps_what_it_needs(unet, latents, text):
    """One half alone keeps less than the batch of two, and more than half of it: both share the layers before text."""
    unet.double()
    together, apart = (make_denoise(unet, text, None, sequential=sequential) for sequential in (False, True))
    batch = kept_by(unet, lambda z: together.differentiable(z, 500, False, "unet"), latents)
    half = kept_by(unet, lambda z: unet(z, 500, text[1:]), latents)
    conditional = kept_by(unet, lambda z: together.differentiable(z, 500, False, "text-half"), latents)
    sequential = kept_by(unet, lambda z: apart.differentiable(z, 500, False, "unet"), latents)
    assert batch / 2 < half < 0.7 * batch
    assert conditional == half
    assert half <= sequential < 1.02 * half  # beside the second half, what the first is computed again from
    assert kept_by(unet, lambda z: together(z, 500, False), latents) == 0  # no gradient is wanted


@pytest.mark.parametrize(
    ("prior_gradient", "sequential", "halves"),
    [
        ("unet", False, [(2, True)]),
        ("text-half", False, [(1, False), (1, True)]),
        ("tweedie", False, [(2, False)]),
        ("unet", True, [(1, True), (1, True), (1, True)]),  # the first again, in the backward pass
        ("text-half", True, [(1, False), (1, True)]),
        ("tweedie", True, [(1, False), (1, False)]),
    ],
)
def test_which_halves_are_run_and_differentiated(unet, latents, text, prior_gradient, sequential, halves):
    calls = []
    unet.double().register_forward_pre_hook(lambda _, args: calls.append((len(args[2]), torch.is_grad_enabled())))
    denoise = make_denoise(unet, text, None, sequential=sequential)
    settings = SamplingSettings(prior_gradient=prior_gradient)
    with torch.no_grad():
        gradients(denoise, latents, 500, False, ALPHA_BAR, settings, BOXES)
    assert calls == halves


def test_linear_layers_keep_nothing_for_their_weights(unet, latents, text):
    """Without a gradient of its own a linear layer needs its weight alone: its inputs are not kept on its account.

    With requires_grad on the weights, each input is kept too, so that there is more.
    """
    unet.double()
    frozen = kept_by(unet, lambda z: unet(z, 500, text), latents)
    assert frozen < 0.8 * kept_by(unet.requires_grad_(), lambda z: unet(z, 500, text), latents)
    layer, x, kept = nn.Linear(3, 5).requires_grad_(False), torch.randn(2, 3, requires_grad=True), {}
    with kept_bytes(kept):
        layer(x)
    assert set(kept) == {layer.weight.untyped_storage().data_ptr()}


# ---- Off the device ------------------------------------------------------------------------------------------------


class Part:
    def __init__(self):
        self.places = []

    def to(self, device):
        self.places.append(str(device))


def test_parts_leave_the_device_and_come_back_whatever_happens():
    parts = Part(), Part()
    with pytest.raises(RuntimeError, match="out of memory"), off_device(parts, torch.device("cuda", 1)):
        assert [part.places for part in parts] == [["cpu"], ["cpu"]]
        raise RuntimeError("out of memory")
    assert [part.places for part in parts] == [["cpu", "cuda:1"]] * 2


def test_on_a_cpu_nothing_is_moved_and_that_is_said():
    part = Part()
    with pytest.warns(UserWarning, match="offload moves nothing"), off_device([part], torch.device("cpu")):
        pass
    assert part.places == []


@pytest.fixture
def pipeline(unet, networks, schedule, text):
    encoder = SimpleNamespace(
        model=nn.Linear(1, 1), encode=lambda prompts: text.float(), subject_tokens=lambda *_: TOKENS[0]
    )
    defaults = SimpleNamespace(frames=3, height=48, width=64, prompt="a ball", settings={})
    vae = copy.deepcopy(networks[1])
    return SimpleNamespace(unet=unet, vae=vae, text_encoder=encoder, schedule=schedule, defaults=defaults)


def test_generate_encodes_before_and_decodes_after_the_parts_are_away(pipeline, text, monkeypatch):
    events = []

    @contextmanager
    def record(parts, device):
        assert parts == [pipeline.vae, pipeline.text_encoder.model]
        events.append("away")
        yield
        events.append("back")

    monkeypatch.setattr(generate_module, "off_device", record)
    pipeline.text_encoder.encode = lambda prompts: events.append("encode") or text.float()
    pipeline.unet.register_forward_pre_hook(lambda *_: events.append("U-Net") if events[-1] != "U-Net" else None)
    pipeline.vae.decoder.register_forward_pre_hook(lambda *_: events.append("decode"))
    generate(pipeline, None, BALL, TWO, offload=True)
    assert events == ["encode", "away", "U-Net", "back", "decode"]


def test_generate_the_same_video_one_half_after_the_other(pipeline):
    pipeline.unet.double()  # Mask Normalization sorts: rounding that swaps two values would show
    sizes = []
    pipeline.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[2])))
    together = generate(pipeline, None, BALL, TWO)
    assert set(sizes) == {2}
    sizes.clear()
    apart = generate(pipeline, None, BALL, TWO, sequential_guidance=True)
    assert set(sizes) == {1}
    torch.testing.assert_close(apart.latents, together.latents, rtol=0, atol=1e-5)
    with pytest.warns(UserWarning, match="offload moves nothing"):
        here = generate(pipeline, None, BALL, TWO, offload=True)
    assert torch.equal(here.latents, together.latents)
