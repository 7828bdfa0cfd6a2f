"""Boxes: keyframes, resampling, regions, and files that are read whole or refused in one sentence."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from adaptation import trajectory_file
from adaptation.trajectory import Trajectory

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))
ABSENT = [math.nan] * 4
BOX = [0.25, 0.25, 0.75, 0.75]


def track(*boxes, prompt="a red ball", subject="red ball") -> Trajectory:
    return Trajectory(torch.tensor([boxes], dtype=torch.float32), [subject], prompt)


def same(a: torch.Tensor, b) -> bool:
    return torch.equal(a.nan_to_num(-1), torch.as_tensor(b, dtype=a.dtype).nan_to_num(-1))


def document(**changes) -> dict:
    """A good file's content with some members replaced, or removed by `...`."""
    members = {"prompt": "a red ball", "subject": "red ball", "boxes": [BOX, BOX], **changes}
    return {key: value for key, value in members.items() if value is not ...}


@pytest.fixture
def load(tmp_path):
    """Load what a file with this content holds: text, bytes, or an object to write as JSON."""

    def load(content, frames=None):
        path = tmp_path / "path.json"
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Trajectory.load(path, frames)

    return load


@st.composite
def boxes(draw) -> list[float]:
    """One box in eighths, so that every number is exact."""
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(st.integers(0, 8), min_size=2, max_size=2, unique=True))) for _ in range(2)
    )
    return [x1 / 8, y1 / 8, x2 / 8, y2 / 8]


# ---- Keyframes and resampling --------------------------------------------------------------------------------------


def test_keyframes_are_joined_by_lines_and_held_outside():
    path = Trajectory.from_keyframes({2: [0.0, 0.2, 0.2, 0.4], 6: [0.8, 0.2, 1.0, 0.8]}, 8)
    assert path.boxes.shape == (1, 8, 4) and path.boxes.dtype == torch.float32
    # A quarter of the way per frame: x1 0, 0.2, 0.4, 0.6, 0.8 and y2 0.4, 0.5, 0.6, 0.7, 0.8.
    assert path.boxes[0, :, 0].tolist() == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8], abs=1e-7)
    assert path.boxes[0, :, 3].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8], abs=1e-7)


def test_keyframes_in_any_order_and_as_tensors():
    first, last = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]
    path = Trajectory.from_keyframes({4: torch.tensor(last), 0: tuple(first)}, 5, subject="ball", prompt="a ball")
    assert path.boxes[0, 2].tolist() == [0.25, 0.25, 0.75, 0.75]
    assert (path.subjects, path.prompt) == (["ball"], "a ball")


def test_an_absent_keyframe_lasts_until_the_next():
    # A box until frame 2, absent in 2 and 3, and back from 4 on; before the absence the box is held, not faded.
    path = Trajectory.from_keyframes({0: BOX, 2: None, 4: [0.0, 0.0, 0.5, 0.5]}, 6)
    assert same(path.boxes[0], [BOX, BOX, ABSENT, ABSENT, [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]])
    assert Trajectory.from_keyframes({1: None}, 2).boxes.isnan().all()


@given(boxes(), st.integers(1, 9), st.integers(0, 8))
def test_one_keyframe_holds_still(box, frames, at):
    path = Trajectory.from_keyframes({at % frames: box}, frames)
    assert same(path.boxes[0], [box] * frames)


@given(boxes(), boxes(), st.integers(2, 40))
def test_keyframes_are_met_exactly_and_nothing_leaves_their_range(first, last, frames):
    path = Trajectory.from_keyframes({0: first, frames - 1: last}, frames).boxes[0]
    assert path[0].tolist() == first and path[-1].tolist() == last
    low, high = torch.tensor([first, last]).aminmax(dim=0)
    assert ((path >= low) & (path <= high)).all()


