import json
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from model.text import TextEncoder, build_text_model, read_tokenizer
from weights.train_tiny import tokenizer as tiny_tokenizer

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
# Words of the tiny vocabulary: those of its captions are one token each, others are spelt in letters.
WORDS = ["a", "red", "ball", "moving", "over", "the", "grass", "zebra", "x", "café"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer.write(folder)
    return folder


@pytest.fixture(scope="module")
def tokens(vocabulary):
    """{token: id} of the vocabulary file."""
    return json.loads((vocabulary / "vocab.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def encoder(vocabulary, tokens):
    """With random weights."""
    model = build_text_model(CONFIG | {"vocab_size": len(tokens)})
    g = torch.Generator().manual_seed(0)
    model.load_state_dict({n: torch.randn(p.shape, generator=g) for n, p in model.state_dict().items()})
    return TextEncoder(model.eval().requires_grad_(False), read_tokenizer(vocabulary))


class Echo:
    """In the model's place: its last hidden states are the token ids it was given, and nothing else is accepted."""

    device = torch.device("cpu")
    config = SimpleNamespace(max_position_embeddings=LENGTH)

    def __call__(self, input_ids):
        return SimpleNamespace(last_hidden_state=input_ids[..., None])


@pytest.fixture(scope="module")
def echo(encoder):
    return TextEncoder(Echo(), encoder.tokenizer)


def ids(encoder, prompt):
    return encoder.encode([prompt])[0, :, 0].tolist()


# What the model is given


def test_a_prompt_is_start_words_end_and_padding(echo, tokens):
    start, end, pad = tokens["<|startoftext|>"], tokens["<|endoftext|>"], tokens["!"]
    words = [tokens["a</w>"], tokens["red</w>"], tokens["ball</w>"]]
    assert pad == 0
    assert ids(echo, "A red  BALL") == [start, *words, end] + [0] * (LENGTH - 5)
    assert ids(echo, "") == [start, end] + [0] * (LENGTH - 2)


def test_equals_what_the_tokenizer_itself_would_pad_and_cut(echo):
    for prompt in ("", "a red ball", "zebra!", "a café's ball, over-grown", "a zebra zebra zebra"):
        whole = echo.tokenizer(prompt, padding="max_length", max_length=LENGTH, truncation=True).input_ids
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert ids(echo, prompt) == whole


def test_the_length_is_the_smaller_of_the_two_limits(echo, encoder):
    assert echo.length == LENGTH  # the vocabulary's own is 32
    longer = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=77))
    assert TextEncoder(longer, encoder.tokenizer).length == 32
    unlimited = SimpleNamespace(model_max_length=int(1e30))
    assert TextEncoder(longer, unlimited).length == 77


def test_a_prompt_that_just_fits_is_not_cut(echo, tokens):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ids(echo, "a " * (LENGTH - 2))[1:] == [tokens["a</w>"]] * (LENGTH - 2) + [tokens["<|endoftext|>"]]


def test_words_that_are_cut_are_named(echo, tokens):
    # Room for 10: 8 x "a", then "zebra", five letters of which only two fit: it is lost, as is all that follows.
    assert len(echo.tokenizer("zebra", add_special_tokens=False).input_ids) == 5
    with pytest.warns(UserWarning, match=r"cut to 12 tokens, these words are lost: zebra , red café$") as caught:
        cut = ids(echo, "a a a a a a a a zebra, red Café")
    assert caught[0].filename == __file__
    assert cut[-1] == tokens["<|endoftext|>"] and cut[8] == tokens["a</w>"]


def test_each_prompt_that_is_cut_has_its_warning(echo):
    with pytest.warns(UserWarning) as caught:
        echo.encode(["red " * 11, "a ball", "ball " * 12])
    assert [str(w.message).split(": ")[1] for w in caught] == ["red", "ball ball"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_no_word_is_lost_silently(echo, words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = ids(echo, " ".join(words))
    lost = str(caught[0].message).split("lost: ")[1].split() if caught else []
    begin = " ".join(words[: len(words) - len(lost)])
    whole = echo.tokenizer(begin, add_special_tokens=False).input_ids
    assert words[len(words) - len(lost) :] == lost
    assert kept[1 : 1 + len(whole)] == whole


@pytest.mark.parametrize("prompts", [[], "a red ball", ()])
def test_prompts_are_a_list(echo, prompts):
    with pytest.raises(ValueError, match="prompts must be a list of one or more texts"):
        echo.encode(prompts)


@pytest.mark.parametrize(("prompt", "fault"), [(None, "must be text, got None"), ("a \udcff", "write it in UTF-8")])
def test_a_prompt_is_text(echo, prompt, fault):
    with pytest.raises(ValueError, match=fault):
        echo.encode([prompt])


# What it makes of it


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


# Which tokens are the subject's


def positions(encoder, prompt, subject):
    tokens = encoder.subject_tokens(prompt, subject)
    assert tokens.dtype == torch.bool and tokens.shape == (encoder.length,)
    return tokens.nonzero().flatten().tolist()


def test_subject_by_hand(echo):
    # start a red ball over the red grass end: 0 1 2 3 4 5 6 7 8
    prompt = "a red ball over the red grass"
    assert positions(echo, prompt, "ball") == [3]
    assert positions(echo, prompt, "red ball") == [2, 3]
    assert positions(echo, prompt, "red") == [2, 6]  # every place
    assert positions(echo, prompt, " The  RED ") == [5, 6]
    assert positions(echo, prompt, prompt) == [1, 2, 3, 4, 5, 6, 7]


def test_subject_of_several_tokens(echo):
    # start q q</w> , a q q</w> end
    assert positions(echo, "qq, a qq", "QQ") == [1, 2, 5, 6]


def test_subjects_are_whole_words(echo):
    # start f o o t ball</w> ball</w> end: the last token of "football" is that of "ball"
    assert positions(echo, "football ball", "ball") == [6]
    with pytest.raises(ValueError, match="the subject 'ball' is not in the prompt, whose words are: football"):
        echo.subject_tokens("football", "ball")
    with pytest.raises(ValueError, match="'foot' is not in the prompt"):
        echo.subject_tokens("football", "foot")


def test_punctuation_ends_a_word(echo):
    assert positions(echo, "a ball!", "ball") == [2]
    assert positions(echo, "(ball)", "ball") == [2]
    assert positions(echo, "the ball's grass", "ball") == [2]
    assert positions(echo, "the!ball", "ball") == [3]  # a special token is a word, without the end that others have


def test_the_pad_token_is_found_as_a_word_only(echo):
    # "!" is padding's token too; in the prompt it stands at position 3
    assert positions(echo, "a ball! a", "!") == [3]


def test_overlapping_places_all_count(echo):
    assert positions(echo, "red red red", "red red") == [1, 2, 3]


def test_a_subject_that_is_not_there(echo):
    with pytest.raises(
        ValueError, match=r"'dog' is not in the prompt, whose words are: a, red, café, over, the, ball$"
    ):
        echo.subject_tokens("a red Café over the ball", "dog")
    with pytest.raises(ValueError, match="'red dog' is not in the prompt"):
        echo.subject_tokens("a red ball", "red dog")
    with pytest.raises(ValueError, match="whose words are: none"):
        echo.subject_tokens("", "dog")


@pytest.mark.parametrize("subject", ["", "   ", "\n"])
def test_an_empty_subject(echo, subject):
    with pytest.raises(ValueError, match="the subject is empty"):
        echo.subject_tokens("a red ball", subject)


def test_a_subject_that_is_cut_off(echo):
    prompt = "a " * (LENGTH - 3) + "red ball ball"  # room for "red", not for "ball"
    assert positions(echo, prompt, "red") == [LENGTH - 2]
    for subject in ("ball", "red ball"):
        with pytest.raises(ValueError, match="only in the part of the prompt that is cut, beyond 12 tokens"):
            echo.subject_tokens(prompt, subject)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS[:7]), min_size=1, max_size=LENGTH - 2), st.data())
