"""A pipeline of a few lines in place of a checkpoint: 4 frames of 4 x 6 cells, 32 x 48 pixels, 2 steps.

Its U-Net has one layer where the real one has its second decoder block's transformer. The layer leaves z as it is
without a mask, halves it inside the boxes under a mask, and takes 0.9 of it there under a normalized one.
"""

import json
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adaptation.trajectory import Trajectory
from evaluation import making
from evaluation.benchmark import make_item
from evaluation.making import Suite
from evaluation.store import Row, Store
from sampling.generate import recommended
from sampling.schedule import NoiseSchedule


class Layer(nn.Module):
    def forward(self, z, control):
        if control is None:
            return 1.0 * z
        inside = control.regions.any(0).to(z)
        return z * (1 - inside * (0.1 if control.normalize else 0.5))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(in_channels=4)
        self.scale = nn.Parameter(torch.tensor(0.9), requires_grad=False)
        self.up_blocks = nn.ModuleList([nn.Module(), nn.Module()])
        self.up_blocks[1].attentions = nn.ModuleList([Layer()])
        self.calls = 0

    def forward(self, z, t, text, control=None):
        self.calls += 1
        x = self.up_blocks[1].attentions[0](z, control)
        return self.scale * x.repeat(2, 1, 1, 1, 1) + text.mean((1, 2))[:, None, None, None, None]


class VAE(nn.Module):
    config = SimpleNamespace(downscale=8)

    def decode(self, latents, frames_per_chunk):
        return nn.functional.interpolate(latents[:, :3].tanh(), scale_factor=(1, 8, 8))


class Words:
    def encode(self, prompts):
        return torch.tensor([[[len(prompt) / 500]] * 16 for prompt in prompts])

    def subject_tokens(self, prompt, subject):
        words = ["<start>", *prompt.replace(",", " ,").split()]
        return torch.tensor([i < len(words) and words[i] in subject.split() for i in range(16)])


@pytest.fixture
def pipeline():
    return SimpleNamespace(
        unet=UNet(),
        vae=VAE(),
        text_encoder=Words(),
        schedule=NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False),
        defaults=SimpleNamespace(
            frames=4,
            height=32,
            width=48,
            fps=8,
            prompt="grass",
            settings={"steps": 2, "guidance_scale": 2.0, "c_g": 5.0, "gamma": 0.1},
        ),
        name="small",
        fingerprint="0123456789abcdef",
    )


@pytest.fixture
def ball():
    """A red ball that goes from the upper left quarter to the lower right one."""
    keyframes = {0: [0, 0, 0.5, 0.5], 3: [0.5, 0.5, 1, 1]}
    return Trajectory.from_keyframes(keyframes, 4, "red ball", "a red ball over the grass")


@pytest.fixture
def item():
    """One video to make with `pipeline`: a box that moves."""
    return make_item("trailblazer", "tiny", "moving", 0, frames=4)


@pytest.fixture
def row(pipeline):
    """How to make it."""
    return Row.of(pipeline, recommended(pipeline, "mask"), frames=4)


@pytest.fixture
def store(tmp_path, item, row):
    """Where the video of `item` is to lie, which is not made yet."""
    store = Store(tmp_path / "evaluation")
    store.save([item], {"mask": row})
    return store


class Counting:
    """A stand-in extractor of each kind, by formulas of the frames' mean; counts how often it was asked."""

    def __init__(self, revision="1"):
        self.revision, self.calls = revision, 0

    def describe(self):
        words = {"class": type(self).__name__, "checkpoint": "stand-in", "resize": "none", "dtype": "float32"}
        return words | {"revision": self.revision}


class Boxes(Counting):
    def detect(self, frames, subject):
        self.calls += 1
        return [[(0.0, 0.0, 0.5, 0.5, 0.9), (0.5, 0.0, 1.0, 1.0, 0.2)] for _ in frames]


class Text(Counting):
    def score(self, frames, prompt):
        self.calls += 1
        return torch.tensor([-10.0, 20.0, 30.0, 40.0][: len(frames)])


class Frames(Counting):
    def embed(self, frames):
        self.calls += 1
        return torch.from_numpy(frames.mean((1, 2))).float()  # (F, 3)


class Videos(Counting):
    def embed(self, frames):
        self.calls += 1
        return torch.from_numpy(frames.mean((0, 1, 2))).float()  # (3,)


@pytest.fixture
def suite():
    """Extractors for every role."""
    return Suite(Boxes(), Text(), Frames(), Videos())


@pytest.fixture
def interrupted(monkeypatch):
    """interrupted(module, after) is a context in which Ctrl-C comes once that many videos have been made."""

    @contextmanager
    def interrupted(module, after: int):
        made = []

        def make_video(*arguments, **how):
            if len(made) == after:
                raise KeyboardInterrupt
            made.append(making.make_video(*arguments, **how))

        with monkeypatch.context() as patch:
            patch.setattr(module, "make_video", make_video)
            yield

    return interrupted


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium with a profile of its own; downloads go into `browser.downloads`."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options, downloads = webdriver.ChromeOptions(), tmp_path_factory.mktemp("downloads")
    options.binary_location = chromium
    quiet = ("quic", "background-networking", "component-update", "sync", "gpu")
    flags = ["headless", "no-sandbox", "no-first-run", *(f"disable-{name}" for name in quiet)]
    for flag in (*flags, f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1280,1000"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.downloads = downloads
    yield browser
    browser.quit()


@pytest.fixture
def page(browser):
    """The browser, for one page; at the end, no script has failed and nothing was asked of a network."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what an earlier page left
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = [request["request"]["url"] for request in requests if request["documentURL"].startswith("file:")]
    assert asked != []  # the page itself, at least
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    browser.get("about:blank")