@pytest.mark.parametrize(
    "keyframes, message",
    [
        ({8: BOX}, r"keyframe 8 is not one of the video's frames 0 to 7; .*resample"),
        ({-1: BOX}, "keyframe -1 is not one"),
        ({1.5: BOX}, "keyframe 1.5 is not one"),
        ({True: BOX}, "keyframe True is not one"),
        ({}, "at least one keyframe"),
        ({3: [0.5, 0.0, 0.5, 1.0]}, "keyframe 3: the box .* is empty"),
        ({3: [0.5, 0.0, 1.5, 1.0]}, "keyframe 3: the box .* outside the frame"),
        ({3: [0.5, 0.0, 10**400, 1.0]}, "keyframe 3: the box .* outside the frame"),
        ({3: [0.5, 0.0, math.inf, 1.0]}, "keyframe 3: the box .* not finite"),
        ({3: [0.5, 0.0, 1.0]}, "keyframe 3: a box is four numbers"),
        ({3: 0.5}, "keyframe 3: a box is four numbers"),
        ({3: torch.tensor(0.5)}, "keyframe 3: a box is four numbers"),
    ],
)
def test_keyframe_errors(keyframes, message):
    with pytest.raises(ValueError, match=message):
        Trajectory.from_keyframes(keyframes, 8)


def test_resample_by_hand():
    path = track([0.0, 0.0, 0.25, 0.5], [0.5, 0.0, 0.75, 0.5], [0.5, 0.5, 0.75, 1.0])
    # 3 frames to 5: every other one is half way between its neighbours.
    assert path.resample(5).boxes[0, :, 0].tolist() == [0.0, 0.25, 0.5, 0.5, 0.5]
    assert path.resample(5).boxes[0, :, 1].tolist() == [0.0, 0.0, 0.0, 0.25, 0.5]
    assert same(path.resample(2).boxes[0], path.boxes[0, [0, 2]])
    assert same(path.resample(1).boxes[0], path.boxes[0, :1])
    assert (path.resample(5).subjects, path.resample(5).prompt) == (path.subjects, path.prompt)


def test_resample_beside_an_absent_frame_follows_the_nearer_one():
    # To 7 frames, thirds between neighbours: box (0), 1/3, 2/3, absent (1), 1 1/3, 1 2/3, box (2).
    path = track(BOX, ABSENT, [0.0, 0.0, 0.5, 0.5]).resample(7)
    other = [0.0, 0.0, 0.5, 0.5]
    assert same(path.boxes[0], [BOX, BOX, ABSENT, ABSENT, ABSENT, other, other])


@given(st.lists(st.one_of(boxes(), st.just(ABSENT)), min_size=1, max_size=6), st.integers(1, 12))
def test_resample_keeps_the_ends_and_its_own_length(path, frames):
    path = track(*path)
    F = path.boxes.shape[1]
    resampled = path.resample(frames)
    assert resampled.boxes.shape == (1, frames, 4) and resampled.boxes.dtype == torch.float32
    assert same(resampled.boxes[:, 0], path.boxes[:, 0])
    if frames > 1:
        assert same(resampled.boxes[:, -1], path.boxes[:, -1])
        refined = resampled.resample((frames - 1) * 3 + 1)  # every third frame is an old one
        assert same(refined.boxes[:, ::3], resampled.boxes)
    assert same(path.resample(F).boxes, path.boxes)


def test_expected_frames():
    path = track(BOX, BOX)
    path.expect_frames(2)
    with pytest.raises(ValueError, match=r"boxes for 2 frames, but the video has 8; .* resample the trajectory"):
        path.expect_frames(8)
    path.resample(8).expect_frames(8)
    with pytest.raises(ValueError, match="at least 1 frame, not 0"):
        path.resample(0)


# ---- Regions -------------------------------------------------------------------------------------------------------