def test_a_subject_covers_as_many_tokens_as_it_has(echo, words, data):
    i = data.draw(st.integers(0, len(words) - 1))
    j = data.draw(st.integers(i + 1, len(words)))
    expected = {
        k + 1 + m  # position 0 is the start
        for k in range(len(words))
        if words[k : k + j - i] == words[i:j]
        for m in range(j - i)
    }
    assert set(positions(echo, " ".join(words), " ".join(words[i:j]))) == expected


# Building


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
        ("num_hidden_layers", "two", "cannot build a CLIPTextModel"),
    ],
)
def test_configs_that_are_not_supported(key, value, fault):
    with pytest.raises(ValueError, match=fault):
        build_text_model(CONFIG | {key: value})


def test_the_pad_token_is_the_folders(vocabulary, tmp_path):
    assert read_tokenizer(vocabulary).pad_token == "!"
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((vocabulary / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "a</w>"}))
    assert read_tokenizer(tmp_path).pad_token_id == read_tokenizer(vocabulary).convert_tokens_to_ids("a</w>")


def test_a_tokenizer_that_cannot_be_read(vocabulary, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((vocabulary / name).read_bytes())
    (tmp_path / "vocab.json").write_text('{"a": ')
    with pytest.raises(ValueError, match="cannot read a CLIPTokenizer"):
        read_tokenizer(tmp_path)


def test_importing_the_module_does_not_import_transformers():
    code = "import sys, model.text; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
