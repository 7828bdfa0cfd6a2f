"""The fourth step of an evaluation: Markdown in the layout of the paper's tables, and how it was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.tables.results import PAIRED, differences

RowResult = Mapping[str, Any]  # of one row, see `results.reduce_row`

TITLES = {"static": "Static", "moving": "Dynamic"}  # the paper's words
TABLE_1 = ("clip_sim", "coverage", "miou_covered")  # the paper's columns
FURTHER = ("miou_all", "centroid_distance", "ap50_misses", "tau", "latent_std")
FIGURE_COLUMNS = {  # figure: its column, and whether it is a share
    "clip_sim": ("CLIP-SIM", False),
    "coverage": ("CoV %", True),
    "miou_covered": ("mIoU-covered %", True),
    "miou_all": ("mIoU-all %", True),
    "centroid_distance": ("CD %", True),
    "ap50_misses": ("AP50 %", True),
    "tau": ("tau", False),
    "latent_std": ("latent std", False),
    "named": ("named %", True),
    "distance": ("distance", False),
}
DEFINED = {  # figures that public code of the same name computes otherwise, and those that are our own
    "centroid_distance": "CD: from the centre of the wanted box to that of the found one, over the frame's diagonal, "
    "mean over the frames that have both (in Peekaboo's code a frame without a detection counts as one in the corner).",
    "ap50_misses": "AP50: share of the frames in which the subject is wanted or found whose IoU is at least 1/2, "
    "mean over tracks (in Peekaboo's code of the frames with a detection, those of all videos together).",
    "named": "named: share of videos to which the world's judge gives the prompt's shape, colour and background.",
    "distance": "distance: 1000 times KID's MMD^2, unbiased, between a split's videos and real ones, in features that "
    "were trained on the world; its interval is the jackknife's over videos, the real ones held fixed.",
}
ADDED = "What each row adds to the row above it"
ROLES = {
    "boxes": "Boxes",
    "text": "CLIP-SIM",
    "names": "Names",
    "frames": "Features of frames",
    "videos": "Features of videos",
}


def tables(results: Mapping[str, RowResult], command: str, items: str, reference: str | None = None) -> str:
    """Everything; arguments as those of `footer`."""
    parts = {
        "How well subjects follow their boxes, in the layout of the paper's Table 1": conditional_table(results),
        "More about the same videos": conditional_table(results, FURTHER),
        ADDED: differences_table(results),
        "How far the videos lie from others, in the layout of the paper's Table 2": distances_table(results),
        "How these numbers were made": footer(results, command, items, reference),
    }
    return "\n".join(f"**{title}**\n\n{part}" for title, part in parts.items() if part)


def conditional_table(results: Mapping[str, RowResult], figures: Sequence[str] = TABLE_1) -> str:
    """A row each, a group of columns for each split; above them, what those mean that need a word."""
    splits = list(next(iter(results.values()))["splits"])
    shown = [  # what no row has is left out
        (split, name)
        for split in splits
        for name in figures
        if any(result["splits"][split].get(name) is not None for result in results.values())
    ]
    stands_in = {"clip_sim": _stands_in(results, "text")}
    head = ["", *(f"{TITLES[split]}: {FIGURE_COLUMNS[name][0]}{stands_in.get(name, '')}" for split, name in shown)]
    rows = [
        [label, *(show_interval(result["splits"][split].get(name), FIGURE_COLUMNS[name][1]) for split, name in shown)]
        for label, result in results.items()
    ]
    words = [DEFINED[name] for name in DEFINED if name in {name for _, name in shown}]
    return "\n".join([*words, *([""] if words else []), _markdown(head, rows)])


def differences_table(results: Mapping[str, RowResult]) -> str:
    """Each row but the first minus the one above it, and what that is; empty where there is one row."""
    added = differences(results)
    if not added:
        return ""
    known = {name for splits in added.values() for figures in splits.values() for name, cell in figures.items() if cell}
    columns = [(split, name) for split in next(iter(added.values())) for name in PAIRED if name in known]
    head = ["", *(f"{TITLES[split]}: {FIGURE_COLUMNS[name][0]}" for split, name in columns)]
    rows = [
        [label, *(show_interval(splits[split].get(name), FIGURE_COLUMNS[name][1], "+") for split, name in columns)]
        for label, splits in added.items()
    ]
    count = sum(
        cell is not None for splits in added.values() for figures in splits.values() for cell in figures.values()
    )
    return (
        "Rows are compared as they stand, each with the one above it, track by track: mean difference, and its 95 % "
        "interval by Student's t over videos. Of percentages the difference is in points. "
        f"These are {count} comparisons, none corrected for the others: where rows do not differ, one interval in "
        f"twenty excludes 0 all the same.\n\n{_markdown(head, rows)}"
    )


def distances_table(results: Mapping[str, RowResult]) -> str:
    """A row each, how far its videos lie from the reference set; empty where nothing was compared."""
    stands_in = _stands_in(results, "frames")
    distances = {label: result["distances"] for label, result in results.items()}
    columns = {
        "fid": (f"FID{stands_in}", lambda d: _number(d["fid"], ".2f")),
        "kid": (f"KID %{stands_in}", lambda d: _kid(d["kid"])),
        "video_distance": (_video_distance(results), lambda d: _number(d["video_distance"], ".3f")),
        "jedi": ("JEDi", lambda d: _number(d["jedi"], ".3f")),
    }
    shown = {name: column for name, column in columns.items() if any(name in d for d in distances.values())}
    if not shown:
        return ""
    rows = [[label, *(cell(d) if n in d else "-" for n, (_, cell) in shown.items())] for label, d in distances.items()]
    return _markdown(["", *(title for title, _ in shown.values())], rows)


# ---- How it was made -------------------------------------------------------------------------------------------------


def footer(results: Mapping[str, RowResult], command: str, items: str, reference: str | None = None) -> str:
    """The command, what was measured by what and by which rules, every setting, and what was lost.

    items: see `items.name_items`
    """
    rows = {label: _flat(result["row"]) for label, result in results.items()}
    common = {k: v for k, v in next(iter(rows.values())).items() if all(row[k] == v for row in rows.values())}
    told = {name: value for name, value in common.items() if value != ""}
    lines = [f"Made by `{command}`.", *_about_tracks(results, items), *_about_distances(results, reference), ""]
    for role, extractor in next(iter(results.values()))["extractors"].items():
        lines.append(f"- {ROLES[role]}: {extractor['class']}, {extractor['checkpoint']}; resize: {extractor['resize']}")
    lines += ["", f"All rows: {_list(told)}.", ""]
    for label, row in rows.items():
        own = _list({name: value for name, value in row.items() if name not in common})
        lines.append(f"- {label}: {own or 'nothing else'}{_losses(results[label])}")
    return "\n".join(lines) + "\n"


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Row` and of its settings, ready to be read."""
    fields = {"weights": row["model"][:12], **row, **row["settings"]}
    return {name: value for name, value in fields.items() if name not in ("model", "settings")}


