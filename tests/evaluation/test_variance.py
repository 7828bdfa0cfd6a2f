"""The table of Figure 2 over tracks, on a pipeline of a few lines."""

from pathlib import Path

import numpy as np
import pytest

from evaluation import variance
from evaluation.figures.activations import record_activations


def test_differences_and_their_intervals_by_hand():
    """Plain 1 and 3 (mean 2, s = sqrt 2, t_1 = 12.706: 2 -+ 12.706); the row lies 0.5 above it on both tracks."""
    values = np.array([[[1.0], [1.5]], [[3.0], [3.5]]])  # (tracks, rows, steps)
    lines = variance.table(["plain", "mask"], values, ["a", "b"]).splitlines()
    assert lines[0] == "| step | 1 |"
    assert lines[2:] == ["| plain | 2.0000 [-10.7062, 14.7062] |", "| mask | +0.5000 [+0.5000, +0.5000] |"]


def test_distances_leave_the_sign_out():
    """mask lies 2 above plain on one track and 2 below it on the other: a difference of 0, a distance of 2. With
    normalization it is 1 below and, after the one masked step, where plain is: a jump of 1."""
    plain = np.array([[3.0, 3.0], [5.0, 5.0]])  # (tracks, steps)
    mask, normalized = plain + np.array([[2.0], [-2.0]]), plain - np.array([1.0, 0.0])
    values = np.stack([plain, mask, normalized], axis=1)
    labels, tracks = ["plain", "mask", "norm"], ["a", "b"]
    assert "| mask | +0.0000" in variance.table(labels, values, tracks)
    lines = variance.distances(labels, values, tracks, frozen=1).splitlines()
    names = " | minus that of mask | ".join(("steps 1 to 1", "steps 2 to 2", "jump from step 1 to 2"))
    assert lines[0] == f"| mean distance from plain | {names} | minus that of mask |"
    means = [[cell.split(" ")[0] for cell in line.split("| ")[2:]] for line in lines[2:]]
    assert means == [
        ["2.0000", "+0.0000", "2.0000", "+0.0000", "0.0000", "+0.0000"],
        ["1.0000", "-1.0000", "0.0000", "-2.0000", "1.0000", "+1.0000"],
    ]


def test_the_table_holds_what_the_recorder_found(pipeline, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(variance, "load_pipeline", lambda _: pipeline)
    assert variance.main(["--tracks", "1", "--steps", "2", "--out", str(tmp_path)]) == 0
    text = Path(tmp_path, "tiny-variance.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()

    items = variance.make_items(variance.FORMS[0], "tiny", 1, 4)
    recorded = [
        record_activations(pipeline, item.trajectory, variance.rows(2), item.seed, prompt=item.prompt) for item in items
    ]
    assert len(recorded) == 2  # a static and a moving track
    rise = np.mean([np.array(r.variance["mask"]) - np.array(r.variance["plain"]) for r in recorded], axis=0)
    row = next(line for line in text.splitlines() if line.startswith("| mask |"))
    shown = [float(cell.split(" ")[0]) for cell in row.split("| ")[2:]]
    assert shown == pytest.approx(rise.tolist(), abs=5e-5)
    assert min(abs(value) for value in shown) > 0.01  # the layer halves what lies inside the boxes


def test_no_row_refines_and_only_the_masks_differ():
    rows = variance.rows(50)
    assert {(s.steps, s.guidance_scale, s.iterations, s.c_g) for s in rows.values()} == {(50, 9.0, 0, 0.0)}
    assert [label for label, s in rows.items() if s.mask_normalization] == [
        "mask-norm, axis channel",
        "mask-norm, axis joint",
    ]
