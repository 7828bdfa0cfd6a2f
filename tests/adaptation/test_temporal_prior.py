"""Eq. 1: crops and tau, by hand and with their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptation.temporal_prior import common_grid, crop, prepare_crops, temporal_consistency
from tests.helpers import f64, normal

ABSENT = [math.nan] * 4
WHOLE = [0.0, 0.0, 1.0, 1.0]


def cells(x1: int, y1: int, x2: int, y2: int, H: int, W: int) -> list[float]:
    """A box on cell borders."""
    return [x1 / W, y1 / H, x2 / W, y2 / H]


# ---- Crops ---------------------------------------------------------------------------------------------------------


@given(st.data())
def test_crop_on_cell_borders_is_slicing(data):
    H, W = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    h, w = data.draw(st.integers(1, H)), data.draw(st.integers(1, W))
    corners = [(data.draw(st.integers(0, W - w)), data.draw(st.integers(0, H - h))) for _ in range(3)]
    frames = normal(2, 4, 3, H, W)
    boxes = f64(*[cells(x, y, x + w, y + h, H, W) for x, y in corners])
    assert common_grid(boxes, H, W) == (h, w)
    expected = torch.stack([frames[:, :, f, y : y + h, x : x + w] for f, (x, y) in enumerate(corners)], dim=2)
    torch.testing.assert_close(crop(frames, boxes, (h, w)), expected, rtol=0, atol=1e-13)


def test_crop_between_cells_by_hand():
    # A 4 x 4 frame whose value is its row: the one-row box [0.25, 0.5] in two parts has centres at 0.3125 and 0.4375 of
    # the height, 1.25 and 1.75 cells from the top, and cell i has its centre at i + 0.5: rows 0.75 and 1.25.
    frame = torch.arange(4.0).double()[:, None].expand(4, 4)[None]
    box = f64(cells(0, 1, 2, 2, 4, 4))
    torch.testing.assert_close(crop(frame, box, (2, 2)), f64([[0.75, 0.75], [1.25, 1.25]]), rtol=0, atol=1e-14)
    columns = crop(frame.mT, f64(cells(1, 0, 2, 2, 4, 4)), (2, 2))
    torch.testing.assert_close(columns, f64([[0.75, 1.25], [0.75, 1.25]]), rtol=0, atol=1e-14)


def test_crop_at_the_border_repeats_the_outermost_cells():
    # The first cell in two parts: centres 0.25 and 0.75 cells from the left, that is -0.25 and 0.25 from its centre;
    # left of the first centre there is nothing to interpolate with. The same at the other end.
    frame = f64([[10.0, 20.0, 40.0, 80.0]])
    left, right = (crop(frame, f64(cells(x, 0, x + 1, 1, 1, 4)), (1, 2)) for x in (0, 3))
    assert left.flatten().tolist() == [10.0, 12.5]
    assert right.flatten().tolist() == [70.0, 80.0]


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
def test_crop_of_any_box_is_an_average(seed, h, w):
    frames = normal(1, 2, 3, 5, 7, seed=seed)
    corners = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort(0).values
    boxes = torch.cat([corners[0], corners[1]], dim=-1)[[0, 1, 0]]
    part = crop(frames, boxes, (h, w))
    assert part.shape == (1, 2, 3, h, w)
    low, high = frames.amin((-2, -1), keepdim=True), frames.amax((-2, -1), keepdim=True)
    assert ((part >= low - 1e-12) & (part <= high + 1e-12)).all()


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_crop_in_the_dtype_of_the_frames(dtype, atol):
    frames, boxes = normal(4, 2, 40, 72).clamp(-3, 3), torch.tensor([[0.1, 0.2, 0.63, 0.7], [0.31, 0.3, 0.9, 0.95]])
    part = crop(frames.to(dtype), boxes, (20, 40))
    assert part.dtype == dtype
    torch.testing.assert_close(part.double(), crop(frames, boxes.double(), (20, 40)), rtol=0, atol=atol)


def test_crop_gradcheck():
    frames, boxes = normal(2, 2, 3, 4).requires_grad_(), f64([0.1, 0.2, 0.7, 0.9], [0.3, 0.0, 1.0, 0.55])
    assert torch.autograd.gradcheck(lambda f: crop(f, boxes, (2, 3)), [frames])


def test_common_grid_is_the_largest_box_in_whole_cells():
    # On 10 x 20 cells: heights 2.4 and 3.6 round to 2 and 4; widths 5.0 and 0.2 to 5 and 0.
    boxes = f64([0.0, 0.0, 0.25, 0.24], [0.5, 0.1, 0.51, 0.46])
    assert common_grid(boxes, 10, 20) == (4, 5)
    assert common_grid(f64([0.5, 0.5, 0.51, 0.51]), 10, 20) == (1, 1)


def test_crop_errors():
    frames = normal(2, 4, 4)
    with pytest.raises(ValueError, match=r"boxes of shape \(2, 4\)"):
        crop(frames, f64(WHOLE), (2, 2))
    with pytest.raises(ValueError, match="a box is absent"):
        crop(frames, f64(WHOLE, ABSENT), (2, 2))
    with pytest.raises(ValueError, match="at least one cell"):
        crop(frames, f64(WHOLE, WHOLE), (2, 0))


# ---- tau -----------------------------------------------------------------------------------------------------------


def test_tau_by_hand_on_moving_crops():
    # Crops 1 2 3 4, then 1 3 2 4 (rho 0.8, above), then 4 2 3 1 (the second mirrored, rho -1): tau = (0.8 - 1) / 2.
    z0 = normal(1, 1, 3, 4, 4)
    corners = [(0, 0), (1, 2), (2, 1)]
    for f, (values, (x, y)) in enumerate(zip([[1, 2, 3, 4], [1, 3, 2, 4], [4, 2, 3, 1]], corners, strict=True)):
        z0[0, 0, f, y : y + 2, x : x + 2] = f64(*values).reshape(2, 2)
    boxes = f64([cells(x, y, x + 2, y + 2, 4, 4) for x, y in corners])
    assert temporal_consistency(z0, boxes).tolist() == pytest.approx([-0.1], abs=1e-14)


def test_channels_and_pixels_are_one_vector():
    # Each channel is constant, so no channel alone has a correlation; together 1 1 3 3 and 1 1 5 5 correlate fully.
    z0 = torch.empty(1, 2, 2, 1, 2, dtype=torch.float64)
    z0[0, :, 0], z0[0, :, 1] = f64([[1.0, 1.0]], [[3.0, 3.0]]), f64([[1.0, 1.0]], [[5.0, 5.0]])
    assert temporal_consistency(z0, f64([WHOLE, WHOLE])).tolist() == pytest.approx([1.0], abs=1e-14)


def test_equal_frames_give_one_and_alternating_signs_minus_one():
    frame = normal(2, 4, 1, 6, 8)
    boxes = f64([[0.1, 0.2, 0.77, 0.9]] * 5)
    same = frame.expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(temporal_consistency(same, boxes), torch.ones(2).double(), rtol=0, atol=1e-14)
    signs = f64(1, -1, 1, -1, 1).reshape(5, 1, 1)
    torch.testing.assert_close(temporal_consistency(signs * same, boxes), -torch.ones(2).double(), rtol=0, atol=1e-14)


def test_a_pattern_that_moves_and_grows_with_its_box_is_consistent():
    # A plane a x + b y in the box's own coordinates is linear in space, so any crop of it is the same up to scale.
    H, W, boxes = 24, 32, [[0.125, 0.125, 0.5, 0.5], [0.25, 0.25, 0.75, 0.875], [0.4, 0.3, 0.9, 0.6]]
    y, x = torch.meshgrid((torch.arange(H).double() + 0.5) / H, (torch.arange(W).double() + 0.5) / W, indexing="ij")
    planes = [3 * (x - x1) / (x2 - x1) - 2 * (y - y1) / (y2 - y1) for x1, y1, x2, y2 in boxes]
    z0 = torch.stack(planes)[None, None]
    assert temporal_consistency(z0, f64(boxes)).tolist() == pytest.approx([1.0], abs=1e-14)
    assert float(temporal_consistency(z0, f64([boxes[0]] * 3))) < 0.99  # not where the boxes stand still


def test_only_the_inside_of_the_boxes_counts():
    z0, boxes = normal(1, 4, 3, 8, 8), f64([cells(f, 2, f + 3, 6, 8, 8) for f in range(3)])
    changed = z0 + 100
    for f in range(3):
        changed[:, :, f, 2:6, f : f + 3] = z0[:, :, f, 2:6, f : f + 3]
    torch.testing.assert_close(
        temporal_consistency(changed, boxes), temporal_consistency(z0, boxes), rtol=0, atol=1e-12
    )


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-10, 10))
def test_tau_ignores_scale_and_shift_and_lies_in_range(seed, scale, shift):
    z0, boxes = normal(2, 4, 4, 6, 6, seed=seed), f64([[0.1, 0.2, 0.6, 0.9]] * 4, [[0.3, 0.0, 1.0, 0.5]] * 4)
    tau = temporal_consistency(z0, boxes)
    torch.testing.assert_close(temporal_consistency(scale * z0 + shift, boxes), tau, rtol=0, atol=1e-9)
    assert (tau.abs() <= 1).all()


def test_videos_of_a_batch_do_not_mix():
    z0, boxes = normal(3, 4, 4, 6, 6), f64([[0.1, 0.2, 0.6, 0.9]] * 4)
    alone = torch.cat([temporal_consistency(z[None], boxes) for z in z0])
    torch.testing.assert_close(temporal_consistency(z0, boxes), alone, rtol=0, atol=1e-14)


def test_tau_is_the_mean_over_subjects():
    z0 = normal(2, 4, 3, 8, 8)
    first, second = f64([[0.0, 0.0, 0.5, 0.5]] * 3), f64([[0.2, 0.3, 0.9, 1.0]] * 3)
    both = temporal_consistency(z0, torch.cat([first, second]))
    expected = (temporal_consistency(z0, first) + temporal_consistency(z0, second)) / 2
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-15)


def test_a_pair_counts_where_the_subject_is_in_both_frames():
    z0, box = normal(1, 4, 6, 6, 6), [0.0, 0.0, 0.5, 0.5]
    # Present in frames 0 1 . 3 . 5: only the pair 0 1 remains.
    tau = temporal_consistency(z0, f64([box, box, ABSENT, box, ABSENT, box]))
    torch.testing.assert_close(tau, temporal_consistency(z0[:, :, :2], f64([box, box])), rtol=0, atol=1e-15)
    # Present in 0 1 . 3 4 5: pairs 0 1, 3 4 and 4 5, weighted equally.
    tau = temporal_consistency(z0, f64([box, box, ABSENT, box, box, box]))
    parts = [temporal_consistency(z0[:, :, i : i + 2], f64([box, box])) for i in (0, 3, 4)]
    torch.testing.assert_close(tau, torch.stack(parts).mean(0), rtol=0, atol=1e-15)


def test_a_subject_without_a_pair_is_left_out_of_the_mean():
    z0, box = normal(1, 4, 3, 6, 6), [0.0, 0.0, 0.5, 0.5]
    seen = f64([box] * 3)
    for track in ([ABSENT] * 3, [box, ABSENT, box]):
        both = torch.cat([seen, f64(track)])
        assert torch.equal(temporal_consistency(z0, both), temporal_consistency(z0, seen))


@pytest.mark.parametrize("track", [[WHOLE], [ABSENT], [WHOLE, ABSENT, WHOLE], [ABSENT, ABSENT]])
def test_no_pair_at_all_gives_zero_with_a_gradient_of_zeros(track):
    z0 = normal(2, 4, len(track), 3, 3).requires_grad_()
    tau = temporal_consistency(z0, f64(track, track))
    assert tau.tolist() == [0.0, 0.0]
    (gradient,) = torch.autograd.grad(tau.sum(), z0)
    assert torch.equal(gradient, torch.zeros_like(z0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_crops_give_zero_and_a_finite_gradient(dtype):
    z0 = normal(1, 4, 3, 7, 9).to(dtype)
    z0[:, :, 1] = 0.3  # its crop is interpolated, so constant only up to rounding
    z0.requires_grad_()
    boxes = torch.tensor([[[0.11, 0.23, 0.67, 0.81], [0.13, 0.2, 0.59, 0.7], [0.31, 0.2, 0.93, 0.77]]], dtype=dtype)
    tau = temporal_consistency(z0, boxes)
    assert tau.tolist() == [0.0]
    (gradient,) = torch.autograd.grad(tau.sum(), z0)
    assert torch.equal(gradient, torch.zeros_like(z0))


def test_tau_gradcheck():
    z0 = normal(1, 2, 3, 3, 4).requires_grad_()
    boxes = f64(
        [[0.1, 0.2, 0.7, 0.9], [0.2, 0.25, 0.6, 1.0], [0.0, 0.0, 0.6, 0.5]],
        [[0.5, 0.5, 1.0, 1.0], [0.4, 0.5, 0.9, 0.9], ABSENT],
    )
    assert torch.autograd.gradcheck(lambda z: temporal_consistency(z, boxes), [z0])


def test_following_the_gradient_raises_tau():
    z0, boxes = normal(1, 4, 6, 12, 16), f64([[0.1 * f, 0.2, 0.1 * f + 0.4, 0.7] for f in range(6)])
    start = float(temporal_consistency(z0, boxes))
    for _ in range(20):
        z0.requires_grad_()
        (gradient,) = torch.autograd.grad(temporal_consistency(z0, boxes).sum(), z0)
        z0 = z0.detach() + 20 * gradient
    assert start < 0.2 < 0.8 < float(temporal_consistency(z0, boxes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_in_float32_serve_latents_of_any_precision(dtype):
    z0, boxes = normal(1, 4, 3, 8, 8), torch.tensor([[[0.1, 0.2, 0.6, 0.9]] * 3])
    tau = temporal_consistency(z0.to(dtype), boxes)
    assert tau.dtype == dtype
    torch.testing.assert_close(tau.double(), temporal_consistency(z0, boxes.double()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "latent, boxes", [((1, 4, 3, 8, 8), (1, 2, 4)), ((1, 4, 3, 8, 8), (3, 4)), ((4, 3, 8, 8), (1, 3, 4))]
)
def test_tau_errors(latent, boxes):
    with pytest.raises(ValueError, match=r"tau needs latents \(B, C, F, H, W\) and boxes \(K, F, 4\)"):
        temporal_consistency(normal(*latent), torch.zeros(boxes))


def test_crops_that_were_prepared_give_the_same_bits():
    """A frame without a box, and a second subject without two consecutive ones: one subject is left, of two pairs."""
    z0, box = normal(2, 3, 5, 6, 8).requires_grad_(), [0.1, 0.2, 0.6, 0.9]
    boxes = f64([box, box, ABSENT, box, box], [box, ABSENT, box, ABSENT, box])
    crops = prepare_crops(boxes, z0.detach())
    assert [one.pairs.tolist() for one in crops] == [[0, 2]]
    taus = [temporal_consistency(z0, given) for given in (boxes, crops)]
    assert torch.equal(*taus)
    assert torch.equal(*(torch.autograd.grad(tau.sum(), z0)[0] for tau in taus))
