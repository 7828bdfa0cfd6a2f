"""`python -m tests.gpu` on the CPU, every part at the smallest size: whoever has a GPU finds it in working order."""

import json
from dataclasses import replace

import pytest

from tests import gpu
from tests.helpers import SMALL_UNET


@pytest.fixture
def small(monkeypatch):
    """Two frames of 4 x 4 cells, and a U-Net of few layers; two of the account's cases."""
    small = replace(gpu.SIZES["tiny"], unet=SMALL_UNET, frames=2, height=4, width=4)
    monkeypatch.setitem(gpu.SIZES, "tiny", small)
    monkeypatch.setattr(gpu.account, "CASES", [gpu.account.PLAIN, gpu.account.FULL])


def not_installed(args):
    raise gpu.NotRun("diffusers is not installed")


def test_every_part_runs_and_is_kept(small, tmp_path, capsys, monkeypatch):
    path = tmp_path / "new" / "gpu.json"
    monkeypatch.setitem(gpu.PARTS, "diffusers", not_installed)
    command = ["--device", "cpu", "--repeats", "1", "--json", str(path)]
    assert gpu.main(command) == 0
    told = json.loads(path.read_text())
    assert [*told["parts"]] == [*gpu.PARTS]
    assert told["parts"]["diffusers"] == {"not run": "diffusers is not installed"}
    finished = {name: part["rows"] for name, part in told["parts"].items() if name != "diffusers"}
    assert all(finished.values())
    assert {row["difference"] for row in finished["parity"]} == {0}  # of the CPU to itself
    assert all(0 < row["difference"] < 1 for row in finished["precisions"] if "plain" in row["name"])
    assert [row["name"] for row in finished["methods"]] == [*gpu.METHODS]
    assert all(row["account_bytes"] > 0 and row["peak_bytes"] is None for row in finished["memory"])
    seconds = {row["name"]: row["seconds"][0] for row in finished["step"]}
    assert seconds["a video, plain (added up)"] == pytest.approx(50 * seconds["plain"] + seconds["decoding"])

    table = path.with_suffix(".md").read_text()
    assert all(f"| {name} | " in table for name in finished) and "- diffusers: diffusers is not installed" in table
    assert all(f"- {name}: {why}" in table for name, why in gpu.NEEDS_CUDA.items())
    capsys.readouterr()
    assert gpu.main(command) == 0
    again = json.loads(path.read_text())
    assert again["parts"] == told["parts"]
    assert capsys.readouterr().out.count("finished before") == len(finished)


def test_parts_of_another_commit_are_made_again(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(gpu, "PARTS", {"parity": lambda args: made.append(gpu.commit()) or {"rows": []}})
    for commit in ("one", "one", "two"):
        monkeypatch.setattr(gpu, "commit", lambda commit=commit: commit)
        assert gpu.main(["--device", "cpu", "--parts", "parity", "--json", str(tmp_path / "gpu.json")]) == 0
    assert made == ["one", "two"]


def test_a_part_without_memory_leaves_the_others_and_is_tried_again(tmp_path, monkeypatch):
    def fail(args):
        raise gpu.torch.OutOfMemoryError("out of memory")

    path = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "PARTS", {"memory": fail, "parity": lambda args: {"rows": []}})
    for memory in (fail, lambda args: {"rows": [{"name": "plain"}]}):
        gpu.PARTS["memory"] = memory
        assert gpu.main(["--device", "cpu", "--parts", "memory", "parity", "--json", str(path)]) == 0
        parts = json.loads(path.read_text())["parts"]
        assert "rows" in parts["parity"]
        assert parts["memory"].get("not run") == ("memory ran out" if memory is fail else None)
