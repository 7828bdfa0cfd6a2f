"""The command from arguments to table, on a pipeline of a few lines and a detector of one."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import ablate
from evaluation.benchmarks.items import make_item
from evaluation.tables import making
from evaluation.tables.store import Store
from sampling.generate import generate, recommended
from sampling.settings import preset

SMALL = ["--tracks", "2", "--methods", "plain", "mask", "--real", "8", "--out", "results"]


class Bright:
    """Finds the pixels whose red is above 160; the subject must have been handed on."""

    def detect(self, frames, subject):
        assert len(subject.split()) == 2
        found = []
        for frame in frames[..., 0] > 160:
            (y, x), (h, w) = np.nonzero(frame), frame.shape
            found.append([(x.min() / w, y.min() / h, (x.max() + 1) / w, (y.max() + 1) / h, 1.0)] if len(x) else [])
        return found

    def describe(self):
        return {"class": "Bright", "checkpoint": "stand-in", "revision": "1", "resize": "none", "dtype": "uint8"}


@pytest.fixture
def loaded(pipeline, monkeypatch, tmp_path):
    """The small pipeline and the simple detector in their places, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ablate, "load_pipeline", lambda *_: pipeline)
    monkeypatch.setattr(ablate, "ColourDetector", Bright)
    return pipeline


def runs(out="results"):
    """{name: bytes} of all that was made and measured."""
    return {path.name: path.read_bytes() for path in Path(out, "runs", "files").iterdir()}


def videos(out="results"):
    return [name for name in runs(out) if name.endswith(".mkv")]


