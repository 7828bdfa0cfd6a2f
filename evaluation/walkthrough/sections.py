"""The sections of the walkthrough: each calls the equations of one part of the paper, prints, draws and returns them.

`walk_through` calls them in the paper's order. All run under torch.no_grad.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from adaptation.attention_masks import cross_mask, self_mask, to_grid
from adaptation.intrinsic_denoising import intrinsic_step, scale_c_g, step_sizes
from adaptation.mask_normalization import axis_dims, match_distribution
from adaptation.temporal_prior import consecutive_correlations, crop, prepare_crops, temporal_consistency
from adaptation.trajectory import Trajectory
from evaluation.figures.activations import observed_layer
from evaluation.figures.compare import draw_rows, run_methods
from evaluation.figures.distributions import Matching, plot_distributions
from evaluation.figures.masks_picture import attention_grids, token_words, write_masks
from evaluation.figures.video import write_mp4
from evaluation.walkthrough import pictures
from evaluation.walkthrough.book import Book, Walk, last_call, rms, shape, table, variance, where
from model.attention import cross_attention, self_attention
from sampling.ddim import ddim_step, predict_clean
from sampling.generate import Result, generate
from sampling.guidance import classifier_free, score
from sampling.sampler import sample
from sampling.settings import preset


@torch.no_grad()
def walk_through(walk: Walk, book: Book) -> Path:
    """The paper's order; z passes from section to section as in Algorithm 1. The notebook has a cell for each line."""
    M_v = boxes_and_regions(walk, book)
    masks_by_grid = masks(walk, book)
    M_y = subject_words(walk, book)
    outputs = mask_normalization(walk, book)
    G_g, G_p = temporal_prior(walk, book)
    z = refinement(walk, book, G_g, G_p)
    z_prev = denoising_step(walk, book, z)
    results = video(walk, book)
    return book.save()


# ---- Section 2.1: boxes, masks, words ------------------------------------------------------------------------------


def boxes_and_regions(walk: Walk, book: Book) -> Tensor:
    """b of the paper: the boxes as regions on the latent's grid, bool (K, F, h, w)."""
    z, boxes = walk.state.z, walk.trajectory.boxes
    M_v = walk.trajectory.rasterize(*z.shape[-2:])
    book.write(
        f"# The method on one video, step by step\n\n"
        f'Prompt: "{walk.trajectory.prompt}". Subject: {", ".join(walk.trajectory.subjects)}. Model: '
        f"{walk.pipeline.name}, seed {walk.state.streams.seeds[0]}. What follows is the first of {walk.settings.steps} "
        f"steps of Algorithm 1, at t = {walk.t}, where alpha_bar = {walk.alpha_bar:.4f}: the share of the latent's "
        f"variance that is the video's; the rest is noise. Each section is a function of "
        f"`evaluation/walkthrough/sections.py`; `python -m evaluation.walkthrough` wrote this."
    )
    book.write(
        f"## Section 2.1: boxes and regions\n\n"
        f"{where(Trajectory.rasterize)}: a cell of the latent is inside where its centre lies in the box."
    )
    book.write(
        table(
            ("what", "shape", ""),
            ("latent z_t", shape(z), "video, channels, frames, rows, columns"),
            ("boxes", shape(boxes), "subject, frame, x1 y1 x2 y2"),
            ("regions M_v", shape(M_v), f"subject, frame, row, column; {M_v.sum()} of {M_v.numel()} cells are inside"),
        )
    )
    book.show(
        "1_boxes.png",
        "The boxes, frame by frame, and the cells inside.",
        pictures.regions(M_v, boxes),
    )
    return M_v


