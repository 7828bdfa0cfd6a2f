"""What the text model is given of a prompt, and which tokens are a subject's."""

import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.text import SHOWN, TextEncoder

LENGTH = 12  # of `echo`
# Words of the tiny vocabulary: those of its captions are one token each, others are spelt in letters.
WORDS = ["a", "red", "ball", "moving", "over", "the", "grass", "zebra", "x", "café"]


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


def test_the_length_is_the_smaller_of_the_two_limits(echo):
    assert echo.length == LENGTH  # the vocabulary's own is 32
    longer = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=77))
    assert TextEncoder(longer, echo.tokenizer).length == 32
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


def test_tokens_alike_are_wherever_a_token_of_the_subject_is(echo):
    def alike(prompt, subject):
        return echo.tokens_alike(prompt, subject).nonzero().flatten().tolist()

    # start a red ball over the red grass end
    assert alike("a red ball over the red grass", "red ball") == [2, 3, 6]
    assert alike("a red ball over the red grass", "ball") == [3]
    assert alike("football ball", "ball") == [5, 6]  # start f o o t ball</w> ball</w>: a token, not a word
    assert alike("a ball", "dog") == []
    assert alike("red " * 11, "red") == [*range(1, 11)]  # 12 tokens: neither the start nor the end is the subject's


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


def test_a_subject_longer_than_what_is_read(echo):
    subject = "red " * (LENGTH - 1)  # one token more than there is room for beside start and end
    with pytest.raises(ValueError, match=r"has 11 tokens, but only 10 of a prompt are read; name it in fewer words"):
        echo.subject_tokens(subject, subject)


def test_a_text_that_would_take_minutes_is_refused(echo):
    with pytest.raises(ValueError, match="has 50001 characters, more than the 50000 that are allowed"):
        echo.encode(["x" * 50_001])


def test_of_many_lost_words_only_those_shown_are_decoded(echo, monkeypatch):
    decoded, original = [], type(echo.tokenizer).decode
    monkeypatch.setattr(type(echo.tokenizer), "decode", lambda *a, **k: decoded.append(None) or original(*a, **k))
    with pytest.warns(UserWarning, match=r"these words are lost: red red .* \[\.\.\.\]$"):
        echo.encode(["red " * 10_000])
    assert 0 < len(decoded) <= SHOWN


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


def test_importing_the_module_does_not_import_transformers():
    code = "import sys, model.text; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
