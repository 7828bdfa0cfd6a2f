"""Exact Feature Distribution Matching: by hand, as a permutation, and its two gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.fast_sort import ascending, sorted_values
from adaptation.mask_normalization import axis_dims, match_distribution
from tests.helpers import normal

DIMS = [-2, -1, 0, (-2, -1), (0, -2), (0, 1, 2)]


def drawn(seed: int, dtype: torch.dtype = torch.float64, shape=(2, 5, 3)) -> torch.Tensor:
    """Normal values on a grid of halves, so that ties are frequent."""
    return ((2 * normal(*shape, seed=seed)).round() / 2).to(dtype)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def test_by_hand_with_ties():
    # Ranks of the first: the two 1s come first, in order of place, then 2, then 3. Sorted second: 10 20 30 40.
    masked = torch.tensor([3.0, 1.0, 1.0, 2.0], dtype=torch.float64)
    unmasked = torch.tensor([10.0, 40.0, 30.0, 20.0], dtype=torch.float64)
    assert match_distribution(masked, unmasked, dim=0).tolist() == [40.0, 10.0, 20.0, 30.0]


def test_axes_by_hand():
    masked = torch.tensor(
        [[[1.0, 6.0], [3.0, 2.0], [2.0, 4.0]]], dtype=torch.float64
    )  # one frame, 3 tokens, 2 channels
    unmasked = torch.tensor([[[9.0, 0.1], [7.0, 0.3], [8.0, 0.2]]], dtype=torch.float64)
    # Channel 0: 1 3 2 takes 7 9 8. Channel 1: 6 2 4 takes 0.3 0.1 0.2.
    channel = match_distribution(masked, unmasked, axis_dims("channel"))
    assert channel.tolist() == [[[7.0, 0.3], [9.0, 0.1], [8.0, 0.2]]]
    # Joint: 1, then the 2 of token 1, the 2 of token 2, 3, 4, 6 take 0.1 0.2 0.3 7 8 9.
    joint = match_distribution(masked, unmasked, axis_dims("joint"))
    assert joint.tolist() == [[[0.1, 9.0], [7.0, 0.2], [0.3, 8.0]]]


def test_there_is_no_default_of_what_is_ranked_together():
    with pytest.raises(TypeError, match="'dim'"):
        match_distribution(drawn(0), drawn(1))


@given(st.integers(0, 10**6), st.sampled_from(DIMS), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_ranks_of_masked_values_of_unmasked(seed, dim, dtype):
    masked, unmasked = drawn(seed, dtype), drawn(seed + 1, dtype)
    matched = match_distribution(masked, unmasked, dim)
    assert matched.dtype == dtype and matched.shape == masked.shape
    # Reference: one distribution at a time, by Python's own (stable) sorting.
    dims = sorted(d % 3 for d in ([dim] if isinstance(dim, int) else dim))
    order = [d for d in range(3) if d not in dims] + dims
    n = int(torch.tensor([masked.shape[d] for d in dims]).prod())
    rows = zip(*(x.permute(order).reshape(-1, n).tolist() for x in (masked, unmasked, matched)), strict=True)
    for m, u, result in rows:
        places = sorted(range(n), key=m.__getitem__)
        assert [result[place] for place in places] == sorted(u)


@given(st.integers(0, 10**6), st.sampled_from(DIMS))
def test_mean_and_variance_are_the_targets(seed, dim):
    masked, unmasked = drawn(seed), drawn(seed + 1)
    matched = match_distribution(masked, unmasked, dim)
    torch.testing.assert_close(matched.mean(dim), unmasked.mean(dim), rtol=0, atol=1e-14)
    torch.testing.assert_close(matched.var(dim), unmasked.var(dim), rtol=0, atol=1e-13)


@pytest.mark.parametrize("gradient", ["exact", "straight-through"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_identical_inputs_are_returned_bit_for_bit(gradient, dtype, dim):
    x = drawn(3, dtype)
    x[0, ::2] = -0.0  # a zero of either sign among ties
    x[0, 1] = 0.0
    assert torch.equal(bits(match_distribution(x, x.clone(), dim, gradient)), bits(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_places_are_those_of_torchs_stable_sort(dtype):
    x = drawn(10, dtype, shape=(3, 400))
    extremes = torch.tensor([0.0, -0.0, 1e-45, -1e-45, torch.inf, -torch.inf, 65504.0, -65504.0], dtype=dtype)
    x[:, ::5] = extremes.repeat(3, 10)
    assert len(x[0].unique()) < 50  # so ties are many
    assert torch.equal(ascending(x), x.argsort(dim=-1, stable=True))
    strided = x.T.contiguous().T
    assert torch.equal(ascending(strided), x.argsort(dim=-1, stable=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_sorted_values_are_torchs(dtype):
    x = drawn(11, dtype, shape=(3, 40))
    x[:, :6] = torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, 1.0, 1.0])
    before = x.clone()
    for view in (x, x.T.contiguous().T):
        assert torch.equal(bits(sorted_values(view)), bits(x.sort(dim=-1, stable=True).values))
        assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("dim", DIMS)
def test_numbers_are_the_same_with_a_gradient(dim, dtype):
    """A gradient needs to know where each value came from, and values are then found another way."""
    masked, unmasked = drawn(12, dtype), drawn(13, dtype)
    differentiable = match_distribution(masked, unmasked.clone().requires_grad_(), dim)
    assert torch.equal(bits(match_distribution(masked, unmasked, dim)), bits(differentiable))


@pytest.mark.parametrize("n", [0, 1])
def test_places_in_a_row_of_none_and_of_one(n):
    assert ascending(torch.zeros(2, n)).tolist() == [list(range(n))] * 2


def test_dims_in_any_order_rank_ties_by_place_in_memory():
    masked, unmasked = torch.zeros(1, 3, 2), torch.arange(6.0).flip(0).reshape(1, 3, 2)
    for dim in [(-2, -1), (-1, -2), (2, 1)]:
        assert match_distribution(masked, unmasked, dim).flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_batch_of_frames_is_frame_by_frame():
    masked, unmasked = drawn(4, shape=(6, 7, 4)), drawn(5, shape=(6, 7, 4))
    for axis in ("joint", "channel"):
        dims = axis_dims(axis)
        whole = match_distribution(masked, unmasked, dims)
        alone = [match_distribution(m[None], u[None], dims) for m, u in zip(masked, unmasked, strict=True)]
        assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("dim", DIMS)
def test_memory_layout_does_not_matter(dim):
    masked, unmasked = drawn(6), drawn(7)
    scattered = [x.permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (masked, unmasked)]
    assert not any(x.is_contiguous() for x in scattered)
    assert torch.equal(match_distribution(*scattered, dim), match_distribution(masked, unmasked, dim))


def test_inputs_are_left_alone():
    masked, unmasked = drawn(8), drawn(9)
    before = masked.clone(), unmasked.clone()
    match_distribution(masked, unmasked, (-2, -1), "straight-through")
    assert torch.equal(masked, before[0]) and torch.equal(unmasked, before[1])


# ---- Gradients -----------------------------------------------------------------------------------------------------

MASKED, UNMASKED = [3.0, 1.0, 2.0], [20.0, 30.0, 10.0]  # matched: 30 10 20, that is places 1, 2, 0 of UNMASKED
UPSTREAM = [0.5, 7.0, 11.0]  # so UNMASKED receives 11, 0.5, 7


def gradients(gradient: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    masked, unmasked = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (MASKED, UNMASKED))
    matched = match_distribution(masked, unmasked, 0, gradient)
    assert matched.tolist() == [30.0, 10.0, 20.0]
    matched.backward(torch.tensor(UPSTREAM, dtype=torch.float64))
    return masked.grad, unmasked.grad


def test_exact_gradient_goes_where_the_values_came_from():
    masked, unmasked = gradients("exact")
    assert masked is None or not masked.any()
    assert unmasked.tolist() == [11.0, 0.5, 7.0]


def test_straight_through_gradient_reaches_both():
    masked, unmasked = gradients("straight-through")
    assert masked.tolist() == UPSTREAM
    assert unmasked.tolist() == [11.0, 0.5, 7.0]


@pytest.mark.parametrize("gradient", ["exact", "straight-through"])
@pytest.mark.parametrize("dim", DIMS)
def test_float32_sends_its_gradient_where_float64_does(dim, gradient):
    upstream, received = drawn(12), []
    for dtype in (torch.float32, torch.float64):
        masked, unmasked = (drawn(s, dtype).requires_grad_() for s in (10, 11))  # halves: the same ties in both
        match_distribution(masked, unmasked, dim, gradient).backward(upstream.to(dtype))
        received.append([None if x.grad is None else x.grad.double() for x in (masked, unmasked)])
    single, double = received
    assert torch.equal(single[1], double[1])
    assert single[0] is double[0] is None or torch.equal(single[0], double[0])


def efdm(content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """What EFDM's released function computes of (..., n): the order of `content`, the values of `style`."""
    ranks = content.argsort(dim=-1).argsort(dim=-1)
    return content + (style.sort(dim=-1).values.gather(-1, ranks) - content.detach())


