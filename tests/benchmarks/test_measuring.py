"""What the benchmarks' numbers mean: ratios within a round, counted work, its floor."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))

from measuring import Rates, Work, interleave, ratio, report, row, work
from sizes import SIZES, make_boxes, make_control, make_latents, make_text, make_unet


def test_ratio_is_taken_within_each_round():
    """Rounds of a machine that gets slower: 2/1, 6/2, 16/4 are 2, 3, 4; quartiles 2.5 and 3.5."""
    assert ratio([2.0, 6.0, 16.0], [1.0, 2.0, 4.0]) == (3.0, 2.5, 3.5)


def test_rounds_begin_with_another_call_each_after_one_that_does_not_count():
    called = []
    calls = {name: (lambda name=name: called.append(name)) for name in "ab"}
    seconds = interleave(calls, repeats=3)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert [len(seconds[name]) for name in "ab"] == [3, 3]


def test_work_of_a_matrix_product():
    """(3 x 4)(4 x 5): 2 * 60 operations, 12 + 20 + 15 numbers of 4 bytes. The sum and the sine are not counted."""
    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert work(lambda: ((a @ b) + 1).sin()) == Work(120, 4 * 47)


def test_work_of_fused_attention_and_its_backward_pass():
    """Q K^T and A V: 2 * 2 * (1 * 2 heads) * 6 * 5 * 4 = 960. Backward: five such products, 5 / 2 of it."""
    q = torch.randn(1, 2, 6, 4, requires_grad=True)
    k, v = torch.randn(1, 2, 5, 4, requires_grad=True), torch.randn(1, 2, 5, 4, requires_grad=True)
    assert work(lambda: F.scaled_dot_product_attention(q, k, v)).flops == 960
    assert work(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()).flops == 960 + 2400


def test_floor_is_the_slower_of_arithmetic_and_memory():
    rates = Rates(flops=100.0, bytes=10.0)
    assert Work(flops=200, bytes=10).floor(rates) == 2
    assert Work(flops=200, bytes=50).floor(rates) == 5


def test_rates_are_the_yardsticks_work_over_the_median_of_their_times():
    sticks = {"matrix product": (None, Work(600, 1)), "copy": (None, Work(0, 80))}
    seconds = {"matrix product": [1.0, 2.0, 100.0], "copy": [4.0, 4.0, 4.0]}
    assert Rates.measured(sticks, seconds) == Rates(flops=300, bytes=20)


def test_report_prints_the_table_and_writes_it(tmp_path, capsys):
    rates = Rates(flops=1e9, bytes=1e9)
    rows = [
        row("plain", [2.0, 2.0], [2.0, 2.0], Work(int(1e9), 8), rates),
        row("masked", [1.0, 3.0], [2.0, 2.0]),
    ]
    path = tmp_path / "new" / "table.json"
    args = argparse.Namespace(size="tiny", device="cpu", dtype="float32", repeats=2, json=path)
    report(rows, "plain", args, "a title", rates, {"more": 1})
    written = json.loads(path.read_text())
    assert (written["what"], written["more"], written["reference"]) == ("a title", 1, "plain")
    assert (written["flops_per_second"], written["bytes_per_second"]) == (1e9, 1e9)
    assert written["rows"][1] == {"name": "masked", "ratio": 1.0, "quartiles": [0.75, 1.25], "seconds": [1.0, 3.0]}
    assert written["rows"][0]["over_floor"] == 2  # 1e9 operations at 1e9 a second take 1 second, not 2
    printed = capsys.readouterr().out
    assert "plain = 1" in printed and "0.750- 1.250" in printed


@pytest.mark.parametrize("name", SIZES)
def test_boxes_cover_a_fifth_of_each_frame(name):
    size = SIZES[name]
    covered = make_boxes(size).rasterize(size.height, size.width).float().mean((0, 2, 3))
    assert covered.tolist() == pytest.approx([0.2] * size.frames, abs=0.035)


def test_a_networks_tensors_are_random_and_run():
    size = SIZES["tiny"]
    network, z = make_unet(size, "cpu", torch.float32), make_latents(size, "cpu")
    assert all(p.any() for p in network.parameters())
    with torch.no_grad():
        eps = network(z, 500, make_text(size, "cpu", torch.float32), make_control(size, "cpu", normalize=True))
    assert eps.shape == (2, 4, 8, 12, 16) and eps.isfinite().all()
