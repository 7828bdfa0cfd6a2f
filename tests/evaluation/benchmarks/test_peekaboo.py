"""Peekaboo's four files, on small copies of their form: order, ends, placeholders, gaps, and what is reported."""

import json

import numpy as np
import pytest

from evaluation.benchmarks.items import item_seed
from evaluation.benchmarks.peekaboo import AS_RELEASED, LAYOUTS, load_peekaboo, true_boxes

NOT_FOUND = [0.5, 0.5, 0.5, 0.5]  # ssv2's placeholder


@pytest.fixture
def write(tmp_path):
    """A file of records, each (id, boxes) or with members of its own."""

    def write(name, *records):
        members = {"caption": "A Dog runs. ", "subject": "dog", "metadata": {"motion": "Up to down"}}
        path = tmp_path / f"{name}_inputs.json"
        path.write_text(json.dumps([members | {"id": id, "bboxes": boxes} | more for id, boxes, more in records]))
        return path

    return write


def record(id, *boxes, **more):
    return id, boxes, more


def test_a_file_of_each_order(write):
    """The box x 0.25 to 0.5, y 0.125 to 0.875 in every file's own form, at rest and moved by 1/8 to the right.

    Inclusive ends lack a pixel: 1/224 in imc and ssv2; in davis 1/320 along x and 1/576 along y.
    """
    box, moved = (0.25, 0.125, 0.5, 0.875), (0.375, 0.125, 0.625, 0.875)
    stored = {
        "davis": lambda x1, y1, x2, y2: [y1, x1, y2 - 1 / 576, x2 - 1 / 320],
        "imc": lambda x1, y1, x2, y2: [y1, x1, y2 - 1 / 224, x2 - 1 / 224],
        "lasot": lambda x1, y1, x2, y2: [x1, x2, y1, y2],
        "ssv2": lambda x1, y1, x2, y2: [y1, x1, y2 - 1 / 224, x2 - 1 / 224],
    }
    for name, store in stored.items():
        path = write(
            name,
            record(1, store(*box), store(*box)),
            record(2, store(*box), store(*moved)),
            record("3", store(*moved), store(*box)),
        )
        items, report = load_peekaboo(path, 2)
        assert [item.id for item in items] == [f"{name}-1", f"{name}-2", f"{name}-3"]
        expected = [[box, box], [box, moved], [moved, box]]
        np.testing.assert_allclose([item.boxes[0] for item in items], expected, atol=1e-7)
        assert {item.source for item in items} == {f"peekaboo-{name}"} == {report.source}
        assert (report.records, report.dropped, report.filled, report.clipped) == (3, {}, {}, {})


def test_as_released_takes_every_file_at_its_readmes_word(write):
    """x1 y1 x2 y2 with ends as they stand; lasot's (x1, x2, y1, y2) = (0.5, 0.7, 0.2, 0.4) is inside out then."""
    box, turned = [0.125, 0.25, 0.5, 0.75], [0.5, 0.7, 0.2, 0.4]
    for name in LAYOUTS:
        path = write(name, record(1, box, box), record(2, turned, turned))
        items, report = load_peekaboo(path, 2, axis_order="as-released")
        assert [item.boxes[0] for item in items] == [(tuple(box),) * 2]
        assert report.dropped == {f"{name}-2": "it has a box in 0 of 2 frames, and 2 are the least"}
        assert report.axis_order == "as-released"
    items, report = load_peekaboo(write("lasot", record(2, turned, turned)), 2)
    np.testing.assert_allclose(items[0].boxes[0][0], [0.5, 0.2, 0.7, 0.4], atol=1e-7)


def test_a_box_of_imc_has_the_size_that_its_generator_gave_it(write):
    """The first box there, "Rectangle Horizontal" and "Medium": int(224 x 0.3 x 1.33) = 89 by int(224 x 0.3) = 67.

    189 - 100 = 89, and 222 - 155 = 67.
    """
    box = [155 / 224, 100 / 224, 221 / 224, 188 / 224]
    (item,), _ = load_peekaboo(write("imc", record(1100, box, box)), 1)
    np.testing.assert_allclose(224 * np.array(item.boxes[0][0]), [100, 155, 189, 222], atol=1e-4)