def masks(walk: Walk, book: Book) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """M_self (F, N, N) and M_cross (F, N, L) on every grid of N = h w cells where the U-Net has attention."""
    control, made = walk.control, {}
    rows = [("grid", "blocks", "M_v: F, K, N", "M_self: F, N, N", "of it open", "M_cross: F, N, L")]
    for (h, w), blocks in attention_grids(walk.pipeline.unet.config, *walk.state.z.shape[-2:]).items():
        M_v = rearrange(to_grid(control.regions, h, w, control.grid), "k f h w -> f k (h w)")
        M_self, M_cross = self_mask(M_v), cross_mask(M_v, control.tokens)
        share = f"{M_self.float().mean():.3f}"
        rows.append((f"{h} x {w}", ", ".join(dict.fromkeys(blocks)), shape(M_v), shape(M_self), share, shape(M_cross)))
        made[h, w] = M_self, M_cross
    book.write(
        f"## Section 2.1: masks\n\n"
        f"M_self = M_v M_v^T + (1 - M_v)(1 - M_v)^T, {where(self_mask)}: cells see cells of their own side. M_cross "
        f"has the subject's words in place of the second M_v, {where(cross_mask)}. {where(to_grid)} brings M_v to each "
        f"grid. What is closed becomes minus infinity before the softmax. Masks act in the blocks: "
        f"{', '.join(walk.settings.where)}, in the first {walk.settings.frozen_steps} steps."
    )
    book.write(table(*rows))
    write_masks(book.folder, walk.pipeline, walk.trajectory, walk.settings, **walk.size)
    book.show("masks.png", "Regions and M_self on each grid; below, the tokens that each region may see.")
    return made


def subject_words(walk: Walk, book: Book) -> Tensor:
    """M_y: which of the prompt's L tokens are the subject's words, bool (K, L)."""
    encoder, M_y = walk.pipeline.text_encoder, walk.control.tokens
    tokens = token_words(encoder, walk.trajectory.prompt)
    marked = [f"**{token}**" if mine else token for token, mine in zip(tokens, M_y.any(0).tolist(), strict=True)]
    shown = [token for token in marked if token != "padding"]
    start = "less the start" if walk.settings.start_token == "hidden" else "the start among them"
    book.write(
        f"## Section 2.1: the subject's words\n\n"
        f"M_y is {shape(M_y)}, {where(type(encoder).subject_tokens)}. The prompt's tokens, the subject's in bold:\n\n"
        f"> {' · '.join(shown)} · padding x {len(tokens) - len(shown)}\n\n"
        f"Cells inside a box see its subject's tokens alone; cells outside see all others, {start}."
    )
    return M_y


# ---- Section 2.2: Mask Normalization -------------------------------------------------------------------------------


def mask_normalization(walk: Walk, book: Book) -> dict[str, Matching]:
    """A_u, A_m and the matched A_m, each (2 F, N, C), of self- and cross-attention in one layer of the decoder."""
    block: Any = observed_layer(walk.pipeline.unet).get_submodule("transformer_blocks.0")
    made = {}
    rows: list[tuple[str, ...]] = [
        ("attention", "shape: 2 F, N, C", "variance of A_u", "of A_m", "normalized", "distance from the U-Net's own")
    ]
    for kind, attention in (("self", block.attn1), ("cross", block.attn2)):
        (x, *text), masking, output = last_call(attention, lambda: walk.predict(walk.state.z))
        source = text[0] if text else x
        q, k, v = attention.to_q(x), attention.to_k(source), attention.to_v(source)

        attend = cross_attention if text else self_attention
        A_u = attend(q, k, v, attention.heads)
        A_m = attend(q, k, v, attention.heads, masking["mask"])
        A_n = match_distribution(A_m, A_u, dim=axis_dims(walk.settings.axis))

        expected = attention.to_out[0](A_n if walk.control.normalizes(kind) else A_m)
        distance = f"{(expected - output).abs().max():.1e}"
        rows.append((kind, shape(A_u), *(f"{variance(a):.6f}" for a in (A_u, A_m, A_n)), distance))
        made[kind] = Matching(A_u, A_m, A_n)
    each = "frame by frame" if walk.settings.axis == "joint" else "channel by channel in each frame"
    book.write(
        f"## Section 2.2: Mask Normalization\n\n"
        f"A_u = softmax(Q K^T / sqrt(d)) V, {where(self_attention)} and {where(cross_attention)}; A_m is the same "
        f"without what the mask closes. Q, K and V are those of a forward pass, in the first transformer of the second "
        f"decoder block, where the paper's Figure 2 looks; both guidance halves make 2 F frames. "
        f"{where(match_distribution)} puts, {each}, the k-th smallest value of A_u where A_m has its k-th smallest: "
        f"the order is the mask's, the values are those without it."
    )
    book.write(table(*rows))
    caption = "Figure 3 of the paper: the share of values below each value. The matched output lies on A_u."
    book.show("2_normalization.png", caption, plot_distributions(made))
    return made


# ---- Section 2.3: the temporal prior and Eq. 2 ---------------------------------------------------------------------