def test_rasterize_by_hand():
    # 4 x 8 cells with centres 1/16, 3/16, ... across and 1/8, 3/8, ... down. The box holds the centres 3/16 and 5/16
    # (not 7/16, where it ends) and 3/8, 5/8.
    region = track([3 / 16, 0.2, 7 / 16, 0.7]).rasterize(4, 8)
    assert region.shape == (1, 1, 4, 8) and region.dtype == torch.bool
    assert region[0, 0].int().tolist() == [[0] * 8, [0, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0], [0] * 8]


@pytest.mark.parametrize(
    "box, cell",
    [
        ([0.3, 0.3, 0.35, 0.35], (1, 1)),
        ([0.0, 0.0, 0.01, 0.01], (0, 0)),
        ([0.99, 0.99, 1.0, 1.0], (3, 3)),
        ([0.3, 0.0, 0.35, 1.0], (2, 1)),  # thin: between two columns of centres, its own centre at 0.5 down
        ([0.49, 0.2, 0.51, 0.3], (1, 2)),  # its centre on a border belongs to the cell after it
    ],
)
def test_a_box_between_all_centres_keeps_the_cell_under_its_own(box, cell):
    assert track(box).rasterize(4, 4)[0, 0].nonzero().tolist() == [list(cell)]


def test_an_absent_subject_has_no_region():
    regions = track(BOX, ABSENT).rasterize(5, 5)
    assert regions[0, 0].any() and not regions[0, 1].any()


@given(boxes(), st.integers(1, 20), st.integers(1, 20))
@example(
    [0.125, 0.125, 0.375, 0.375], 4, 4
)  # from centre to centre: one cell, though another is under the box's centre
def test_rasterize_is_its_definition(box, H, W):
    x1, y1, x2, y2 = box
    expected = [
        (i, j) for i in range(H) for j in range(W) if x1 <= (j + 0.5) / W < x2 and y1 <= (i + 0.5) / H < y2
    ] or [(int((y1 + y2) / 2 * H), int((x1 + x2) / 2 * W))]
    assert track(box).rasterize(H, W)[0, 0].nonzero().tolist() == [list(cell) for cell in expected]


@given(boxes(), st.integers(1, 6))
def test_a_box_on_cell_borders_is_a_slice(box, scale):
    size = 8 * scale
    x1, y1, x2, y2 = (int(v * size) for v in box)
    expected = torch.zeros(size, size, dtype=torch.bool)
    expected[y1:y2, x1:x2] = True
    assert torch.equal(track(box).rasterize(size, size)[0, 0], expected)


def test_grids_without_cells_are_an_error():
    with pytest.raises(ValueError, match="at least 1 x 1 cells, not 0 x 4"):
        track(BOX).rasterize(0, 4)


# ---- Construction --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box, message",
    [
        ([0.5, 0.0, 0.5, 1.0], "frame 1: the box .* is empty, since x1 y1 x2 y2 need x1 < x2 and y1 < y2"),
        ([0.0, 0.75, 1.0, 0.5], "is empty"),
        ([-0.5, 0.0, 0.5, 1.0], "outside the frame"),
        ([0.0, 0.0, 0.5, 1.5], "outside the frame"),
        ([0.0, math.nan, 0.5, 1.0], "not finite"),
        ([0.0, 0.0, math.inf, 1.0], "not finite"),
    ],
)
def test_boxes_are_checked_when_made(box, message):
    with pytest.raises(ValueError, match=f"^subject 'red ball', frame 1: .*{message}|^subject 'red ball', {message}"):
        track(BOX, box)


@pytest.mark.parametrize("shape", [(2, 4), (1, 2, 3), (0, 2, 4), (1, 0, 4)])
def test_shapes_are_checked_when_made(shape):
    with pytest.raises(ValueError, match=r"boxes must be float32 or float64 of shape \(K, F, 4\)"):
        Trajectory(torch.full(shape, math.nan), ["ball"], "a ball")


def test_subjects_are_counted_when_made():
    path = torch.tensor([[BOX]])
    for subjects in ([], ["red", "ball"], "b"):
        with pytest.raises(ValueError, match="boxes of 1 subjects need a list"):
            Trajectory(path, subjects, "a ball")
    with pytest.raises(ValueError, match="float32 or float64"):
        Trajectory(path.half(), ["ball"], "a ball")


