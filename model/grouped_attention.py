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
    """A_m, as `self_attention` computes it under `mask.dense()`: q, k, v (B F, N, h d), returns as q.

    Groups of one size, of all frames, are one call.
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
    A_m = torch.cat(pieces, dim=1).index_select(1, mask.places)  # each query back where it was
    return rearrange(A_m, "b (s n) c -> (b s) n c", n=N)
