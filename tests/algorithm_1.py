"""Algorithm 1 a second time, in plain loops: the paper (arXiv 2505.24253) as code, for `test_algorithm_1.py`.

Nothing here comes from adaptation or sampling, so that two mistakes would have to be made alike to go unseen. The
frozen U-Net is the real one and is called as it is, without a control. What the paper changes inside it, Sections 2.1
and 2.2, is laid over it from outside: a forward hook takes an attention layer's input, works out its output from the
layer's own Q, K, V, and puts that in place of what the layer returned.

One video. z (1, C, F, H, W); b[k][f] is subject k's box in frame f, x1 y1 x2 y2 relative to the frame, or None;
M_y (K, L) says which tokens of the prompt y are subject k's words; text (2, L, D) is [negative prompt, prompt].
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class Choices:
    """What the paper sets, and what it leaves open. The defaults are the paper's."""

    steps: int = 50
    w: float = 9.0  # classifier-free guidance
    eta: float = 0.0  # of DDIM
    frozen: int = 4  # steps with masks
    blocks: tuple[str, ...] = ("decoder",)
    masked: tuple[str, ...] = ("self", "cross")
    temporal: bool = False  # Peekaboo's code masks temporal attention too
    start_hidden: bool = True  # its code closes the start token to every pixel
    cover: bool = False  # a coarse cell is inside if any cell under it is, not only the first
    normalized: tuple[str, ...] = ("self", "cross")  # attention with Mask Normalization
    joint: bool = False  # one distribution for all channels
    straight: bool = True  # EFDM's gradient
    M: int = 2
    c_g: float = 10_000.0  # at Zeroscope's size
    gamma: float = 0.05
    refined: int = 10**6  # steps with a refinement
    through: str = "both halves"  # what grad tau is taken through: that, "text half", or "Tweedie" with eps constant
    unit: bool = False  # grad tau scaled to length 1


# ---- Section 2.1: masks --------------------------------------------------------------------------------------------


def inside(box: tuple[float, ...] | None, H: int, W: int) -> Tensor:
    """M_v of one subject in one frame (H, W): cells whose centre is in the box, or else the one under its centre."""
    M_v = torch.zeros(H, W, dtype=torch.bool)
    if box is not None:
        x1, y1, x2, y2 = box
        for i in range(H):
            for j in range(W):
                M_v[i, j] = x1 <= (j + 0.5) / W < x2 and y1 <= (i + 0.5) / H < y2
        if not M_v.any():
            M_v[int((y1 + y2) / 2 * H), int((x1 + x2) / 2 * W)] = True
    return M_v


def coarser(M_v: Tensor, s: int, cover: bool) -> Tensor:
    """M_v on a grid s times as coarse: Peekaboo's code keeps every s-th row and column."""
    H, W = M_v.shape
    cells = [[M_v[i : i + s, j : j + s] for j in range(0, W, s)] for i in range(0, H, s)]
    return torch.tensor([[bool(cell.any() if cover else cell[0, 0]) for cell in row] for row in cells])


def mask(rows: Tensor, columns: Tensor) -> Tensor:
    """M = M_v M_x^T + (1 - M_v)(1 - M_x)^T, with x = v or y: rows (K, N), columns (K, X) -> (N, X).

    Of several subjects each has a first term; the second is what belongs to none of them.
    """
    M = torch.outer(~rows.any(0), ~columns.any(0))
    for row, column in zip(rows, columns, strict=True):
        M |= torch.outer(row, column)
    return M


# ---- Section 2.2: attention and Mask Normalization -----------------------------------------------------------------


def attention(Q: Tensor, K: Tensor, V: Tensor, heads: int, M: Tensor | None = None) -> Tensor:
    """A_u = sigma(Q K^T / sqrt(d)) V, and A_m where M closes logits. Q (N, h d), K and V (X, h d) -> (N, h d)."""
    outputs = []
    for q, k, v in zip(*(x.chunk(heads, dim=-1) for x in (Q, K, V)), strict=True):
        logits = q @ k.T / math.sqrt(q.shape[-1])
        if M is not None:
            logits[~M] = -math.inf
        outputs.append(logits.softmax(-1) @ v)
    return torch.cat(outputs, dim=-1)