# ---- Files ---------------------------------------------------------------------------------------------------------


def test_a_file_with_boxes(load):
    path = load(document(boxes=[BOX, None, [0, 0, 1, 1]]))
    assert same(path.boxes, [[BOX, ABSENT, [0, 0, 1, 1]]])
    assert (path.subjects, path.prompt, path.boxes.dtype) == (["red ball"], "a red ball", torch.float32)


def test_a_file_with_keyframes(load):
    content = document(boxes=..., keyframes={"0": [0, 0, 0.5, 0.5], "4": [0.5, 0.5, 1, 1]})
    assert load(content).boxes[0, :, 0].tolist() == [0, 0.125, 0.25, 0.375, 0.5]
    assert load(content, frames=7).boxes[0, :, 0].tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_a_file_with_several_subjects(load):
    cat = {"subject": "cat", "keyframes": {"0": BOX}}
    dog = {"subject": "dog", "boxes": [BOX, None, BOX]}
    path = load({"prompt": "a cat and a dog", "subjects": [cat, dog]})
    assert path.subjects == ["cat", "dog"]
    assert same(path.boxes, [[BOX, BOX, BOX], [BOX, ABSENT, BOX]])


def test_a_byte_order_mark_is_no_fault(load):
    assert load(b"\xef\xbb\xbf" + json.dumps(document()).encode()).prompt == "a red ball"


def test_the_callers_number_of_frames(load):
    assert load(document(), frames=2).boxes.shape == (1, 2, 4)
    with pytest.raises(ValueError, match=r"subject 'red ball' has boxes for 2 frames, but the video has 8; .*resample"):
        load(document(), frames=8)
    assert load(document()).resample(8).boxes.shape == (1, 8, 4)
    with pytest.raises(ValueError, match="subject 'red ball', keyframe 23 is not one of the video's frames 0 to 7; "):
        load(document(boxes=..., keyframes={"0": BOX, "23": BOX}), frames=8)