def test_a_table_from_end_to_end(loaded, capsys):
    assert ablate.main(SMALL) == 0
    assert len(videos()) == 2 * 2 * 2  # tracks, splits, methods
    assert loaded.unet.calls == 8 * 2  # steps
    text = Path("results/tiny-methods.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "Static: mIoU-covered %" in head
    assert "Dynamic: latent std" in head
    assert [row.split("|")[1].strip() for row in rows] == ["plain", "mask", "", "---", "mask minus plain"]
    assert "`python -m evaluation.ablate --tracks 2 --methods plain mask --real 8 --out results`" in text
    assert "2 static and 2 moving tracks (jain, SHA-256 " in text
    assert "- Boxes: Bright, " in text
    assert {path.name for path in Path("results").iterdir()} == {"runs", "tiny-methods.md"}


def test_a_video_is_what_generate_gives_for_the_item(loaded):
    assert ablate.main(SMALL) == 0
    item, settings = make_item("jain", "tiny", "moving", 1, frames=4), recommended(loaded, "mask")
    store = Store(Path("results/runs"))
    by_hand = generate(loaded, None, item.trajectory, settings, item.seed)
    row = store.rows()["mask"]
    assert (row.settings, row.model, row.frames, row.height, row.width) == (settings, "0123456789abcdef", 4, 32, 48)
    assert np.array_equal(store.read_frames(item, row), by_hand.frames)


def test_every_method_starts_from_the_same_noise(loaded, monkeypatch):
    seeds = []

    def spy(*arguments, **options):
        seeds.append(arguments[4])
        return generate(*arguments, **options)

    monkeypatch.setattr(making, "generate", spy)
    assert ablate.main([*SMALL, "--first", "5"]) == 0
    items = [make_item("jain", "tiny", split, n, frames=4) for split in ("static", "moving") for n in (5, 6)]
    assert seeds == [item.seed for item in items for _ in ("plain", "mask")]


def test_an_interrupted_run_goes_on(loaded):
    assert ablate.main(SMALL) == 0
    whole, table = runs(), Path("results/tiny-methods.md").read_bytes()
    one, other = sorted(videos())[2:4]
    Path("results/runs/files", one).unlink()
    Path("results/runs/files", other).with_suffix(".json").write_text('{"video": ')  # not whole
    loaded.unet.calls = 0
    assert ablate.main(SMALL) == 0
    assert loaded.unet.calls == 2 * 2  # two videos of two steps
    assert runs() == whole
    assert Path("results/tiny-methods.md").read_bytes() == table


def test_a_video_made_in_another_way_does_not_count(loaded):
    assert ablate.main(SMALL) == 0
    loaded.unet.calls, loaded.fingerprint = 0, "f" * 16  # other weights
    assert ablate.main(SMALL) == 0
    assert loaded.unet.calls == 8 * 2
    loaded.unet.calls, loaded.defaults.settings["guidance_scale"] = 0, 3.0
    assert ablate.main(SMALL) == 0
    assert loaded.unet.calls == 8 * 2
    assert len(videos()) == 3 * 8


def test_shards_together_equal_the_whole(loaded, capsys):
    assert ablate.main(SMALL) == 0
    table = capsys.readouterr().out
    for shard in ("1/2", "2/2"):
        assert ablate.main([*SMALL[:-1], "halves", "--shard", shard]) == 0
        assert "this shard is done; when all are" in capsys.readouterr().out
        assert not Path("halves/tiny-methods.md").exists()
        assert len(videos("halves")) == 4 * int(shard[0])
    loaded.unet.calls = 0
    assert ablate.main([*SMALL[:-1], "halves"]) == 0
    assert loaded.unet.calls == 0
    assert runs("halves") == runs("results")
    assert capsys.readouterr().out.replace("halves", "results") == table


def test_a_sweep_varies_one_method(loaded):
    one = ["--tracks", "1", "--split", "static", "--real", "8", "--out", "results"]
    assert ablate.main([*one, "--sweep", "c_g=0,4600", "refine_steps=1,all"]) == 0
    text = Path("results/tiny-sweep-c_g-refine_steps.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [f"c_g={c_g}, refine_steps={steps}" for c_g in (0, 4600) for steps in (1, "all")]
    assert "Dynamic" not in text
    assert "minus" not in text  # combinations are no steps from one to the next
    full = recommended(loaded, "full")
    expected = [replace(full, c_g=c_g, refine_steps=steps) for c_g in (0.0, 4600.0) for steps in (1, None)]
    assert [row.settings for row in Store(Path("results/runs")).rows().values()] == expected

    loaded.unet.calls = 0
    assert ablate.main([*one, "--methods", "full"]) == 0
    assert loaded.unet.calls == 0  # the sweep has made it: c_g = 4600 and all steps are the checkpoint's


@pytest.mark.parametrize(
    ("sweep", "name", "values", "labels"),
    [
        ("axis=joint,channel", "axis", ["joint", "channel"], ["axis=joint", "axis=channel"]),
        (
            "where=decoder,decoder+mid",
            "where",
            [("decoder",), ("decoder", "mid")],
            ["where=decoder", "where=decoder+mid"],
        ),
        (
            "mask_normalization=true,false",
            "mask_normalization",
            [True, False],
            ["mask_normalization=True", "mask_normalization=False"],
        ),
        ("frozen_steps=0,1", "frozen_steps", [0, 1], ["frozen_steps=0", "frozen_steps=1"]),
        ("guidance_scale=1.5,9", "guidance_scale", [1.5, 9.0], ["guidance_scale=1.5", "guidance_scale=9"]),
    ],
)
def test_values_of_a_sweep_have_their_settings_kind(pipeline, sweep, name, values, labels):
    arguments = ablate.build_parser().parse_args(["--sweep", sweep, "--methods", "mask-norm"])
    rows = ablate.make_rows(pipeline, arguments.methods, arguments.sweep, {})
    assert list(rows) == labels
    assert list(rows.values()) == [replace(recommended(pipeline, "mask-norm"), **{name: value}) for value in values]
    assert ablate.table_name(arguments) == f"tiny-sweep-mask-norm-{name}.md"


def test_rows_may_stand_on_the_papers_values_and_on_some_of_ones_own(loaded):
    own = ["--base", "paper", "--set", "steps=1", "c_g=0", "--methods", "mask", "mask-norm[joint]"]
    assert ablate.main(["--tracks", "1", "--split", "static", "--real", "8", "--out", "results", *own]) == 0
    text = Path("results/tiny-paper-methods.md").read_text()
    assert "steps 1, guidance_scale 9.0" in text  # the checkpoint says 2 and 2.0
    rows = Store(Path("results/runs")).rows()
    assert rows["mask"].settings == preset("mask", replace(preset("paper"), steps=1))
    assert (rows["mask"].settings.axis, rows["mask-norm[joint]"].settings.axis) == (preset("paper").axis, "joint")


def test_latents_that_are_not_finite_count_as_no_subject(loaded):
    loaded.unet.scale.fill_(math.nan)
    assert ablate.main(SMALL) == 0
    records = [json.loads(content) for content in runs().values()]
    assert len(records) == 8
    assert all((r["video"], r["tau"], r["latent_std"]) == (None, None, None) for r in records)
    assert all("not finite after step 1" in record["failure"] for record in records)
    text = Path("results/tiny-methods.md").read_text()
    assert "(4 videos did not stay finite, counted as not covered: jain-static-0000, " in text
    row = next(line for line in text.splitlines() if line.startswith("| plain"))
    assert [cell.split(" ")[0] for cell in row.split("| ")[2:]] == ["0.0", "0.0"] * 2  # CoV and mIoU-all, no more


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--methods fuller", "method must be one of"),
        ("--methods plain mask --sweep c_g=1", "a sweep is over one method, not over plain, mask"),
        ("--sweep c_g=1 c_g=2", "a sweep names each setting once, not c_g, c_g"),
        ("--set c_g=1,2", "must be a setting and one value, name=value, got 'c_g=1,2'"),
        ("--sweep cg=1", "must be a setting and its values, name=v1,v2, got 'cg=1'"),
        ("--sweep c_g", "has a value that c_g cannot take: 'c_g'"),
        ("--sweep axis=joint,all", "has a value that axis cannot take"),
        ("--sweep mask_normalization=yes", "has a value that mask_normalization cannot take"),
        ("--sweep steps=all", "has a value that steps cannot take"),
        ("--shard 3/2", "must be i/n with i from 1 to n, such as 1/2, got '3/2'"),
        ("--shard 0/2", "must be i/n"),
        ("--first -1", "an item has a number of at least 0"),
        ("--real 1", "--real 1: a distance needs at least 2 real videos, such as --real 512"),
        ("--tracks 0", "must be a whole number of at least 1, got '0'"),
        ("--split still", "invalid choice: 'still'"),
    ],
)
def test_a_slip_is_one_sentence(loaded, capsys, arguments, sentence):
    try:
        code = ablate.main(arguments.split(" "))
    except SystemExit as end:  # argparse's own way out
        code = end.code
    assert code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not Path("evaluation").exists()


