"""The command from arguments to table, on a pipeline of a few lines and a detector of one."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation import ablate
from evaluation.metrics import is_covered, volume_iou
from evaluation.tracks import make_track
from sampling.generate import generate, recommended

SMALL = ["--tracks", "2", "--methods", "plain", "mask", "--out", "results"]


def bright(frames, subject):
    """A box around the pixels whose red is above 160; the subject must have been handed on."""
    assert len(subject.split()) == 2
    boxes = np.full((len(frames), 4), np.nan)
    for box, frame in zip(boxes, frames[..., 0] > 160, strict=True):
        (y, x), (h, w) = np.nonzero(frame), frame.shape
        if len(x):
            box[:] = x.min() / w, y.min() / h, (x.max() + 1) / w, (y.max() + 1) / h
    return boxes


@pytest.fixture
def loaded(pipeline, monkeypatch, tmp_path):
    """The small pipeline and the simple detector in their places, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablate, "load_pipeline", lambda *_: pipeline)
    monkeypatch.setattr(ablate, "find_subject", bright)
    return pipeline


def runs(out="results"):
    """{name: bytes} of what was measured."""
    return {path.name: path.read_bytes() for path in Path(out, "runs").iterdir()}


def test_a_table_from_end_to_end(loaded, capsys):
    ablate.main(SMALL)
    assert len(runs()) == 2 * 2 * 2  # tracks, splits, methods
    assert loaded.unet.calls == 8 * 2  # steps
    text = Path("results/tiny-methods.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "Static: mIoU-covered %" in head and "Dynamic: latent std" in head
    assert [row.split("|")[1].strip() for row in rows] == ["plain", "mask"]
    assert "`python -m evaluation.ablate --tracks 2 --methods plain mask --out results`" in text
    assert {path.name for path in Path("results").iterdir()} == {"runs", "tiny-methods.md"}


def test_a_record_is_what_the_video_shows(loaded):
    ablate.main(SMALL)
    track, settings = make_track("moving", 1, 4), recommended(loaded, "mask")
    by_hand = generate(loaded, None, track.trajectory, settings, seed=1)
    boxes, found = track.trajectory.boxes[0].numpy(), bright(by_hand.frames, "red ball")
    (record,) = [
        record
        for name, content in runs().items()
        if name.startswith("moving-0001") and (record := json.loads(content))["made_by"]["settings"]["frozen_steps"]
    ]
    assert record["iou"] == volume_iou(boxes, found) > 0
    assert record["covered"] == is_covered(found)
    assert record["tau"] == by_hand.records[-1]["tau"][0]
    assert record["latent_std"] == pytest.approx(by_hand.latents.std().item(), rel=1e-6)
    assert np.array_equal([box or [np.nan] * 4 for box in record["found"]], found, equal_nan=True)
    made_by = record["made_by"]
    assert (made_by["seed"], made_by["prompt"]) == (1, track.trajectory.prompt)
    assert (made_by["model"], made_by["size"]) == ("0123456789abcdef", [4, 32, 48])


def test_every_method_starts_from_the_same_noise(loaded, monkeypatch):
    seeds = []

    def spy(*arguments):
        seeds.append(arguments[4])
        return generate(*arguments)

    monkeypatch.setattr(ablate, "generate", spy)
    ablate.main([*SMALL, "--seed-offset", "5"])
    assert seeds == [5] * 4 + [6] * 4  # two splits and two methods for each track


def test_an_interrupted_run_goes_on(loaded):
    ablate.main(SMALL)
    whole, table = runs(), Path("results/tiny-methods.md").read_bytes()
    name = sorted(whole)[3]
    Path("results/runs", name).unlink()
    Path("results/runs", sorted(whole)[5]).write_text('{"made_by": ')  # a file that cannot be read is made again too
    loaded.unet.calls = 0
    ablate.main(SMALL)
    assert loaded.unet.calls == 2 * 2  # two videos of two steps
    assert runs() == whole
    assert Path("results/tiny-methods.md").read_bytes() == table


def test_a_record_made_in_another_way_does_not_count(loaded):
    ablate.main(SMALL)
    loaded.unet.calls, loaded.fingerprint = 0, "f" * 16  # other weights
    ablate.main(SMALL)
    assert loaded.unet.calls == 8 * 2
    loaded.unet.calls, loaded.defaults.settings["guidance_scale"] = 0, 3.0
    ablate.main(SMALL)
    assert loaded.unet.calls == 8 * 2
    assert len(runs()) == 3 * 8


def test_a_record_under_the_wrong_name_does_not_count(loaded):
    one = ["--tracks", "1", "--split", "moving", "--methods", "mask", "--out", "results"]
    ablate.main(one)
    ((name, content),) = runs().items()
    record = json.loads(content)
    record["made_by"]["settings"]["steps"] = 7
    Path("results/runs", name).write_text(json.dumps(record))
    loaded.unet.calls = 0
    ablate.main(one)
    assert loaded.unet.calls == 2
    assert runs() == {name: content}


def test_shards_together_equal_the_whole(loaded, capsys):
    ablate.main(SMALL)
    table = capsys.readouterr().out
    for shard in ("1/2", "2/2"):
        ablate.main([*SMALL[:-1], "halves", "--shard", shard])
        assert f"shard {shard[0]} of 2 is done" in capsys.readouterr().out
        assert not Path("halves/tiny-methods.md").exists()
        assert len(runs("halves")) == 4 * int(shard[0])
    assert runs("halves") == runs("results")
    loaded.unet.calls = 0
    ablate.main([*SMALL[:-1], "halves"])
    assert loaded.unet.calls == 0
    assert capsys.readouterr().out.replace("halves", "results") == table


def test_a_sweep_varies_one_method(loaded):
    ablate.main(["--tracks", "1", "--split", "static", "--out", "results", "--sweep", "c_g=0,5", "refine_steps=1,all"])
    text = Path("results/tiny-sweep-c_g-refine_steps.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [f"c_g={c_g}, refine_steps={steps}" for c_g in (0, 5) for steps in (1, "all")]
    assert "Dynamic" not in text
    made = [json.loads(content)["made_by"]["settings"] for content in runs().values()]
    full = recommended(loaded, "full")
    expected = {replace(full, c_g=c_g, refine_steps=steps) for c_g in (0.0, 5.0) for steps in (1, None)}
    assert {type(full)(**settings) for settings in made} == expected

    loaded.unet.calls = 0
    ablate.main(["--tracks", "1", "--split", "static", "--out", "results", "--methods", "full"])
    assert loaded.unet.calls == 0  # the sweep has made it: c_g = 5 and all steps are the checkpoint's


@pytest.mark.parametrize(
    ("sweep", "name", "values", "labels"),
    [
        ("axis=joint,channel", "axis", ["joint", "channel"], ["axis=joint", "axis=channel"]),
        ("where=up,up+mid", "where", [("up",), ("up", "mid")], ["where=up", "where=up+mid"]),
        ("normalize=true,false", "normalize", [True, False], ["normalize=True", "normalize=False"]),
        ("frozen_steps=0,1", "frozen_steps", [0, 1], ["frozen_steps=0", "frozen_steps=1"]),
        ("guidance_scale=1.5,9", "guidance_scale", [1.5, 9.0], ["guidance_scale=1.5", "guidance_scale=9"]),
    ],
)
def test_values_of_a_sweep_have_their_settings_kind(pipeline, sweep, name, values, labels):
    arguments = ablate.build_parser().parse_args(["--sweep", sweep, "--methods", "mask-norm"])
    rows = ablate.make_rows(pipeline, arguments.methods, arguments.sweep)
    assert list(rows) == labels
    assert list(rows.values()) == [replace(recommended(pipeline, "mask-norm"), **{name: value}) for value in values]
    assert ablate.table_name(arguments) == f"tiny-sweep-mask-norm-{name}.md"


def test_latents_that_are_not_finite_count_as_no_subject(loaded):
    loaded.unet.scale.fill_(math.nan)
    ablate.main(SMALL)
    records = [json.loads(content) for content in runs().values()]
    assert all((r["iou"], r["covered"], r["tau"], r["latent_std"]) == (0, False, None, None) for r in records)
    assert all("not finite after step 1" in record["failure"] for record in records)
    assert "(4 videos did not stay finite and count as not covered)" in Path("results/tiny-methods.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--methods fuller", "method must be one of"),
        ("--methods plain mask --sweep c_g=1", "a sweep is over one method, not over plain, mask"),
        ("--sweep c_g=1 c_g=2", "a sweep names each setting once, not c_g, c_g"),
        ("--sweep cg=1", "must be a setting and its values, name=v1,v2, got 'cg=1'"),
        ("--sweep c_g", "has a value that c_g cannot take: 'c_g'"),
        ("--sweep axis=joint,all", "has a value that axis cannot take"),
        ("--sweep normalize=yes", "has a value that normalize cannot take"),
        ("--sweep steps=all", "has a value that steps cannot take"),
        ("--shard 3/2", "must be i/n with i from 1 to n, got 3/2"),
        ("--shard 0/2", "must be i/n"),
        ("--tracks 0", "must be at least 1, got 0"),
        ("--split still", "invalid choice: 'still'"),
    ],
)
def test_a_slip_is_one_sentence(loaded, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as end:
        ablate.main(arguments.split(" "))
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not Path("evaluation").exists()


def test_the_detector_finds_a_subject_of_its_colour():
    frames = np.full((2, 96, 128, 3), (77, 140, 56), np.uint8)  # grass
    frames[0, 24:48, 32:64] = (219, 31, 31)  # red
    found = ablate.find_subject(frames, "red ball")
    assert found[0].tolist() == [0.25, 0.25, 0.5, 0.5]
    assert np.isnan(found[1]).all()
    assert np.isnan(ablate.find_subject(frames, "white ball")).all()
