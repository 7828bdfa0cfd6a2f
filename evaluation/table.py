"""The measurements of `evaluation.ablate` as a Markdown table in the layout of the paper's Table 1."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation.metrics import RESAMPLES, Statistic, bootstrap, coverage, mean_where, miou_all, miou_covered
from sampling.settings import SamplingSettings

Records = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # by row and split, one for each video

TITLES = {"static": "Static", "moving": "Dynamic"}  # the paper's words
COLUMNS = ("CoV %", "mIoU-covered %", "mIoU-all %", "tau", "latent std")


def render_table(records: Records) -> str:
    """Figures with their 95 % intervals, a row for each method and a group of columns for each split."""
    splits = list(next(iter(records.values())))
    heads = [f"{TITLES[split]}: {column}" for split in splits for column in COLUMNS]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    lines += [[label, *(cell for split in splits for cell in figures(row[split]))] for label, row in records.items()]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def figures(videos: Sequence[Mapping[str, Any]]) -> list[str]:
    """The cells of COLUMNS for one row and split."""
    iou, covered = (np.array([video[name] for video in videos]) for name in ("iou", "covered"))
    tau, std = (np.array([video[name] for video in videos], dtype=float) for name in ("tau", "latent_std"))
    return [
        _cell(coverage, covered, percent=True),
        _cell(miou_covered, iou, covered, percent=True),
        _cell(miou_all, iou, covered, percent=True),
        _cell(mean_where, tau, ~np.isnan(tau)),
        _cell(mean_where, std, ~np.isnan(std)),
    ]


def _cell(statistic: Statistic, *columns: np.ndarray, percent: bool = False) -> str:
    value, interval = float(statistic(*columns)), bootstrap(statistic, *columns)
    if np.isnan(value):
        return "-"
    value, low, high = (f"{100 * v:.1f}" if percent else f"{v:.3f}" for v in (value, *interval))
    return f"{value} [{low}, {high}]"


def render_footer(records: Records, rows: Mapping[str, SamplingSettings], command: str, weights: str) -> str:
    """How the table was made: the command, what was measured, and every setting."""
    settings = {label: asdict(row) for label, row in rows.items()}
    first = next(iter(settings.values()))
    common = {name: value for name, value in first.items() if all(s[name] == value for s in settings.values())}
    counts = [f"{len(videos)} {split}" for split, videos in next(iter(records.values())).items()]
    lines = [
        f"Made by `{command}` with weights {weights[:12]}.",
        f"{' and '.join(counts)} tracks, the same noise for every row. Covered: subject found in more than half of the",
        "frames. IoU: of a video's volume, mean over covered videos, or over all with those not covered as 0. tau: of",
        f"the last step. In brackets: 95 % bootstrap interval over videos ({RESAMPLES:,} resamples).",
        "",
        f"All rows: {_list(common)}.",
        "",
    ]
    for label, row in settings.items():
        own = {name: value for name, value in row.items() if name not in common}
        failures = sum(video["failure"] is not None for videos in records[label].values() for video in videos)
        failed = f" ({failures} videos did not stay finite and count as not covered)" if failures else ""
        lines.append(f"- {label}: {_list(own) or 'nothing else'}{failed}")
    return "\n".join(lines) + "\n"


def _list(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {' + '.join(v) if isinstance(v, tuple) else v}" for k, v in settings.items())
