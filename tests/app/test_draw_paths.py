"""The drawing page's own arithmetic, run in a browser, is ours: boxes between keyframes, cells, words, files."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from adaptation.trajectory import Trajectory, interpolate_keyframes
from app.draw import write_draw_page
from model.text import TextEncoder
from weights.text import read_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(page, tmp_path):
    """Run a line of script in the page, with arguments."""
    write_draw_page(tmp_path / "draw.html", 8, 128, 96)
    page.get((tmp_path / "draw.html").as_uri())
    return page.execute_script


def random_box(draw: random.Random) -> list[float]:
    xs, ys = (sorted(draw.sample(range(1001), 2)) for _ in "xy")
    return [xs[0] / 1000, ys[0] / 1000, xs[1] / 1000, ys[1] / 1000]


def test_boxes_between_keyframes_are_ours(run):
    draw, frames = random.Random(0), 12
    tracks = []
    for _ in range(200):
        times = draw.sample(range(frames), draw.randint(1, 5))
        tracks.append({t: None if draw.random() < 0.2 else random_box(draw) for t in times})
    theirs = run("return arguments[0].map((keyframes) => boxesOf({keyframes}, arguments[1]))", tracks, frames)
    for track, boxes in zip(tracks, theirs, strict=True):
        ours = interpolate_keyframes(track, frames)
        nan = [float("nan")] * 4
        found = torch.tensor([nan if box is None else box for box in boxes], dtype=torch.float64)
        torch.testing.assert_close(found, ours, rtol=0, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize(("rows", "columns"), [(12, 16), (40, 72), (5, 9)])
def test_cells_under_a_box_are_ours(run, rows, columns):
    """Also where a box ends on the middle of a cell, and where it is smaller than a cell."""
    draw = random.Random(1)
    boxes = [random_box(draw) for _ in range(200)]
    for _ in range(100):
        x, y = (draw.randrange(columns) + 0.5) / columns, (draw.randrange(rows) + 0.5) / rows
        boxes += [[x, y, min(x + 0.3, 1), min(y + 0.3, 1)], [x * 0.9, y * 0.9, x, y], [x, y, x + 1e-3, y + 1e-3]]
    theirs = run("return arguments[0].map((box) => cellsOf(box, arguments[1], arguments[2]))", boxes, rows, columns)
    ours = Trajectory(torch.tensor(boxes)[None], ["ball"], "").rasterize(rows, columns)[0]
    for cells, grid in zip(theirs, ours, strict=True):
        assert cells == grid.nonzero().tolist()


@pytest.fixture(scope="module")
def text_encoder():
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=77))
    return TextEncoder(model, read_tokenizer(ROOT / "weights" / "tiny" / "tokenizer"))


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("a red ball over grass", "red ball"),
        ("a Red  BALL and a red ball", "red ball"),
        ("a redder ball", "red"),
        ("the dog's ball, a dog", "dog"),
        ("room 42b, not 2", "2"),
        ("ball, ball; ball", "ball"),
        ("a red, ball", "red ball"),
        ("ein Bär", "bär"),
    ],
)
def test_words_are_where_the_tokenizer_finds_them(run, text_encoder, prompt, subject):
    """Each piece's tokens, one after the other from position 1 on, are the prompt's."""
    pieces = run("return piecesOf(arguments[0]).map((piece) => piece.text)", prompt)
    places = run("return placesOf(arguments[0], arguments[1]).flat()", prompt, subject)
    tokens = torch.zeros(text_encoder.length, dtype=torch.bool)
    position = 1
    for i, piece in enumerate(pieces):
        count = len(text_encoder.tokenizer(piece, add_special_tokens=False).input_ids)
        tokens[position : position + count] = i in places
        position += count
    if places:
        assert tokens.equal(text_encoder.subject_tokens(prompt, subject))
    else:
        with pytest.raises(ValueError, match="not in the prompt"):
            text_encoder.subject_tokens(prompt, subject)


def test_clicks_choose_neighbouring_words(run):
    """Pieces: 0 a, 1 big, 2 red, 3 the comma, 4 round, 5 ball. A click beside joins, at an end leaves, else begins."""
    words, chosen = "", []
    for piece in (2, 1, 4, 5, 1, 5, 0, 0):
        words = run("return pickWord('a big red, round ball', arguments[0], arguments[1])", words, piece)
        chosen.append(words)
    expected = ["red", "big red", "big red, round", "big red, round ball", "red, round ball", "red, round", "a", ""]
    assert chosen == expected


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.json")), ids=lambda path: path.stem)
def test_an_example_read_and_written_is_the_same_trajectory(run, tmp_path, example):
    frames = 24 if "zeroscope" in example.stem else 8
    text = run("return writeFile(readFile(arguments[0], arguments[1]))", example.read_text(), frames)
    (tmp_path / "again.json").write_text(text)
    before, after = Trajectory.load(example, frames), Trajectory.load(tmp_path / "again.json")
    assert (after.prompt, after.subjects) == (before.prompt, before.subjects)
    assert torch.equal(after.boxes.nan_to_num(-1), before.boxes.nan_to_num(-1))
    assert json.loads(text) == json.loads(example.read_text())


def test_our_files_are_read_to_the_bit(run, tmp_path):
    boxes = torch.rand(3, 20, 4, generator=torch.Generator().manual_seed(0)) / 3
    boxes[..., 2:] += boxes[..., :2] + 0.01
    boxes[1, 4:9] = float("nan")
    ours = Trajectory(boxes, ['a "red" ball', "Bär", "\\"], 'a "red" ball, ein Bär, [ 1 ] \\')
    ours.save(tmp_path / "ours.json")
    text = run("return writeFile(readFile(arguments[0], 8))", (tmp_path / "ours.json").read_text(encoding="utf-8"))
    (tmp_path / "again.json").write_text(text, encoding="utf-8")
    again = Trajectory.load(tmp_path / "again.json")
    assert (again.prompt, again.subjects) == (ours.prompt, ours.subjects)
    assert torch.equal(again.boxes.nan_to_num(-1), boxes.nan_to_num(-1))


def test_a_written_file_says_how_many_frames_there_are(run, tmp_path):
    drawing = {
        "frames": 9,
        "prompt": "a",
        "subjects": [{"words": "a", "keyframes": {"2": [0, 0, 0.5, 0.5], "4": None}}],
    }
    (tmp_path / "a.json").write_text(run("return writeFile(arguments[0])", drawing))
    boxes = Trajectory.load(tmp_path / "a.json").boxes[0]
    assert boxes.shape == (9, 4)
    assert boxes.isnan().all(-1).tolist() == [False] * 4 + [True] * 5


REFUSED = {
    "not JSON": "the file is not JSON",
    "[]": "a trajectory is a JSON object",
    '{"prompt": "a", "subject": "a", "boxes": [null], "color": 1}': "the file has the unknown key 'color'",
    '{"prompt": "a", "subject": "a"}': "needs either 'boxes'",
    '{"prompt": "a", "subject": "a", "boxes": [null], "keyframes": {"0": null}}': "needs either 'boxes'",
    '{"prompt": " ", "subject": "a", "boxes": [null]}': "'prompt' is a text of at least one word",
    '{"prompt": "\\ud800", "subject": "a", "boxes": [null]}': "'prompt' holds half a character",
    '{"prompt": "a", "subjects": []}': "'subjects' is a list of 1 to 64 subjects",
    '{"prompt": "a", "subjects": [1]}': "entry 0 of 'subjects' is an object",
    '{"prompt": "a", "subject": "a", "boxes": []}': "",
    '{"prompt": "a", "subject": "a", "boxes": [[0, 0, 1]]}': "a box is four numbers x1 y1 x2 y2 or null",
    '{"prompt": "a", "subject": "a", "boxes": [[0, 0, 1, "1"]]}': "a box is four numbers x1 y1 x2 y2 or null",
    '{"prompt": "a", "subject": "a", "boxes": [[0, 0, 1, 1.5]]}': "reaches outside the frame",
    '{"prompt": "a", "subject": "a", "boxes": [[0.5, 0, 0.5, 1]]}': "is empty, since",
    '{"prompt": "a", "subject": "a", "keyframes": {"01": null}}': "keyframe '01' is not a frame number",
    '{"prompt": "a", "subject": "a", "keyframes": {"10000": null}}': "keyframe '10000' is not a frame number",
    '{"prompt": "a b", "subjects": [{"subject": "a", "boxes": [null]}, {"subject": "b", "boxes": [null, null]}]}': (
        "has boxes for 1 frames, but the video has 2"
    ),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[-40:])
def test_a_file_that_we_refuse_is_refused_in_like_words(run, tmp_path, text):
    said = run("try { readFile(arguments[0], 8); return null; } catch (error) { return error.message; }", text)
    assert said is not None and REFUSED[text] in said
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: "):
        Trajectory.load(tmp_path / "a.json")


def test_fewer_keyframes_lead_along_the_same_path(run):
    """Straight to frame 4, at rest to 6, absent from 7: four keyframes say it, and the last frame is the fifth."""
    box = [0.1, 0.1, 0.3, 0.3]
    path = [[v + 0.05 * min(f, 4) for v in box] if f < 7 else None for f in range(9)]
    keyframes = run("return fewerKeyframes({keyframes: arguments[0]}, 9, 1e-6)", dict(enumerate(path)))
    assert sorted(map(int, keyframes)) == [0, 4, 7, 8]
    ours = interpolate_keyframes({int(t): b for t, b in keyframes.items()}, 9)
    assert [None if row.isnan().any() else pytest.approx(row.tolist()) for row in ours] == path
