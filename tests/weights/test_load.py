import dataclasses
import json
import socket

import pytest
import torch

from sampling.schedule import NoiseSchedule
from weights.load import Pipeline, load_pipeline


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a folder on this machine needs no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def parameters(pipeline):
    for network in (pipeline.unet, pipeline.vae, pipeline.text_encoder.model):
        yield from network.parameters()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


# What is loaded


def test_every_tensor_is_in_its_place(checkpoint):
    pipeline = load_pipeline(checkpoint.folder)
    for part, network in (("unet", pipeline.unet), ("vae", pipeline.vae)):
        stored = checkpoint.tensors(part)
        state = network.state_dict()
        assert state.keys() == stored.keys()
        assert all(torch.equal(state[name], stored[name].float()) for name in stored)
    assert isinstance(pipeline.schedule, NoiseSchedule) and pipeline.schedule.steps_offset == 1
    assert pipeline.name == str(checkpoint.folder)


def test_the_text_encoder_equals_what_transformers_loads(checkpoint):
    from transformers import CLIPTextModel

    pipeline = load_pipeline(checkpoint.folder)
    theirs = CLIPTextModel.from_pretrained(checkpoint.folder / "text_encoder", torch_dtype=torch.float32).eval()
    padding = {"padding": "max_length", "max_length": 16, "return_tensors": "pt"}
    with torch.no_grad():
        expected = theirs(pipeline.text_encoder.tokenizer("a red ball", **padding).input_ids).last_hidden_state
    torch.testing.assert_close(pipeline.text_encoder.encode(["a red ball"]), expected, rtol=1e-5, atol=1e-5)


def test_networks_are_ready_to_sample(checkpoint):
    pipeline = load_pipeline(str(checkpoint.folder))
    assert not any(p.requires_grad or p.is_meta for p in parameters(pipeline))
    networks = (pipeline.unet, pipeline.vae, pipeline.text_encoder.model)
    assert not any(module.training for network in networks for module in network.modules())
    assert list(pipeline.unet.buffers()) == []
    text = pipeline.text_encoder.encode(["", "a red ball over the grass"])
    eps = pipeline.unet(torch.zeros(1, 4, 2, 4, 4), 500, text)
    pixels = pipeline.vae.decode(torch.zeros(1, 4, 2, 4, 4))
    assert eps.shape == (2, 4, 2, 4, 4) and pixels.shape == (1, 3, 2, 8, 8)
    assert eps.isfinite().all() and pixels.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision(checkpoint, dtype):
    pipeline, full = load_pipeline(checkpoint.folder, dtype=dtype), load_pipeline(checkpoint.folder)
    assert {p.dtype for p in parameters(pipeline)} == {dtype}
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(parameters(pipeline), parameters(full), strict=True))
    assert pipeline.text_encoder.encode(["a red ball"]).dtype == dtype


def test_the_variant_follows_the_dtype(checkpoint):
    for part in checkpoint.weights:
        half = {name: tensor + 1 for name, tensor in checkpoint.tensors(part).items()}
        file = checkpoint.file(part)
        file.rename(file.with_name("full"))
        checkpoint.store(part, half)
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
        file.with_name("full").rename(file)
    full, half = load_pipeline(checkpoint.folder), load_pipeline(checkpoint.folder, dtype=torch.float16)
    assert all(name.endswith(".fp16.safetensors") for name in half.weights) and len(half.weights) == 3
    assert not any("fp16" in name for name in full.weights)
    bias = checkpoint.tensors("unet")["conv_in.bias"]
    assert torch.equal(full.unet.conv_in.bias, bias.float()) and torch.equal(half.unet.conv_in.bias, bias + 1)


def test_shards(checkpoint):
    whole = load_pipeline(checkpoint.folder)
    files = checkpoint.shard("unet") + checkpoint.shard("text_encoder", "model.safetensors.index.fp16.json")
    pipeline = load_pipeline(checkpoint.folder)
    assert same(pipeline, whole)
    assert [name.split("/")[1] for name in pipeline.weights if "-of-" in name] == files


