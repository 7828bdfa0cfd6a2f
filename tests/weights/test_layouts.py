"""Checkpoints of Zeroscope's form, laid out as they are on the hub, with small random weights: which files are read of
each, and what size suits it."""

import io

import pytest
import torch
from safetensors.torch import load_file, save

from weights.hub import NAMES
from weights.load import Defaults, load_pipeline, recommended_defaults

PULL_REQUEST = "1f35e3dc3350d649f342bb7618fe34ac8fae5c9e"
STEMS = {
    "unet": ("unet/diffusion_pytorch_model", "unet/diffusion_pytorch_model"),
    "vae": ("vae/diffusion_pytorch_model", "vae/diffusion_pytorch_model"),
    "text_encoder": ("text_encoder/model", "text_encoder/pytorch_model"),
}
# Keys of the 2023 files that say nothing about the networks, with the values that they have there
UNET_NOTES = {
    "_diffusers_version": "0.17.0.dev0",
    "_name_or_path": "./models/model_scope_diffusers/",
    "sample_size": 32,
}
VAE_NOTES = {
    "_diffusers_version": "0.17.0.dev0",
    "_name_or_path": "./models/model_scope_diffusers/",
    "sample_size": 512,
}
SCHEDULER_NOTES = {"clip_sample_range": 1.0, "thresholding": False, "skip_prk_steps": True}
SCHEDULER_NOTES |= {"dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "trained_betas": None}


@pytest.fixture
def weights(pristine) -> dict[str, dict[str, torch.Tensor]]:
    """The networks' tensors in float16, by part."""
    return {part: load_file(pristine / f"{stem}.safetensors") for part, (stem, _) in STEMS.items()}


@pytest.fixture
def settings(checkpoint) -> dict[str, bytes]:
    """Configs and vocabulary, with the keys that such files have beside those that count."""
    checkpoint.change("unet/config.json", **UNET_NOTES)
    checkpoint.change("vae/config.json", **VAE_NOTES)
    checkpoint.change("scheduler/scheduler_config.json", **SCHEDULER_NOTES)
    checkpoint.change("text_encoder/config.json", transformers_version="4.27.4", initializer_range=0.02, dropout=0.0)
    files = (path for path in checkpoint.folder.rglob("*") if path.is_file() and path.suffix != ".safetensors")
    return {path.relative_to(checkpoint.folder).as_posix(): path.read_bytes() for path in files}


def safetensors(weights, variant="", dtype=torch.float16) -> dict[str, bytes]:
    cast = {part: {name: x.to(dtype) for name, x in tensors.items()} for part, tensors in weights.items()}
    return {f"{STEMS[part][0]}{variant}.safetensors": save(tensors, {"format": "pt"}) for part, tensors in cast.items()}


def pickles(weights, variant="", dtype=torch.float16) -> dict[str, bytes]:
    """With the buffer that the text encoder's pickle of 2023 holds."""
    files = {}
    for part, tensors in weights.items():
        cast = {name: x.to(dtype) for name, x in tensors.items()}
        if part == "text_encoder":
            cast["text_model.embeddings.position_ids"] = torch.arange(16)[None]
        torch.save(cast, file := io.BytesIO())
        files[f"{STEMS[part][1]}{variant}.bin"] = file.getvalue()
    return files


def louder(weights) -> dict[str, dict[str, torch.Tensor]]:
    """Others than the true ones, to be told apart from them."""
    return {part: {name: 2 * x for name, x in tensors.items()} for part, tensors in weights.items()}


def same(pipeline, weights) -> bool:
    bias, dtype = pipeline.unet.conv_in.bias, pipeline.unet.conv_in.bias.dtype
    return torch.equal(bias, weights["unet"]["conv_in.bias"].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zeroscope(hub, settings, weights, dtype):
    """Pickles on its main branch, the same weights as safetensors in a pull request, another program's files beside."""
    repo = "cerspense/zeroscope_v2_576w"
    main = settings | pickles(louder(weights)) | {"zs2_576w/text2video_pytorch_model.pth": b"x", "README.md": b"y"}
    hub.put(repo, main)
    hub.put(repo, main | safetensors(weights), "refs/pr/46", PULL_REQUEST)
    pipeline = load_pipeline("zeroscope", dtype=dtype)
    assert same(pipeline, weights)
    assert pipeline.defaults == Defaults(24, 320, 576)
    assert not any(name.endswith((".bin", ".pth")) for name in hub.fetched())
    assert same(load_pipeline(f"{repo}@refs/pr/46", dtype=dtype), weights)
    with pytest.warns(UserWarning, match=r"holds pickled weights \(.bin\)"):
        assert same(load_pipeline(repo, dtype=dtype), louder(weights))


@pytest.mark.parametrize(
    ("name", "others", "size"),
    [
        ("zeroscope-xl", "zs2_XL", Defaults(24, 576, 1024)),
        ("zeroscope-448x256", "zs2_30x448x256", Defaults(30, 256, 448)),
    ],
)
def test_zeroscope_s_sisters(hub, settings, weights, name, others, size):
    """Pickles alone, in float16, and another program's files beside."""
    files = (
        settings | pickles(weights) | {f"{others}/{file}": b"x" for file in ("open_clip_pytorch_model.bin", "a.pth")}
    )
    hub.put(NAMES[name], files)
    with pytest.warns(UserWarning, match=r"holds pickled weights \(.bin\)"):
        pipeline = load_pipeline(name, dtype=torch.float16)
    assert same(pipeline, weights) and pipeline.defaults == size
    assert not any(others in file for file in hub.fetched())


@pytest.mark.parametrize("name", ["modelscope", "ali-vilab/text-to-video-ms-1.7b@main"])
def test_modelscope(hub, settings, weights, name):
    """All four forms of each network: the half-precision variant is read for float16, the whole one otherwise, and
    never a pickle."""
    files = safetensors(louder(weights), dtype=torch.float32) | safetensors(weights, ".fp16")
    files |= pickles(louder(weights), dtype=torch.float32) | pickles(weights, ".fp16")
    hub.put("ali-vilab/text-to-video-ms-1.7b", settings | files)
    half = load_pipeline(name, dtype=torch.float16)
    assert same(half, weights) and half.defaults == Defaults(16, 256, 256)
    assert sorted(n for n in hub.fetched() if n.endswith((".safetensors", ".bin"))) == sorted(half.weights)
    assert all(name.endswith(".fp16.safetensors") for name in half.weights)
    hub.asked.clear()
    assert same(load_pipeline(name), louder(weights))
    assert not any("fp16" in name or name.endswith(".bin") for name in hub.fetched())
    hub.asked.clear()
    assert same(load_pipeline(name, dtype=torch.float16), weights) and hub.asked == []


def test_the_size_is_known_by_name_before_anything_is_fetched(hub):
    assert {name: recommended_defaults(name) for name in NAMES} == {
        "zeroscope": Defaults(24, 320, 576),
        "zeroscope-448x256": Defaults(30, 256, 448),
        "zeroscope-xl": Defaults(24, 576, 1024),
        "modelscope": Defaults(16, 256, 256),
    }
    assert recommended_defaults("damo-vilab/text-to-video-ms-1.7b@v1") == Defaults(16, 256, 256)
    assert hub.asked == []


def test_what_the_repository_itself_recommends_comes_first(hub, settings, weights):
    files = settings | safetensors(weights) | {"train_free.json": b'{"frames": 8, "height": 96, "width": 128}'}
    hub.put(NAMES["modelscope"], files)
    assert load_pipeline("modelscope").defaults == Defaults(8, 96, 128)


def test_a_folder_of_that_name_is_a_folder(checkpoint, monkeypatch, tmp_path):
    (tmp_path / "ali-vilab").mkdir()
    checkpoint.folder.rename(tmp_path / "ali-vilab" / "text-to-video-ms-1.7b")
    monkeypatch.chdir(tmp_path)
    assert load_pipeline("ali-vilab/text-to-video-ms-1.7b").defaults == Defaults()
