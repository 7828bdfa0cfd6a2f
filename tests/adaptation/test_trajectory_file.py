"""Trajectory files: read whole or refused in one sentence, written whole or not at all."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from adaptation import trajectory, trajectory_file
from adaptation.trajectory import Trajectory
from tests.helpers import boxes, same, track

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))
ABSENT = [math.nan] * 4
BOX = [0.25, 0.25, 0.75, 0.75]


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
        (document(subject="x" * 50_001), "'subject' has 50001 characters, more than the 50000 that are allowed"),
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


def test_a_small_file_of_many_frames_costs_little(load, monkeypatch):
    """Each box of a path that is interpolated is checked at once with all others; alone, only those of the file."""
    checked, original = [], trajectory._box_fault
    monkeypatch.setattr(trajectory, "_box_fault", lambda box: checked.append(box) or original(box))
    entries = [{"subject": f"ball {k}", "keyframes": {"0": BOX, "5000": None, "9999": BOX}} for k in range(3)]
    path = load({"prompt": "a red ball", "subjects": entries})
    assert path.boxes.shape == (3, 10_000, 4) and path.boxes[0, 6000].isnan().all()
    assert checked == [BOX, BOX] * 3  # an absent one is not looked at


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


edges = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted)  # in thousandths
decimal_boxes = st.tuples(edges, edges).map(
    lambda box: [edge / 1000 for pair in zip(*box, strict=True) for edge in pair]
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

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        track(BOX, BOX).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["ball.json"]
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


def test_a_box_that_float32_makes_empty_is_not_saved(tmp_path):
    """0.5 and 0.5 + 1e-12 are one number in float32."""
    thin = Trajectory(torch.tensor([[[0.5, 0.1, 0.5 + 1e-12, 0.9]]], dtype=torch.float64), ["ball"], "a ball")
    with pytest.raises(ValueError, match="ball"):
        thin.save(tmp_path / "ball.json")
    assert not list(tmp_path.iterdir())
