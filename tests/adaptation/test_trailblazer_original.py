"""The baseline's edit against outputs of TrailBlazer's released code.

Measured, greatest difference over all cases: 6.0e-8 to `exact`, 7.9e-5 to `out`, whose map and factors are float16.
Misreadings (points or mean of the Gaussian, no margin, the maximum of each frame or head) are off by 5e-4 to 0.95.
"""

import pytest
import torch
from einops import rearrange

from adaptation.trailblazer import TrailBlazerControl, edited_tokens, gaussian_map

CASES = [
    *("40x72", "20x36", "10x18", "5x9", "12x16", "6x8"),
    *("one-row", "strong", "examples", "half"),
    *("empty-5x9", "empty-3x4"),  # boxes without a row or a column: everything is weakened
    "slip-10x18",  # (0.41 - 0.01) 10 and (0.09 + 0.01) 10 are a little less than 4 and 1
]


def edit(about, tensors, case, dtype):
    """Our edit of the case's A (frames heads, h, w, L)."""
    how = about["edit"][case]
    words = torch.zeros(1, how["L"], dtype=torch.bool)
    words[0, how["token_inds"]] = True
    control = TrailBlazerControl(
        tensors[f"{case}.boxes"][None],
        edited_tokens(words, how["prompt"], how["trailing"]),
        strengthen=how["strengthen"],
        weaken=how["weaken"],
    )
    A = rearrange(tensors[f"{case}.A"].to(dtype), "(f heads) h w l -> 1 heads f (h w) l", f=how["frames"])
    return rearrange(control.edit(how["h"], how["w"])(A), "1 heads f (h w) l -> (f heads) h w l", h=how["h"])


def test_all_cases_are_held(trailblazer):
    assert set(trailblazer[0]["edit"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_original(trailblazer, case, dtype):
    ours, tensors = edit(*trailblazer, case, dtype), trailblazer[1]
    torch.testing.assert_close(ours, tensors[f"{case}.exact"].to(dtype), rtol=0, atol=2e-7)
    if case != "half":  # its probabilities, and what it returns, are float16
        torch.testing.assert_close(ours, tensors[f"{case}.out"].to(dtype), rtol=0, atol=1e-4)


def test_equals_the_original_in_float16(trailblazer):
    """Measured: 4.8e-7."""
    ours = edit(*trailblazer, "half", torch.float16)
    torch.testing.assert_close(ours, trailblazer[1]["half.out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_boxes_have_the_originals_cells(trailblazer, case):
    """Left, top, right, bottom in cells, the latter two excluded: exactly."""
    about, tensors = trailblazer
    h, w = about["edit"][case]["h"], about["edit"][case]["w"]
    inside = rearrange(gaussian_map(tensors[f"{case}.boxes"][None], h, w), "1 f (h w) -> f h w", h=h) > 0
    for cells, (left, top, right, bottom) in zip(inside, tensors[f"{case}.cells"].tolist(), strict=True):
        expected = torch.zeros(h, w, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(cells, expected)
    empty = (~inside.flatten(1).any(1)).nonzero().flatten().tolist()
    assert empty == {"empty-5x9": [0], "empty-3x4": list(range(8))}.get(case, [])


def test_edited_tokens_are_the_originals_but_for_empty_words(trailblazer):
    """The original takes a space after a space, or before ";", for a word more; ours does not, and marks one less."""
    prompts = {}
    for prompt, numbers, trailing, expected in trailblazer[0]["tokens"]:
        words = torch.zeros(1, 77, dtype=torch.bool)
        words[0, numbers] = True
        prompts[prompt] = edited_tokens(words, prompt, trailing)[0].nonzero().flatten().tolist(), expected
    differing = {prompt: pair for prompt, pair in prompts.items() if pair[0] != pair[1]}
    assert len(prompts) == 8
    assert differing == {"a  red ball": ([3, 4, 5], [3, 4, 5, 6]), "a red ball ; sharp": ([2, 3, 4, 5], [2, 3, 5, 6])}