def test_words_ids_seeds_and_splits(write):
    """Numbers are ids as well as texts; the subject is written as the caption writes it."""
    box = [0.125, 0.25, 0.5, 0.75]
    still = {"metadata": {"motion": "Stationary"}, "caption": "a black swan\n", "subject": "Black Swan "}
    for name in ("imc", "ssv2"):
        path = write(
            name, record(1100, box, box, **still), record("1101", box, box), record(7, box, box, subject="cat")
        )
        (swan, dog), report = load_peekaboo(path, 2, seed=5)
        assert (swan.prompt, swan.subjects, dog.prompt, dog.subjects) == (
            "a black swan",
            ("black swan",),
            "A Dog runs.",
            ("Dog",),
        )
        assert (swan.seed, dog.seed) == (item_seed(5, f"{name}-1100"), item_seed(5, f"{name}-1101"))
        assert (swan.split, dog.split) == ("static" if name == "imc" else "moving", "moving")
        assert report.dropped == {f"{name}-7": "its subject 'cat' is not in its caption"}


def test_a_subject_that_is_part_of_a_word_is_not_in_its_caption(write):
    box = [0.125, 0.25, 0.5, 0.75]
    items, report = load_peekaboo(write("ssv2", record(1, box, box, caption="Dogs run.", subject="dog")), 2)
    assert (items, report.dropped) == ([], {"ssv2-1": "its subject 'dog' is not in its caption"})


def test_gaps_are_filled_on_the_line_and_held_at_the_ends(write):
    """x1 = 0, -, -, 0.3 becomes 0, 0.1, 0.2, 0.3; before the first and after the last box these are held."""
    first, last = [0.0, 0.2, 0.25, 0.5], [0.3, 0.5, 0.25, 0.5]  # lasot: x1 x2 y1 y2
    empty = [0.0, 0.0, 0.0, 0.0]
    path = write(
        "lasot",
        record(1, first, empty, empty, last),
        record(2, empty, first, last, empty),
        record(3, first, first, first, last),
    )
    items, report = load_peekaboo(path, 4)
    x1 = np.array([item.boxes[0] for item in items])[:, :, 0]
    np.testing.assert_allclose(x1, [[0, 0.1, 0.2, 0.3], [0, 0, 0.3, 0.3], [0, 0, 0, 0.3]], atol=1e-7)
    assert report.filled == {"lasot-1": 2, "lasot-2": 2}
    items, report = load_peekaboo(path, 4, gaps="drop")
    assert [item.id for item in items] == ["lasot-3"]
    assert report.dropped == {f"lasot-{n}": "it has no box in 2 of 4 frames" for n in (1, 2)}


def test_placeholders_are_no_boxes_of_one_pixel(write):
    """0.5 0.5 0.5 0.5 stands for "not found", although inclusive ends would make it a pixel wide and high."""
    box = [0.25, 0.25, 0.5, 0.5]
    path = write(
        "ssv2",
        record("a", *[NOT_FOUND] * 5),
        record("b", box, *[NOT_FOUND] * 4),
        record("c", NOT_FOUND, box, NOT_FOUND, box),
    )
    items, report = load_peekaboo(path, 4)
    assert [item.id for item in items] == ["ssv2-c"]
    assert len(set(items[0].boxes[0])) == 1
    assert report.dropped == {
        "ssv2-a": "it has a box in 0 of 5 frames, and 2 are the least",
        "ssv2-b": "it has a box in 1 of 5 frames, and 2 are the least",
    }
    assert str(report).splitlines() == [
        "peekaboo-ssv2 (axis order true): 1 of 3 records; 2 boxes filled in 1 records; 0 cut to the frame in 0",
        "dropped ssv2-a: it has a box in 0 of 5 frames, and 2 are the least",
        "dropped ssv2-b: it has a box in 1 of 5 frames, and 2 are the least",
    ]