def test_equals_the_function_that_the_paper_cites_but_not_in_the_papers_words():
    """Values and gradients. Section 2.2 calls A_u the content and A_m the style: that gives A_m's distribution."""
    upstream, made = normal(4, 50, 3, seed=2), []
    for match in (
        lambda a_m, a_u: match_distribution(a_m, a_u, axis_dims("channel"), "straight-through"),
        lambda a_m, a_u: efdm(content=a_m.mT, style=a_u.mT).mT,
    ):
        a_m, a_u = (normal(4, 50, 3, seed=s).requires_grad_() for s in (0, 1))  # (B F, N, C)
        matched = match(a_m, a_u)
        made.append((matched.detach(), *torch.autograd.grad(matched, (a_m, a_u), upstream)))
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    as_worded = efdm(content=a_u.mT, style=a_m.mT).mT
    torch.testing.assert_close(as_worded.sort(dim=1).values, a_m.sort(dim=1).values, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", DIMS)
def test_gradcheck_of_the_exact_gradient(dim):
    # Values at least 0.1 apart, so that a finite difference changes no rank.
    values = [
        torch.randperm(30, generator=torch.Generator().manual_seed(s)).double().reshape(2, 5, 3) / 10 for s in (0, 1)
    ]
    inputs = [x.requires_grad_() for x in values]
    assert torch.autograd.gradcheck(lambda m, u: match_distribution(m, u, dim), inputs)


# ---- Bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [3, -4, (), (-1, 2), (0, 5)])
def test_dims_that_do_not_exist_or_repeat(dim):
    with pytest.raises(ValueError, match="different dimensions of a tensor with 3"):
        match_distribution(drawn(0), drawn(1), dim)


def test_outputs_that_do_not_fit_together():
    with pytest.raises(ValueError, match="agree in shape and dtype"):
        match_distribution(drawn(0), drawn(1)[:, :4], dim=-2)
    with pytest.raises(ValueError, match="agree in shape and dtype"):
        match_distribution(drawn(0), drawn(1).half(), dim=-2)


def test_unknown_choices():
    with pytest.raises(ValueError, match="straight-through, exact, not 'identity'"):
        match_distribution(drawn(0), drawn(1), dim=-2, gradient="identity")
    with pytest.raises(ValueError, match="channel, joint, not 'frame'"):
        axis_dims("frame")
