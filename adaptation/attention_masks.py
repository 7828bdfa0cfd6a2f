"""Attention masks from boxes and words (Section 2.1): who may attend to whom while a step is frozen."""

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, field

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor
from torch.nn.functional import pad

from adaptation.choices import BLOCKS, MASK_CHOICES
from adaptation.grouped_mask import AttentionMask, memberships

# ---- Section 2.1: the two masks ------------------------------------------------------------------------------------


def complete(rows: Tensor) -> Tensor:
    """Append the background, 1 where no subject is: M_v -> R and M_y -> Y, (..., K, X) bool -> (..., K + 1, X)."""
    return torch.cat([rows, ~rows.any(-2, keepdim=True)], dim=-2)


def self_mask(regions: Tensor) -> Tensor:
    """M_self = R^T R > 0: a pixel sees every pixel with which it shares a subject, or the background.

    regions: M_v (..., K, N) bool -> (..., N, N) bool, query i, key j, True = may attend. For K = 1 these are the two
    terms of the paper, M_v M_v^T + (1 - M_v)(1 - M_v)^T.

    The paper writes QK^T / sqrt(d) o M. A logit multiplied by 0 would keep the weight exp(0), so, as in Peekaboo, the
    mask excludes: a closed logit is minus infinity before the softmax.
    """
    R = complete(regions).float()
    return einsum(R, R, "... k i, ... k j -> ... i j") > 0


def cross_mask(regions: Tensor, tokens: Tensor) -> Tensor:
    """M_cross = R^T Y > 0: a pixel sees the words of its subjects, a background pixel every other token.

    The start token is such another token here, as the formula reads; `AttentionControl` closes it where it is hidden.

    regions: M_v (..., K, N) bool, tokens: M_y (K, L) bool -> (..., N, L) bool, query i, token l, True = may attend.
    Excludes as `self_mask` does.
    """
    R, Y = complete(regions).float(), complete(tokens).float()
    return einsum(R, Y, "... k i, k l -> ... i l") > 0