@pytest.mark.parametrize(("stored", "frames"), [(16, 24), (7, 24), (30, 24), (24, 24), (24, 8), (2, 1)])
def test_other_numbers_of_frames_are_brought_to_the_videos(write, stored, frames):
    """Box j stands at j (S - 1) / (F - 1), j x 15/23 for 16 to 24: whole tracks are paired, not their starts."""
    x1 = np.linspace(0, 0.5, stored) ** 2
    path = write("lasot", record(1, *[[x, x + 0.25, 0.25, 0.5] for x in x1]), record(2, *[[0, 0.5, 0, 0.5]] * stored))
    (item, still), _ = load_peekaboo(path, frames)
    at = np.arange(frames) * (stored - 1) / max(frames - 1, 1)
    np.testing.assert_allclose([box[0] for box in item.boxes[0]], np.interp(at, np.arange(stored), x1), atol=1e-7)
    assert still.boxes == (((0.0, 0.0, 0.5, 0.5),) * frames,)
    if frames > 1:
        np.testing.assert_allclose([item.boxes[0][0][0], item.boxes[0][-1][0]], x1[[0, -1]], atol=1e-7)


def test_boxes_are_cut_to_the_frame_and_the_cut_is_reported(write):
    """(W - 1) / W is the last pixel of inclusive ends and needs no cut; what lies outside wholly is no box."""
    whole, outside, beyond = [0.0, 1.0028, -0.5, 1.0], [0.2, 0.5, 1.0, 1.5], [0.25, 0.5, 0.25, 0.5]
    items, report = load_peekaboo(write("lasot", record(1, whole, outside, beyond, beyond)), 4)
    assert items[0].boxes[0][0] == (0, 0, 1, 1)
    assert (report.clipped, report.filled) == ({"lasot-1": 1}, {"lasot-1": 1})
    last = [0.5, 0.5, 575 / 576, 319 / 320]
    items, report = load_peekaboo(write("davis", record(1, last, last)), 1)
    assert items[0].boxes == (((0.5, 0.5, 1.0, 1.0),),)
    assert report.clipped == {}


def test_what_is_stored_stays_as_it_is():
    stored = np.array([[0.0, 0.25, 0.5, 1.5]])
    for layout in (*LAYOUTS.values(), AS_RELEASED):
        true_boxes(stored, layout)
        assert stored.tolist() == [[0.0, 0.25, 0.5, 1.5]]


BOX = [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(1, BOX, BOX), record(1, BOX, BOX)], "record 1: the id 'imc-1' stands in an earlier record already"),
        ([record("a/b", BOX, BOX)], "record 0: an id is made of letters"),
        ([record(1, BOX, BOX, subject=None)], "record 0: a record has an id, a caption, a subject, bboxes and in its"),
        ([record(1, BOX, BOX, metadata={})], "record 0: a record has .* and in its metadata a motion"),
        ([record(1, BOX, BOX[:3])], "record 0: 'bboxes' has four finite numbers for each frame"),
        ([record(1, BOX, ["a"] * 4)], "record 0: 'bboxes' has four finite numbers for each frame"),
        ([record(1, BOX, [float("nan")] * 4)], "record 0: 'bboxes' has four finite numbers for each frame"),
        ([record(1)], "record 0: 'bboxes' has four finite numbers for each frame"),
        ([], r"the file is a list of records, not \[\]"),
    ],
)
def test_a_fault_is_one_sentence_that_names_file_and_record(write, records, message):
    with pytest.raises(ValueError, match=f"imc_inputs.json(, |: ){message}"):
        load_peekaboo(write("imc", *records), 2)


def test_files_and_options_that_there_are_not(tmp_path, write):
    path = write("imc", record(1, BOX, BOX))
    for option, known in (("dataset", "davis, imc"), ("axis_order", "true, as-rel"), ("gaps", "interpolate, drop")):
        with pytest.raises(ValueError, match=f"imc_inputs.json: {option} must be one of {known}.*, not 'x'"):
            load_peekaboo(path, 2, **{option: "x"})
    other = path.rename(tmp_path / "mine.json")
    with pytest.raises(ValueError, match=r"dataset must be one of .*, not 'mine.json'"):
        load_peekaboo(other, 2)
    assert load_peekaboo(other, 2, dataset="imc")[0][0].id == "imc-1"
    with pytest.raises(ValueError, match=r"none.json: the file cannot be read \(No such file"):
        load_peekaboo(tmp_path / "none.json", 2, dataset="imc")
    other.write_text("[")
    with pytest.raises(ValueError, match=r"mine.json: the file is not JSON"):
        load_peekaboo(other, 2, dataset="imc")
