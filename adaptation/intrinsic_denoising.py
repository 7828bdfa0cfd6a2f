"""Temporal Intrinsic Denoising (Section 2.3, Eq. 2): refine the latent at one noise level before the sampler's step."""

from collections.abc import Sequence

from torch import Tensor

ZEROSCOPE = (4, 24, 40, 72)  # (C, F, H, W) of the latents of 24 frames of 576 x 320, where c_g is what Eq. 2 has


def step_sizes(gamma: float, alpha_bar: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """eta_l and eta_k of Eq. 2 at a noise level; with the latent's own noise predicted, the update keeps its variance.

    eta_l = gamma (1 - alpha_bar),  eta_k = sqrt(gamma (2 - gamma) (1 - alpha_bar)).

    The paper names the two symbols only; these are the steps of the sampler that it modifies (DreamClean), as others
    quote them. Why they fit: with z = sqrt(alpha_bar) z0 + sqrt(1 - alpha_bar) n, the score of z given z0 is
    -n / sqrt(1 - alpha_bar), so a step replaces n by (1 - gamma) n + sqrt(gamma (2 - gamma)) eps_k, and
    (1 - gamma)^2 + gamma (2 - gamma) = 1.

    gamma: in [0, 1], the share of the noise that one step exchanges; alpha_bar: number or tensor in [0, 1].
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma is the share of noise exchanged in a refinement step, from 0 to 1, not {gamma}")
    inside = (alpha_bar >= 0) & (alpha_bar <= 1)
    if not (inside.all() if isinstance(inside, Tensor) else inside):
        raise ValueError(f"alpha_bar is a product of numbers between 0 and 1, not {alpha_bar}")
    eta_l = gamma * (1 - alpha_bar)
    eta_k = (gamma * (2 - gamma) * (1 - alpha_bar)) ** 0.5
    return eta_l, eta_k


def scale_c_g(c_g: float, shape: Sequence[int], unit_gradient: bool = False) -> float:
    """The number in Eq. 2 that does in latents of `shape` (C, F, H, W) what c_g does in Zeroscope's.

    How large an element of grad tau is (Eq. 1): of two crops u and v with n_c values each,
        grad_u rho = (v^ - rho u^) / |u|,    |grad_u rho| = sqrt(1 - rho^2) / |u|,
    where ^ is "centred, of unit length" and |u| = sigma sqrt(n_c) the length of the centred u. tau is the mean over
    F - 1 pairs of frames, and a frame is in two of them, the first and the last in one. Two gradients that know nothing
    of each other add up to sqrt(2) of one, so that an element has an rms of about
        sqrt(2 (1 - rho^2)) / (sigma n_c (F - 1)),
    while score and noise have the same rms at every size. A crop is a share of its frame: n_c goes as n = C H W, and so
    c_g has to go as n (F - 1). A single frame has no pair, no gradient and no strength. What the gradient meets on its
    way through the network is not in this count.

    unit_gradient: the gradient has length 1 for each video, an element 1 / sqrt(n_c F), and c_g goes as sqrt(n F).
    """
    C, F, H, W = shape
    C0, F0, H0, W0 = ZEROSCOPE
    if unit_gradient:
        return c_g * (C * F * H * W / (C0 * F0 * H0 * W0)) ** 0.5
    return c_g * (C * H * W * (F - 1) / (C0 * H0 * W0 * (F0 - 1)))


def intrinsic_step(
    z: Tensor,
    score: Tensor,
    prior_gradient: Tensor | None,
    eta_l: float | Tensor,
    eta_k: float | Tensor,
    c_g: float,
    noise: Tensor,
) -> Tensor:
    """One iteration m of Eq. 2: z + eta_l [c_g grad tau + grad log p_t(z | y, b)] + eta_k eps_k.

    z, score = grad log p_t, prior_gradient = grad_z tau, noise = eps_k ~ N(0, I): one shape, (B, C, F, H, W).
    c_g is the number in the equation; `scale_c_g` makes it of the setting, which is of Zeroscope's size.
    With c_g = 0 this is Intrinsic Denoising: prior_gradient is not looked at and may be None.
    """
    _check_shapes(z, score=score, noise=noise)
    if c_g == 0:
        return z + eta_l * score + eta_k * noise
    if prior_gradient is None:
        raise ValueError(f"c_g = {c_g} needs the gradient of the temporal prior; only c_g = 0 can do without")
    _check_shapes(z, prior_gradient=prior_gradient)
    return z + eta_l * (c_g * prior_gradient + score) + eta_k * noise


def _check_shapes(z: Tensor, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.shape != z.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, but the latent z has {tuple(z.shape)}")
