"""The baseline TrailBlazer's edit against numbers worked out on a grid of 4 x 6 cells, and its loops written out.

Outputs of its own code are held in `test_trailblazer_original.py`.
"""

from math import exp, nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.trailblazer import (
    TrailBlazerControl,
    cells,
    edit_probabilities,
    edited_tokens,
    gaussian,
    gaussian_map,
)
from tests.helpers import bools, normal

WHOLE = [0.0, 0.0, 1.0, 1.0]  # of 4 x 6: rows to int(0.99 * 4) = 3, columns to int(0.99 * 6) = 5
UPPER_LEFT = [0.0, 0.0, 0.5, 0.5]  # rows to int(0.49 * 4) = 1, columns to int(0.49 * 6) = 2
ABSENT = [nan] * 4
STRENGTHS = {"strengthen": 0.125, "weaken": 0.001}


def boxes(*tracks, dtype=torch.float64):
    return torch.tensor(tracks, dtype=dtype)


def draw(*shape, seed=0):
    return normal(*shape, seed=seed).softmax(-1)


# ---- The box on a layer's grid -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "size", "expected"),
    [
        (0.0, 1.0, 6, (0, 5)),  # int(0.06), int(5.94)
        (0.25, 0.75, 72, (18, 53)),  # int(18.72), int(53.28)
        (0.5, 0.9, 4, (2, 3)),  # int(2.04), int(3.56)
        (0.49, 0.51, 6, (3, 3)),  # int(3), int(3): nothing between them
        (0.3, 0.31, 72, (22, 22)),  # int(22.32), int(21.6): an end before the start
        (0.995, 1.0, 6, (6, 6)),  # int(6.03) is beyond the last cell
        (0.0, 0.001, 6, (0, 0)),  # int(-0.054)
        (0.0, 0.001, 200, (2, 2)),  # int(-1.8) is no place from the end
        (0.24, 1.0, 24, (6, 23)),  # (0.24 + 0.01) 24 = 6 exactly
        (0.09, 0.41, 10, (0, 3)),  # (0.09 + 0.01) 10 and (0.41 - 0.01) 10 in float64 are 0.99.. and 3.99..
        (0.2399, 1.0, 24, (5, 23)),  # int(5.9976)
    ],
)
def test_cells_of_an_axis(start, end, size, expected):
    assert cells(start, end, size) == slice(*expected)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 200))
def test_cells_lie_between_the_edges(a, b, size):
    """Whole cells, none of which ends before the box shrunk by 0.01 begins, or begins after it ends."""
    start, end = min(a, b), max(a, b)
    inside = cells(start, end, size)
    assert 0 <= inside.start <= inside.stop
    for cell in range(size)[inside]:
        assert cell + 1 > (start + 0.01) * size
        assert cell < (end - 0.01) * size


def test_gaussian_by_hand():
    """Points 0 1.5 3, mean 1, deviation 1: exponents -1/2 -1/8 -2. Points 0 2, mean 1: equal. One point: 1."""
    assert gaussian(3).tolist() == pytest.approx([exp(-0.375), 1, exp(-1.875)], rel=1e-12)
    assert gaussian(2).tolist() == [1, 1]
    assert gaussian(1).tolist() == [1]


def test_map_of_the_whole_frame_by_hand():
    """3 x 5 of the 4 x 6 cells. Rows as above. Columns: points 0 1.25 2.5 3.75 5, mean 2, deviation 5/3, so that
    exponents are -9/50 of the squares 4 0.5625 0.25 3.0625 9; the largest, at 0.25, becomes 1."""
    rows = [exp(-0.375), 1, exp(-1.875), 0]
    columns = [*(exp(-0.18 * (square - 0.25)) for square in (4, 0.5625, 0.25, 3.0625, 9)), 0]
    g = gaussian_map(boxes([WHOLE]), 4, 6)
    assert g.shape == (1, 1, 24)
    assert g.flatten().tolist() == pytest.approx([r * c for r in rows for c in columns], rel=1e-12)


def test_a_box_counts_as_its_shortest_decimals_in_float32():
    """(0.24 + 0.01) 24 is cell 6, though the float32 nearest to 0.24 is a little less."""
    for dtype in (torch.float32, torch.float64):
        rows = gaussian_map(boxes([[0.0, 0.24, 1.0, 1.0]], dtype=dtype), 24, 2)[0, 0, ::2] > 0
        assert rows.nonzero().flatten().tolist() == list(range(6, 23))


@pytest.mark.parametrize("box", [[0.0, 0.3, 1.0, 0.5], [0.2, 0.0, 0.3, 1.0]])
def test_a_box_without_a_row_or_a_column_weakens_everything(box):
    """Of 4 rows int(1.24) to int(1.96), of 6 columns int(1.26) to int(1.74): none, and only 0.001 x 0.5 is left."""
    g = gaussian_map(boxes([box]), 4, 6)
    assert torch.equal(g, torch.zeros_like(g))
    A = torch.full((1, 1, 1, 24, 2), 0.5, dtype=torch.float64)
    edited = edit_probabilities(A, g, bools("01"), **STRENGTHS)
    assert edited[0, 0, 0].tolist() == [[0.5, 0.0005]] * 24


