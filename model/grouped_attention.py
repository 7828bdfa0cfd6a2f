"""Masked attention without an N x N mask: an optimisation of what `attention.py` writes out, equal up to rounding.

Why it is equal: a key that a query may not see has the weight exp(-inf) = 0, so leaving it out changes no sum of the
softmax. Queries of one membership see the same keys. So each group of such queries, with its open keys alone, is a
small attention in which nothing is masked, and every query is in exactly one group.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaptation.grouped_mask import AttentionMask


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: AttentionMask) -> Tensor:
    """A_m, as `self_attention` and `cross_attention` compute it under `mask.dense()`.

    q (B F, N, h d); k and v (B F, N, h d), or (B, L, h d) in cross-attention. Returns as q. Groups of one size, of all
    frames, are one call.
    """
    N, videos = q.shape[1], len(q) // len(mask.query_labels)
    q, k, v = (rearrange(x, "(b s) n c -> b (s n) c", b=videos) for x in (q, k, v))  # all a video's queries, its keys
    pieces = []
    for pack in mask.packs:  # p groups of one size: n queries each, and each as many keys
        q_g, k_g, v_g = (
            rearrange(x.index_select(1, places.flatten()), "b (p n) (h d) -> (b p) h n d", p=len(places), h=heads)
            for x, places in ((q, pack.queries), (k, pack.keys), (v, pack.keys))
        )
        pieces.append(
            rearrange(F.scaled_dot_product_attention(q_g, k_g, v_g), "(b p) h n d -> b (p n) (h d)", b=videos)
        )
    places = torch.cat([pack.queries.flatten() for pack in mask.packs])
    A_m = torch.empty_like(q).index_copy(1, places, torch.cat(pieces, dim=1))  # back to where each query was
    return rearrange(A_m, "b (s n) c -> (b s) n c", n=N)