def temporal_prior(walk: Walk, book: Book) -> tuple[Tensor, Tensor]:
    """G_g = grad tau (Eq. 1) and G_p = grad log p, lines 4 and 5 of Algorithm 1, both like z."""
    boxes, subject = walk.trajectory.boxes, walk.trajectory.subjects[0]
    G_g, G_p, z0 = walk.gradients(walk.state.z)
    tau = temporal_consistency(z0, boxes)
    rho = consecutive_correlations(z0, prepare_crops(boxes, z0)[0])[0]  # of the first subject, one a pair of frames
    how = {
        "unet": "through the U-Net",
        "text-half": "through the text half of the U-Net",
        "tweedie": "with the predicted noise held constant",
    }[walk.settings.prior_gradient]
    book.write(
        f"## Section 2.3, Eq. 1: the temporal prior\n\n"
        f"z0_hat is the clean video that the predicted noise implies, {where(predict_clean)}; in the first step it is "
        f"little more than colours. c cuts the box out of each frame, {where(crop)}; rho says how alike two "
        f"consecutive crops are, {where(consecutive_correlations)}; tau is the mean of rho, "
        f"{where(temporal_consistency)}. Its gradient with respect to z is taken {how} "
        f"(prior_gradient = {walk.settings.prior_gradient}). The second gradient is that of guided sampling, "
        f"grad log p = -eps / sqrt(1 - alpha_bar), {where(score)} after {where(classifier_free)}."
    )
    book.write(
        table(
            ("what", "value"),
            (f"rho of {subject}", ", ".join(f"{r:.3f}" for r in rho.tolist())),
            ("tau", f"{tau.item():.6f}"),
            (f"grad tau, {shape(G_g)}", f"rms {rms(G_g):.3e}"),
            (f"grad log p, {shape(G_p)}", f"rms {rms(G_p):.3e}"),
        )
    )
    magnitude = torch.linalg.vector_norm(G_g[0], dim=0)  # (F, h, w)
    caption = (
        f"Above, z0_hat decoded; in the middle its crops for {subject}, with rho of the latent's crops to the next; "
        f"below, the length of grad tau in each cell of the latent."
    )
    book.show("3_prior.png", caption, pictures.prior(walk.decode(z0), boxes, rho.tolist(), magnitude))
    return G_g, G_p


def refinement(walk: Walk, book: Book, G_g: Tensor, G_p: Tensor) -> Tensor:
    """z_t^M, line 6 of Algorithm 1: the first of M iterations of Eq. 2 is shown, the others are done."""
    settings, z = walk.settings, walk.state.z
    c_g = scale_c_g(settings.c_g, z.shape[1:], settings.unit_gradient)
    eta_l, eta_k = step_sizes(settings.gamma, walk.alpha_bar)
    noise = walk.draw_noise(0)

    def line_6(z: Tensor, G_g: Tensor, G_p: Tensor, noise: Tensor) -> Tensor:
        return intrinsic_step(z, prior_gradient=G_g, score=G_p, eta_l=eta_l, eta_k=eta_k, c_g=c_g, noise=noise)

    after = line_6(z, G_g, G_p, noise)
    terms = {
        "eta_l c_g grad tau": eta_l * c_g * G_g,
        "eta_l grad log p": eta_l * G_p,
        "eta_k eps": eta_k * noise,
    }
    z0, eps = clean_estimate(walk, z)
    pulled = z + terms["eta_l c_g grad tau"]
    estimates = z0, predict_clean(pulled, eps, walk.alpha_bar), clean_estimate(walk, pulled)[0]
    tau, held, anew = (f"{temporal_consistency(x, walk.trajectory.boxes).item():.4f}" for x in estimates)
    book.write(
        f"## Section 2.3, Eq. 2: one iteration of the refinement\n\n"
        f"z <- z + eta_l [c_g grad tau + grad log p] + eta_k eps, {where(intrinsic_step)}, with c_g = {settings.c_g:g} "
        f"at Zeroscope's size, which is {c_g:.4g} in these latents by {where(scale_c_g)}, and, by "
        f"{where(step_sizes)}, eta_l = gamma (1 - alpha_bar) = {eta_l:.5f} and "
        f"eta_k = sqrt(gamma (2 - gamma) (1 - alpha_bar)) = {eta_k:.5f}, gamma = {settings.gamma:g}. The score takes a "
        f"part gamma of the noise out and eps puts as much back, so that mean and variance nearly stay. The prior's "
        f"term alone would take tau from {tau} to {held} if the predicted noise stayed as it is, and to {anew} with "
        f"the noise predicted anew."
    )
    states = {"z before": z, "z after": after}
    book.write(
        table(
            ("what", "rms", "mean", "variance"),
            *(
                (name, f"{rms(x):.5f}", f"{x.mean():+.5f}", f"{variance(x):.5f}")
                for name, x in (terms | states).items()
            ),
        )
    )
    frame = z.shape[2] // 2
    panels = {name: x[0, 0, frame] for name, x in ({"z before": z} | terms | {"z after": after}).items()}
    caption = f"One iteration on channel 0 of frame {frame}, each panel with its own scale."
    book.show("4_refinement.png", caption, pictures.terms(panels))
    for m in range(1, settings.iterations):
        G_g, G_p, _ = walk.gradients(after)
        after = line_6(after, G_g, G_p, walk.draw_noise(m))
    return after