def to_grid(regions: Tensor, h: int, w: int, grid: str) -> Tensor:
    """Regions of the full grid on a coarser one of the U-Net, (..., H, W) bool -> (..., h, w).

    Each level of the U-Net halves the grid and rounds up, so the stride s is the power of two that leads to (h, w).
    grid: `"stride"` keeps every s-th row and column, as Peekaboo does, and may lose a small region;
        `"cover"` keeps a cell if any of the s x s cells under it is inside, so no region is ever lost.
    """
    H, W = regions.shape[-2:]
    s = 1
    while s < max(H, W) and (-(-H // s), -(-W // s)) != (h, w):
        s *= 2
    if (-(-H // s), -(-W // s)) != (h, w):
        raise ValueError(f"no power-of-two stride leads from the {H} x {W} grid of the regions to {h} x {w}")
    if grid == "stride":
        return regions[..., ::s, ::s]
    whole = pad(regions.byte(), (0, w * s - W, 0, h * s - H))
    return reduce(whole, "... (h s1) (w s2) -> ... h w", "max", s1=s, s2=s).bool()


# ---- What one video's masked forward needs -------------------------------------------------------------------------

KINDS = ("self", "cross", "temporal")


@dataclass(frozen=True, eq=False)
class AttentionControl:
    """Masks for one video and the choices around them; both guidance halves get the same control.

    regions (K, F, H, W) bool: where each subject is, on the latent's full grid, empty in a frame = absent there
    tokens (K, L) bool:        which positions of the prompt are each subject's words
    normalize:   Mask Normalization; normalize_in says in which attentions, axis and gradient how: by default as EFDM's
                 released function does; axis `"joint"` is our variant (see `mask_normalization.py`)
    where:       `"decoder"`, the paper's choice; Peekaboo's code adds `"mid"` and `"temporal"`, the temporal
                 attention of the blocks named here; `"encoder"` completes the list
    attention:   which spatial attentions are masked; the paper masks both
    grid:        `"stride"` as Peekaboo, `"cover"` never loses a box (see `to_grid`)
    start_token: `"hidden"`, closed to every pixel as in Peekaboo's code; `"background"`, a token like any other, as the
                 formula reads
    """

    regions: Tensor
    tokens: Tensor
    _: KW_ONLY
    normalize: bool = False
    where: Collection[str] = ("decoder",)
    attention: Collection[str] = ("self", "cross")
    grid: str = "stride"
    start_token: str = "hidden"
    axis: str = "channel"
    gradient: str = "straight-through"
    normalize_in: Collection[str] = ("self", "cross")
    _masks: dict[tuple[str, int, int], AttentionMask] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("grid", "start_token", "axis", "gradient"):
            _check_names(name, (getattr(self, name),))
        for name in ("where", "attention", "normalize_in"):
            _check_names(name, getattr(self, name))
        if "temporal" in self.where and not set(self.where) & set(BLOCKS):
            raise ValueError(
                f"where = {self.where!r} masks temporal attention in no block; add decoder, mid or encoder"
            )
        if self.regions.ndim != 4 or self.regions.dtype != torch.bool or 0 in self.regions.shape:
            raise ValueError(
                f"regions must be bool of shape (K, F, H, W), not {self.regions.dtype} {tuple(self.regions.shape)}"
            )
        if self.tokens.ndim != 2 or self.tokens.dtype != torch.bool or len(self.tokens) != len(self.regions):
            raise ValueError(
                f"tokens must be bool of shape (K, L) with K = {len(self.regions)} as in regions, "
                f"not {self.tokens.dtype} {tuple(self.tokens.shape)}"
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Every pixel needs a token to attend to, or its softmax would be empty; no token may serve two subjects."""
        first = 1 if self.start_token == "hidden" else 0  # a hidden start token is nobody's
        tokens = self.tokens[:, first:]
        for k, words in enumerate(tokens):
            if not words.any():
                raise ValueError(f"subject {k} has no token in the prompt; name it in the prompt's own words")
        shared = (tokens.sum(0) > 1).nonzero()
        if len(shared):
            l = int(shared[0])
            one, two, *_ = tokens[:, l].nonzero().flatten().tolist()
            raise ValueError(
                f"subjects {one} and {two} share token {l + first} of the prompt; each needs its own words"
            )
        if tokens.any(0).all() and not self.regions.any(0).all():
            raise ValueError("the background has no token: every token of the prompt belongs to a subject")

    def applies(self, where: str, kind: str) -> bool:
        """Whether attention of a kind (self, cross, temporal) is masked in a block (encoder, mid, decoder)."""
        if where not in BLOCKS or kind not in KINDS:
            raise ValueError(f"masks act in {', '.join(BLOCKS)} on {', '.join(KINDS)}, not in {where!r} on {kind!r}")
        masked = "temporal" in self.where if kind == "temporal" else kind in self.attention
        return masked and where in self.where

    def normalizes(self, kind: str) -> bool:
        """Whether the output of masked attention of this kind is given the unmasked one's distribution."""
        if kind not in KINDS:
            raise ValueError(f"attention is one of {', '.join(KINDS)}, not {kind!r}")
        return self.normalize and kind in self.normalize_in

    def mask(self, kind: str, h: int, w: int) -> AttentionMask:
        """The mask of one kind of attention on an h x w grid (N = h w), made once and kept.

        `"self"`: F sequences of N pixels, dense (F, N, N). `"cross"`: pixels to tokens, dense (F, N, L). `"temporal"`:
        N sequences of F frames, dense (N, F, F), frame g open to frame f where both share a subject, or the background.
        """
        if kind not in KINDS:
            raise ValueError(f"a mask is one of {', '.join(KINDS)}, not {kind!r}")
        if (kind, h, w) not in self._masks:
            self._masks[kind, h, w] = self._make_mask(kind, h, w)
        return self._masks[kind, h, w]

    def inside(self, h: int, w: int) -> Tensor:
        """Where any subject is on an h x w grid, bool (F, N). Peekaboo's second temporal attention acts only there."""
        return rearrange(to_grid(self.regions.any(0), h, w, self.grid), "f h w -> f (h w)")

    def _make_mask(self, kind: str, h: int, w: int) -> AttentionMask:
        sequences = "k f h w -> (h w) k f" if kind == "temporal" else "k f h w -> f k (h w)"
        regions = rearrange(to_grid(self.regions, h, w, self.grid), sequences)
        # The formulas look at nothing but a pixel's subjects, so they are asked once for all pixels that share them.
        members, labels = memberships(regions)  # (K, D), and for each pixel the number of its column, (F, N) or (N, F)
        if kind != "cross":
            return AttentionMask(labels, labels, self_mask(members))  # (D, D)
        open_to = cross_mask(members, self.tokens.to(members.device))  # (D, L)
        if self.start_token == "hidden":
            open_to[:, 0] = False
        words = torch.arange(open_to.shape[1]).to(labels)  # token l is labelled l, the same in all frames
        return AttentionMask(labels, rearrange(words, "l -> 1 l"), open_to)


def _check_names(setting: str, names: Collection[str]) -> None:
    """Every name must be one that the setting knows, and a bare word is no list of them."""
    known = MASK_CHOICES[setting]
    if isinstance(names, str):
        raise ValueError(f"{setting} is a list of {', '.join(known)}, such as [{names!r}], not {names!r}")
    if not set(names) <= set(known):
        raise ValueError(f"{setting} is chosen from {', '.join(known)}, not {names!r}")