def test_map_follows_the_frames_and_the_subjects():
    """The upper left box is 1 x 2 cells, all of them peaks; an absent subject has no cell."""
    g = gaussian_map(boxes([UPPER_LEFT, ABSENT], [WHOLE, UPPER_LEFT]), 4, 6)
    upper_left = [1.0, 1.0] + [0.0] * 22
    assert g[0, 0].tolist() == g[1, 1].tolist() == upper_left
    assert g[0, 1].tolist() == [0.0] * 24
    assert (g[1, 0] > 0).sum() == 15


# ---- Tokens --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "trailing", "expected"),
    [
        ("a red ball", 2, "0011110000"),  # words at 1 2 3; 4 is the end and 5 padding
        ("a red ball", 0, "0011000000"),
        ("a red ball", 15, "0011111111"),  # as far as the text goes
        ("a  red ball ", 2, "0011110000"),  # spaces are not words
        ("a red ball; sharp, rich colors", 2, "0011110000"),  # the suffix trails
        ("a red ball on the wide and green grass", 3, "0011000000"),  # nothing is left to trail
    ],
)
def test_words_and_trailing_tokens(prompt, trailing, expected):
    assert torch.equal(edited_tokens(bools("0011000000"), prompt, trailing), bools(expected))


def test_every_subject_gets_the_trailing_tokens():
    words = bools("01000000", "00010000")
    assert torch.equal(edited_tokens(words, "cat and dog", 2), bools("01001100", "00011100"))


# ---- The edit ------------------------------------------------------------------------------------------------------


def test_edit_by_hand():
    """All A = 0.2 but one of 0.8, for a token that is not edited, in another head, frame and pixel: S = 0.8 g.

    Inside 0.2 + 0.125 * 0.8 * 1 = 0.3, outside 0.001 * 0.2 = 0.0002.
    """
    A = torch.full((1, 2, 2, 24, 3), 0.2, dtype=torch.float64)
    A[0, 1, 1, 23, 0] = 0.8
    g = gaussian_map(boxes([UPPER_LEFT, ABSENT]), 4, 6)
    edited = edit_probabilities(A, g, bools("011"), 0.125, 0.001)
    assert torch.equal(edited[..., 0], A[..., 0])
    for head in (0, 1):
        for token in (1, 2):
            assert edited[0, head, 0, :, token].tolist() == pytest.approx([0.3] * 2 + [0.0002] * 22, rel=1e-12)
            assert edited[0, head, 1, :, token].tolist() == pytest.approx([0.0002] * 24, rel=1e-12)


def test_the_gaussian_shapes_what_is_added_and_nothing_is_normalized():
    """Inside, in 15 cells, 0.5 + 1 * 0.5 g, which is 1 at the peak; the last row and column are outside."""
    A = torch.full((1, 1, 1, 24, 2), 0.5, dtype=torch.float64)
    g = gaussian_map(boxes([WHOLE]), 4, 6)
    edited = edit_probabilities(A, g, bools("01"), 1.0, 0.0)
    torch.testing.assert_close(edited[0, 0, 0, :, 1], torch.where(g > 0, 0.5 + 0.5 * g, 0.0)[0, 0], rtol=0, atol=1e-12)
    assert edited[..., 1].max() == 1
    assert torch.equal(edited[..., 0], A[..., 0])


def test_every_video_has_its_own_maximum():
    """Maxima 0.4 and 0.8 add 0.04 and 0.08 at strength 0.1 inside the box."""
    A = torch.tensor([0.4, 0.8], dtype=torch.float64).reshape(2, 1, 1, 1, 1).repeat(1, 1, 1, 24, 1)
    edited = edit_probabilities(A, gaussian_map(boxes([UPPER_LEFT]), 4, 6), bools("1"), 0.1, 0.0)
    assert edited[:, 0, 0, 0, 0].tolist() == pytest.approx([0.44, 0.88], rel=1e-12)


def test_two_subjects_share_the_trailing_tokens_alone():
    """Token 0 is the first subject's word, 1 the second's, 2 trails: A = 0.5, 0.5 + 0.1 * 0.5 g inside, 0 outside.

    In the first row the first subject's box is cells 0 and 1, the second's from int(0.21 * 6) = 1 to int(0.59 * 6) = 3
    cells 1 and 2. Both are 1 x 2 cells, so g = 1, and not 2 where they overlap.
    """
    A = torch.full((1, 1, 1, 24, 3), 0.5, dtype=torch.float64)
    g = gaussian_map(boxes([UPPER_LEFT], [[0.2, 0.0, 0.6, 0.5]]), 4, 6)
    row = edit_probabilities(A, g, bools("101", "011"), 0.1, 0.0)[0, 0, 0, :6]
    assert row[:, 0].tolist() == pytest.approx([0.55, 0.55, 0, 0, 0, 0])
    assert row[:, 1].tolist() == pytest.approx([0, 0.55, 0.55, 0, 0, 0])
    assert row[:, 2].tolist() == pytest.approx([0.55, 0.55, 0.55, 0, 0, 0])


