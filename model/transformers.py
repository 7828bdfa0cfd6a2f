"""The two transformers of the U-Net: over the cells of a frame with the text, and over the frames of a cell."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from einops import rearrange, repeat
from torch import Tensor, nn

from adaptation.attention_masks import AttentionControl
from adaptation.control import Control
from adaptation.grouped_mask import AttentionMask
from adaptation.mask_normalization import axis_dims, match_distribution
from adaptation.trailblazer import TrailBlazerControl
from model.attention import Attention, Edit, FeedForward, Normalize

EPS = 1e-6  # of the GroupNorm at a transformer's entrance
FEW = 64  # cells: up to here one masked attention is sooner done than an attention for each group of cells


class Masking(NamedTuple):
    """What a control asks of one attention: `Attention.forward`'s arguments of these names."""

    mask: Tensor | AttentionMask | None = None
    normalize: Normalize | None = None
    edit: Edit | None = None


def masking(control: Control | None, where: str, kind: str, h: int, w: int) -> Masking:
    """The masking of one attention. where: encoder, mid or decoder; kind: self, cross or temporal; h, w: its grid."""
    if control is None or not control.applies(where, kind):
        return Masking()
    if isinstance(control, TrailBlazerControl):
        return Masking(edit=control.edit(h, w))
    normalize = None
    if control.normalizes(kind):
        normalize = partial(match_distribution, dim=axis_dims(control.axis), gradient=control.gradient)
    mask = control.mask(kind, h, w)
    by_groups = kind == "self" and h * w > FEW  # words and frames are few, cells are not
    return Masking(mask if by_groups else mask.dense(), normalize)


class TransformerBlock(nn.Module):
    """attn1, attn2 and a feed-forward layer, each behind a LayerNorm and around a residual.

    In space attn2 reads the text (`context_dim` given); in time it is a second self-attention.
    """

    def __init__(self, channels: int, heads: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, head_dim)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, head_dim, context_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(
        self,
        x: Tensor,
        text: Tensor | None = None,
        copies: int = 1,
        masking1: Masking = Masking(),  # noqa: B008  (immutable)
        masking2: Masking = Masking(),  # noqa: B008
        gate: Tensor | None = None,
    ) -> Tensor:
        """x (B F, N, C), text (copies B, L, D) or None -> (copies B F, N, C); the copies differ from attn2 on.

        gate (B F, N, 1) multiplies what enters attn2 and what leaves it: Peekaboo's temporal masking.
        """
        x = x + self.attn1(self.norm1(x), **masking1._asdict())
        q = self.norm2(x if gate is None else gate * x)
        if copies > 1:
            x, q = x.repeat(copies, 1, 1), q.repeat(copies, 1, 1)  # (copies B F, N, C)
        a = self.attn2(q, text, **masking2._asdict())
        x = x + (a if gate is None else gate * a)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """What the two kinds have in common: a GroupNorm, one transformer block between two projections, a residual."""

    def __init__(self, channels: int, heads: int, head_dim: int, groups: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, EPS)
        self.proj_in = nn.Linear(channels, heads * head_dim)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(heads * head_dim, heads, head_dim, context_dim)])
        self.proj_out = nn.Linear(heads * head_dim, channels)


class SpatialTransformer(Transformer):
    """Tokens are the cells of a frame; the GroupNorm sees one frame."""

    def forward(self, x: Tensor, text: Tensor, copies: int, where: str, control: Control | None = None) -> Tensor:
        """x (B F, C, h, w), text (copies B, L, D) -> (copies B F, C, h, w).

        copies: G, the number of guidance halves, where x first meets the text and the halves part; 1 after that.
        """
        h, w = x.shape[2:]
        tokens = self.proj_in(rearrange(self.norm(x), "bf c h w -> bf (h w) c"))  # (B F, N, C)
        in_self, in_cross = (masking(control, where, kind, h, w) for kind in ("self", "cross"))
        tokens = self.transformer_blocks[0](tokens, text, copies, in_self, in_cross)  # (copies B F, N, C)
        return x.repeat(copies, 1, 1, 1) + rearrange(self.proj_out(tokens), "bf (h w) c -> bf c h w", h=h)


class TemporalTransformer(Transformer):
    """Tokens are the frames of one cell; the GroupNorm sees all frames of a video jointly. No text, no positions:
    the order of frames is known from the temporal convolutions alone."""

    def forward(self, x: Tensor, frames: int, where: str = "", control: Control | None = None) -> Tensor:
        """(B F, C, h, w) -> the same shape. where: the block, of which a control asks; transformer_in is in none."""
        h, w = x.shape[2:]
        video = rearrange(x, "(b f) c h w -> b c f (h w)", f=frames)
        tokens = self.proj_in(rearrange(self.norm(video), "b c f p -> (b p) f c"))  # (B N, F, C)
        in_time, gate = masking(control, where, "temporal", h, w), None
        if isinstance(control, AttentionControl) and in_time.mask is not None:
            # As in Peekaboo's code attn1 is masked, and attn2 acts inside the boxes alone.
            gate = repeat(control.inside(h, w), "f p -> (b p) f 1", b=len(video)).to(tokens.dtype)  # (B N, F, 1)
        tokens = self.proj_out(self.transformer_blocks[0](tokens, masking1=in_time, gate=gate))
        return x + rearrange(tokens, "(b h w) f c -> (b f) c h w", h=h, w=w)
