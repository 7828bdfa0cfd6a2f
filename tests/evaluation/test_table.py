"""The table against cells worked out by hand."""

from evaluation.table import render_footer, render_table
from sampling.settings import SamplingSettings, preset


def video(iou, covered, tau=0.5, std=1.0, failure=None):
    return {"iou": iou, "covered": covered, "tau": tau, "latent_std": std, "failure": failure}


SAME = [video(0.25, True)] * 4
MIXED = [video(0.6, True, tau=0.2), video(0.2, True, tau=0.4), video(0.0, False, None, None, "latents are not finite")]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_five_figures_for_each_split():
    head, rule, row = render_table({"plain": {"static": SAME, "moving": MIXED}}).splitlines()
    names = ["CoV %", "mIoU-covered %", "mIoU-all %", "tau", "latent std"]
    assert cells(head) == ["", *(f"{split}: {name}" for split in ("Static", "Dynamic") for name in names)]
    assert cells(rule) == ["---"] * 11
    label, *figures = cells(row)
    assert label == "plain"
    assert figures[:5] == [
        "100.0 [100.0, 100.0]",
        "25.0 [25.0, 25.0]",
        "25.0 [25.0, 25.0]",
        "0.500 [0.500, 0.500]",
        "1.000 [1.000, 1.000]",
    ]
    # Dynamic: 2 of 3 covered; (0.6 + 0.2) / 2; (0.6 + 0.2 + 0) / 3; tau over the two that stayed finite.
    assert [figure.split(" ")[0] for figure in figures[5:]] == ["66.7", "40.0", "26.7", "0.300", "1.000"]
    # Three draws of 0.6, 0.2, 0: all three the worst with a chance of 1/27 > 2.5 %, all three the best as well.
    assert figures[7] == "26.7 [0.0, 60.0]"


def test_nothing_covered_is_a_dash_and_not_a_zero():
    *_, row = render_table({"paper": {"static": [video(0.1, False)] * 3}}).splitlines()
    assert cells(row)[1:4] == ["0.0 [0.0, 0.0]", "-", "0.0 [0.0, 0.0]"]


def test_the_footer_tells_the_command_and_every_setting():
    rows = {"plain": preset("plain"), "full": preset("full", SamplingSettings(c_g=5.0, where=("up",)))}
    records = {"plain": {"static": SAME, "moving": MIXED[:2]}, "full": {"static": SAME, "moving": MIXED}}
    text = render_footer(records, rows, "python -m evaluation.ablate --tracks 3", "0123456789abcdef")
    assert "`python -m evaluation.ablate --tracks 3` with weights 0123456789ab." in text
    assert "4 static and 2 moving tracks" in text
    common, plain, full = (line for line in text.splitlines() if line.startswith(("All rows", "- ")))
    assert "steps 50" in common and "where up" in common and "c_g" not in common
    assert plain == "- plain: frozen_steps 0, normalize False, iterations 0, c_g 0.0"
    assert full.startswith("- full: frozen_steps 4, normalize True, iterations 2, c_g 5.0")
    assert full.endswith("(1 videos did not stay finite and count as not covered)")
