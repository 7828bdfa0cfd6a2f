"""Items of benchmarks: what they may be, how they are drawn, and their files."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmarks import prompts
from evaluation.benchmarks.items import (
    FORMS,
    Item,
    find_words,
    item_seed,
    load_items,
    make_item,
    make_items,
    save_items,
)
from evaluation.benchmarks.tracks import SPLITS, jain_boxes, moving_keyframes, smooth_ends, static_keyframes
from weights.train_tiny.world import BACKGROUNDS, held_out

BOX = (0.1, 0.2, 0.5, 0.75)
ITEM = Item("a-1", "static", "hand", 3, "a red ball and a Dog", ("red ball", "dog"), ((BOX, None), (BOX, BOX)))
TINY = st.tuples(st.sampled_from(FORMS), st.sampled_from(SPLITS), st.integers(0, 10**4), st.integers(2, 24))


# ---- Items ----------------------------------------------------------------------------------------------------------


def test_an_item_has_the_trajectory_that_generate_takes():
    trajectory = ITEM.trajectory
    nan = float("nan")
    assert (trajectory.prompt, trajectory.subjects) == (ITEM.prompt, ["red ball", "dog"])
    expected = torch.tensor([[BOX, [nan] * 4], [BOX, BOX]])
    torch.testing.assert_close(trajectory.boxes, expected, rtol=0, atol=0, equal_nan=True)
    assert ITEM.frames == 2
    assert Item.from_trajectory("a-1", "static", "hand", 3, trajectory) == ITEM
    assert len({ITEM, replace(ITEM), replace(ITEM, seed=4)}) == 2  # plain values: equal and hashable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "a/b"}, "an id is made of letters, digits and . _ - , since it names files, not 'a/b'"),
        ({"id": "../a"}, "an id is made of letters"),
        ({"id": 7}, "'id' is a text of at least one word, not 7"),
        ({"split": "still"}, "a split is one of static, moving, not 'still'"),
        ({"source": " "}, "'source' is a text of at least one word, not ' '"),
        ({"prompt": None}, "'prompt' is a text of at least one word, not None"),
        ({"seed": -1}, "a seed is a whole number from 0 to"),
        ({"seed": 1.0}, "a seed is a whole number"),
        ({"seed": True}, "a seed is a whole number"),
        ({"subjects": ()}, "'subjects' is a list of at least one phrase"),
        ({"subjects": "red ball"}, "'subjects' is a list of at least one phrase, not 'red ball'"),
        ({"subjects": ("red ball", "cat")}, "'a red ball and a Dog' does not name the subject 'cat'"),
        ({"subjects": ("red ball", "do")}, "does not name the subject 'do'"),  # half of a word
        ({"subjects": ("red ball",)}, "a list for each of the 1 subjects"),
        ({"boxes": ((BOX, None), (BOX,))}, "with one box .or null. for each frame"),
        ({"boxes": ((), ())}, "with one box .or null. for each frame"),
        ({"boxes": None}, "a list for each of the 2 subjects, .* not None"),
        ({"boxes": ((BOX,), (None,))}, "a subject that is absent in every frame; leave it out"),
        ({"boxes": ((BOX,), ((0.5, 0.2, 0.1, 0.75),))}, "subject 'dog', keyframe 0: the box .* is empty"),
        ({"boxes": ((BOX,), ((0.1, 0.2, 1.1, 0.75),))}, "subject 'dog', .* reaches outside the frame"),
        ({"boxes": ((BOX,), ((0.1, 0.2, 0.5),))}, "a box is four numbers"),
        ({"boxes": ((BOX,), (("0", 0.2, 0.5, 0.6),))}, "a box is four numbers"),
    ],
)
def test_what_is_no_item_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ITEM, **changes)


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("A Cat, asleep", "cat", "Cat"),
        ("the (cat)", "CAT ", "cat"),
        ("the cat's tail", "cat", "cat"),
        ("concatenate a cat", "cat", "cat"),
        ("concatenate", "cat", None),
        ("bobcat", "cat", None),
        ("cats", "cat", None),
        ("a red-hot ball", "red hot", None),
        ("a+b", "a+", None),  # a sign is no letter, and no pattern; b follows at once
        ("a+ b", "a+", "a+"),
    ],
)
def test_a_subject_is_found_in_whole_words(prompt, subject, found):
    assert find_words(prompt, subject) == found


# ---- Random items ---------------------------------------------------------------------------------------------------


def test_a_seed_is_that_of_the_item_alone():
    """The first 6 bytes of SHA-256 of "0 jain-static-0000", which sha256sum gives as well."""
    assert item_seed(0, "jain-static-0000") == 0x3DA5CB6F2F77
    assert len({item_seed(seed, id) for seed in range(50) for id in ("a", "b", "1 a")}) == 150


@settings(deadline=None, max_examples=12)
@given(TINY, st.integers(0, 5))
def test_an_item_is_the_same_in_every_benchmark(chosen, seed):
    form, split, number, frames = chosen
    item = make_item(form, "tiny", split, number, frames, seed)
    assert item == make_items(form, "tiny", 1, frames, seed, splits=[split], first=number)[0]
    assert item.id == f"{form}-{split}-{number:04d}"
    assert item.seed == item_seed(seed, item.id)
    assert item.frames == frames  # and not one more, for a last keyframe
    other = make_item(form, "tiny", split, number, frames, seed + 1)
    assert (other.seed, other.boxes) != (item.seed, item.boxes)


def test_a_benchmark_does_not_depend_on_its_size_or_order():
    few = make_items("jain", "real", 2, 8)
    many = make_items("jain", "real", 5, 8, splits=("moving", "static"))
    assert [item.id[-11:] for item in few] == ["static-0000", "static-0001", "moving-0000", "moving-0001"]
    assert set(few) < set(many)
    assert len({item.seed for item in many}) == len({item.boxes for item in many}) == 10


def test_boxes_come_from_the_items_seed_whatever_its_words():
    for words in ("tiny", "real"):
        for form in ("keyframes", "smooth"):
            item = make_item(form, words, "static", 4, 3)
            (expected,) = static_keyframes(np.random.default_rng(item.seed)).values()
            np.testing.assert_allclose(item.boxes[0], [expected] * 3, atol=1e-7)


def test_moving_boxes_are_those_of_their_form():
    for number in range(5):
        item = make_item("keyframes", "tiny", "moving", number, 9)
        for frame, box in moving_keyframes(np.random.default_rng(item.seed), 9).items():
            np.testing.assert_allclose(item.boxes[0][frame], box, atol=1e-7)
        item = make_item("smooth", "tiny", "moving", number, 9)
        expected = np.linspace(*smooth_ends(np.random.default_rng(item.seed)), 9)
        np.testing.assert_allclose(item.boxes[0], expected, atol=1e-7)


def test_jain_boxes_are_brought_to_the_frames_in_time():
    """24 boxes from 16: box j stands at j x 15/23, so that the first and last are those of the 16."""
    item = make_item("jain", "tiny", "static", 2, 24)
    source = jain_boxes(np.random.default_rng(item.seed), "still")
    for coordinate in range(4):
        values = np.interp(np.arange(24) * 15 / 23, np.arange(16), source[:, coordinate])
        np.testing.assert_allclose(np.array(item.boxes[0])[:, coordinate], values, atol=1e-7)


@settings(deadline=None, max_examples=12)
@given(TINY)
def test_tiny_words_were_never_seen_in_training(chosen):
    form, split, number, frames = chosen
    item = make_item(form, "tiny", split, number, frames)
    (background,) = [name for name in BACKGROUNDS if name in item.prompt.replace(",", " ").split()]
    assert all(held_out(*subject.split(), background) for subject in item.subjects)
    assert all(subject in item.prompt for subject in item.subjects)
    parts = [subject.split() for subject in item.subjects]
    assert len(parts) == (2 if form == "pairs" else 1)
    if form == "pairs":
        assert all(a != b for a, b in zip(*parts, strict=True))  # neither colour nor shape
    assert item.prompt == make_item(form, "tiny", SPLITS[split == "static"], number, frames).prompt


def test_moving_jain_boxes_go_every_way_where_the_words_do_not_tell():
    """By the steps of 16 boxes: along one axis always of one sign, or, in a zig-zag, none in every second frame."""
    ways = set()
    for number in range(30):
        steps = np.diff(np.array(make_item("jain", "tiny", "moving", number, 16).boxes[0])[:, :2], axis=0)
        if not steps[::2, 0].any() and not steps[1::2, 1].any():
            ways.add("zig-zag")
        else:
            ways.add(("left-right", "up-down")[np.abs(steps.sum(0)).argmax()])
    assert ways == {"left-right", "up-down", "zig-zag"}


def test_straight_boxes_end_where_they_should():
    moving = [make_item("pairs", "tiny", "moving", number, 5) for number in range(10)]
    assert all(track[0] != track[2] != track[4] for item in moving for track in item.boxes)
    for form in ("pairs", "smooth"):
        one, five = (make_item(form, "tiny", "moving", 0, frames) for frames in (1, 5))
        assert [track[0] for track in one.boxes] == [track[0] for track in five.boxes]


def test_real_words():
    """Every prompt names its subject, none stands twice, and what rises or falls has boxes that do."""
    lists = (prompts.STILL, prompts.ACROSS, prompts.UP_OR_DOWN, prompts.ZIG_ZAG)
    assert [len(words) for words in lists] == [24, 24, 12, 12]
    assert len({words[1] for known in lists for words in known}) == 72
    assert len(prompts.JAIN_MOVING) == 36
    assert all(find_words(prompt, subject) == subject for known in lists for subject, prompt, *_ in known)
    moving = make_items("jain", "real", 36, 16, splits=["moving"])
    motions = {prompt: motion for _, prompt, motion in prompts.JAIN_MOVING}
    assert Counter(motions.values()) == {"left-right": 12, "up": 6, "down": 6, "zig-zag": 12}
    for item in moving:
        (x, y), motion = np.array(item.boxes[0][-1])[:2] - item.boxes[0][0][:2], motions[item.prompt]
        assert {"left-right": x != 0, "up": y < 0, "down": y > 0, "zig-zag": x != 0 and y != 0}[motion]
    for form, split, known in (("jain", "static", prompts.STILL), ("smooth", "moving", prompts.ACROSS)):
        items = make_items(form, "real", 24, 16, splits=[split])
        assert {item.prompt for item in items} == {prompt for _, prompt in known}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imc", "tiny", "static", 0, 8), "form must be one of jain, keyframes, smooth, pairs, not 'imc'"),
        (("jain", "all", "static", 0, 8), "words must be one of tiny, real, not 'all'"),
        (("jain", "tiny", "dynamic", 0, 8), "split must be one of static, moving, not 'dynamic'"),
        (("jain", "tiny", "static", -1, 8), "a number of at least 0 and at least 1 frame, not -1 and 8"),
        (("jain", "tiny", "static", 0, 0), "a number of at least 0 and at least 1 frame, not 0 and 0"),
        (("pairs", "real", "static", 0, 8), "two subjects have words of the tiny world only"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_item(*arguments)


# ---- Files ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.lists(TINY, min_size=1, max_size=4, unique_by=lambda chosen: chosen[:3]), st.integers(0, 3))
def test_a_file_gives_back_its_items(tmp_path_factory, chosen, seed):
    items = [make_item(form, "tiny", split, number, frames, seed) for form, split, number, frames in chosen]
    items.append(replace(ITEM, prompt="ein Bällchen, „red ball“, DOG \u2028 \n"))
    path = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    save_items(path, items)
    assert load_items(path) == items
    assert [p.name for p in path.parent.iterdir()] == ["bench.jsonl"]
    for item, again in zip(items, load_items(path), strict=True):
        torch.testing.assert_close(item.trajectory.boxes, again.trajectory.boxes, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("source", ["trailblazer", "imc", "peekaboo-imc"])
def test_a_list_from_elsewhere_keeps_its_own_boxes_and_source(tmp_path, source):
    """A source is a label, whatever the forms are called that are drawn today."""
    path = tmp_path / "bench.jsonl"
    path.write_text(json.dumps(GOOD | {"id": f"{source}-static-0000", "source": source}))
    (item,) = load_items(path)
    assert (item.id, item.source) == (f"{source}-static-0000", source)
    assert item.boxes == (((0, 0, 0.5, 1), None),)


def test_equal_ids_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="different ids, but there is more than one 'a-1'"):
        save_items(tmp_path / "bench.jsonl", [ITEM, replace(ITEM, seed=9)])
    assert not list(tmp_path.iterdir())


GOOD = {
    "id": "a-1",
    "split": "static",
    "source": "hand",
    "seed": 3,
    "prompt": "a dog",
    "subjects": ["dog"],
    "boxes": [[[0, 0, 0.5, 1], None]],
}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "this is not JSON: .* at column 2"),
        ("[1]", r"an item is a JSON object, not \[1\]"),
        ("[" * 10**5, "this nests its lists too deeply"),
        ({"boxes": [[[float("nan"), 0, 0.5, 1]]]}, "NaN is not a number of JSON; null marks an absent subject"),
        ({"boxes": [[[0, 0, 0.5, 2]]]}, "subject 'dog', keyframe 0: .* reaches outside the frame"),
        ({"boxes": [[0, 0, 0.5, 1]]}, "subject 'dog', keyframe 0: a box is four numbers"),
        ({"seed": 1.5}, "a seed is a whole number from 0 to .*, not 1.5"),
        ({"weight": 1}, "the item has the unknown 'weight'; it has id, split"),
        ({"prompt": ...}, "the item lacks 'prompt'; it has id, split"),
        ({}, "the id 'a-1' stands in line 1 already"),
    ],
)
def test_a_fault_is_one_sentence_that_names_file_and_line(tmp_path, line, message):
    if isinstance(line, dict):
        line = json.dumps({key: value for key, value in (GOOD | line).items() if value is not ...})
    path = tmp_path / "bench.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"bench.jsonl, line 3: {message}") as fault:
        load_items(path)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_no_benchmark_is_refused(tmp_path):
    path = tmp_path / "bench.jsonl"
    with pytest.raises(ValueError, match=r"bench.jsonl: the benchmark cannot be read \(No such file"):
        load_items(path)
    path.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=r"bench.jsonl: the benchmark holds no item"):
        load_items(path)
    path.write_bytes(b"{}\xff")
    with pytest.raises(ValueError, match=r"bench.jsonl: the benchmark is not UTF-8 text \(byte 2\)"):
        load_items(path)
