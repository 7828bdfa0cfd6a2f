"""The baseline TrailBlazer (arXiv 2401.00896), a row of the paper's tables and no part of the paper's own method.

It masks nothing, but edits cross-attention: more of the subject's words inside its box, next to none outside. Written
after its released code, which at 576 x 320 edits spatial cross-attention alone: every layer of the U-Net, the text half
of the guidance batch, probabilities after the softmax. `tests/fixtures/trailblazer.safetensors` holds outputs of that
code, to which ours are held. A (B, heads, F, N, L): of B videos, F frames of N = h w pixels, L text tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor

MARGIN = 0.01  # of the frame, by which a box shrinks on each side
SIGMAS = 3  # standard deviations of the Gaussian in a box


# ---- The edit ------------------------------------------------------------------------------------------------------


def cells(start: float, end: float, size: int) -> slice:
    """The cells of one axis inside a box from `start` to `end`, relative to a frame of `size` cells: from
    int((start + MARGIN) size) to int((end - MARGIN) size), which may be none.

    As in the original, products of float64 are cut off as they are: (0.41 - 0.01) 10 = 3.99.. is cell 3.
    """
    first, stop = int((start + MARGIN) * size), int((end - MARGIN) * size)
    return slice(first, max(stop, first))


def gaussian(n: int) -> Tensor:
    """The Gaussian along one axis of a box of n cells, (n,) float64 with the maximum 1.

    As in the original the n points go from 0 to n, the mean is n // 2, so that the peak is not quite in the middle.
    """
    x = torch.linspace(0, n, n, dtype=torch.float64)
    g = torch.exp(-((x - n // 2) ** 2) / (2 * (n / SIGMAS) ** 2))
    return g / g.max()


def gaussian_map(boxes: Tensor, h: int, w: int) -> Tensor:
    """g: a Gaussian in each box, 0 outside and where the subject is absent; (K, F, 4) -> (K, F, N) float64.

    As in the original, a box whose edges fall into one row or column of this grid has no cell: g is 0 everywhere.
    """
    g = torch.zeros(*boxes.shape[:2], h, w, dtype=torch.float64)
    for k, track in enumerate(boxes.float().cpu().numpy()):
        for f, box in enumerate(track):
            x1, y1, x2, y2 = (float(str(edge)) for edge in box)  # 0.41 rather than float32's 0.4099999964
            if not math.isnan(x1):
                inside = g[k, f, cells(y1, y2, h), cells(x1, x2, w)]
                if inside.numel() > 0:
                    inside[:] = torch.outer(*map(gaussian, inside.shape))
    return rearrange(g, "k f h w -> k f (h w)")


def edited_tokens(words: Tensor, prompt: str, trailing: int) -> Tensor:
    """Each subject's words, and the `trailing` tokens that follow the prompt's. words (K, L) bool -> (K, L) bool.

    What follows a ";" does not count as the prompt's: the original puts a list of words such as "masterpiece" there,
    which its trailing tokens then mostly are. Without it they are the end and padding. As there, a prompt has as many
    tokens as words between spaces: where a word is several tokens, the trailing ones begin early.

    Ours on purpose: `words` are the tokens that really spell the subject, where the original takes the numbers of its
    words, which are other tokens as soon as an earlier word is several; a space that follows a space, ends the prompt
    or precedes its ";" begins no word, where the original counts an empty one; and trailing tokens end with the text,
    where the original breaks off with an error.
    """
    count = len(prompt.split(";")[0].split())
    position = torch.arange(words.shape[-1]).to(words.device)  # 0 is the start token
    return words | ((position > count) & (position <= count + trailing))


def edit_probabilities(A: Tensor, g: Tensor, tokens: Tensor, strengthen: float, weaken: float) -> Tensor:
    """A[p, l] <- A[p, l] (1 inside, c_w outside) + c_s S[p] for the edited tokens l, with S = max(A) g.

    A (B, heads, F, N, L), g (K, F, N), tokens (K, L) bool, c_s = strengthen, c_w = weaken -> like A. The maximum is
    over all of a video's A. Not normalized again: the probabilities of a pixel need not sum to 1.

    Several subjects are ours, the original makes a video of each and blends: each subject's words are edited in its own
    box, a token of several subjects inside where any of them is, with the largest of their Gaussians.
    """
    G = reduce(einsum(g, tokens.to(g), "k f n, k l -> k f n l"), "k f n l -> f n l", "max")
    outside = tokens.any(0) & (G == 0)
    S = A.amax((1, 2, 3, 4), keepdim=True) * G
    return torch.where(outside, weaken * A, A) + strengthen * S


# ---- What one video's edited forward needs -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TrailBlazerControl:
    """The baseline's edit for one video, where the paper's method has `AttentionControl`'s masks.

    Only the text half of a guidance batch is edited.

    boxes (K, F, 4): x1 y1 x2 y2 relative to the frame, NaN = absent: the subject's tokens are then weakened everywhere
    tokens (K, L) bool: the tokens edited for each subject, see `edited_tokens`
    strengthen, weaken: c_s and c_w
    videos: how many videos are denoised at once; the last ones of a batch have the text. The U-Net fills this in
    _maps: g and the tokens as A is, made once for each grid and kept; a copy with other `videos` shares them
    """

    boxes: Tensor
    tokens: Tensor
    strengthen: float = field(kw_only=True)
    weaken: float = field(kw_only=True)
    videos: int = field(default=1, kw_only=True)
    _maps: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(default_factory=dict, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if self.boxes.ndim != 3 or self.boxes.shape[-1] != 4 or 0 in self.boxes.shape:
            raise ValueError(f"boxes must be of shape (K, F, 4) with K, F >= 1, not {tuple(self.boxes.shape)}")
        if self.tokens.ndim != 2 or self.tokens.dtype != torch.bool or len(self.tokens) != len(self.boxes):
            raise ValueError(
                f"tokens must be bool of shape (K, L) with K = {len(self.boxes)} as in boxes, "
                f"not {self.tokens.dtype} {tuple(self.tokens.shape)}"
            )
        for k, row in enumerate(self.tokens):
            if not row.any():
                raise ValueError(f"subject {k} has no token in the prompt; name it in the prompt's own words")
        if not 0 <= self.strengthen < math.inf:
            raise ValueError(f"strengthen must be a finite number of at least 0, got {self.strengthen!r}")
        if not 0 <= self.weaken <= 1:
            raise ValueError(f"weaken must be a number from 0 to 1, got {self.weaken!r}")

    def applies(self, where: str, kind: str) -> bool:
        """Cross-attention is edited in every block; `where` is not asked."""
        return kind == "cross"

    def edit(self, h: int, w: int) -> Callable[[Tensor], Tensor]:
        """The edit of a layer with h x w pixels, A (G B, heads, F, N, L) -> the same shape; G = 2 is [uncond, text]."""
        return partial(self._edit, h, w)

    def _edit(self, h: int, w: int, A: Tensor) -> Tensor:
        if len(A) not in (self.videos, 2 * self.videos):
            raise ValueError(f"A has {len(A)} sequences for {self.videos} videos; expected one or two a video")
        expected = (self.boxes.shape[1], h * w, self.tokens.shape[1])
        if A.shape[2:] != expected:
            raise ValueError(f"A has (F, N, L) = {tuple(A.shape[2:])}, but the boxes and tokens are for {expected}")
        if (key := (h, w, A.dtype, A.device)) not in self._maps:
            self._maps[key] = gaussian_map(self.boxes, h, w).to(A), self.tokens.to(A.device)
        edited = edit_probabilities(A[-self.videos :], *self._maps[key], self.strengthen, self.weaken)
        return torch.cat([A[: -self.videos], edited])
