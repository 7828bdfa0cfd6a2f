"""What a checkpoint recommends, and the fingerprint of its weights."""

import hashlib

import pytest

from weights.load import Defaults, fingerprint, load_pipeline


def test_without_recommendations_zeroscopes(checkpoint):
    assert load_pipeline(checkpoint.folder).defaults == Defaults(24, 320, 576, 8, None, {})


def test_recommendations(checkpoint):
    settings = {"steps": 25, "guidance_scale": 3.0, "c_g": 30.0, "where": ["decoder", "mid"]}
    checkpoint.change("train_free.json", frames=8, height=96, width=128, fps=6, prompt="a red ball", settings=settings)
    assert load_pipeline(checkpoint.folder).defaults == Defaults(8, 96, 128, 6, "a red ball", settings)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"frame": 8}, "the file has the unknown key 'frame'; known are frames, height"),
        ({"settings": {"cg": 1}}, "settings has the unknown key 'cg'"),
        ({"settings": {"gamma": 2}}, "gamma must be a number from 0 to 1, got 2"),
        ({"settings": {"steps": 600}}, "600 steps cannot be spaced evenly"),
        ({"settings": [1]}, "settings must be an object"),
        ({"frames": 0}, "frames must be a whole number from 1 to 10000, got 0"),
        ({"frames": 10**9}, "frames must be a whole number from 1 to 10000, got 1000000000"),
        ({"frames": True}, "frames must be a whole number"),
        ({"width": 128.0}, "width must be a whole number"),
        ({"height": 97}, "height must be a multiple of the VAE's 2, got 97"),
        ({"width": 3}, "width must be a multiple of the VAE's 2, got 3"),
        ({"fps": 0}, "fps must be a number above 0"),
        ({"fps": float("nan")}, "fps must be a number above 0"),
        ({"prompt": " "}, "prompt must be text or null"),
        ({"prompt": 3}, "prompt must be text or null"),
        ({"prompt": "a \ud800"}, "prompt holds half a character"),
        ({"prompt": "x" * 50_001}, "prompt has 50001 characters"),
    ],
)
def test_recommendations_that_cannot_be_used(checkpoint, refusal, values, fault):
    checkpoint.change("train_free.json", **values)
    said = refusal(load_pipeline, checkpoint.folder)
    assert said.startswith(f"{checkpoint.folder / 'train_free.json'}: {fault}")


def test_the_fingerprint_is_sha256sum_of_sha256sums(checkpoint):
    pipeline = load_pipeline(checkpoint.folder)
    # As `sha256sum NAMES... | sha256sum` prints it
    lines = [
        f"{hashlib.sha256((checkpoint.folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        )
    ]
    assert pipeline.fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert pipeline.fingerprint == fingerprint(checkpoint.folder, reversed(pipeline.weights))


def test_the_fingerprint_tells_weights_apart(checkpoint):
    before = load_pipeline(checkpoint.folder).fingerprint
    checkpoint.change("train_free.json", frames=8)
    assert load_pipeline(checkpoint.folder).fingerprint == before
    tensors = checkpoint.tensors("unet")
    tensors["conv_in.bias"][0] += 1
    checkpoint.store("unet", tensors)
    assert load_pipeline(checkpoint.folder).fingerprint != before