# ---- Algorithm 1: the step, and the whole run ----------------------------------------------------------------------


def denoising_step(walk: Walk, book: Book, z: Tensor) -> Tensor:
    """z_{t-1}, line 8 of Algorithm 1: DDIM's step from the refined latent."""
    settings, boxes, schedule = walk.settings, walk.trajectory.boxes, walk.pipeline.schedule
    alpha_bar_prev = schedule.previous(walk.t, settings.steps)
    (before, _), (after, eps) = clean_estimate(walk, walk.state.z), clean_estimate(walk, z)
    z_prev = ddim_step(z, eps, walk.alpha_bar, alpha_bar_prev)
    own = next(sample(walk.denoise, schedule, walk.state, settings, boxes)).z
    book.write(
        f"## Algorithm 1, line 8: the DDIM step\n\n"
        f"After M = {settings.iterations} iterations the noise is predicted once more, and "
        f"z_(t-1) = sqrt(alpha_bar') z0_hat + sqrt(1 - alpha_bar') eps, {where(ddim_step)}: the same video with less "
        f"noise, for alpha_bar = {walk.alpha_bar:.4f} becomes alpha_bar' = {alpha_bar_prev:.4f}. The whole step as "
        f"{where(sample)} takes it differs from this one by at most {(own - z_prev).abs().max():.1e}."
    )
    taus = [f"{temporal_consistency(z0, boxes).item():.6f}" for z0 in (before, after)]
    book.write(
        table(
            ("what", "mean", "variance", "tau of its z0_hat"),
            ("z_t, noise", f"{walk.state.z.mean():+.5f}", f"{variance(walk.state.z):.5f}", taus[0]),
            ("z_t^M, refined", f"{z.mean():+.5f}", f"{variance(z):.5f}", taus[1]),
            ("z_(t-1)", f"{z_prev.mean():+.5f}", f"{variance(z_prev):.5f}", ""),
        )
    )
    rows = {"z0_hat of z_t": walk.decode(before), "z0_hat of z_t^M": walk.decode(after)}
    book.show("5_ddim.png", "The clean video predicted before and after the refinement.", pictures.rows(rows, boxes))
    return z_prev


def clean_estimate(walk: Walk, z: Tensor) -> tuple[Tensor, Tensor]:
    """z0_hat, and the guided eps that it comes from, like z."""
    eps = classifier_free(*walk.predict(z), walk.settings.guidance_scale)
    return predict_clean(z, eps, walk.alpha_bar), eps


def video(walk: Walk, book: Book) -> dict[str, Result]:
    """The whole run beside the plain one, from the same noise."""
    settings, (seed,) = walk.settings, walk.state.streams.seeds
    methods = {"plain": preset("plain", settings), "full": settings}
    results = run_methods(walk.pipeline, walk.trajectory, methods, seed, **walk.size)
    book.write(
        f"## Algorithm 1: the video\n\n"
        f"All {settings.steps} steps by {where(generate)}, masked in the first {settings.frozen_steps}, refined in "
        f"{'all' if settings.refine_steps is None else f'the first {settings.refine_steps}'}; and plain sampling, "
        f"without boxes, from the same noise. This is one seed: `docs/results.md` says how often a subject of the tiny "
        f"checkpoint is in its boxes."
    )
    taus = [f"{result.records[-1]['tau'][0]:.6f}" for result in results.values()]
    book.write(table(("method", *results), ("tau in the last step", *taus)))
    picture, frames = draw_rows(results, walk.trajectory)
    write_mp4(book.folder / "video.mp4", frames, walk.pipeline.defaults.fps)
    book.show("6_video.png", "Both videos, with the boxes that full was given; in motion: video.mp4.", picture)
    return results
