"""masks.png: who may attend to whom while masks act: regions on every attention grid, M_self, the prompt's tokens."""

from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adaptation.attention_masks import AttentionControl, to_grid
from adaptation.trajectory import Trajectory
from evaluation.figures.compare import spread
from evaluation.figures.video import COLORS, Color, write_png
from model.config import DOWN_TYPES, UP_TYPES, UNetConfig
from sampling.generate import make_plan
from sampling.settings import SamplingSettings
from weights.load import Pipeline

FRAMES = 6  # shown at most
TILE = 150  # pixels, the height of a grid's picture
GAP, LINE, LABEL = 12, 22, 230  # between parts; of text; the column of labels
BACKGROUND: Color = (58, 64, 72)  # of cells that are no subject's
LINES: Color = (20, 22, 26)  # between cells
INK, SOFT, PAPER = (31, 35, 40), (89, 99, 110), (255, 255, 255)


def write_masks(
    folder: Path,
    pipeline: Pipeline,
    trajectory: Trajectory,
    settings: SamplingSettings,
    prompt: str | None = None,
    **size: int | None,
) -> None:
    """masks.png for the run that `generate` makes of the same arguments; size: frames, height, width."""
    plan = make_plan(pipeline, prompt, trajectory, settings, **size)
    if not isinstance(plan.control, AttentionControl):
        raise ValueError(f"there are no masks to show: subjects are held by an {settings.steer} of the attention")
    grids = attention_grids(pipeline.unet.config, *plan.shape[-2:])
    tokens = token_words(pipeline.text_encoder, plan.prompt)
    title = f"Masks act in the first {settings.frozen_steps} of {settings.steps} steps"
    write_png(folder / "masks.png", draw_masks(plan.control, trajectory.subjects, grids, tokens, title))