def test_pickles_are_read_with_a_hint(checkpoint):
    whole = load_pipeline(checkpoint.folder)
    for part in checkpoint.weights:
        checkpoint.pickle(part)
    with pytest.warns(UserWarning, match=r"holds pickled weights \(.bin\); `python -m weights.convert .*`") as caught:
        pipeline = load_pipeline(checkpoint.folder)
    assert same(pipeline, whole)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_text_encoders_of_all_versions_of_transformers(checkpoint, prefix):
    whole = load_pipeline(checkpoint.folder)
    stored = {prefix + n.removeprefix("text_model."): t for n, t in checkpoint.tensors("text_encoder").items()}
    checkpoint.store("text_encoder", stored | {f"{prefix}embeddings.position_ids": torch.arange(16)[None]})
    assert same(load_pipeline(checkpoint.folder), whole)


def test_a_vae_of_2023(checkpoint):
    whole = load_pipeline(checkpoint.folder)
    old = {}
    for name, tensor in checkpoint.tensors("vae").items():
        for new, spelling in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if f".{new}." in name:
                name = name.replace(new, spelling)
                tensor = tensor[..., None, None] if tensor.ndim == 2 else tensor
        old[name] = tensor
    assert sum(tensor.shape == (8, 8, 1, 1) for tensor in old.values()) >= 8  # four in each attention, two attentions
    checkpoint.store("vae", old)
    assert same(load_pipeline(checkpoint.folder), whole)


# What does not fit


def test_a_vocabulary_that_numbers_its_words_beyond_the_model(checkpoint, refusal):
    """As many words as before, but one of them under a number for which there is no row of the embedding."""
    words = json.loads((checkpoint.folder / "tokenizer/vocab.json").read_text())
    checkpoint.change("tokenizer/vocab.json", **{"zz</w>": 100_000})
    said = refusal(load_pipeline, checkpoint.folder)
    assert f"numbers 100001 words, but text_encoder/config.json has a vocab_size of {len(words)}" in said


@pytest.mark.parametrize(("key", "value"), [("eos_token_id", []), ("return_dict", False), ("torchscript", True)])
def test_what_a_text_config_says_of_other_things_changes_nothing(checkpoint, key, value):
    whole = load_pipeline(checkpoint.folder)
    checkpoint.change("text_encoder/config.json", **{key: value})
    told = load_pipeline(checkpoint.folder).text_encoder.encode(["a red ball"])
    assert torch.equal(told, whole.text_encoder.encode(["a red ball"]))


def test_all_differences_of_all_parts_in_one_error(checkpoint, refusal):
    unet, vae = checkpoint.tensors("unet"), checkpoint.tensors("vae")
    del unet["conv_in.bias"]
    unet["conv_extra.bias"] = torch.zeros(1)
    vae["quant_conv.bias"] = torch.zeros(3)
    checkpoint.store("unet", unet), checkpoint.store("vae", vae)
    said = refusal(load_pipeline, checkpoint.folder)
    assert said.startswith(f"{checkpoint.folder}: the weights do not fit the config.json beside them, unet: ")
    assert "unet: 1 missing (conv_in.bias), 1 that the model does not have (conv_extra.bias); vae: " in said
    assert "vae: 1 of another shape (quant_conv.bias is (3,) instead of (8,));" in said


def test_hundreds_of_differences_stay_short(checkpoint, refusal):
    checkpoint.store("unet", {"model." + name: tensor for name, tensor in checkpoint.tensors("unet").items()})
    said = refusal(load_pipeline, checkpoint.folder)
    names = len(checkpoint.tensors("unet"))
    assert f"unet: {names} missing (" in said and f"{names} that the model does not have (model.conv_in.* (2)" in said
    assert len(said) < 1200
    checkpoint.change("vae/config.json", block_out_channels=[16, 16])
    said = refusal(load_pipeline, checkpoint.folder)
    assert "vae: " in said and "decoder.conv_in.bias is (8,) instead of (16,));" in said
    assert len(said) < 1600


