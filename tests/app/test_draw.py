"""The drawing page as a text: what it begins with, the command that it shows, and what is refused."""

import json
import re

import pytest

from adaptation.trajectory import Trajectory
from app.arguments import parse_request
from app.draw import draw_page, page_options, write_draw_page
from weights.load import Defaults


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])


def test_an_empty_page_has_one_subject_without_words_or_boxes():
    data = data_of(draw_page(24, 576, 320))
    assert (data["frames"], data["columns"], data["rows"]) == (24, 72, 40)  # 576 / 8 and 320 / 8 cells
    assert data["drawing"] == {"frames": 24, "prompt": "", "subjects": [{"words": "", "keyframes": {}}]}
    assert data["colors"][:2] == ["#00ffff", "#ff00ff"]  # as in boxes.mp4
    assert data["command"] == "python train_free.py"


def test_prompt_and_subjects_to_begin_with():
    data = data_of(draw_page(8, 128, 96, "a cat </script> and a dog", ["cat", "dog"]))
    assert data["drawing"]["prompt"] == "a cat </script> and a dog"
    assert [subject["words"] for subject in data["drawing"]["subjects"]] == ["cat", "dog"]


def test_a_trajectory_to_begin_with_is_there_frame_by_frame():
    keyframes = {0: [0.1, 0.2, 0.5, 0.6], 2: None}
    ball = Trajectory.from_keyframes(keyframes, 4, "ball", "a ball")
    drawing = data_of(draw_page(8, 128, 96, trajectory=ball))["drawing"]
    box = [0.1, 0.2, 0.5, 0.6]  # not 0.10000000149, which is what float32 makes of 0.1
    track = {"words": "ball", "keyframes": {"0": box, "1": box, "2": None, "3": None}}
    assert drawing == {"frames": 4, "prompt": "a ball", "subjects": [track]}
    named = data_of(draw_page(4, 128, 96, "a red ball", ["red ball"], ball))["drawing"]
    assert (named["prompt"], named["subjects"][0]["words"]) == ("a red ball", "red ball")


def test_the_command_keeps_what_the_file_does_not_say():
    given = ["--draw", "--model", "zeroscope", "--prompt", "a cat", "--subject", "cat", "--box-from", "0,0,1,1"]
    given += ["--method=mask", "--boxes=old.json", "--out", "here", "--negative-prompt", "it's bad"]
    command = data_of(draw_page(8, 128, 96, arguments=given))["command"]
    assert command == "python train_free.py --model zeroscope --negative-prompt 'it'\"'\"'s bad'"


def test_what_the_page_has_a_field_for_is_in_that_field():
    given = ["--draw", "--method=mask", "--seed", "5", "6", "--steps", "9", "--eta", "0.5"]
    data = data_of(draw_page(**page_options(parse_request(given), Defaults(8, 96, 128))))
    assert data["choice"] == {"method": "mask", "seed": "5", "steps": "9"}
    assert data["command"] == "python train_free.py --eta 0.5"
    assert data["drawing"]["prompt"] == "a red ball moving over the ocean"  # the built-in example


def test_a_page_asks_for_nothing_unless_it_is_served():
    assert "connect-src" not in draw_page(8, 128, 96) and "blob:" not in draw_page(8, 128, 96)
    page = draw_page(8, 128, 96, served=True, draft={"drawing": {"frames": 8}, "choice": {"seed": "</script>"}})
    assert "default-src 'none'; img-src data:; media-src blob:; connect-src 'self';" in page
    assert data_of(page)["choice"] == {"seed": "</script>"}


def test_the_page_is_written_whole(tmp_path):
    write_draw_page(tmp_path / "draw.html", 8, 128, 96, prompt="ein Bär")
    assert (tmp_path / "draw.html").read_text(encoding="utf-8") == draw_page(8, 128, 96, "ein Bär")
    assert [path.name for path in tmp_path.iterdir()] == ["draw.html"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 128, 96), "over 1 to 10000 frames, not 0"),
        ((8, 130, 96), "width must be a multiple of 8 pixels, a latent cell's side, not 130"),
        ((8, 128, 0), "height must be a multiple of 8 pixels"),
        ((8, 128, 96, "a cat", "cat"), "subjects is a list"),
        ((8, 128, 96, "a cat", ["cat"] * 65), "at most 64 phrases"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw_page(*arguments)


def test_names_for_another_number_of_subjects_are_refused(ball):
    with pytest.raises(ValueError, match="the trajectory has 1 subjects, but 2 were named"):
        draw_page(4, 48, 32, "a red ball", ["red", "ball"], ball)