@given(
    st.lists(st.integers(0, 100), min_size=4, max_size=4),
    st.floats(0, 2),
    st.floats(0, 1),
    st.integers(0, 31),
    st.data(),
)
def test_equals_its_loops_written_out(hundredths, strengthen, weaken, words, data):
    """Boxes with two decimals, as the original draws them; some have no cell."""
    h, w = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 7))
    x1, x2, y1, y2 = (edge / 100 for edge in (*sorted(hundredths[:2]), *sorted(hundredths[2:])))
    tokens, A = bools(f"{words:05b}"), draw(1, 2, 1, h * w, 5, seed=data.draw(st.integers(0, 9)))
    edited = edit_probabilities(A, gaussian_map(boxes([[x1, y1, x2, y2]]), h, w), tokens, strengthen, weaken)

    rows, columns = range(int((y1 + 0.01) * h), int((y2 - 0.01) * h)), range(int((x1 + 0.01) * w), int((x2 - 0.01) * w))
    points = {  # of the axis, at the cells inside
        axis: dict(zip(axis, torch.linspace(0, len(axis), len(axis), dtype=torch.float64).tolist(), strict=True))
        for axis in (rows, columns)
    }

    def density(row, column):
        y, x = points[rows][row] - len(rows) // 2, points[columns][column] - len(columns) // 2
        return exp(-(y**2) / (2 * (len(rows) / 3) ** 2) - x**2 / (2 * (len(columns) / 3) ** 2))

    peak = max((density(row, column) for row in rows for column in columns), default=None)
    for row in range(h):
        for column in range(w):
            before, after = A[0, :, 0, row * w + column], edited[0, :, 0, row * w + column]
            if row in rows and column in columns:
                expected = before + strengthen * A.max() * density(row, column) / peak
            else:
                expected = weaken * before
            torch.testing.assert_close(after, torch.where(tokens[0], expected, before), rtol=0, atol=1e-12)


def test_the_gradient_is_the_true_one():
    g = gaussian_map(boxes([[0.0, 0.0, 1.0, 0.5]]), 2, 2)
    A = draw(1, 1, 1, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: edit_probabilities(A, g, bools("011"), 0.5, 0.1), A)


# ---- The control ---------------------------------------------------------------------------------------------------


def test_the_text_half_alone_is_edited():
    """Two videos: of four entries the last two, of two entries, which are a call without guidance, both."""
    control = TrailBlazerControl(boxes([UPPER_LEFT]), bools("0011"), **STRENGTHS, videos=2)
    A = draw(4, 2, 1, 24, 4)
    edited = control.edit(4, 6)(A)
    g = gaussian_map(control.boxes, 4, 6)
    assert torch.equal(edited[:2], A[:2])
    assert torch.equal(edited[2:], edit_probabilities(A[2:], g, control.tokens, 0.125, 0.001))
    assert torch.equal(control.edit(4, 6)(A[2:]), edited[2:])


def test_cross_attention_is_edited_everywhere_and_nothing_else():
    control = TrailBlazerControl(boxes([WHOLE]), bools("1"), **STRENGTHS)
    assert all(control.applies(where, "cross") for where in ("encoder", "mid", "decoder"))
    assert not any(
        control.applies(where, kind) for where in ("encoder", "mid", "decoder") for kind in ("self", "temporal")
    )


def test_the_edit_keeps_the_probabilities_dtype():
    control = TrailBlazerControl(boxes([UPPER_LEFT], dtype=torch.float32), bools("01"), **STRENGTHS)
    assert control.edit(4, 6)(draw(1, 1, 1, 24, 2).half()).dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"boxes": torch.zeros(1, 4)}, r"boxes must be of shape \(K, F, 4\)"),
        ({"boxes": torch.zeros(1, 0, 4)}, r"boxes must be of shape \(K, F, 4\)"),
        ({"tokens": bools("01", "10")}, "tokens must be bool of shape .* K = 1"),
        ({"tokens": torch.ones(1, 2)}, "tokens must be bool"),
        ({"tokens": bools("00")}, "subject 0 has no token in the prompt"),
        ({"strengthen": -0.1}, "strengthen must be a finite number of at least 0, got -0.1"),
        ({"strengthen": nan}, "strengthen must be"),
        ({"weaken": 1.1}, "weaken must be a number from 0 to 1, got 1.1"),
        ({"weaken": nan}, "weaken must be"),
    ],
)
def test_bad_controls_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrailBlazerControl(**{"boxes": boxes([WHOLE]), "tokens": bools("01"), **STRENGTHS, **arguments})


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((3, 1, 1, 24, 2), "A has 3 sequences for 1 videos; expected one or two a video"),
        ((1, 1, 2, 24, 2), r"\(F, N, L\) = \(2, 24, 2\), but the boxes and tokens are for \(1, 24, 2\)"),
        ((1, 1, 1, 24, 3), r"\(F, N, L\) = \(1, 24, 3\)"),
    ],
)
def test_probabilities_of_another_size_are_refused(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrailBlazerControl(boxes([WHOLE]), bools("01"), **STRENGTHS).edit(4, 6)(draw(*shape))
