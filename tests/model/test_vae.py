import json

import pytest
import torch

from model.config import VAEConfig
from model.vae import AutoencoderKL
from tests.helpers import normal, read_safetensors


@pytest.fixture(scope="module")
def reference(fixtures):
    metadata, tensors = read_safetensors(fixtures / "diffusers_vae.safetensors")
    return VAEConfig.from_dict(json.loads(metadata["config"])), tensors


@pytest.fixture(scope="module")
def vae(reference, formula_weights):
    return formula_weights(AutoencoderKL(reference[0]))


@pytest.mark.parametrize("size", ["5x9", "7x6", "10x18"])
def test_decode_equals_the_reference(vae, reference, relative_l2, size):
    latent, image = reference[1][f"{size}.latent"], reference[1][f"{size}.image"]
    ours = vae.decode(latent[:, :, None])[:, :, 0]
    assert relative_l2(ours, image) <= 2e-5


def test_encode_equals_the_reference(vae, reference, relative_l2):
    mean, logvar = vae.posterior(reference[1]["encode.image"][:, :, None])
    assert relative_l2(mean[:, :, 0], reference[1]["encode.mean"]) <= 2e-5
    assert relative_l2(logvar[:, :, 0], reference[1]["encode.logvar"]) <= 2e-5


def test_encode_scales_the_mean(vae, reference):
    pixels = reference[1]["encode.image"][:, :, None]
    assert torch.equal(vae.encode(pixels), vae.posterior(pixels)[0] * vae.config.scaling_factor)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_chunks_do_not_change_the_result(reference, formula_weights, chunk):
    """In float64, where no kernel's order of summation shows."""
    vae = formula_weights(AutoencoderKL(reference[0])).double()
    latents = normal(2, 4, 5, 3, 4)
    torch.testing.assert_close(vae.decode(latents, chunk), vae.decode(latents, 10), rtol=0, atol=1e-12)
    pixels = vae.decode(latents, 4).clamp(-1, 1)
    torch.testing.assert_close(vae.encode(pixels, chunk), vae.encode(pixels, 10), rtol=0, atol=1e-12)


def test_zeroscope_size():
    with torch.device("meta"):
        parameters = list(AutoencoderKL(VAEConfig()).parameters())
    assert (sum(p.numel() for p in parameters), len(parameters)) == (83_653_863, 248)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(reference, formula_weights, relative_l2, dtype):
    vae = formula_weights(AutoencoderKL(reference[0])).to(dtype)
    ours = vae.decode(reference[1]["5x9.latent"][:, :, None].to(dtype))[:, :, 0]
    assert ours.dtype == dtype
    # Rounding to 11, 8 and 53 bits of mantissa, grown over some fifty layers.
    assert relative_l2(ours, reference[1]["5x9.image"]) < {torch.float16: 5e-3, torch.bfloat16: 5e-2}.get(dtype, 2e-5)


def test_wrong_shapes_are_refused(vae):
    with pytest.raises(ValueError, match="multiples of 8"):
        vae.encode(torch.zeros(1, 3, 1, 20, 16))
    with pytest.raises(ValueError, match=r"expected \(B, 4, F, H, W\)"):
        vae.decode(torch.zeros(1, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="at least 1"):
        vae.decode(torch.zeros(1, 4, 1, 4, 4), frames_per_chunk=0)
