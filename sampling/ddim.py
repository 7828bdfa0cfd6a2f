"""DDIM (Song et al., 2021) for a network that predicts noise; alpha_bar is a float or broadcasts against z."""

from torch import Tensor


def predict_clean(z: Tensor, eps: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """Tweedie's formula: z0_hat = (z - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar), the clean latent that eps implies.

    z, eps and the result are (B, C, F, H, W).
    """
    return (z - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5


def ddim_step(
    z: Tensor,
    eps: Tensor,
    alpha_bar: Tensor | float,
    alpha_bar_prev: Tensor | float,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """DDIM Eq. 12 and 16: z_prev = sqrt(alpha_bar_prev) z0_hat + sqrt(1 - alpha_bar_prev - sigma^2) eps + sigma noise.

    sigma = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar)) sqrt(1 - alpha_bar / alpha_bar_prev); eta = 0 is
    deterministic, eta = 1 is DDPM. z, eps, noise and the result are (B, C, F, H, W).
    """
    z0 = predict_clean(z, eps, alpha_bar)
    if eta == 0:
        return alpha_bar_prev**0.5 * z0 + (1 - alpha_bar_prev) ** 0.5 * eps
    if noise is None:
        raise ValueError(f"ddim_step needs noise when eta is above 0, got eta = {eta} and no noise")
    sigma = eta * ((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)) ** 0.5
    return alpha_bar_prev**0.5 * z0 + (1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma * noise
