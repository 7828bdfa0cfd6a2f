"""What is killed, broken, missing or not finite on the way: made again, told, and never counted as if it were there."""

import math
from pathlib import Path

import numpy as np
import pytest

from evaluation.figures.video import write_lossless
from evaluation.tables.store import Store
from tests.evaluation.commands import EVERYTHING, SMALL, command, evaluate, files, numbers

pytestmark = pytest.mark.filterwarnings("default:FID from:UserWarning")  # so few videos have fewer frames than features


def test_a_killed_run_goes_on(done, loaded, interrupted, capsys):
    with interrupted(command, after=3):
        assert command.main([*EVERYTHING[:-1], "killed"]) == 130
    assert capsys.readouterr().err == "interrupted: what was made is kept, and the same command goes on from there\n"
    assert len(files("killed")) == 2 * 3
    loaded.unet.calls = 0
    evaluate(*EVERYTHING[:-1], "killed")
    assert loaded.unet.calls == (8 - 3) * 2  # videos that were not made yet, steps
    assert numbers("killed") == numbers()
    assert files("killed") == files()


@pytest.mark.parametrize("suffix", [".mkv", ".json", "ColourDetector", "JudgedFrames"])
def test_a_broken_file_is_made_again(done, suffix):
    before, whole = numbers(), files()
    kinds = {".json": lambda name: name.count(".") == 1 and name.endswith(".json")}
    name = min(filter(kinds.get(suffix, lambda name: suffix in name), whole))
    Path("all/files", name).write_bytes(whole[name][: len(whole[name]) // 2])
    evaluate(*EVERYTHING)
    assert files() == whole
    assert numbers() == before


def test_a_missing_video_names_its_row_or_is_listed(done, capsys):
    before = numbers()["results"]["mask"]["splits"]["moving"]
    store = Store(Path("all"))
    lost = store.items()[3]
    store.record_path(lost, store.rows()["mask"]).with_suffix(".mkv").unlink()
    for step, start in (("extract", f"not measured: row mask, item {lost.id}: "), ("reduce", "error: row mask: ")):
        assert command.main([step, "--out", "all"]) == 2
        sentence = capsys.readouterr().err.splitlines()[0]
        assert sentence.startswith(f"{start}the video of {lost.id} is not there or not whole; ")
        assert "--allow-missing" in sentence
    for step in ("extract", "reduce"):
        evaluate(step, "--out", "all", "--allow-missing")
    result = numbers()["results"]["mask"]
    assert result["missing"] == [lost.id]
    assert result["splits"]["moving"]["tracks"] == before["tracks"] == 2
    assert result["tracks"]["moving"][1]["covered"] is False


def test_one_broken_video_does_not_stop_the_others(done, capsys):
    """Of a reference of five one is too short and one is no video: three, and all of the rows', are measured."""
    Path("films", "b").mkdir(parents=True)
    grey = np.full((6, 32, 48, 3), 128, np.uint8)
    for name in ("a", "b/c", "d"):
        write_lossless(Path("films", f"{name}.mkv"), grey)
    write_lossless(Path("films", "short.mkv"), grey[:3])
    Path("films", "broken.mkv").write_bytes(b"no video")
    for path in Path("all/files").glob("*.ColourDetector*"):
        path.unlink()
    assert command.main(["extract", "--out", "all", "--reference", "films"]) == 2
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("not measured: the reference's broken.mkv: films/broken.mkv is not a video")
    assert second.startswith("not measured: the reference's short.mkv: films/short.mkv gives 3 frames, ")
    assert last == "error: 2 of 13 videos could not be measured, as told above; the others are"
    assert len(list(Path("all/files").glob("*.ColourDetector*"))) == 8
    for name in ("broken", "short"):
        Path("films", f"{name}.mkv").unlink()
    evaluate("extract", "--out", "all", "--reference", "films")
    evaluate("reduce", "--out", "all", "--reference", "films")
    told = numbers()
    assert told["reference"] == "3 videos of films, the first 4 frames of each"
    assert told["results"]["plain"]["distances"]["frames"] == {"ours": 16, "reference": 12, "dimensions": 64}


def test_latents_that_are_not_finite_are_told(loaded):
    loaded.unet.scale.fill_(math.nan)
    evaluate("run", "--tracks", "1", "--methods", "plain", "--reference", "world:2", "--out", "nan")
    result = numbers("nan")["results"]["plain"]
    assert result["failed"] == ["jain-static-0000", "jain-moving-0000"]
    assert result["splits"]["static"]["coverage"][0] == 0
    assert "2 videos did not stay finite" in Path("nan/tables.md").read_text()


def test_other_weights_never_use_a_file(done, loaded):
    loaded.unet.calls, loaded.fingerprint = 0, "f" * 16
    evaluate("generate", *SMALL, "--out", "all")
    assert loaded.unet.calls == 8 * 2
    evaluate("generate", *SMALL, "--negative-prompt", "blurry", "--out", "all")
    assert loaded.unet.calls == 2 * 8 * 2
    assert len([name for name in files() if name.endswith(".mkv")]) == 3 * 8
    row = Store(Path("all")).rows()["mask"]
    assert (row.model, row.negative_prompt) == ("f" * 16, "blurry")