def matched(A_m: Tensor, A_u: Tensor, c: Choices) -> Tensor:
    """EFDM: the k-th smallest of A_m becomes the k-th smallest of A_u. (N, C), a channel at a time or all at once."""
    m, u = (A.reshape(-1, 1) if c.joint else A for A in (A_m, A_u))  # each column is one distribution
    rank = m.argsort(dim=0, stable=True).argsort(dim=0)
    values = u.sort(dim=0, stable=True).values.gather(0, rank).reshape(A_m.shape)
    return values + (A_m - A_m.detach() if c.straight else 0)


@contextmanager
def masked_unet(unet, b, M_y: Tensor, shape: tuple[int, int, int], c: Choices) -> Iterator[None]:
    """While this lasts, attention is the paper's. shape (F, H, W) of the latents."""
    F, H, W = shape
    M_v = [[inside(box, H, W) for box in boxes] for boxes in b]

    @cache
    def on_grid(N: int) -> Tensor:
        """M_v (F, K, N) on the grid that has N cells."""
        s = next(s for s in (1, 2, 4, 8) if math.ceil(H / s) * math.ceil(W / s) == N)
        return torch.stack([torch.stack([coarser(m[f], s, c.cover).flatten() for m in M_v]) for f in range(F)])

    def in_space(kind: str, layer, inputs, _) -> Tensor:
        x, A = inputs[0], []
        for f, rows in enumerate(on_grid(x.shape[1])):
            if kind == "cross":
                source, M = inputs[1][0], mask(rows, M_y)
                if c.start_hidden:
                    M[:, 0] = False
            else:
                source, M = x[f], mask(rows, rows)
            Q, K, V = layer.to_q(x[f]), layer.to_k(source), layer.to_v(source)
            A_m, A_u = attention(Q, K, V, layer.heads, M), attention(Q, K, V, layer.heads)
            A.append(matched(A_m, A_u, c) if kind in c.normalized else A_m)
        return layer.to_out[0](torch.stack(A))

    def in_time(layer, inputs, _) -> Tensor:
        """A cell's frames see each other where both are inside, or both outside."""
        x, A = inputs[0], []
        for n, frames in enumerate(on_grid(len(inputs[0])).permute(2, 1, 0)):  # (K, F) of a cell
            M = mask(frames, frames)
            A.append(attention(layer.to_q(x[n]), layer.to_k(x[n]), layer.to_v(x[n]), layer.heads, M))
        return layer.to_out[0](torch.stack(A))

    def outside_is_zero(x: Tensor) -> Tensor:
        """Peekaboo's code lets the second temporal attention read and write inside the boxes alone."""
        return x * on_grid(len(x)).any(1).T[:, :, None]

    hooks = []
    named = {"encoder": unet.down_blocks, "mid": [unet.mid_block], "decoder": unet.up_blocks}
    for block in (block for name in c.blocks for block in named[name] if hasattr(block, "attentions")):
        for transformer in block.attentions:
            layers = transformer.transformer_blocks[0]
            for kind, layer in (("self", layers.attn1), ("cross", layers.attn2)):
                if kind in c.masked:
                    hooks.append(layer.register_forward_hook(partial(in_space, kind)))
        for transformer in block.temp_attentions if c.temporal else ():
            layers = transformer.transformer_blocks[0]
            hooks.append(layers.attn1.register_forward_hook(in_time))
            hooks.append(layers.norm2.register_forward_pre_hook(lambda _, inputs: outside_is_zero(inputs[0])))
            hooks.append(layers.attn2.register_forward_hook(lambda _, inputs, output: outside_is_zero(output)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# ---- Section 2.3: the temporal prior -------------------------------------------------------------------------------


def crop(frame: Tensor, box: tuple[float, ...], h: int, w: int) -> Tensor:
    """c(.): the pixels of a frame (C, H, W) in a box, read at the centres of h x w equal parts of it, as a vector."""
    x1, y1, x2, y2 = box
    points = [[(x1 + (j + 0.5) / w * (x2 - x1), y1 + (i + 0.5) / h * (y2 - y1)) for j in range(w)] for i in range(h)]
    grid = 2 * torch.tensor(points, dtype=frame.dtype) - 1
    return grid_sample(frame[None], grid[None], padding_mode="border", align_corners=False).flatten()


def tau(z0: Tensor, b) -> Tensor:
    """Eq. 1, with rho Pearson's correlation; the mean of several subjects, 0 if none is in two frames together."""
    (video,), subjects = z0, []
    _, F, H, W = video.shape
    for boxes in b:
        present = [box for box in boxes if box is not None]
        h = max((max(1, round((y2 - y1) * H)) for _, y1, _, y2 in present), default=1)
        w = max((max(1, round((x2 - x1) * W)) for x1, _, x2, _ in present), default=1)
        rho = []
        for i in range(F - 1):
            if boxes[i] is not None and boxes[i + 1] is not None:
                u, v = crop(video[:, i], boxes[i], h, w), crop(video[:, i + 1], boxes[i + 1], h, w)
                u, v = u - u.mean(), v - v.mean()
                rho.append(u @ v / (u @ u * (v @ v)).sqrt())
        if rho:
            subjects.append(sum(rho) / len(rho))
    return sum(subjects) / len(subjects) if subjects else 0 * z0.sum()


# ---- Algorithm 1 ---------------------------------------------------------------------------------------------------


def alphas(T: int = 1000, first: float = 0.00085, last: float = 0.012) -> Tensor:
    """alpha_bar of Zeroscope's scheduler: sqrt(beta) grows linearly. In float32, as every sampler reads it."""
    beta = torch.linspace(first**0.5, last**0.5, T) ** 2
    return (1 - beta).cumprod(0).double()


def normal(shape: tuple[int, ...], seed: int, *address: int) -> Tensor:
    """Standard normal noise; each place where noise is drawn has a stream of its own."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=address)))
    return torch.from_numpy(generator.standard_normal(shape[1:], dtype=np.float32)).double()[None]


def algorithm_1(unet, text: Tensor, z: Tensor, b, M_y: Tensor, c: Choices, seed: int) -> Iterator[tuple[Tensor, float]]:
    """Yields z_{t-1} and tau(z0_hat(z_t^M)) after every step."""
    alpha_bar, stride = alphas(), 1000 // c.steps
    _, C, F, H, W = z.shape  # of Zeroscope 4 x 24 x 40 x 72: 23 pairs of frames with 4 x 40 x 72 values each
    c_g = c.c_g * (math.sqrt(C * F * H * W / 276_480) if c.unit else (F - 1) * C * H * W / (23 * 11_520))

    def predict(z: Tensor, t: int, step: int) -> tuple[Tensor, Tensor]:
        """eps for the negative prompt and for the prompt, one after the other."""
        if step >= c.frozen:
            return unet(z, t, text[:1]), unet(z, t, text[1:])
        with masked_unet(unet, b, M_y, z.shape[2:], c):
            return unet(z, t, text[:1]), unet(z, t, text[1:])

    for step in range(c.steps):  # 1: for t = T downto 1
        t = (c.steps - 1 - step) * stride + 1
        a, a_prev = alpha_bar[t], alpha_bar[max(t - stride, 0)]
        eta_l = c.gamma * (1 - a)  # DreamClean's step sizes, which keep the variance
        eta_k = math.sqrt(c.gamma * (2 - c.gamma) * (1 - a))

        for m in range(c.M if step < c.refined else 0):  # 2, 3: z_t^0 = z_t, for m = 1 to M
            z.requires_grad_()
            eps_negative, eps_text = predict(z, t, step)
            eps = eps_negative + c.w * (eps_text - eps_negative)
            used = {"both halves": eps, "text half": eps_text, "Tweedie": eps.detach()}[c.through]
            z0 = (z - torch.sqrt(1 - a) * used) / torch.sqrt(a)  # Tweedie's formula
            (G_g,) = torch.autograd.grad(tau(z0, b), z)  # 4
            G_g = G_g / G_g.norm() if c.unit else G_g
            G_p = -eps / torch.sqrt(1 - a)  # 5: the guided eps as a score
            z = z + eta_l * (c_g * G_g + G_p) + eta_k * normal(z.shape, seed, 1, step, m)  # 6: Eq. 2
            z = z.detach()

        with torch.no_grad():  # 8: DDIM, its Eq. 12 and 16
            eps_negative, eps_text = predict(z, t, step)
            eps = eps_negative + c.w * (eps_text - eps_negative)
            z0 = (z - torch.sqrt(1 - a) * eps) / torch.sqrt(a)
            sigma = c.eta * torch.sqrt((1 - a_prev) / (1 - a)) * torch.sqrt(1 - a / a_prev)
            z = (
                torch.sqrt(a_prev) * z0
                + torch.sqrt(1 - a_prev - sigma**2) * eps
                + sigma * normal(z.shape, seed, 2, step, 0)
            )
        yield z, tau(z0, b).item()  # 10: the last one is z_0