def _about_tracks(results: Mapping[str, RowResult], items: str) -> list[str]:
    first = next(iter(results.values()))
    rules = first["rules"]
    counts = [f"{len({track['id'] for track in tracks})} {split}" for split, tracks in first["tracks"].items()]
    covered = "more than half" if rules["coverage"] == "half" else f"more than {rules['coverage'].split(':')[1]}"
    iou = "of a video's volume" if rules["iou"] == "volume" else "mean over the frames in which the subject is found"
    clip = "CLIP-SIM: negative scores count as 0. " if rules["clamp_clip"] else "CLIP-SIM: negative scores count. "
    return [
        f"{' and '.join(counts)} tracks{_subjects(first['tracks'])} ({items}), the same noise for every row.",
        f"Covered: subject found, with a score of at least {rules['threshold']:g}, in {covered} of the frames "
        "in which it is wanted.",
        f"IoU: {iou}; mean over covered subjects, or over all with those not covered as 0.",
        f"{clip if 'text' in first['extractors'] else ''}tau: of the last step.",
        "In brackets: 95 % interval over videos, of CoV by Wilson's formula, of means by Student's t "
        "(whose ends may lie where no value can).",
    ]


def _subjects(tracks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How many subjects the videos of all splits have, where that is not one each."""
    of_video = Counter((split, track["id"]) for split, own in tracks.items() for track in own)
    least, most = min(of_video.values()), max(of_video.values())
    if most == 1:
        return ""
    return f", {most if least == most else f'{least} to {most}'} subjects each"


def _about_distances(results: Mapping[str, RowResult], reference: str | None) -> list[str]:
    """Of the first row that has them; a row that lost videos says so itself."""
    told = []
    for name, counts in (("FID and KID", "frames"), (_video_distance(results), "videos"), ("JEDi", "jedi_videos")):
        found = [result["distances"] for result in results.values() if counts in result["distances"]]
        if found:
            n = found[0][counts]
            what = counts.removeprefix("jedi_")
            told.append(f"{name} from {n['ours']} {what} and {n['reference']}, {n['dimensions']} dimensions")
            if counts == "frames":
                kid = found[0]["kid"]
                subsets = f"{kid['subsets']} subsets of {kid['subset_size']}, ± their spread"
                told.append(f"KID over {'one subset, which is all' if kid['std'] is None else subsets}")
                if min(n["ours"], n["reference"]) < n["dimensions"]:
                    told.append("fewer frames than dimensions, so FID compares only between equal numbers")
    if not told:
        return []
    return [
        f"Distances to {reference or 'the given V-JEPA features'}: {'; '.join(told)}. In brackets: 1.96 standard "
        "errors to either side, by a jackknife over videos of both sets; the bias of small sets is not in them."
    ]


def _losses(result: RowResult) -> str:
    told = ""
    for name, what in (("failed", "did not stay finite"), ("missing", "missing")):
        if result[name]:
            videos = "1 video" if len(result[name]) == 1 else f"{len(result[name])} videos"
            told += f" ({videos} {what}, counted as not covered: {', '.join(result[name])})"
    return told


def _stands_in(results: Mapping[str, RowResult], role: str) -> str:
    """What a column's title adds where its numbers are no published network's."""
    extractor = next(iter(results.values()))["extractors"].get(role, {"checkpoint": ""})
    return " (stand-in)" if extractor["checkpoint"].startswith("stand-in") else ""


def _video_distance(results: Mapping[str, RowResult]) -> str:
    """JEDi's kernel on other features is another metric, and says so."""
    extractor = next(iter(results.values()))["extractors"].get("videos", {"class": ""})["class"]
    return "jedi_vjepa2" if extractor == "VJepa2Features" else f"JEDi's kernel on {extractor}"


# ---- Cells -----------------------------------------------------------------------------------------------------------


def show_interval(figure: Sequence[float | None] | None, percent: bool = False, sign: str = "-") -> str:
    """sign: "+" writes it before positive numbers too."""
    if figure is None:
        return "-"
    return _number(
        [v if v is None else 100 * v for v in figure] if percent else figure, f"{sign}.{1 if percent else 3}f"
    )


def _number(interval: Sequence[float | None], form: str) -> str:
    """A value, and its interval in brackets where there is one."""
    value, *ends = (format(v, form) for v in interval if v is not None)
    return f"{value} [{', '.join(ends)}]" if ends else value


def _kid(kid: Mapping[str, Any]) -> str:
    """Mean and spread times 100; one subset has no spread."""
    spread = "" if kid["std"] is None else f" ± {100 * kid['std']:.2f}"
    return f"{100 * kid['mean']:.2f}{spread}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def _list(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"no {k}" if v == "" else f"{k} {_value(v)}" for k, v in settings.items())


def _value(value: Any) -> str:
    return " + ".join(value) if isinstance(value, list | tuple) else str(value)
