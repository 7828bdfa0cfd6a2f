"""The tables against cells and lines written by hand."""

from dataclasses import asdict

import pytest

from evaluation.benchmarks.items import Item, name_items
from evaluation.tables.results import Rules
from evaluation.tables.store import Row
from evaluation.tables.table import (
    ADDED,
    FURTHER,
    conditional_table,
    differences_table,
    distances_table,
    footer,
    tables,
)
from sampling.settings import SamplingSettings, preset

PAPERS = Rules()
ITEMS = "jain, SHA-256 0123456789ab"
FIGURES = {
    "clip_sim": [31.4159, 30.0, 32.5],
    "coverage": [2 / 3, 0.0, 1.0],
    "miou_covered": [0.4, 0.2, 0.6],
    "miou_all": [0.2667, 0.0, 0.6],
    "frame_iou": [0.3, 0.2, 0.4],
    "centroid_distance": [0.21854, 0.1, 0.3],
    "ap50_misses": [0.5, 0.25, 0.75],
    "tau": [0.5, 0.4, 0.6],
    "latent_std": None,
}
DISTANCES = {
    "fid": [14 / 3, 4.0, 16 / 3],
    "kid": {"mean": 0.0203, "std": 0.0007, "subsets": 100, "subset_size": 8},
    "frames": {"ours": 8, "reference": 16, "dimensions": 4},
    "video_distance": [1.34, None, None],
    "videos": {"ours": 2, "reference": 4, "dimensions": 3},
}


def extractor(name, checkpoint="hub/network"):
    return {"class": name, "checkpoint": checkpoint, "revision": "1", "resize": "squashed", "dtype": "float32"}


def result(method="mask", rules=PAPERS, figures=FIGURES, distances=(), **others):
    """A row's numbers, with 2 static and 3 moving tracks."""
    row = Row(preset(method, SamplingSettings(c_g=5.0)), "0123456789abcdef", "float32", 8, 96, 128)
    return {
        "row": asdict(row),
        "rules": asdict(rules),
        "extractors": {"boxes": extractor("OwlDetector"), "text": extractor("ClipScorer")},
        "missing": [],
        "failed": [],
        "splits": {"static": {"tracks": 2, **figures}, "moving": {"tracks": 3, **figures}},
        "distances": dict(distances),
        "tracks": {"static": tracks(2), "moving": tracks(3)},
    } | others


def tracks(count, iou=0.5, tau=0.5, subjects=1):
    """Figures of each subject of some videos, as `results.judge_item` gives them."""
    names = ("frame_iou", "frame_iou_misses", "centroid_distance", "ap50", "ap50_misses", "clip_sim", "latent_std")
    figures = {"iou": iou, "covered": True, "tau": tau, **dict.fromkeys(names, 0.5)}
    return [{"id": f"{n}", "subject": f"{k}", **figures} for n in range(count) for k in range(subjects)]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_1_has_the_papers_columns_and_a_row_for_each_method():
    head, rule, first, second = conditional_table({"plain": result("plain"), "mask": result()}).splitlines()
    names = ["CLIP-SIM", "CoV %", "mIoU-covered %"]
    assert cells(head) == ["", *(f"{split}: {name}" for split in ("Static", "Dynamic") for name in names)]
    assert cells(rule) == ["---"] * 7
    figures = ["31.416 [30.000, 32.500]", "66.7 [0.0, 100.0]", "40.0 [20.0, 60.0]"]
    assert cells(first) == ["plain", *figures, *figures]
    assert cells(second) == ["mask", *figures, *figures]


def test_further_figures_leave_out_what_no_row_has():
    words, table = conditional_table({"mask": result()}, FURTHER).split("\n\n")
    head, _, row = table.splitlines()
    assert cells(head)[1:5] == ["Static: mIoU-all %", "Static: CD %", "Static: AP50 %", "Static: tau"]
    assert len(cells(head)) == 1 + 2 * 4  # no latent std
    assert cells(row)[2:5] == ["21.9 [10.0, 30.0]", "50.0 [25.0, 75.0]", "0.500 [0.400, 0.600]"]
    assert [line.split(":")[0] for line in words.splitlines()] == ["CD", "AP50"]  # said where they are shown
    assert "CD" not in conditional_table({"mask": result()})


