"""Attention, and the place where the paper's masks and Mask Normalization enter it.

Tokens are (B F, N, C) in space, N = h w cells of a frame, and (B N, F, C) in time. Text is (B, L, D).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from adaptation.grouped_mask import AttentionMask
from model.grouped_attention import grouped_attention

Normalize = Callable[[Tensor, Tensor], Tensor]  # (A_m, A_u), both (B F, N, C), to the output that takes A_m's place
Edit = Callable[[Tensor], Tensor]  # probabilities (B, heads, F, N, L) of cross-attention, to those used instead


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """sigma(Q K^T / sqrt(d)), Section 2.2, written out: the probability (..., N, X) of each key for each query.

    q (..., N, d), k (..., X, d); mask bool, broadcast to (..., N, X), True = may attend. A masked logit becomes minus
    infinity, not zero: zero would leave it the weight exp(0). A run of the paper's method never holds these: it calls
    `fused_attention` and `grouped_attention`; TrailBlazer's edit does.
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """sigma(Q K^T / sqrt(d)) V, Section 2.2, written out: the readable reference of `fused_attention`.

    q, k and mask as in `attention_weights`, v (..., X, d). Returns (..., N, d).
    """
    return attention_weights(q, k, mask) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same as `softmax_attention`, by torch's fused kernels, which do not hold the (N, X) weights whole."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def self_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | AttentionMask | None = None) -> Tensor:
    """A_u of tokens that look at each other, and A_m under a mask: every cell of a frame to every cell of that frame.

    q, k, v (B F, N, h d); mask bool (F, N, N), the same for every video and head, True = may attend. Returns as q.
    In time a sequence is the F frames of one cell: (B N, F, h d), mask (N, F, F).

    Two frames of 4 pixels are two sequences: each has a 4 x 4 mask, and a pixel weighs the 4 pixels of its own frame.
    """
    if isinstance(mask, AttentionMask):
        return grouped_attention(q, k, v, heads, mask)  # the same numbers without an N x N mask
    q, k, v = (rearrange(x, "s n (h d) -> s h n d", h=heads) for x in (q, k, v))
    if mask is not None:
        mask = repeat(mask, "f n m -> (b f) 1 n m", b=len(q) // len(mask))
    return rearrange(fused_attention(q, k, v, mask), "s h n d -> s n (h d)")


def cross_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """A_u of tokens that look at words, and A_m under a mask: every cell of every frame to the words of its video.

    q (B F, N, h d); k, v (B, L, h d); mask bool (F, N, L), the same for every video and head, True = may attend.
    Returns as q.

    Two frames of 4 pixels and 3 words are one sequence of 8 queries, with an 8 x 3 mask: all frames read the same text.
    """
    N = q.shape[1]
    q = rearrange(q, "(b f) n (h d) -> b h (f n) d", b=len(k), h=heads)
    k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (k, v))
    if mask is not None:
        mask = rearrange(mask, "f n l -> (f n) l")
    return rearrange(fused_attention(q, k, v, mask), "b h (f n) d -> (b f) n (h d)", n=N)


def edited_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, edit: Edit) -> Tensor:
    """The baseline TrailBlazer's: `cross_attention` whose probabilities are edited before they weigh V."""
    q = rearrange(q, "(b f) n (h d) -> b h f n d", b=len(k), h=heads)
    k, v = (rearrange(x, "b l (h d) -> b h 1 l d", h=heads) for x in (k, v))
    return rearrange(edit(attention_weights(q, k)) @ v, "b h f n d -> (b f) n (h d)")


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
        mask: Tensor | AttentionMask | None = None,
        normalize: Normalize | None = None,
        edit: Edit | None = None,
    ) -> Tensor:
        """Sections 2.1 and 2.2 in one place: A_u, A_m and the output with the ranks of A_m and the values of A_u.

        x (B F, N, C), in time (B N, F, C). context (B, L, D) for cross-attention, None for self-attention.
        mask (F, N, N) or (F, N, L), in time (N, F, F), the same for every video and head: a bool tensor, True = may
        attend, or for self-attention an AttentionMask, which is never made dense. normalize maps (A_m, A_u), which
        share q, k and v, to the output used instead of A_m. edit changes the probabilities of cross-attention; then
        there is no mask.
        Returns like x, after the output projection, before the residual.
        """
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)  # (B F, N, h d), and so k and v or (B, L, h d)

        attention = self_attention if context is None else cross_attention
        attend: Callable[..., Tensor] = partial(attention, q, k, v, self.heads)

        if edit is not None:
            A = edited_attention(q, k, v, self.heads, edit)
        elif mask is None:
            A = attend()
        elif normalize is None:
            A = attend(mask=mask)
        else:
            A_u = attend()  # sigma(Q K^T / sqrt(d)) V
            A_m = attend(mask=mask)  # sigma(Q K^T / sqrt(d) o M) V
            A = normalize(A_m, A_u)
        return self.to_out[0](A)


class GEGLU(nn.Module):
    """One linear layer to a value and a gate; value * gelu(gate), the exact gelu."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., inner)."""
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        value, gate = (F.linear(x, weight, bias) for weight, bias in halves)  # each whole in memory, not interleaved
        return F.gelu(gate).mul_(value)  # in place: without a gradient one tensor less


class FeedForward(nn.Module):
    """Widen four times, gate, narrow again. The middle place of `net` is a dropout that this model does not use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return self.net[2](self.net[0](x))
