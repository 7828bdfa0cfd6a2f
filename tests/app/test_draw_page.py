"""The drawing page in a real browser: mouse, keys, words, undo, files in and out. 8 frames of 16 x 12 latent cells."""

import json
import time
from pathlib import Path

import pytest
import torch

from adaptation.trajectory import Trajectory
from app.draw import write_draw_page

PROMPT = "a red ball and a yellow box moving over the grass"
EXAMPLES = Path(__file__).parents[2] / "examples"
CELL = torch.tensor([1 / 16, 1 / 12, 1 / 16, 1 / 12])


class Page:
    """What a user does on the page, and what there is to see."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder
        browser.set_window_size(1280, 1000)

    def open(self, frames=8, **options):
        write_draw_page(self.folder / "draw.html", frames, 128, 96, **options)
        self.browser.get((self.folder / "draw.html").as_uri())
        return self

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def click(self, selector):
        self.find(selector)[0].click()

    def text(self, selector):
        return [element.text for element in self.find(selector)]

    def drag(self, *points):
        """The mouse, pressed at the first point of the picture and let go at the last; points are relative to it."""
        from selenium.webdriver import ActionChains

        canvas = self.find("#canvas")[0]
        width, height = canvas.size["width"], canvas.size["height"]
        actions = ActionChains(self.browser, duration=0)
        for number, (x, y) in enumerate(points):
            actions.move_to_element_with_offset(canvas, round((x - 0.5) * width), round((y - 0.5) * height))
            if number == 0:
                actions.click_and_hold()
        actions.release().perform()

    def keys(self, *keys):
        """Keys, one after the other, held together where they are in one tuple; the picture has the focus."""
        from selenium.webdriver import ActionChains

        self.browser.execute_script("at('canvas').focus()")
        for held in keys:
            *modifiers, key = held if isinstance(held, tuple) else (held,)
            actions = ActionChains(self.browser)
            for modifier in modifiers:
                actions.key_down(modifier)
            actions.send_keys(key)
            for modifier in modifiers:
                actions.key_up(modifier)
            actions.perform()

    def go(self, frame):
        self.keys(
            "[" if self.frame > frame else "]", *["[" if self.frame > frame else "]"] * (abs(self.frame - frame) - 1)
        )

    @property
    def frame(self):
        return int(self.text("#number")[0].split(" / ")[0])

    def pick(self, *words):
        for word in words:
            next(button for button in self.find("#words button") if button.text == word).click()

    def load(self, path):
        self.find("#file")[0].send_keys(str(path))
        self.wait(lambda: path.name in self.text("#message")[0])

    def save(self) -> Path:
        """What the browser has downloaded after a click on Save."""
        path = self.browser.downloads / "trajectory.json"
        path.unlink(missing_ok=True)
        self.click("#save")
        self.wait(path.exists)
        return path.rename(self.folder / f"{time.monotonic_ns()}.json")

    def wait(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)

    def box(self, frame=None):
        """The active subject's box, as the page has it."""
        script = "return boxAt(drawing.subjects[view.active], arguments[0] ?? view.frame)"
        return self.browser.execute_script(script, frame)


@pytest.fixture
def draw(page, tmp_path):
    return Page(page, tmp_path)


def test_boxes_drawn_with_the_mouse_are_ours_to_a_latent_cell(draw):
    draw.open(prompt=PROMPT)
    draw.drag((0.10, 0.20), (0.25, 0.30), (0.35, 0.60))  # a new box in frame 0
    draw.go(7)
    draw.drag((0.20, 0.40), (0.50, 0.50), (0.75, 0.55))  # taken inside and moved by 0.55, 0.15
    draw.drag((0.90, 0.75), (0.95, 0.90))  # its lower right corner, from 0.90, 0.75
    draw.pick("red", "ball")
    assert draw.text("#problems li") == ["Ready."]
    saved = Trajectory.load(draw.save(), 8)
    assert (saved.prompt, saved.subjects) == (PROMPT, ["red ball"])
    keyframes = {0: [0.10, 0.20, 0.35, 0.60], 7: [0.65, 0.35, 0.95, 0.90]}
    ours = Trajectory.from_keyframes(keyframes, 8)
    assert ((saved.boxes - ours.boxes).abs() < CELL / 4).all()
    shown = [draw.box(frame) for frame in range(8)]
    torch.testing.assert_close(saved.boxes[0], torch.tensor(shown), rtol=0, atol=1e-6)


