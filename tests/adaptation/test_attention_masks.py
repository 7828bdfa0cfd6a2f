"""Section 2.1's masks by hand, against Peekaboo's formula, and as a control makes them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.attention_masks import AttentionControl, cross_mask, self_mask, to_grid
from adaptation.trajectory import Trajectory
from tests.helpers import bools, coarse, controls

# On a 2 x 3 grid, pixels numbered 0 1 2 / 3 4 5: subject A holds 0 1, subject B holds 1 2, so pixel 1 is in both.
A_AND_B = bools("110 000", "011 000")
# Six tokens: start, "a", A's word, "and", B's word, end.
WORDS = bools("001000", "000010")


# ---- Section 2.1 ---------------------------------------------------------------------------------------------------


def test_one_subject_by_hand():
    region = bools("110 000")
    block = bools("110000", "110000", "001111", "001111", "001111", "001111")
    assert torch.equal(self_mask(region), block)
    # Inside: the subject's word alone. Outside: every token but that word.
    inside, outside = "001000", "110111"
    expected = bools(inside, inside, outside, outside, outside, outside)
    assert torch.equal(cross_mask(region, bools("001000")), expected)


def test_overlapping_subjects_by_hand():
    # 0 (A) and 2 (B) both see 1 (A and B), and 1 sees both, but 0 and 2 do not see each other.
    expected = bools("110000", "111000", "011000", "000111", "000111", "000111")
    assert torch.equal(self_mask(A_AND_B), expected)
    a, both, b, background = "001000", "001010", "000010", "110101"
    assert torch.equal(cross_mask(A_AND_B, WORDS), bools(a, both, b, background, background, background))


@given(controls())
def test_one_subject_is_the_papers_formula(control):
    m_v = control.regions[:1].flatten(2).movedim(0, 1)  # (F, 1, N), so that a column vector is its transpose
    m_y = control.tokens[:1]
    v, y = m_v.double(), m_y.double()
    assert torch.equal(self_mask(m_v).double(), v.mT @ v + (1 - v).mT @ (1 - v))
    assert torch.equal(cross_mask(m_v, m_y).double(), v.mT @ y + (1 - v).mT @ (1 - y))


def test_whole_frame_and_absent_subject():
    everywhere, nowhere = torch.ones(1, 6).bool(), torch.zeros(1, 6).bool()
    assert self_mask(everywhere).all()
    assert self_mask(nowhere).all()
    word = bools("0010")
    assert torch.equal(cross_mask(everywhere, word), word.expand(6, -1))
    assert torch.equal(cross_mask(nowhere, word), ~word.expand(6, -1))


# ---- Peekaboo ------------------------------------------------------------------------------------------------------

NOWHERE = [math.nan] * 4
# Boxes of reference runs of Peekaboo's code: y1 y2 x1 x2 in cells; grid; tokens 3 and 4 of 77 name the subject.
PEEKABOO = {
    "s32": (
        (32, 32),
        [(4, 18, 3, 14), (6, 20, 6, 17), (8, 22, 9, 20), (10, 24, 12, 23), (12, 26, 15, 26), (14, 28, 18, 29)],
    ),
    "z40": ((40, 72), [(5, 23, 10, 37), (9, 15, 41, 47), None]),
}


@pytest.mark.parametrize("case", PEEKABOO)
@pytest.mark.parametrize("s", [1, 2, 4, 8])
def test_masks_are_peekaboos(case, s):
    (H, W), cells = PEEKABOO[case]
    m = torch.zeros(len(cells), H, W, dtype=torch.bool)
    boxes = []
    for frame, box in zip(m, cells, strict=True):
        if box:
            y1, y2, x1, x2 = box
            frame[y1:y2, x1:x2] = True
        boxes.append([x1 / W, y1 / H, x2 / W, y2 / H] if box else NOWHERE)
    regions = Trajectory(torch.tensor([boxes]), ["subject"], "a subject").rasterize(H, W)
    assert torch.equal(regions[0], m)

    T = torch.zeros(77, dtype=torch.bool)
    T[[3, 4]] = True
    control = AttentionControl(regions, T[None], where=("decoder", "mid", "temporal"))
    m = m[:, ::s, ::s].flatten(1)  # (F, N)
    assert torch.equal(control.mask("self", H // s, W // s).dense(), m[:, :, None] == m[:, None, :])
    assert torch.equal(control.mask("temporal", H // s, W // s).dense(), m.T[:, :, None] == m.T[:, None, :])
    expected = m[:, :, None] == T  # inside with its words, outside with the others
    expected[:, :, 0] = False  # the start token closed to everyone
    assert torch.equal(control.mask("cross", H // s, W // s).dense(), expected)


def test_start_token_as_the_formula_reads_belongs_to_the_background():
    region = bools("110 000").reshape(1, 1, 2, 3)
    word = bools("001000")
    hidden = AttentionControl(region, word).mask("cross", 2, 3).dense()
    background = AttentionControl(region, word, start_token="background").mask("cross", 2, 3).dense()
    assert hidden[0, :, 0].tolist() == [False] * 6
    assert background[0, :, 0].tolist() == [False, False, True, True, True, True]
    assert torch.equal(hidden[..., 1:], background[..., 1:])


def test_a_hidden_start_token_may_be_listed_as_a_word_of_every_subject():
    regions, words = A_AND_B.reshape(2, 1, 2, 3), WORDS.clone()
    words[:, 0] = True
    listed, plain = (AttentionControl(regions, w).mask("cross", 2, 3).dense() for w in (words, WORDS))
    assert torch.equal(listed, plain)


# ---- Grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h, w, s", [(9, 15, 1), (5, 8, 2), (3, 4, 4), (2, 2, 8)])
def test_stride_of_a_grid_that_is_not_divisible(h, w, s):
    regions = torch.rand(2, 9, 15, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(to_grid(regions, h, w, "stride"), regions[:, ::s, ::s])
    covered = to_grid(regions, h, w, "cover")
    for i in range(h):
        for j in range(w):
            assert torch.equal(covered[:, i, j], regions[:, i * s : (i + 1) * s, j * s : (j + 1) * s].any(-1).any(-1))


@pytest.mark.parametrize("size", [(4, 8), (5, 7), (9, 8), (18, 30), (0, 0), (1, 2)])
def test_a_grid_that_no_stride_reaches_is_an_error(size):
    with pytest.raises(ValueError, match=r"9 x 15 grid of the regions to "):
        to_grid(torch.zeros(1, 9, 15, dtype=torch.bool), *size, "stride")


def test_a_small_box_is_lost_by_stride_and_kept_by_cover():
    region = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    region[0, 0, 5:7, 5:7] = True  # no row or column of it is a multiple of 4
    assert not to_grid(region, 2, 2, "stride").any()
    assert to_grid(region, 2, 2, "cover").flatten().tolist() == [False, False, False, True]


@given(controls(grid="cover"), st.integers(0, 3))
def test_cover_never_loses_a_region(control, level):
    covered = to_grid(control.regions, *coarse(control, level), "cover")
    assert torch.equal(covered.flatten(2).any(-1), control.regions.flatten(2).any(-1))


# ---- The control's masks -------------------------------------------------------------------------------------------


@given(controls(), st.integers(0, 2))
def test_dense_is_the_reference_formula(control, level):
    h, w = coarse(control, level)
    regions = to_grid(control.regions, h, w, control.grid).flatten(2)  # (K, F, N)
    assert torch.equal(control.mask("self", h, w).dense(), self_mask(regions.movedim(1, 0)))
    assert torch.equal(control.mask("temporal", h, w).dense(), self_mask(regions.movedim(2, 0)))
    cross = cross_mask(regions.movedim(1, 0), control.tokens)
    if control.start_token == "hidden":
        cross[..., 0] = False
    assert torch.equal(control.mask("cross", h, w).dense(), cross)


@given(controls(), st.sampled_from(["self", "cross", "temporal"]), st.integers(0, 3))
def test_no_row_is_ever_empty(control, kind, level):
    assert control.mask(kind, *coarse(control, level)).dense().any(-1).all()


def test_temporal_mask_by_hand():
    # One pixel over 4 frames: A, both, B, nobody.
    regions = bools("1100", "0110").reshape(2, 4, 1, 1)
    expected = bools("1100", "1110", "0110", "0001")
    assert torch.equal(AttentionControl(regions, WORDS).mask("temporal", 1, 1).dense()[0], expected)


def test_inside_is_where_any_subject_is():
    """Two frames of 2 x 3 cells, the second without B; a stride of 2 keeps the cells 0 and 2 of the first row."""
    frames = torch.stack([A_AND_B, bools("110 000", "000 000")], dim=1).reshape(2, 2, 2, 3)
    control = AttentionControl(frames, WORDS)
    assert torch.equal(control.inside(2, 3), bools("111000", "110000"))
    assert torch.equal(control.inside(1, 2), bools("11", "10"))


def test_masks_are_made_once_per_grid():
    control = AttentionControl(torch.ones(1, 2, 4, 4, dtype=torch.bool), bools("0010"))
    mask = control.mask("self", 4, 4)
    assert control.mask("self", 4, 4) is mask
    assert mask.dense() is mask.dense() and mask.groups is mask.groups
    assert control.mask("self", 2, 2) is not mask and control.mask("cross", 4, 4) is not mask
    assert control.mask("self", 2, 2).dense().shape == (2, 4, 4)
