"""AttentionControl's choices: where masks and normalization act, and what it refuses."""

import pytest
import torch

from adaptation.attention_masks import AttentionControl
from tests.helpers import bools

# On a 2 x 3 grid, pixels numbered 0 1 2 / 3 4 5: subject A holds 0 1, subject B holds 1 2, so pixel 1 is in both.
A_AND_B = bools("110 000", "011 000")
# Six tokens: start, "a", A's word, "and", B's word, end.
WORDS = bools("001000", "000010")


@pytest.mark.parametrize(
    "settings, masked",
    [
        ({}, {("decoder", "self"), ("decoder", "cross")}),
        ({"attention": ("cross",)}, {("decoder", "cross")}),
        ({"where": ("mid", "decoder")}, {("decoder", "self"), ("decoder", "cross"), ("mid", "self"), ("mid", "cross")}),
        ({"where": ("decoder", "temporal")}, {("decoder", "self"), ("decoder", "cross"), ("decoder", "temporal")}),
        ({"where": ["encoder", "temporal"], "attention": []}, {("encoder", "temporal")}),
        ({"where": ()}, set()),
    ],
)
def test_where_masks_apply(settings, masked):
    control = AttentionControl(A_AND_B.reshape(2, 1, 2, 3), WORDS, **settings)
    places = {(b, k) for b in ("encoder", "mid", "decoder") for k in ("self", "cross", "temporal")}
    assert {place for place in places if control.applies(*place)} == masked


@pytest.mark.parametrize(
    "settings, kinds",
    [({}, []), ({"normalize": True}, ["self", "cross"]), ({"normalize": True, "normalize_in": ["self"]}, ["self"])],
)
def test_where_normalization_acts(settings, kinds):
    control = AttentionControl(A_AND_B.reshape(2, 1, 2, 3), WORDS, **settings)
    assert [kind for kind in ("self", "cross", "temporal") if control.normalizes(kind)] == kinds


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"where": ("up",)}, "where is chosen from encoder, mid, decoder, temporal"),
        ({"where": "decoder"}, "where is a list of encoder, mid, decoder, temporal, such as"),
        ({"where": ("temporal",)}, "temporal attention in no block"),
        ({"attention": ("temporal",)}, "attention is chosen from self, cross"),
        ({"normalize_in": ("both",)}, "normalize_in is chosen from"),
        ({"grid": "nearest"}, "grid is chosen from stride, cover"),
        ({"start_token": "open"}, "start_token is chosen from hidden, background"),
        ({"axis": "frame"}, "channel, joint"),
        ({"gradient": "none"}, "gradient is chosen from straight-through, exact"),
    ],
)
def test_unknown_choices_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        AttentionControl(A_AND_B.reshape(2, 1, 2, 3), WORDS, **settings)


@pytest.mark.parametrize(
    "tokens, settings, message",
    [
        (bools("001000", "000000"), {}, "subject 1 has no token"),
        (bools("001000", "100000"), {}, "subject 1 has no token"),  # the start token is hidden
        (bools("001100", "000110"), {}, "subjects 0 and 1 share token 3"),
        (bools("101000", "100010"), {"start_token": "background"}, "subjects 0 and 1 share token 0"),
        (bools("011000", "000111"), {}, "background has no token"),
        (bools("001000"), {}, "K = 2"),
        (WORDS.float(), {}, "tokens must be bool"),
    ],
)
def test_token_errors(tokens, settings, message):
    with pytest.raises(ValueError, match=message):
        AttentionControl(A_AND_B.reshape(2, 1, 2, 3), tokens, **settings)


def test_all_tokens_may_belong_to_a_subject_that_fills_the_frame():
    control = AttentionControl(torch.ones(1, 2, 2, 2, dtype=torch.bool), bools("0111"))
    assert control.mask("cross", 1, 1).dense().tolist() == [[[False, True, True, True]]] * 2


@pytest.mark.parametrize("regions", [torch.ones(2, 1, 2, 3), A_AND_B, torch.zeros(2, 0, 2, 3, dtype=torch.bool)])
def test_region_errors(regions):
    with pytest.raises(ValueError, match=r"regions must be bool of shape \(K, F, H, W\)"):
        AttentionControl(regions, WORDS)


@pytest.mark.parametrize(
    "call", ["mask('both', 2, 3)", "applies('in', 'self')", "applies('decoder', 'text')", "normalizes('x')"]
)
def test_unknown_places_are_errors(call):
    control = AttentionControl(A_AND_B.reshape(2, 1, 2, 3), WORDS)
    with pytest.raises(ValueError, match="self, cross, temporal"):
        eval(f"control.{call}", {"control": control})
