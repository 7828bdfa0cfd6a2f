"""Attention, and the place where the paper's masks and Mask Normalization enter it.

Tokens are (B F, N, C) in space, N = h w cells of a frame, and (B N, F, C) in time. Text is (B, L, D).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from adaptation.attention_masks import AttentionMask

Normalize = Callable[[Tensor, Tensor], Tensor]  # (A_m, A_u), both (B F, N, C), to the output that takes A_m's place
Edit = Callable[[Tensor], Tensor]  # probabilities (B, heads, F, N, L) of cross-attention, to those used instead


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """sigma(Q K^T / sqrt(d)), Section 2.2, written out: the probability (..., N, M) of each key for each query.

    q (..., N, d), k (..., M, d); mask bool, broadcast to (..., N, M), True = may attend. A masked logit becomes minus
    infinity, not zero: zero would leave it the weight exp(0).
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """sigma(Q K^T / sqrt(d)) V, Section 2.2, written out: the readable reference of `fused_attention`.

    q, k and mask as in `attention_weights`, v (..., M, d). Returns (..., N, d).
    """
    return attention_weights(q, k, mask) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same as `softmax_attention`, by torch's fused kernel, which never holds the (N, M) weights whole."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """A_u, and A_m under a mask that says for every query and key whether they see each other.

    q (B F, N, h d); k and v (B F, N, h d), or (B, L, h d), which all frames of a video read. mask bool, (F, N, N) or
    (F, N, L), the same for every video and head, True = may attend. Returns as q.
    """
    frames = len(q) // len(k)  # with the same keys: in cross-attention a video's frames are one long list of queries
    if mask is not None:
        mask = repeat(mask, "(s f) n m -> (b s) 1 (f n) m", f=frames, b=len(q) // len(mask))
    q = rearrange(q, "(b f) n (h d) -> b h (f n) d", f=frames, h=heads)
    k, v = (rearrange(x, "b m (h d) -> b h m d", h=heads) for x in (k, v))
    return rearrange(fused_attention(q, k, v, mask), "b h (f n) d -> (b f) n (h d)", f=frames)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: AttentionMask) -> Tensor:
    """A_m, equal to `dense_attention` under `mask.dense()`, without an N x N mask.

    Queries of one membership see exactly the keys open to them, so that each group is a small attention in which
    nothing is masked; groups of one size are one call. q, k, v and what is returned as there.
    """
    if len(k) < len(q):
        mask = mask.joined
    N, videos = q.shape[1], q.shape[0] * q.shape[1] // mask.query_labels.numel()
    q, k, v = (rearrange(x, "(b s) n c -> b (s n) c", b=videos) for x in (q, k, v))
    pieces = []
    for pack in mask.packs:
        q_g, k_g, v_g = (
            rearrange(x.index_select(1, places.flatten()), "b (p n) (h d) -> (b p) h n d", p=len(places), h=heads)
            for x, places in ((q, pack.queries), (k, pack.keys), (v, pack.keys))
        )
        pieces.append(rearrange(fused_attention(q_g, k_g, v_g), "(b p) h n d -> b (p n) (h d)", b=videos))
    places = torch.cat([pack.queries.flatten() for pack in mask.packs])  # every query is in exactly one group
    a = torch.empty_like(q).index_copy(1, places, torch.cat(pieces, dim=1))
    return rearrange(a, "b (s n) c -> (b s) n c", n=N)


def edited_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, edit: Edit) -> Tensor:
    """Cross-attention whose probabilities are edited before they weigh V.

    q (B F, N, h d), k and v (B, L, h d), which all frames of a video read. Returns as q.
    """
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
        """Sections 2.1 and 2.2 in one place: A_u = sigma(Q K^T / sqrt(d)) V, and A_m, which the mask restricts.

        x (B F, N, C). context (B, L, D) for cross-attention, None for self-attention. mask (F, N, N) or (F, N, L), in
        time (N, F, F), the same for every video and head: a bool tensor, True = may attend, or an AttentionMask, which
        is never made dense. normalize maps (A_m, A_u), which share q, k and v, to the output used instead of A_m. edit
        changes the probabilities of cross-attention; then there is no mask. Returns (B F, N, C), after the output
        projection, before the residual.
        """
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)

        if edit is not None:
            a = edited_attention(q, k, v, self.heads, edit)
        elif mask is None:
            a = dense_attention(q, k, v, self.heads)  # A_u
        else:
            masked_attention = grouped_attention if isinstance(mask, AttentionMask) else dense_attention
            a = masked_attention(q, k, v, self.heads, mask)  # A_m
            if normalize is not None:
                a = normalize(a, dense_attention(q, k, v, self.heads))
        return self.to_out[0](a)


class GEGLU(nn.Module):
    """One linear layer to a value and a gate; value * gelu(gate), the exact gelu."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., inner)."""
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        value, gate = (F.linear(x, weight, bias) for weight, bias in halves)  # each whole in memory, not interleaved
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Widen four times, gate, narrow again. The middle place of `net` is a dropout that this model does not use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> the same shape."""
        return self.net[2](self.net[0](x))