@pytest.mark.parametrize(
    "content, message",
    [
        # the file as a whole
        (b"", "not JSON: Expecting value at line 1, column 1"),
        ('{"prompt": "a"', "not JSON"),
        (b"\xff\xfe{", "not UTF-8 text"),
        ("[" * 100_000, "too deeply"),
        ("[]", "a trajectory is a JSON object"),
        ("null", "a trajectory is a JSON object"),
        (b" " * (trajectory_file.MAX_BYTES + 1), "larger than 4 MiB"),
        ('{"prompt": "a", "prompt": "b"}', "'prompt' stands more than once"),
        # members
        (document(box=[BOX]), "unknown key 'box'; known are prompt, subject, boxes, keyframes"),
        (document(prompt=...), "'prompt' is a text"),
        (document(prompt=3), "'prompt' is a text"),
        (document(prompt="\ud800"), "half a character"),
        (document(subject=...), "'subject' is a text"),
        (document(subject="  "), "'subject' is a text"),
        (document(subject=["red ball"]), "'subject' is a text"),
        (document(boxes=...), "needs either 'boxes'.* or 'keyframes'"),
        (document(keyframes={"0": BOX}), "needs either 'boxes'.* or 'keyframes'"),
        (document(boxes=None), "'boxes' is a list of 1 to 10000"),
        (document(boxes=[]), "'boxes' is a list of 1 to 10000"),
        (document(boxes=[None] * 10_001), "'boxes' is a list of 1 to 10000"),
        (document(boxes={"0": BOX}), "'boxes' is a list"),
        # several subjects
        ({"prompt": "a", "subjects": []}, "'subjects' is a list of 1 to 64"),
        ({"prompt": "a", "subjects": [{"subject": "a", "boxes": [BOX]}] * 65}, "'subjects' is a list of 1 to 64"),
        ({"prompt": "a", "subjects": {"a": 1}}, "'subjects' is a list"),
        ({"prompt": "a", "subjects": ["a"]}, "entry 0 of 'subjects' is an object"),
        ({"prompt": "a", "subjects": [{"subject": "a", "prompt": "a"}]}, "entry 0 of 'subjects' has the unknown key"),
        (document(subjects=[]), "'subjects' has the unknown key 'subject'"),
        (
            {"prompt": "a", "subjects": [{"subject": "a", "boxes": [BOX]}, {"subject": "b", "boxes": [BOX, BOX]}]},
            "subject 'a' has boxes for 1 frames, but the video has 2; give every frame a box",
        ),
        # boxes
        (document(boxes=[BOX, [0.1, 0.1, 0.5]]), "subject 'red ball', frame 1: a box is four numbers"),
        (document(boxes=[BOX, [0, 0, True, 1]]), "frame 1: a box is four numbers"),
        (document(boxes=[BOX, [0, 0, "1", 1]]), "frame 1: a box is four numbers"),
        (document(boxes=[BOX, "1111"]), "frame 1: a box is four numbers"),
        (document(boxes=[BOX, [0.5, 0, 0.5, 1]]), "frame 1: the box .0.5, 0.0, 0.5, 1.0. is empty"),
        (document(boxes=[BOX, [0, 0, 2, 1]]), "frame 1: the box .* reaches outside the frame"),
        (document(boxes=[BOX, [0.5, 0, 0.5 + 1e-12, 1]]), "frame 1: the box .* is empty"),  # equal in float32
        ('{"prompt": "a", "subject": "a", "boxes": [[0, 0, NaN, 1]]}', "holds NaN, which is not a number of JSON"),
        ('{"prompt": "a", "subject": "a", "boxes": [[0, 0, -Infinity, 1]]}', "holds -Infinity"),
        ('{"prompt": "a", "subject": "a", "boxes": [[0, 0, 1e999, 1]]}', "frame 0: the box .* is not finite"),
        ('{"prompt": "a", "subject": "a", "boxes": [[0, 0, ' + "9" * 5000 + ", 1]]}", "frame 0: the box .* not finite"),
        # keyframes
        (document(boxes=..., keyframes={}), "'keyframes' is an object"),
        (document(boxes=..., keyframes=[BOX]), "'keyframes' is an object"),
        (document(boxes=..., keyframes={"-1": BOX}), "keyframe '-1' is not a frame number from 0 to 9999"),
        (document(boxes=..., keyframes={"01": BOX}), "keyframe '01' is not a frame number"),
        (document(boxes=..., keyframes={"1\n": BOX}), "keyframe '1.n' is not a frame number"),
        (document(boxes=..., keyframes={"²": BOX}), "keyframe '²' is not a frame number"),
        (document(boxes=..., keyframes={"10000": BOX}), "keyframe '10000' is not a frame number"),
        (document(boxes=..., keyframes={"9" * 5000: BOX}), "is not a frame number"),
        (document(boxes=..., keyframes={"3": [1, 1, 1, 1]}), "subject 'red ball', keyframe 3: the box .* is empty"),
        ('{"prompt": "a", "subject": "a", "keyframes": {"0": null, "0": null}}', "'0' stands more than once"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_it(load, content, message):
    with pytest.raises(ValueError, match=message) as error:
        load(content)
    sentence = str(error.value)
    assert "path.json: " in sentence and "\n" not in sentence and len(sentence) < 400 + sentence.index("path.json")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(ValueError, match=r"cannot be read \("):
        Trajectory.load(tmp_path / name)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | boxes(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["prompt", "subject", "subjects", "boxes", "keyframes", "0", "7", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
nearly_right = st.fixed_dictionaries(
    {"prompt": st.text(max_size=5), "subject": st.text(max_size=5) | json_values},
    optional={"boxes": st.lists(boxes() | json_values, max_size=4) | json_values, "keyframes": json_values},
)


@given(
    st.one_of(
        st.binary(max_size=60),
        json_values.map(lambda v: json.dumps(v).encode()),
        nearly_right.map(lambda v: json.dumps(v).encode()),
        st.tuples(nearly_right, st.integers(0, 200), st.binary(max_size=3)).map(
            lambda case: (text := json.dumps(case[0]).encode())[: case[1]] + case[2] + text[case[1] + 1 :]
        ),
    ),
    st.sampled_from([None, 1, 2, 8]),
)
@example(b'{"prompt":"a","subject":"a","boxes":[[0,0,1,1]]}', None)
def test_any_bytes_are_a_trajectory_or_a_value_error(tmp_path_factory, content, frames):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        path = Trajectory.load(path, frames)
    except ValueError as error:
        assert "any.json: " in str(error) and "\n" not in str(error).partition("any.json: ")[2]
    else:
        assert path.rasterize(4, 4).shape == (len(path.subjects), path.boxes.shape[1], 4, 4)


decimals = st.lists(st.decimals(0, 1, places=3), min_size=2, max_size=2, unique=True).map(sorted)
decimal_boxes = st.tuples(decimals, decimals).map(
    lambda box: [float(box[0][0]), float(box[1][0]), float(box[0][1]), float(box[1][1])]
)
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)


@given(
    st.integers(1, 3).flatmap(
        lambda K: st.tuples(
            st.lists(st.lists(decimal_boxes | st.just(ABSENT), min_size=2, max_size=2), min_size=K, max_size=K),
            st.lists(words, min_size=K, max_size=K),
        )
    ),
    words,
)
def test_saving_and_loading_gives_the_same_trajectory(tmp_path_factory, tracks, prompt):
    path = tmp_path_factory.getbasetemp() / "saved.json"
    saved = Trajectory(torch.tensor(tracks[0]), tracks[1], prompt)
    saved.save(path)
    loaded = Trajectory.load(path)
    assert same(loaded.boxes, saved.boxes)
    assert (loaded.subjects, loaded.prompt) == (saved.subjects, saved.prompt)


def test_a_saved_file_is_readable_by_people(tmp_path):
    path = tmp_path / "ball.json"
    track([0.1, 0.2, 0.3, 0.4], ABSENT, prompt="a red ball, naïve").save(path)
    expected = (
        '{\n  "prompt": "a red ball, naïve",\n  "subject": "red ball",\n  "boxes": [\n'
        "    [0.1, 0.2, 0.3, 0.4],\n    null\n  ]\n}\n"
    )
    assert path.read_text(encoding="utf-8") == expected


def test_saving_replaces_a_file_whole_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "ball.json"
    track(BOX).save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        track(BOX, BOX).save(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    track(BOX, BOX).save(path)
    assert Trajectory.load(path).boxes.shape == (1, 2, 4)
    assert os.listdir(tmp_path) == ["ball.json"]


@pytest.mark.parametrize(
    "subject, prompt, message", [("", "a ball", "'subject'"), ("ball", "", "'prompt'"), ("ball", "\ud800", "half")]
)
def test_what_could_not_be_read_again_is_not_saved(tmp_path, subject, prompt, message):
    with pytest.raises(ValueError, match=message):
        track(BOX, subject=subject, prompt=prompt).save(tmp_path / "ball.json")
    assert os.listdir(tmp_path) == []


# ---- The examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_good_files(path):
    example = Trajectory.load(path)
    assert example.boxes.shape[1] == (24 if path.stem.startswith("zeroscope") else 8)
    assert all(subject in example.prompt for subject in example.subjects)
    regions = example.rasterize(12, 16)
    present = ~example.boxes.isnan().any(-1)
    assert torch.equal(regions.flatten(2).any(-1), present) and present[:, 0].all()


def test_examples_show_every_form():
    contents = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    assert len(contents) >= 4
    for form in ('"boxes"', '"keyframes"', '"subjects"', "null"):
        assert any(form in content for content in contents)
