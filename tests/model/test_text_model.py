"""CLIP's text model and tokenizer as the checkpoint's folders describe them."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from model.text import TextEncoder
from weights.text import build_text_model, read_tokenizer

LENGTH = 12
CONFIG = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 24,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": LENGTH,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "projection_dim": 8,
    "bos_token_id": 0,  # as in Zeroscope's file: wrong, and without effect
    "eos_token_id": 2,
    "pad_token_id": 1,
}


@pytest.fixture(scope="module")
def encoder(vocabulary, tokens):
    """With random weights."""
    model = build_text_model(CONFIG | {"vocab_size": len(tokens)})
    g = torch.Generator().manual_seed(0)
    model.load_state_dict({n: torch.randn(p.shape, generator=g) for n, p in model.state_dict().items()})
    return TextEncoder(model.eval().requires_grad_(False), read_tokenizer(vocabulary))


@pytest.fixture
def folder(vocabulary, tmp_path):
    """The vocabulary's words alone, without a tokenizer_config.json."""
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(vocabulary / name, tmp_path)
    return tmp_path


def clip(model, ids):
    """CLIP's text model of one layer, written out: pre-norm, causal, exact gelu, a last norm. (B, L) -> (B, L, D)"""
    p = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}

    def linear(x, name):
        return F.linear(x, p[f"encoder.layers.0.{name}.weight"], p[f"encoder.layers.0.{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)

    x = p["embeddings.token_embedding.weight"][ids] + p["embeddings.position_embedding.weight"]
    y = norm(x, "encoder.layers.0.layer_norm1")
    q, k, v = (rearrange(linear(y, f"self_attn.{n}_proj"), "b l (h d) -> b h l d", h=2) for n in "qkv")
    later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1)
    weights = (q @ k.mT / 4**0.5).masked_fill(later, float("-inf")).softmax(-1)
    x = x + linear(rearrange(weights @ v, "b h l d -> b l (h d)"), "self_attn.out_proj")
    y = linear(norm(x, "encoder.layers.0.layer_norm2"), "mlp.fc1")
    y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    return norm(x + linear(y, "mlp.fc2"), "final_layer_norm")


def test_last_hidden_states_equal_clip_written_out(encoder, echo):
    prompts = ["a red ball over the grass", ""]
    text = encoder.encode(prompts)
    assert text.shape == (2, LENGTH, 8)
    torch.testing.assert_close(text, clip(encoder.model, echo.encode(prompts)[..., 0]), rtol=1e-4, atol=1e-4)


def test_the_activation_is_the_configs(encoder, tokens):
    quick = build_text_model(CONFIG | {"vocab_size": len(tokens), "hidden_act": "quick_gelu"})
    quick.load_state_dict(encoder.model.state_dict())
    other = TextEncoder(quick.eval(), encoder.tokenizer).encode(["a red ball"])
    assert (other - encoder.encode(["a red ball"])).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_runs_in_the_models_dtype(encoder, tokens, relative_l2, dtype):
    model = build_text_model(CONFIG | {"vocab_size": len(tokens)}).eval()
    model.load_state_dict(encoder.model.state_dict())
    text = TextEncoder(model.to(dtype), encoder.tokenizer).encode(["a red ball"])
    assert text.dtype == dtype and not text.requires_grad  # though this model's parameters ask for gradients
    # Rounding to 11, 8 and 53 bits of mantissa, over one layer.
    bound = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float64: 1e-5}[dtype]
    assert relative_l2(text, encoder.encode(["a red ball"])) < bound


def test_the_result_can_take_part_in_a_backward_pass(encoder):
    x = torch.ones(8, requires_grad=True)
    (encoder.encode(["a red ball"]) @ x).sum().backward()  # refused for tensors made under inference_mode
    assert x.grad.abs().sum() > 0


def test_on_meta_only_the_position_numbers_are_real(tokens):
    with torch.device("meta"):
        model = build_text_model(CONFIG | {"vocab_size": len(tokens)})
    assert all(p.is_meta for p in model.parameters())
    (buffer,) = model.buffers()
    assert buffer.tolist() == [list(range(LENGTH))]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("model_type", "clip", "config key 'model_type' is 'clip'; only 'clip_text_model' is supported"),
        ("model_type", "t5", "config key 'model_type' is 't5'"),
        ("num_attention_heads", 3, "cannot build a CLIPTextModel"),
        ("hidden_act", "no such thing", "cannot build a CLIPTextModel"),
        ("num_hidden_layers", "two", "config key 'num_hidden_layers' holds 'two' where a whole number above 0"),
        ("num_hidden_layers", 10**9, "holds 1000000000 where a whole number above 0 and up to 100 belongs"),
        ("layer_norm_eps", "small", "config key 'layer_norm_eps' holds 'small' where a number above 0"),
        ("num_attention_heads", -1, "holds -1 where a whole number above 0"),
    ],
)
def test_configs_that_are_not_supported(key, value, fault):
    with pytest.raises(ValueError, match=fault):
        build_text_model(CONFIG | {key: value})


def test_the_pad_token_is_the_folders(vocabulary, folder):
    assert read_tokenizer(vocabulary).pad_token == "!"
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "a</w>"}))
    assert read_tokenizer(folder).pad_token_id == read_tokenizer(vocabulary).convert_tokens_to_ids("a</w>")


@pytest.mark.parametrize("limit", ["many", 2, -5, True])
def test_a_limit_of_tokens_that_leaves_no_room(vocabulary, folder, limit):
    settings = json.loads((vocabulary / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": limit}))
    with pytest.raises(ValueError, match="model_max_length must be a number of at least 3"):
        read_tokenizer(folder)


def test_a_limit_of_tokens_may_be_written_as_a_fraction(vocabulary, folder):
    settings = json.loads((vocabulary / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 10.0}))
    model = build_text_model(CONFIG)
    tokens = TextEncoder(model, read_tokenizer(folder)).subject_tokens("a red ball", "red ball")
    assert len(tokens) == 10


def test_an_unknown_token_that_is_no_word(vocabulary, folder):
    settings = json.loads((vocabulary / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": {"content": "nowhere"}}))
    with pytest.raises(ValueError, match="cannot read a CLIPTokenizer"):
        read_tokenizer(folder)


def test_a_tokenizer_that_cannot_be_read(vocabulary, folder):
    shutil.copy(vocabulary / "tokenizer_config.json", folder)
    (folder / "vocab.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="cannot read a CLIPTokenizer"):
        read_tokenizer(folder)
