"""Attention, and the place where the paper's masks and Mask Normalization enter it.

Tokens are (B F, N, C) in space, N = h w cells of a frame, and (B N, F, C) in time. Text is (B, L, D).
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

Normalize = Callable[[Tensor, Tensor], Tensor]  # (A_m, A_u), both (B F, N, C), to the output that takes A_m's place


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """sigma(Q K^T / sqrt(d)) V, Section 2.2, written out: the readable reference of `fused_attention`.

    q (..., N, d), k and v (..., M, d); mask bool, broadcast to (..., N, M), True = may attend. A masked logit becomes
    minus infinity, not zero: zero would leave it the weight exp(0). Returns (..., N, d).
    """
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same as `softmax_attention`, by torch's fused kernel, which never holds the (N, M) weights whole."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves, or to the words of their video's text."""

    def __init__(self, channels: int, heads: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * head_dim, bias=False)
        self.to_k = nn.Linear(context_dim or channels, heads * head_dim, bias=False)
        self.to_v = nn.Linear(context_dim or channels, heads * head_dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(heads * head_dim, channels)])

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        normalize: Normalize | None = None,
    ) -> Tensor:
        """Sections 2.1 and 2.2 in one place: A_u = sigma(Q K^T / sqrt(d)) V, and A_m, which the mask restricts.

        x (B F, N, C). context (B, L, D) for cross-attention, None for self-attention. mask bool, (F, N, N) or
        (F, N, L), the same for every video and head, True = may attend. normalize maps (A_m, A_u), which share q, k
        and v, to the output used instead of A_m. Returns (B F, N, C), after the output projection, before the residual.
        """
        source = x if context is None else context
        # A video's frames read the same words, so in cross-attention they are one long list of queries (f n).
        q = rearrange(self.to_q(x), "(b f) n (h d) -> b h (f n) d", b=source.shape[0], h=self.heads)
        k, v = (rearrange(to(source), "b m (h d) -> b h m d", h=self.heads) for to in (self.to_k, self.to_v))

        def attend(mask: Tensor | None) -> Tensor:
            return rearrange(fused_attention(q, k, v, mask), "b h (f n) d -> (b f) n (h d)", n=x.shape[1])

        if mask is None:
            a = attend(None)  # A_u
        else:
            if context is None:
                mask = repeat(mask, "f n m -> (b f) 1 n m", b=x.shape[0] // mask.shape[0])
            else:
                mask = rearrange(mask, "f n l -> 1 1 (f n) l")
            a = attend(mask)  # A_m
            if normalize is not None:
                a = normalize(a, attend(None))
        return self.to_out[0](a)


class GEGLU(nn.Module):
    """One linear layer to a value and a gate; value * gelu(gate), the exact gelu."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Widen four times, gate, narrow again. The middle place of `net` is a dropout that this model does not use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))