def test_what_one_row_lacks_is_a_dash_and_not_a_zero():
    lacking = result(figures={**FIGURES, "miou_covered": None, "coverage": [0.0, 0.0, 0.0]})
    *_, row = conditional_table({"plain": result("plain"), "mask": lacking}).splitlines()
    assert cells(row)[2:4] == ["0.0 [0.0, 0.0]", "-"]


def test_table_2_has_a_row_for_each_method():
    results = {"plain": result("plain"), "mask": result(distances=DISTANCES)}
    results["plain"]["extractors"]["videos"] = extractor("VJepa2Features")
    head, rule, plain, mask = distances_table(results).splitlines()
    assert cells(head) == ["", "FID", "KID %", "jedi_vjepa2"]
    assert cells(rule) == ["---"] * 4
    assert cells(plain) == ["plain", "-", "-", "-"]
    assert cells(mask) == ["mask", "4.67 [4.00, 5.33]", "2.03 ± 0.07", "1.340"]
    head, _, row = distances_table({"mask": result(distances={"jedi": [1.86, 1.5, 2.22]})}).splitlines()
    assert (cells(head), cells(row)) == (
        ["", "JEDi"],
        ["mask", "1.860 [1.500, 2.220]"],
    )  # of V-JEPA's own features only
    assert distances_table({"mask": result()}) == ""


def test_kid_of_one_subset_says_so_and_has_no_spread():
    kid = {"mean": 0.0203, "std": None, "subsets": 1, "subset_size": 8}
    results = {"mask": result(distances={**DISTANCES, "kid": kid})}
    assert cells(distances_table(results).splitlines()[2])[2] == "2.03"
    assert "; KID over one subset, which is all; " in footer(results, "x", ITEMS, "others")


def test_what_a_row_adds_has_a_sign_and_says_to_what():
    """Every static track gains 1/8 of IoU and loses 1/4 of tau; in no moving one is tau known."""
    more = result(tracks={"static": tracks(2, iou=0.625, tau=0.25), "moving": tracks(3, tau=None)})
    text = differences_table({"plain": result("plain"), "mask": more})
    sentences, table = text.split("\n\n")
    assert "each with the one above it, track by track" in sentences
    head, rule, row = table.splitlines()
    assert cells(head) == [
        "",
        *(f"{split}: {name}" for split in ("Static", "Dynamic") for name in ("mIoU-all %", "tau")),
    ]
    assert cells(rule) == ["---"] * 5
    assert cells(row) == [
        "mask minus plain", "+12.5 [+12.5, +12.5]", "-0.250 [-0.250, -0.250]", "+0.0 [+0.0, +0.0]", "-"
    ]  # fmt: skip
    assert "These are 3 comparisons, none corrected for the others" in sentences
    assert differences_table({"mask": more}) == ""


def test_one_video_has_a_value_and_no_interval():
    alone = {**FIGURES, "clip_sim": [31.4, None, None], "coverage": [1, 0.2, 1]}
    *_, row = conditional_table({"mask": result(figures=alone)}).splitlines()
    assert cells(row)[1:3] == ["31.400", "100.0 [20.0, 100.0]"]


def test_the_footer_counts_videos_and_subjects_apart():
    two = {"static": tracks(8, subjects=2), "moving": tracks(8, subjects=2)}
    text = footer({"mask": result(tracks=two)}, "x", ITEMS)
    assert f"8 static and 8 moving tracks, 2 subjects each ({ITEMS}), the same noise for every row." in text
    some = {"static": tracks(1, subjects=3), "moving": tracks(3)}
    assert "1 static and 3 moving tracks, 1 to 3 subjects each (" in footer({"mask": result(tracks=some)}, "x", ITEMS)


def test_stand_ins_are_named_in_the_columns_that_they_fill():
    stand_in = "stand-in: random convolutions"
    extractors = {role: extractor(f"My{role}", stand_in) for role in ("boxes", "text", "frames", "videos")}
    results = {"mask": result(distances=DISTANCES, extractors=extractors)}
    assert cells(conditional_table(results).splitlines()[0])[1] == "Static: CLIP-SIM (stand-in)"
    head = distances_table(results).splitlines()[0]
    assert cells(head) == ["", "FID (stand-in)", "KID % (stand-in)", "JEDi's kernel on Myvideos"]