def attention_grids(config: UNetConfig, h: int, w: int) -> dict[tuple[int, int], list[str]]:
    """Each grid on which the U-Net has spatial attention, finest first, and the blocks that have it there.

    h, w: of the latents. Each level halves the grid of the one above and rounds up.
    """
    levels, last = [(h, w)], len(config.down_block_types) - 1
    for _ in range(last):
        levels.append((-(-levels[-1][0] // 2), -(-levels[-1][1] // 2)))
    blocks = [(levels[i], "encoder") for i, kind in enumerate(config.down_block_types) if DOWN_TYPES[kind]]
    blocks.append((levels[last], "mid"))
    blocks += [(levels[last - i], "decoder") for i, kind in enumerate(config.up_block_types) if UP_TYPES[kind]]
    return {grid: [name for other, name in blocks if other == grid] for grid in levels if grid in dict(blocks)}


def token_words(text_encoder: Any, prompt: str) -> list[str]:
    """What stands at each of the prompt's L positions: start, parts of words, end, padding."""
    tokenizer, L = text_encoder.tokenizer, text_encoder.length
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=L, verbose=False).input_ids
    words = [token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids)]
    end = ids.index(tokenizer.eos_token_id, 1)
    return ["start", *words[1:end], "end", *["padding"] * (L - end - 1)]


def draw_masks(
    control: AttentionControl,
    subjects: Sequence[str],
    grids: Mapping[tuple[int, int], Sequence[str]],
    tokens: Sequence[str],
    title: str = "Masks",
) -> np.ndarray:
    """The picture, uint8 (H, W, 3): a row for each grid, and below them a row for each token.

    grids: see `attention_grids`; tokens: what stands at each of the L positions
    """
    F = control.regions.shape[1]
    frames = spread(F, FRAMES).tolist()
    sheet = _stack(
        _line(title),
        _legend(subjects),
        _headings([f"frame {f}" for f in frames] + [f"M_self, frame {frames[0]}"], _widths(control, len(frames))),
        *(_grid_row(control, grid, blocks, frames) for grid, blocks in grids.items()),
        _token_table(control, subjects, tokens),
    )
    return np.asarray(sheet)


def pixel_classes(control: AttentionControl) -> dict[tuple[bool, ...], Tensor]:
    """Each membership that occurs on the full grid, K bools, and the tokens open to its pixels, bool (L,).

    The background, in no subject, comes first, then the subjects, then overlaps; read from the mask in use.
    """
    mask = control.mask("cross", *control.regions.shape[-2:])
    members = rearrange(control.regions, "k f h w -> (f h w) k").tolist()
    labels = mask.query_labels.flatten().tolist()
    found = {tuple(member): label for member, label in zip(members, labels, strict=True)}
    return {member: mask.open[found[member]] for member in sorted(found, key=lambda m: (sum(m), [not k for k in m]))}


# ---- Parts of the picture ------------------------------------------------------------------------------------------


def _grid_row(
    control: AttentionControl, grid: tuple[int, int], blocks: Sequence[str], frames: list[int]
) -> Image.Image:
    """Which subject each cell belongs to, frame by frame, and M_self of the first frame: white = may attend."""
    h, w = grid
    regions = to_grid(control.regions, h, w, control.grid)
    mask = control.mask("self", h, w)
    labels = mask.query_labels[frames[0]]
    tiles = [_enlarged(_colored(regions[:, f]), _widths(control, 1)[0]) for f in frames]
    tiles.append(_matrix(mask.open[labels[:, None], labels[None, :]].cpu().numpy()))  # (N, N)
    label = Image.new("RGB", (LABEL, TILE), PAPER)
    lines = [f"{h} x {w} cells", *(f"{block}: {_masked(control, block)}" for block in dict.fromkeys(blocks))]
    for i, line in enumerate(lines):
        _write(label, (0, i * LINE), line, INK if i == 0 else SOFT)
    return _beside(label, *tiles)


def _masked(control: AttentionControl, block: str) -> str:
    kinds = [kind for kind in ("self", "cross", "temporal") if control.applies(block, kind)]
    return f"{', '.join(kinds)} masked" if kinds else "not masked"


def _token_table(control: AttentionControl, subjects: Sequence[str], tokens: Sequence[str]) -> Image.Image:
    """A row for each token, a column for each class of pixels; filled = these pixels may see this token."""
    classes = pixel_classes(control)
    names = [" + ".join(compress(subjects, member)) or "background" for member in classes]
    width = max(90, *(round(_font().getlength(name)) + GAP for name in names))
    shown = tokens.index("padding") + 1 if "padding" in tokens else len(tokens)  # padding is one row: all are alike
    sheet = Image.new("RGB", (LABEL + width * len(classes), (shown + 2) * LINE), PAPER)
    _write(sheet, (0, 0), "Tokens that pixels may see in masked cross-attention", INK)
    for i, (name, (member, open_)) in enumerate(zip(names, classes.items(), strict=True)):
        left = LABEL + i * width
        _write(sheet, (left, LINE), name, SOFT)
        for l in range(shown):
            box = (left, (l + 2) * LINE + 3, left + 16, (l + 2) * LINE + 19)
            fill = _mixed(member) if open_[l] else PAPER
            ImageDraw.Draw(sheet).rectangle(box, fill=fill, outline=SOFT)
    for l in range(shown):
        owner = control.tokens[:, l].tolist()
        if any(owner):
            area = (0, (l + 2) * LINE + 1, LABEL - GAP, (l + 3) * LINE - 1)
            ImageDraw.Draw(sheet).rectangle(area, fill=_mixed(owner))
        count = f" x {len(tokens) - l}" if tokens[l] == "padding" else ""
        _write(sheet, (4, (l + 2) * LINE), f"{l}  {tokens[l]}{count}", INK)
    return sheet


def _line(text: str) -> Image.Image:
    sheet = Image.new("RGB", (round(_font().getlength(text)) + 1, LINE), PAPER)
    _write(sheet, (0, 0), text, INK)
    return sheet


def _legend(subjects: Sequence[str]) -> Image.Image:
    words = ["background", *subjects, "in M_self: may attend"]
    colors = [BACKGROUND, *(COLORS[k % len(COLORS)] for k in range(len(subjects))), PAPER]
    lengths = [round(_font().getlength(word)) + 24 + 2 * GAP for word in words]
    sheet = Image.new("RGB", (sum(lengths), LINE), PAPER)
    for i, (word, color) in enumerate(zip(words, colors, strict=True)):
        left = sum(lengths[:i])
        ImageDraw.Draw(sheet).rectangle((left, 3, left + 16, 19), fill=color, outline=SOFT)
        _write(sheet, (left + 24, 0), word, INK)
    return sheet


def _headings(texts: Sequence[str], widths: Sequence[int]) -> Image.Image:
    sheet = Image.new("RGB", (LABEL + sum(widths) + GAP * len(widths), LINE), PAPER)
    for i, text in enumerate(texts):
        _write(sheet, (LABEL + GAP + sum(widths[:i]) + GAP * i, 0), text, SOFT)
    return sheet


def _widths(control: AttentionControl, frames: int) -> list[int]:
    """Of a row's tiles: every grid is drawn in the picture's own proportions, M_self is a square."""
    H, W = control.regions.shape[-2:]
    return [max(1, round(TILE * W / H))] * frames + [TILE]


def _colored(regions: Tensor) -> np.ndarray:
    """(K, h, w) bool -> uint8 (h, w, 3): each cell in the mean colour of its subjects."""
    members = rearrange(regions, "k h w -> h w k").tolist()
    return np.array([[_mixed(member) for member in row] for row in members], dtype=np.uint8)


def _mixed(member: Sequence[bool]) -> Color:
    colors = [COLORS[k % len(COLORS)] for k, inside in enumerate(member) if inside]
    return tuple(np.mean(colors, axis=0).astype(int).tolist()) if colors else BACKGROUND


def _enlarged(cells: np.ndarray, width: int) -> Image.Image:
    """Cells as flat blocks, with thin lines between them where they are large enough."""
    tile = Image.fromarray(cells).resize((width, TILE), Image.Resampling.NEAREST)
    h, w = cells.shape[:2]
    if TILE / h >= 8 and width / w >= 8:
        pen = ImageDraw.Draw(tile)
        for i in range(1, w):
            pen.line((i * width // w, 0, i * width // w, TILE), fill=LINES)
        for i in range(1, h):
            pen.line((0, i * TILE // h, width, i * TILE // h), fill=LINES)
    return tile


def _matrix(open_: np.ndarray) -> Image.Image:
    """(N, N) bool as a square, white = True; grey where more entries than pixels lie side by side."""
    large = len(open_) > TILE
    square = Image.fromarray(np.uint8(255) * open_)
    return square.resize((TILE, TILE), Image.Resampling.BOX if large else Image.Resampling.NEAREST).convert("RGB")


def _beside(*parts: Image.Image) -> Image.Image:
    size = (sum(p.width for p in parts) + GAP * (len(parts) - 1), max(p.height for p in parts))
    sheet, left = Image.new("RGB", size, PAPER), 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width + GAP
    return sheet


def _stack(*parts: Image.Image) -> Image.Image:
    """Parts below each other, with a margin around."""
    size = (max(p.width for p in parts) + 2 * GAP, sum(p.height + GAP for p in parts) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    top = GAP
    for part in parts:
        sheet.paste(part, (GAP, top))
        top += part.height + GAP
    return sheet


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)


def _write(sheet: Image.Image, place: tuple[int, int], text: str, color: Color) -> None:
    ImageDraw.Draw(sheet).text((place[0], place[1] + LINE / 2), text, fill=color, font=_font(), anchor="lm")