def test_whole_numbers_are_no_weights(checkpoint, refusal):
    tensors = checkpoint.tensors("vae")
    checkpoint.store("vae", tensors | {"quant_conv.bias": tensors["quant_conv.bias"].to(torch.int8)})
    assert "vae: 1 of another type (quant_conv.bias is stored as I8" in refusal(load_pipeline, checkpoint.folder)


def test_nothing_is_read_before_everything_fits(checkpoint, refusal, monkeypatch):
    checkpoint.store("text_encoder", {})
    monkeypatch.setattr("weights.load.fill", lambda *_: pytest.fail("a tensor was read"))
    assert "text_encoder: " in refusal(load_pipeline, checkpoint.folder)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("unet/config.json", "time_cond_proj_dim", 256),
        ("unet/config.json", "num_attention_heads", 8),
        ("vae/config.json", "use_quant_conv", False),
        ("text_encoder/config.json", "model_type", "t5"),
        ("scheduler/scheduler_config.json", "prediction_type", "v_prediction"),
    ],
)
def test_configs_that_are_not_supported_name_file_and_key(checkpoint, refusal, file, key, value):
    checkpoint.change(file, **{key: value})
    said = refusal(load_pipeline, checkpoint.folder)
    assert said.startswith(f"{checkpoint.folder / file}: ") and key in said and repr(value) in said


@pytest.mark.parametrize(
    ("file", "values", "fault"),
    [
        ("vae/config.json", {"latent_channels": 8}, "U-Net's in_channels and the VAE's latent_channels are 4 and 8"),
        ("unet/config.json", {"out_channels": 8}, "U-Net's in_channels and its out_channels are 4 and 8"),
        ("text_encoder/config.json", {"hidden_size": 32}, "cross_attention_dim and CLIP's hidden_size are 8 and 32"),
        (
            "text_encoder/config.json",
            {"vocab_size": 500},
            "but text_encoder/config.json has a vocab_size of 500",
        ),
    ],
)
def test_parts_that_do_not_belong_together(checkpoint, refusal, file, values, fault):
    checkpoint.change(file, **values)
    assert fault in refusal(load_pipeline, checkpoint.folder)


def test_files_that_are_missing_or_damaged(checkpoint, refusal):
    checkpoint.file("vae").write_bytes(checkpoint.file("vae").read_bytes()[:-9])
    assert refusal(load_pipeline, checkpoint.folder).startswith(f"{checkpoint.file('vae')} is not a whole safetensors")
    checkpoint.file("vae").unlink()
    assert "has no weights in vae/: expected diffusion_pytorch_model.safetensors" in refusal(
        load_pipeline, checkpoint.folder
    )
    (checkpoint.folder / "tokenizer" / "vocab.json").write_text("{")
    assert refusal(load_pipeline, checkpoint.folder).startswith(f"{checkpoint.folder / 'tokenizer'}: ")
    (checkpoint.folder / "unet" / "config.json").write_text("{'a': 1}")
    assert f"{checkpoint.folder / 'unet/config.json'} is not JSON" in refusal(load_pipeline, checkpoint.folder)
    (checkpoint.folder / "unet" / "config.json").unlink()
    assert "is not a whole checkpoint, unet/config.json missing" in refusal(load_pipeline, checkpoint.folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, "float16", None, torch.float8_e4m3fn])
def test_types_that_cannot_be_computed_in(checkpoint, refusal, dtype):
    assert "dtype must be one of torch.float16" in refusal(load_pipeline, checkpoint.folder, "cpu", dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", "hpu", 3.5])
def test_devices_that_are_not_there(checkpoint, refusal, device):
    assert f"device {str(device)!r} cannot be used here" in refusal(load_pipeline, checkpoint.folder, device)


def test_a_pipeline_can_be_made_by_hand(checkpoint):
    loaded = load_pipeline(checkpoint.folder)
    own = Pipeline(loaded.unet, loaded.vae, loaded.text_encoder, loaded.schedule, loaded.defaults)
    assert own.fingerprint == "" and own.name == ""
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.unet = None
