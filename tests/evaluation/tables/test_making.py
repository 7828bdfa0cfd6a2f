"""Videos and measurements are made once, from what their item and row say, and again where they are not whole."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.benchmarks.items import make_item
from evaluation.tables import making
from evaluation.tables.making import (
    Suite,
    check_plans,
    check_suite,
    check_words,
    fit_rows,
    known_words,
    make_video,
    measure_reference,
    measure_video,
    published,
    read_measured,
    read_reference,
    stand_ins,
)
from sampling.generate import generate
from weights.memory import Savings

WHOLE = {"sequential_guidance": False, "offload": False}  # what the small pipeline can do
GREY = np.full((4, 32, 48, 3), 128, np.uint8)


def calls(suite):
    """How often each extractor was asked so far."""
    return {role: extractor.calls for role, extractor in suite.all.items()}


def files(store, suffix=""):
    """{name: bytes} of all files that end so."""
    return {path.name: path.read_bytes() for path in (store.root / "files").iterdir() if path.name.endswith(suffix)}


@pytest.fixture
def made(store, pipeline, item, row):
    """The store with its video."""
    make_video(store, pipeline, item, row)
    return store


# ---- Videos ----------------------------------------------------------------------------------------------------------


def test_a_video_is_what_generate_gives(store, pipeline, item, row):
    record = make_video(store, pipeline, item, row)
    by_hand = generate(pipeline, None, item.trajectory, row.settings, item.seed)
    assert np.array_equal(store.read_frames(item, row), by_hand.frames)
    assert record["failure"] is None
    assert record["tau"] == by_hand.records[-1]["tau"][0]
    assert record["latent_std"] == pytest.approx(by_hand.latents.std().item(), rel=1e-6)


def test_a_video_is_made_once(made, pipeline, item, row):
    pipeline.unet.calls = 0
    assert make_video(made, pipeline, item, row) == made.read_record(item, row)
    assert pipeline.unet.calls == 0
    make_video(made, pipeline, item, replace(row, model="other weights"))
    assert pipeline.unet.calls == 2  # steps
    assert len(files(made, ".mkv")) == 2


def test_all_of_a_row_reaches_the_video(store, pipeline, item, row, monkeypatch):
    told = {}
    monkeypatch.setattr(making, "generate", lambda *a, **k: told.update(k, given=a) or generate(*a, **k))
    item, row = make_item("keyframes", "tiny", "static", 1, frames=3), replace(row, frames=3, height=16, width=24)
    make_video(store, pipeline, item, replace(row, negative_prompt="blurry"))
    (network, prompt, trajectory, settings, seed) = told.pop("given")
    assert (network, prompt, settings, seed) == (pipeline, None, row.settings, item.seed)
    assert (trajectory.prompt, trajectory.boxes.tolist()) == (item.prompt, item.trajectory.boxes.tolist())
    assert told == {"negative_prompt": "blurry", "frames": 3, "height": 16, "width": 24}
    assert store.read_frames(item, replace(row, negative_prompt="blurry")).shape == (3, 16, 24, 3)


@pytest.mark.parametrize("suffix", [".json", ".mkv"])
def test_a_broken_video_or_record_is_made_again(made, pipeline, item, row, suffix):
    whole, path = files(made), made.record_path(item, row).with_suffix(suffix)
    path.write_bytes(path.read_bytes()[:-30])
    pipeline.unet.calls = 0
    make_video(made, pipeline, item, row)
    assert pipeline.unet.calls == 2
    assert files(made) == whole


def test_latents_that_are_not_finite_leave_a_record_and_no_video(store, pipeline, item, row, suite):
    pipeline.unet.scale.fill_(math.nan)
    record = make_video(store, pipeline, item, row)
    assert "not finite after step 1 of 2" in record["failure"]
    assert (record["video"], record["tau"], record["latent_std"]) == (None, None, None)
    assert list(files(store)) == [store.record_path(item, row).name]
    pipeline.unet.calls = 0
    assert make_video(store, pipeline, item, row) == record
    assert pipeline.unet.calls == 0  # it would only fail again
    assert measure_video(store, suite, item, row) == {}
    assert set(calls(suite).values()) == {0}


def test_a_video_that_another_worker_made_meanwhile_is_kept(store, pipeline, item, row, monkeypatch):
    def slow(*arguments, **options):
        store.write_record(item, row, GREY, {"failure": None, "tau": 0.25, "latent_std": 1.0})
        return generate(*arguments, **options)

    monkeypatch.setattr(making, "generate", slow)
    assert make_video(store, pipeline, item, row)["tau"] == 0.25
    assert np.array_equal(store.read_frames(item, row), GREY)


def test_an_item_that_cannot_be_made_is_refused_before_any_is(pipeline, item, row):
    longer = make_item("keyframes", "tiny", "static", 7, frames=6)
    check_plans(pipeline, [item], {"mask": row})
    with pytest.raises(ValueError, match=r"item keyframes-static-0007 cannot be made: .*6.* 4"):
        check_plans(pipeline, [item, longer], {"mask": row})
    assert pipeline.unet.calls == 0


def test_a_row_that_does_not_fit_is_refused_by_its_name(pipeline, item, row, monkeypatch):
    asked = []

    def check(network, plan, **how):
        asked.append((network, plan.settings, how))
        if plan.settings.frozen_steps == 1:
            raise ValueError("it needs 9 GB")

    monkeypatch.setattr(making, "check_memory", check)
    how = {"sequential_guidance": True, "offload": False, "frames_per_chunk": 2}
    large = replace(row, settings=replace(row.settings, frozen_steps=1))
    plans = check_plans(pipeline, [item, replace(item, id="b")], {"mask": row, "large": large})
    with pytest.raises(ValueError, match="row large cannot be made: it needs 9 GB"):
        fit_rows(pipeline, plans, Savings(**how), None)
    assert asked == [(pipeline, row.settings, how), (pipeline, large.settings, how)]  # once for all items of a row
    nothing = check_plans(pipeline, [], {"large": large})  # a worker without items makes nothing
    assert fit_rows(pipeline, nothing, Savings(**how), None).how == how


def test_what_saves_memory_reaches_the_sampler_and_not_the_name(store, pipeline, item, row, monkeypatch):
    told = {}
    monkeypatch.setattr(making, "generate", lambda *a, **k: told.update(k) or generate(*a, **{**k, **WHOLE}))
    how = {"sequential_guidance": True, "offload": True, "frames_per_chunk": 1}
    make_video(store, pipeline, item, row, **how)
    assert {name: told[name] for name in how} == how
    pipeline.unet.calls = 0
    make_video(store, pipeline, item, row)  # is there, however it was made
    assert pipeline.unet.calls == 0


# ---- Measurements ----------------------------------------------------------------------------------------------------


def test_every_role_is_measured_once(made, item, row, suite):
    found = measure_video(made, suite, item, row)
    frames = made.read_frames(item, row)
    assert found["boxes"] == [[[(0.0, 0.0, 0.5, 0.5, 0.9), (0.5, 0.0, 1.0, 1.0, 0.2)]] * 4]
    assert found["text"] == [-10, 20, 30, 40]
    assert torch.equal(found["frames"], torch.from_numpy(frames.mean((1, 2))).float())
    assert torch.equal(found["videos"], torch.from_numpy(frames.mean((0, 1, 2))).float()[None])
    assert calls(suite) == {"boxes": 1, "text": 1, "frames": 1, "videos": 1}
    again = measure_video(made, suite, item, row)
    assert calls(suite) == {"boxes": 1, "text": 1, "frames": 1, "videos": 1}
    assert again["text"] == found["text"]
    assert np.array_equal(again["boxes"], found["boxes"])
    assert all(torch.equal(again[role], found[role]) for role in ("frames", "videos"))


def test_boxes_are_sought_for_each_subject(store, pipeline, row, suite):
    pair = make_item("pairs", "tiny", "moving", 0, frames=4)
    make_video(store, pipeline, pair, row)
    assert np.shape(measure_video(store, suite, pair, row)["boxes"]) == (2, 4, 2, 5)  # subjects, frames, boxes
    assert suite.boxes.calls == 2


def test_another_extractor_measures_anew_and_the_first_is_not_forgotten(made, item, row, suite):
    measure_video(made, suite, item, row)
    other = replace(suite, text=type(suite.text)(revision="2"))
    measure_video(made, other, item, row)
    assert calls(other) == {"boxes": 1, "text": 1, "frames": 1, "videos": 1}
    measure_video(made, suite, item, row)
    assert calls(suite) == {"boxes": 1, "text": 1, "frames": 1, "videos": 1}


def test_another_video_under_the_same_name_is_measured_anew(made, item, row, suite):
    measure_video(made, suite, item, row)
    made.write_record(item, row, GREY, {"failure": None, "tau": None, "latent_std": None})
    found = measure_video(made, suite, item, row)
    assert set(calls(suite).values()) == {2}
    assert found["videos"].tolist() == [[128, 128, 128]]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip(path):
    """One bit of a number: JSON and safetensors as before."""
    content = bytearray(path.read_bytes())
    place = content.rindex(b"0") if path.suffix == ".json" else len(content) - 3
    content[place] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(b'{"video": 1}')


@pytest.mark.parametrize("role", ["boxes", "text", "frames", "videos"])
@pytest.mark.parametrize("damage", [truncate, flip, empty, garble])
def test_a_broken_measurement_is_made_again(made, item, row, suite, role, damage):
    measure_video(made, suite, item, row)
    whole, name = files(made), type(suite.all[role]).__name__
    (path,) = (made.root / "files").glob(f"*.{name}-*")
    damage(path)
    measure_video(made, suite, item, row)
    assert calls(suite) == {"boxes": 1, "text": 1, "frames": 1, "videos": 1, role: 2}
    assert files(made) == whole


def test_a_video_that_is_not_there_is_one_sentence(store, item, row, suite):
    with pytest.raises(ValueError, match=f"the video of {item.id} is not there or not whole; run .*generate. again"):
        measure_video(store, suite, item, row)


def test_what_was_measured_is_read_and_never_made(made, item, row, suite):
    with pytest.raises(
        ValueError, match=rf"the video of {item.id} is not measured yet \(boxes, text, frames, videos\); "
    ):
        read_measured(made, suite.describe(), item, row)
    found = measure_video(made, suite, item, row)
    read = read_measured(made, suite.describe(), item, row)
    assert read["text"] == found["text"]
    assert torch.equal(read["videos"], found["videos"])
    (path,) = (made.root / "files").glob("*.Text-*")
    truncate(path)
    with pytest.raises(ValueError, match=r"not measured yet \(text\); run `python -m evaluation extract` first"):
        read_measured(made, suite.describe(), item, row)
    assert set(calls(suite).values()) == {1}


def test_a_reference_is_read_from_its_files_alone(tmp_path, suite):
    path, extractors = tmp_path / "one.json", suite.describe()
    with pytest.raises(
        ValueError, match=r"the reference's cat\.mp4 is not measured yet \(frames, videos\); run .*extract"
    ):
        read_reference(path, extractors, "cat.mp4")
    assert suite.frames.calls == 0
    found = measure_reference(path, suite, "cat.mp4", GREY)
    assert torch.equal(read_reference(path, extractors, "cat.mp4")["frames"], found["frames"])
    measured = next(tmp_path.glob("one.Videos-*"))
    truncate(measured)
    with pytest.raises(ValueError, match=r"the reference's cat\.mp4 is not measured yet \(videos\)"):
        read_reference(path, extractors, "cat.mp4")


def test_features_of_a_reference_are_kept_for_its_frames(tmp_path, suite):
    path = tmp_path / "one.json"
    found = measure_reference(path, suite, "cat.mp4", GREY)
    assert found["frames"].tolist() == [[128] * 3] * 4
    assert found["videos"].tolist() == [[128] * 3]
    measure_reference(path, suite, "cat.mp4", GREY)
    assert calls(suite) == {"boxes": 0, "text": 0, "frames": 1, "videos": 1}
    other = measure_reference(path, suite, "cat.mp4", GREY + 1)  # another file of this name
    assert other["videos"].tolist() == [[129] * 3]
    assert read_reference(path, suite.describe(), "cat.mp4")["videos"].tolist() == [[129] * 3]
    assert measure_reference(path, Suite(suite.boxes), "cat.mp4", GREY) == {}


# ---- Words -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_the_tiny_world_refuses_items_of_another(pipeline, item):
    real = make_item("jain", "real", "static", 0, frames=4)
    assert known_words(pipeline) == "real"  # its example prompt is "grass"
    check_words(pipeline, [item, real])
    pipeline.defaults.prompt = "A red ball moving over the grass"
    assert known_words(pipeline) == "tiny"
    check_words(pipeline, [item])
    with pytest.raises(ValueError, match=rf"item {real.id}: small knows the tiny world alone, .* {real.subjects[0]};"):
        check_words(pipeline, [item, real])
    pipeline.defaults.prompt = None  # Zeroscope has no example
    assert known_words(pipeline) == "real"


# ---- Suites ----------------------------------------------------------------------------------------------------------


def test_stand_ins_say_what_they_are():
    described = stand_ins().describe()
    assert list(described) == ["boxes", "text", "frames", "videos"]
    assert all(extractor["checkpoint"].startswith("stand-in: ") for extractor in described.values())
    assert list(stand_ins(distances=False).describe()) == ["boxes", "text"]


def test_published_extractors_are_loaded_by_name(monkeypatch):
    for name in ("OwlDetector", "ClipScorer", "InceptionFeatures", "VJepa2Features"):
        monkeypatch.setattr(getattr(making, name), "load", lambda *arguments, name=name: (name, *arguments))
    assert published("cuda:1", {"owl": "a", "clip": "b", "inception": "clean", "vjepa2": "c"}).all == {
        "boxes": ("OwlDetector", "a", "cuda:1"),
        "text": ("ClipScorer", "b", "cuda:1"),
        "frames": ("InceptionFeatures", "cuda:1", "clean"),
        "videos": ("VJepa2Features", "c", "cuda:1"),
    }
    assert list(published("cpu", {"owl": "a"}).all) == ["boxes"]


def test_extractors_that_cannot_measure_an_item_are_refused(item):
    check_suite(stand_ins(), item)
    with pytest.raises(ValueError, match="subjects are found by a colour in front"):
        check_suite(stand_ins(), make_item("jain", "real", "static", 0, frames=4))