def test_the_footer_tells_the_command_and_every_setting():
    results = {"plain": result("plain"), "full": result("full", distances=DISTANCES)}
    text = footer(results, "python -m evaluation run", ITEMS, "4 videos of kingdom")
    assert "Made by `python -m evaluation run`." in text
    assert f"2 static and 3 moving tracks ({ITEMS}), the same noise for every row." in text
    assert "with a score of at least 0.1, in more than half of the frames in which it is wanted." in text
    assert "IoU: of a video's volume; mean over covered subjects" in text
    assert "negative scores count as 0" in text
    assert "Distances to 4 videos of kingdom: FID and KID from 8 frames and 16, 4 dimensions; " in text
    assert "; KID over 100 subsets of 8, ± their spread; " in text
    assert "from 2 videos and 4, 3 dimensions. In brackets: 1.96 standard errors to either side, by a jackknife" in text
    assert "fewer frames" not in text
    assert "- Boxes: OwlDetector, hub/network; resize: squashed" in text
    assert "- CLIP-SIM: ClipScorer, hub/network; resize: squashed" in text
    common, plain, full = [line for line in text.splitlines() if line.startswith(("All rows", "- plain", "- full"))]
    for words in ("weights 0123456789ab", "dtype float32", "frames 8", "height 96", "steps 50", "where decoder"):
        assert f"{words}," in common
    assert "c_g" not in common
    assert "negative_prompt" not in common
    assert plain == "- plain: frozen_steps 0, mask_normalization False, iterations 0, c_g 0.0"
    assert full == "- full: frozen_steps 4, mask_normalization True, iterations 2, c_g 5.0"


def test_the_footer_tells_other_rules_and_what_differs_beside_settings():
    rules = Rules(threshold=0.25, coverage="count:8", iou="frame", clamp_clip=False)
    one, other = result(rules=rules), result(rules=rules)
    other["row"] |= {"model": "f" * 64, "negative_prompt": "blurry"}
    text = footer({"mask": one, "other": other}, "x", ITEMS)
    assert "a score of at least 0.25, in more than 8 of the frames in which it is wanted" in text
    assert "IoU: mean over the frames in which the subject is found; " in text
    assert "CLIP-SIM: negative scores count. " in text
    assert "- mask: weights 0123456789ab, no negative_prompt" in text
    assert "- other: weights ffffffffffff, negative_prompt blurry" in text
    assert "Distances" not in text


def test_the_footer_tells_what_was_lost():
    losses = {"failed": ["a"], "missing": ["b", "c"]}
    text = footer({"mask": result(**losses)}, "x", ITEMS)
    assert "(1 video did not stay finite, counted as not covered: a)" in text
    assert "(2 videos missing, counted as not covered: b, c)" in text


@pytest.mark.parametrize(("ours", "reference"), [(3, 16), (16, 3)])
def test_the_footer_warns_of_few_frames(ours, reference):
    few = {**DISTANCES, "frames": {"ours": ours, "reference": reference, "dimensions": 4}}
    text = footer({"mask": result(distances=few)}, "x", ITEMS, "others")
    assert "fewer frames than dimensions, so FID compares only between equal numbers" in text


def test_all_tables_stand_under_each_other():
    text = tables({"plain": result("plain"), "mask": result(distances=DISTANCES)}, "x", ITEMS, "others")
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert [word in title for word, title in zip(("1", "More", ADDED, "2", "made"), titles, strict=True)] == [True] * 5
    assert text.index("CLIP-SIM") < text.index("tau") < text.index("KID") < text.index("Made by")
    assert "Table 2" not in tables({"mask": result()}, "x", ITEMS)


def test_items_are_named_by_their_sources_and_all_that_they_are():
    item = Item("a", "static", "hand", 0, "a dog", ("dog",), (((0, 0, 1, 1),),))
    other = Item("a", "static", "hand", 1, "a dog", ("dog",), (((0, 0, 1, 1),),))
    assert name_items([item]).startswith("hand, SHA-256 ")
    assert name_items([item]) != name_items([other])
