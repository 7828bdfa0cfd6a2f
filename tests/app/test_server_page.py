"""The page that makes videos, in a real browser, on the tiny checkpoint: draw, press, watch, stop, go on, compare."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptation.trajectory import Trajectory
from tests.app.test_draw_page import Page

ROOT = Path(__file__).parents[2]
SECONDS = 180  # for what takes a few on a machine that has nothing else to do
PROMPT = "a red ball moving over the ocean"
KEYFRAMES = {"0": [0.05, 0.3, 0.35, 0.7], "7": [0.55, 0.3, 0.85, 0.7]}
BALL = {"frames": 8, "prompt": PROMPT, "subjects": [{"words": "red ball", "keyframes": KEYFRAMES}]}
# Python as a shell in the foreground starts it: a test run in the background else hands on that Ctrl-C is ignored.
COMMAND = "import signal, train_free; signal.signal(signal.SIGINT, signal.default_int_handler); exit(train_free.main())"

# Controls and pictures that are seen and have no name.
NAMELESS = """
  const labels = (node) => [...(node.labels ?? [])].map((label) => label.textContent).join("");
  const names = (node) => [node.ariaLabel, node.alt, node.textContent, labels(node)].join("").trim();
  const nodes = document.querySelectorAll("button, input, select, textarea, a, video, img, summary");
  return [...nodes].filter((node) => node.checkVisibility() && !names(node)).map((node) => node.outerHTML);