def test_a_press_that_does_not_move_draws_nothing_and_an_edge_moves_alone(draw):
    draw.open(prompt=PROMPT)
    draw.drag((0.5, 0.5), (0.5, 0.5))
    assert draw.box() is None
    draw.drag((0.25, 0.25), (0.75, 0.75))
    before = draw.box()
    draw.drag((0.25, 0.5), (0.5, 0.9))  # the left edge: only x1 changes
    after = draw.box()
    assert after[1:] == before[1:]
    assert after[0] == pytest.approx(0.5, abs=0.01)
    draw.drag((0.6, 0.6), (1.03, 0.6))  # out of the picture: held at the frame's border, size kept
    assert draw.box()[2] == 1
    assert draw.box()[2] - draw.box()[0] == pytest.approx(after[2] - after[0], abs=1e-4)


def test_keys_move_and_resize_by_a_cell(draw):
    from selenium.webdriver import Keys

    draw.open(prompt=PROMPT)
    draw.keys("k")  # a first box in the middle: columns 5 to 11 of 16, rows 4 to 8 of 12
    assert draw.box() == pytest.approx([5 / 16, 4 / 12, 11 / 16, 8 / 12], abs=1e-4)
    draw.keys("]", "]", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert draw.frame == 2
    assert draw.box() == pytest.approx([7 / 16, 3 / 12, 13 / 16, 7 / 12], abs=1e-4)
    assert draw.box(0) == pytest.approx([5 / 16, 4 / 12, 11 / 16, 8 / 12], abs=1e-4)
    draw.keys((Keys.SHIFT, Keys.ARROW_DOWN), (Keys.SHIFT, Keys.ARROW_LEFT), (Keys.SHIFT, Keys.ARROW_LEFT))
    assert draw.box() == pytest.approx([7 / 16, 3 / 12, 11 / 16, 8 / 12], abs=1e-4)
    draw.keys(*[Keys.ARROW_UP] * 5)  # the frame's border holds it
    assert draw.box() == pytest.approx([7 / 16, 0, 11 / 16, 5 / 12], abs=1e-4)
    draw.keys("[")
    assert draw.frame == 1
    draw.keys("k")
    assert len(draw.find(".track b")) == 3
    draw.keys("k", "]", "k")  # frame 1's keyframe and frame 2's are gone
    assert len(draw.find(".track b")) == 1
    assert draw.box() == draw.box(0)
    draw.keys("]", Keys.DELETE)
    assert draw.box() is None and draw.box(7) is None and draw.box(2) is not None
    assert draw.find(".track b.absent") != []


def test_undo_and_redo(draw):
    from selenium.webdriver import Keys

    draw.open(prompt=PROMPT)
    draw.drag((0.2, 0.2), (0.4, 0.4))
    first = draw.box()
    draw.drag((0.3, 0.3), (0.5, 0.4), (0.6, 0.5))  # however many moves of the mouse, one drag is one change
    second = draw.box()
    draw.keys((Keys.CONTROL, "z"))
    assert draw.box() == first
    draw.keys((Keys.CONTROL, "z"))
    assert draw.box() is None
    assert not draw.find("#undo")[0].is_enabled()
    draw.keys((Keys.CONTROL, Keys.SHIFT, "z"))
    draw.click("#redo")
    assert draw.box() == second
    assert not draw.find("#redo")[0].is_enabled()
    draw.find("#prompt")[0].send_keys(" slowly")  # letters typed in a row are one change as well
    draw.click("#undo")
    assert draw.find("#prompt")[0].get_property("value") == PROMPT
    assert draw.box() == second


def test_space_plays_and_stops(draw):
    draw.open(prompt=PROMPT, fps=50)
    draw.keys("k", " ")
    seen = set()
    draw.wait(lambda: seen.add(draw.frame) or len(seen) > 2)
    draw.keys(" ")
    stopped = draw.frame
    time.sleep(0.2)
    assert draw.frame == stopped


def test_a_file_with_several_subjects_and_absences_comes_and_goes(draw):
    ours = {
        "prompt": "a cat and a dog",
        "subjects": [
            {"subject": "cat", "keyframes": {"1": [0.0, 0.25, 0.5, 0.75], "4": None, "6": [0.5, 0.25, 1, 0.75]}},
            {"subject": "dog", "boxes": [None, None, *[[0.1, 0.1, 0.3, 0.3 + i / 10] for i in range(6)]]},
        ],
    }
    path = draw.folder / "cat and dog.json"
    path.write_text(json.dumps(ours))
    draw.open(prompt=PROMPT)
    draw.load(path)
    assert draw.text("#message") == ["cat and dog.json is loaded."]
    assert draw.text(".subject .choose span") == ["cat", "dog"]
    assert len(draw.find(".track.active b")) == 3
    assert draw.text("#command") == ["python train_free.py --boxes trajectory.json"]
    before, after = Trajectory.load(path, 8), Trajectory.load(draw.save(), 8)
    assert (after.prompt, after.subjects) == (before.prompt, before.subjects)
    assert torch.equal(after.boxes.nan_to_num(-1), before.boxes.nan_to_num(-1))
    draw.keys("2")
    assert draw.box(1) is None and draw.box(7) == [0.1, 0.1, 0.3, 0.8]
    draw.click("#undo")
    assert draw.find("#prompt")[0].get_property("value") == PROMPT


def test_a_file_of_another_length_asks_to_be_resampled(draw):
    draw.open(frames=12, prompt=PROMPT)
    draw.load(EXAMPLES / "blue_box_leaves.json")  # 8 boxes, the last two null
    assert draw.text("#message") == ["blue_box_leaves.json is loaded; its 8 frames are stretched to 12."]
    assert draw.text("#number") == ["0 / 7"]
    assert draw.text("#command") == ["python train_free.py --boxes trajectory.json --resample"]
    assert Trajectory.load(draw.save()).boxes.shape == (1, 8, 4)


def test_a_file_that_cannot_be_read_changes_nothing(draw):
    (draw.folder / "bad.json").write_text('{"prompt": "a", "subject": "a", "boxes": [[0, 0, 2, 1]]}')
    draw.open(prompt=PROMPT)
    draw.load(draw.folder / "bad.json")
    said = "bad.json: subject 'a', frame 0: the box [0, 0, 2, 1] reaches outside the frame"
    assert draw.text("#message")[0].startswith(said)
    assert draw.find("#prompt")[0].get_property("value") == PROMPT


def test_what_is_missing_is_said_at_once(draw):
    draw.open()
    assert draw.text("#problems li") == ["The prompt is empty; write what the video shows"]
    draw.find("#prompt")[0].send_keys(PROMPT)
    words, box = "has no words yet; click its words in the prompt", "has no box yet; drag one in the picture"
    assert draw.text("#problems li") == [f"Subject 1 {words}", f"Subject 1 {box}"]
    assert not draw.find("#save")[0].is_enabled()
    draw.pick("red")
    draw.drag((0.2, 0.2), (0.4, 0.4))
    assert draw.text("#problems li") == ["Ready."] and draw.find("#save")[0].is_enabled()
    draw.click("#add")
    draw.keys("k")
    draw.pick("ball", "red")
    shared = "The subjects 'red' and 'red ball' share the word 'red'; each needs its own words"
    assert draw.text("#problems li") == [shared]
    draw.click(".subject:last-child button:last-child")  # the second subject goes
    draw.find("#prompt")[0].clear()
    draw.find("#prompt")[0].send_keys("a cat")
    assert draw.text("#problems li") == ["The subject 'red' is not in the prompt; click its words there"]


def test_two_subjects_are_drawn_and_chosen_in_the_picture(draw):
    draw.open(prompt=PROMPT, subjects=["red ball", "yellow box"])
    draw.drag((0.1, 0.1), (0.3, 0.3))
    draw.keys("2")
    draw.drag((0.6, 0.6), (0.9, 0.9))
    draw.drag((0.2, 0.2), (0.2, 0.2))  # a click into the first one's box
    assert draw.text('.subject .choose[aria-pressed="true"] span') == ["red ball"]
    boxes = Trajectory.load(draw.save(), 8).boxes
    wanted = torch.tensor([[[0.1, 0.1, 0.3, 0.3]], [[0.6, 0.6, 0.9, 0.9]]])
    assert ((boxes - wanted).abs() < CELL / 4).all()


def test_boxes_handed_over_are_keyframes_again(draw):
    draw.open(trajectory=Trajectory.load(EXAMPLES / "two_subjects.json", 8))
    assert draw.text(".subject em") == ["2 keyframes", "2 keyframes"]
    assert json.loads(draw.save().read_text()) == json.loads((EXAMPLES / "two_subjects.json").read_text())


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_at_the_side(draw, width):
    draw.open(trajectory=Trajectory.load(EXAMPLES / "two_subjects.json", 8))
    draw.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    )
    script = "return [document.documentElement.scrollWidth, innerWidth, at('canvas').clientWidth]"
    content, window, canvas = draw.browser.execute_script(script)
    draw.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert window == width and content <= width
    assert canvas > 0.5 * width
