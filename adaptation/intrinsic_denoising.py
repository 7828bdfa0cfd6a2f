"""Temporal Intrinsic Denoising (Section 2.3, Eq. 2): refine the latent at one noise level before the sampler's step."""

from torch import Tensor


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