"""
# Texts whose contrast to what is behind them is below 4.5, by WCAG's formula; what is disabled may be pale.
PALE = """
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
  const color = (text) => text.match(/[0-9.]+/g).map(Number);
  const behind = (node) => {
    const c = color(getComputedStyle(node).backgroundColor);
    return c.length === 3 || c[3] > 0 ? c : behind(node.parentElement);
  };
  const contrast = (node) => {
    const [a, b] = [light(color(getComputedStyle(node).color)), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const written = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const nodes = [...document.querySelectorAll("body *")].filter((node) => !node.closest("svg, canvas, script"));
  const texts = nodes.filter((node) => node.checkVisibility() && !node.disabled && written(node));
  return texts.filter((node) => contrast(node) < 4.5).map((node) => [contrast(node), node.outerHTML.slice(0, 80)]);
"""


def start_server(folder: Path, *arguments: str) -> SimpleNamespace:
    """The command, in a folder: its process and the address that it has printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    with (folder / "errors").open("wb") as errors:
        command = [sys.executable, "-c", COMMAND, "--draw", "--no-browser", *arguments]
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), (folder / "errors").read_text()
    return SimpleNamespace(process=process, address=address, folder=folder, errors=folder / "errors")


def end_server(server: SimpleNamespace) -> int:
    """Ctrl-C; returns the exit code."""
    server.process.send_signal(signal.SIGINT)
    code = server.process.wait(SECONDS)
    server.process.stdout.close()
    return code


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """One for most tests; asks for the browser first, so that nothing is loaded where there is none."""
    server = start_server(tmp_path_factory.mktemp("served"), "--prompt", PROMPT)
    yield server
    end_server(server)


class Studio(Page):
    """What a user does on the served page, and what there is to see."""

    def visit(self, server, drawing=BALL):
        """The page with a drawing, when it has heard from the server and no run is under way."""
        self.browser.get(server.address)
        self.wait(lambda: self.browser.execute_script("return seen.heard && ![...runs.values()].some(underWay)"))
        self.browser.execute_script("restore(arguments[0])", drawing)

    def wait(self, condition, seconds=SECONDS):
        super().wait(condition, seconds)

    def press(self, steps="", method="full", seed="0"):
        """Generate, with what is to be chosen beside the drawing; returns the new run's number."""
        for name, text in (("steps", steps), ("seed", seed)):
            self.find(f"#{name}")[0].clear()
            self.find(f"#{name}")[0].send_keys(text)
        self.find(f"#method option:nth-child({self.methods.index(method) + 1})")[0].click()
        before = self.number
        self.click("#generate")
        self.wait(lambda: self.number > before)
        return self.number

    @property
    def methods(self):
        return self.text("#method option")

    @property
    def number(self):
        """Of the newest run."""
        return self.browser.execute_script("return Math.max(0, ...runs.keys())")

    def run(self, number=None):
        return self.browser.execute_script("return runs.get(arguments[0])", number or self.number)

    def until(self, status, number=None):
        self.wait(lambda: (self.run(number) or {}).get("status") == status)  # a tab behind others learns of it late
        return self.run(number)

    def shown(self, selector):
        return self.find(selector)[0].is_displayed()


@pytest.fixture
def studio(browser, tmp_path):
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    yield Studio(browser, tmp_path)
    assert [entry["message"] for entry in browser.get_log("browser") if "Failed to load" not in entry["message"]] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    assert asked != set()
    own = ("http://127.0.0.1:", "data:", "blob:", "about:", "chrome:", "chrome-untrusted:")  # the browser's tabs
    assert {url for url in asked if not url.startswith(own)} == set()
    browser.get("about:blank")


def test_drawn_with_the_mouse_pressed_and_watched(studio, server):
    studio.visit(server, {**BALL, "subjects": [{"words": "", "keyframes": {}}]})
    assert not studio.find("#generate")[0].is_enabled()  # nothing is drawn yet
    studio.drag((0.10, 0.30), (0.25, 0.50), (0.40, 0.70))
    studio.go(7)
    studio.drag((0.25, 0.50), (0.50, 0.50), (0.70, 0.50))
    studio.pick("red", "ball")
    studio.press(steps="4")
    studio.wait(lambda: studio.find("#pictures img"))
    assert studio.shown("#bar") and studio.shown("#stop")
    run = studio.until("done")
    assert (run["step"], run["steps"], run["method"]) == (4, 4, "full")
    studio.wait(lambda: studio.find("#videos video"))
    loaded = "const [v] = document.querySelectorAll('#videos video'); return v.readyState >= 2 && v.videoWidth"
    studio.wait(lambda: studio.browser.execute_script(loaded))
    assert len(studio.find("#charts svg")) == 3
    assert studio.text("#message") == [f"Run {run['number']} is done."]
    folder = server.folder / run["folder"]
    made = json.loads((folder / "run.json").read_text())
    assert (made["prompt"], made["subjects"], made["seed"], made["settings"]["steps"]) == (PROMPT, ["red ball"], 0, 4)
    drawn = [studio.box(frame) for frame in range(8)]
    assert Trajectory.load(folder / "trajectory.json", 8).as_lists()[0] == [pytest.approx(b, abs=1e-4) for b in drawn]
    assert (folder / "report.html").is_file() and (folder / "video.mp4").is_file()


def test_a_reload_in_the_middle_loses_nothing(studio, server):
    studio.visit(server)
    number = studio.press()  # all steps
    studio.wait(lambda: studio.run(number)["step"] >= 2)
    box = studio.box(7)
    studio.browser.refresh()
    studio.wait(lambda: studio.number == number)
    assert studio.run()["step"] >= 2 and len(studio.run()["charts"]) == 3
    assert studio.box(7) == box and studio.find("#prompt")[0].get_property("value") == PROMPT
    assert studio.shown("#result")
    studio.click("#stop")
    studio.until("stopped", number)


def test_a_run_is_stopped_and_goes_on_from_the_page(studio, server):
    studio.visit(server)
    number = studio.press(steps="8", method="mask")
    studio.wait(lambda: studio.run(number)["step"] >= 1)
    studio.click("#stop")
    stopped = studio.until("stopped", number)
    assert 1 <= stopped["step"] < stopped["steps"]
    studio.wait(lambda: studio.shown("#resume") and not studio.shown("#stop"))
    assert (server.folder / stopped["folder"] / "state.safetensors").is_file()
    studio.click("#resume")
    done = studio.until("done", number)
    resumed = json.loads((server.folder / done["folder"] / "run.json").read_text())["resumed"]
    assert [note["step"] for note in resumed] == [stopped["step"]]


def test_pressing_again_asks_whether_the_old_run_is_to_stop(studio, server):
    studio.visit(server)
    first = studio.press()
    studio.wait(lambda: studio.run(first)["step"] >= 1)
    studio.click("#generate")
    studio.wait(lambda: studio.shown("#busy"))
    studio.click('#busy button[value=""]')
    assert studio.number == first
    studio.find("#steps")[0].send_keys("1")
    studio.click("#generate")
    studio.wait(lambda: studio.shown("#busy"))
    studio.click("#busy button[value=replace]")
    studio.until("stopped", first)
    studio.until("done", first + 1)


def test_two_tabs_show_the_same(studio, server):
    studio.visit(server)
    tab = studio.browser.current_window_handle
    studio.browser.switch_to.new_window("tab")
    try:
        studio.visit(server)
        number = studio.press(steps="2")
        studio.browser.switch_to.window(tab)
        assert studio.until("done", number)["step"] == 2
        studio.wait(lambda: studio.text("#title") == [PROMPT] and studio.shown("#films"))
    finally:
        for other in set(studio.browser.window_handles) - {tab}:
            studio.browser.switch_to.window(other)
            studio.browser.close()
        studio.browser.switch_to.window(tab)


def test_plain_of_the_same_noise_stands_beside_it_and_one_slider_moves_all(studio, server):
    studio.visit(server)
    number = studio.press(steps="2", seed="7")
    studio.until("done", number)
    studio.wait(lambda: studio.shown("#plain"))
    studio.click("#plain")
    studio.wait(lambda: studio.number > number)
    run = studio.until("done")
    assert (run["method"], run["seed"], run["steps"]) == ("plain", "7", 2)
    told = map(studio.run, range(1, run["number"] + 1))
    group = [other for other in told if other["status"] == "done" and other["group"] == run["group"]]
    studio.wait(lambda: len(studio.find("#videos video")) == len(group))
    captions = studio.text("#videos figcaption")
    assert captions[0].startswith(f"{number + 1}: plain, seed 7") and captions[1].startswith(f"{number}: full, seed 7")
    times = "return [...document.querySelectorAll('#videos video')].map((video) => video.currentTime)"
    assert not studio.shown("#plain")
    here = "return [...document.querySelectorAll('#videos video')].every((video) => video.readyState >= 2)"
    studio.wait(lambda: studio.browser.execute_script(here))
    slider = studio.find("#slider-all")[0]
    script = "arguments[0].value = 5; arguments[0].dispatchEvent(new Event('input'))"
    studio.browser.execute_script(script, slider)
    assert studio.browser.execute_script(times) == [pytest.approx(5.5 / 8)] * len(group)
    assert studio.frame == 5  # and so does the drawing


def test_a_slip_is_told_at_its_field(studio, server):
    studio.visit(server)
    for name, text, sentence in (
        ("seed", "-1", "Argument --seed: must be from 0 to"),
        ("steps", "few", "Argument --steps: invalid int value: 'few'"),
    ):
        studio.find(f"#{name}")[0].clear()
        studio.find(f"#{name}")[0].send_keys(text)
        studio.click("#generate")
        studio.wait(lambda sentence=sentence: studio.text("#slip")[0].startswith(sentence))
        field = studio.find(f"#{name}")[0]
        assert field.get_attribute("aria-invalid") == "true" and field.get_attribute("aria-describedby") == "slip"
        assert field == studio.browser.switch_to.active_element
        field.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_named_or_too_pale(studio, server, width, scheme):
    """At both widths and in both schemes: no sideways scrolling, every control named, every text readable (WCAG AA)."""
    studio.visit(server)
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    studio.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    studio.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    try:
        if not studio.shown("#result"):
            studio.until("done", studio.press(steps="1"))
        assert studio.browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert studio.browser.execute_script(NAMELESS) == []
        assert studio.browser.execute_script(PALE) == []
    finally:
        studio.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        studio.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_ctrl_c_ends_it_and_leaves_what_was_made_and_what_can_go_on(studio, tmp_path):
    server = start_server(tmp_path)  # the built-in example is drawn already
    try:
        studio.visit(server)
        studio.until("done", studio.press(steps="1"))
        number = studio.press()
        studio.wait(lambda: studio.run(number)["step"] >= 1)
    finally:
        code = end_server(server)
    assert code == 130
    *_, last = server.errors.read_text().strip().splitlines()
    assert last.startswith("interrupted: finished runs are kept; to go on: python train_free.py --resume outputs/")
    unfinished = tmp_path / last.split()[-1]
    assert (unfinished / "state.safetensors").is_file()
    assert len(list(tmp_path.glob("outputs/*/run.json"))) == 1
    studio.wait(lambda: "The server has ended" in studio.text("#message")[0])
    assert not studio.find("#generate")[0].is_enabled()
