"""A mask kept as groups of pixels that look alike to it: the form that `model/grouped_attention.py` computes with.

An optimisation only. What a mask says is `attention_masks.py`'s; here it is held so that no N x N tensor is needed.
Cross-attention and attention in time use `dense()`: words and frames are few.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor


def memberships(regions: Tensor) -> tuple[Tensor, Tensor]:
    """The D different columns of M_v, which say in which subjects a pixel lies, and which one each pixel has.

    regions (S, K, N) bool, S sequences of N pixels -> (K, D) bool and labels (S, N), 0 <= label < D.
    """
    columns, labels = rearrange(regions.byte(), "s k n -> (s n) k").unique(dim=0, return_inverse=True)
    return rearrange(columns.bool(), "d k -> k d"), rearrange(labels, "(s n) -> s n", s=len(regions))


@dataclass(frozen=True, eq=False)
class Group:
    """Queries that share one membership, and every key open to them: indices (q,) and (k,), ascending."""

    queries: Tensor
    keys: Tensor


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """A boolean mask over S sequences, kept as the D memberships that it is made of.

    query_labels (S, Q): which membership a query has, 0 <= label < D
    key_labels (S, X):   the same for keys; (1, X) where all sequences have the same keys, the words of their text
    open (D, ...):       open[a, b] = a query labelled a may attend to a key labelled b
    """

    query_labels: Tensor
    key_labels: Tensor
    open: Tensor

    @cached_property
    def _dense(self) -> Tensor:
        return self.open[self.query_labels[:, :, None], self.key_labels[:, None, :]]

    def dense(self) -> Tensor:
        """The mask entry by entry, (S, Q, X) bool, True = may attend."""
        return self._dense

    @cached_property
    def groups(self) -> list[list[Group]]:
        """For each of S sequences with keys of their own, its queries by membership and the keys open to each.

        No Q x X tensor is made. Every query is in exactly one group. A group's keys reach beyond the group where
        regions overlap: overlaps are not transitive.
        """
        return [
            [
                Group((queries == label).nonzero().squeeze(-1), self.open[label][keys].nonzero().squeeze(-1))
                for label in queries.unique()
            ]
            for queries, keys in zip(self.query_labels, self.key_labels, strict=True)
        ]

    @cached_property
    def packs(self) -> list[Group]:
        """The groups of all sequences, those of one size together: indices (P, q) and (P, k) for P groups of a size.

        Indices count through all sequences, query i of sequence s being s Q + i, and key j s X + j.
        """
        Q, X = self.query_labels.shape[1], self.key_labels.shape[1]
        sizes = defaultdict(list)
        for s, groups in enumerate(self.groups):
            for group in groups:
                sizes[len(group.queries), len(group.keys)].append((s * Q + group.queries, s * X + group.keys))
        return [Group(*map(torch.stack, zip(*groups, strict=True))) for groups in sizes.values()]

    @cached_property
    def places(self) -> Tensor:
        """Where each of the S Q queries stands among those of the packs, one pack after the other: (S Q,)."""
        return torch.cat([pack.queries.flatten() for pack in self.packs]).argsort()