# ---- How it ends -----------------------------------------------------------------------------------------------------


def test_an_interruption_is_one_sentence_and_the_same_command_goes_on(loaded, interrupted, capsys):
    with interrupted(ablate, after=3):
        assert ablate.main(SMALL) == 130
    assert "interrupted: what was made is kept" in capsys.readouterr().err.splitlines()[-1]
    loaded.unet.calls = 0
    assert ablate.main(SMALL) == 0
    assert loaded.unet.calls == (8 - 3) * 2  # videos that were not made yet, steps


def test_a_fault_after_the_first_video_is_one_sentence(loaded, monkeypatch, capsys):
    def refuse(*_):
        raise ValueError("the video cannot be read")

    monkeypatch.setattr(ablate, "measure_video", refuse)
    assert ablate.main(SMALL) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: the video cannot be read"


def test_each_worker_of_a_machine_has_its_own_gpu(loaded, monkeypatch):
    asked = []
    monkeypatch.setattr(ablate, "load_pipeline", lambda *arguments: asked.append(arguments) or loaded)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert ablate.main([*SMALL, "--device", "cuda"]) == 0
    assert asked == [("tiny", "cuda:3")]


def test_the_renderers_rows_are_the_last(loaded):
    assert ablate.main([*SMALL, "--oracle"]) == 0
    assert len(videos()) == 2 * 2 * 4  # tracks, splits, rows
    assert loaded.unet.calls == 8 * 2  # none for the renderer
    text = Path("results/tiny-methods.md").read_text()
    assert re.findall(r"^\| (\S+) \| 100", text, re.M)[-1:] == ["oracle"]
    assert re.search(r"^\| bare \| 0\.0 .*\| -?[01]\.\d{3} \[", text, re.M)  # no subject found; its latents have a tau
    assert "| bare minus oracle | " in text
    assert "- bare: weights the renderer" in text


def test_how_natural_videos_are_is_told(loaded):
    """3 tracks are the least that have a distance; 1 other scene has none, 3 of them one each. What a row adds is the
    difference of the rows' own distances, which are of 4 random videos here: rounded to 3 digits."""
    assert ablate.main(["--tracks", "3", *SMALL[2:-4], "--real", "24", "--out", "results"]) == 0
    text = Path("results/tiny-methods.md").read_text()
    tables = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    head, _, plain, mask, added, _, difference = ([cell.strip() for cell in row] for row in tables)

    def value(head, row, column):
        return float(row[head.index(column)].split(" ")[0])

    for split in ("Static", "Dynamic"):
        column = f"{split}: distance"
        change = value(head, mask, column) - value(head, plain, column)
        assert value(added, difference, column) == pytest.approx(change, abs=2e-3)
        assert 0 <= value(head, plain, f"{split}: named %") <= 100
    assert re.search(
        r"Real videos are 24 scenes of the world\. The distance of 3 others is \S+ \[\S+, \S+\] as drawn and "
        r"\S+ \[\S+, \S+\] through the autoencoder\.",
        text,
    )
    assert "- Names: JudgedNames, stand-in: answers of the world's judge, SHA-256 " in text
