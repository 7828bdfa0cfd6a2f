"""What steers the sampler: classifier-free guidance, the score it implies, and the length of the prior's gradient."""

import torch
from torch import Tensor


def classifier_free(eps_uncond: Tensor, eps_text: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: eps = eps_uncond + scale (eps_text - eps_uncond), all (B, C, F, H, W)."""
    return eps_uncond + scale * (eps_text - eps_uncond)


def score(eps: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """grad_z log p_t(z) = -eps / sqrt(1 - alpha_bar), (B, C, F, H, W); with guided eps this is G_p of Algorithm 1."""
    return -eps / (1 - alpha_bar) ** 0.5


def unit_norm(gradient: Tensor) -> Tensor:
    """Each video's gradient, (B, C, F, H, W), divided by its length; zero stays zero. No part of the method."""
    length = torch.linalg.vector_norm(gradient, dim=(1, 2, 3, 4), keepdim=True)  # (B, 1, 1, 1, 1)
    return gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)
