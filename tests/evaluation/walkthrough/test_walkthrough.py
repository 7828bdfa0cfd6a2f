"""The walkthrough on the tiny checkpoint, made short: 4 frames of 48 x 64 pixels, 2 steps."""

import importlib
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adaptation.temporal_prior import temporal_consistency
from adaptation.trajectory import Trajectory
from evaluation.walkthrough import __main__ as walkthrough
from evaluation.walkthrough import pictures as walkthrough_pictures
from evaluation.walkthrough import sections as walkthrough_sections
from evaluation.walkthrough.book import Book, begin, last_call, rms, table, variance, where
from sampling.ddim import predict_clean
from sampling.sampler import Streams
from tests.helpers import strength
from weights.load import load_pipeline

PICTURES = ["1_boxes", "2_normalization", "3_prior", "4_refinement", "5_ddim", "6_video", "masks"]
LATENTS = 4, 4, 6, 8  # C, F, H, W


@pytest.fixture(scope="module")
def tiny():
    pipeline = load_pipeline("tiny")
    settings = {**pipeline.defaults.settings, "steps": 2}
    return replace(pipeline, defaults=replace(pipeline.defaults, settings=settings, frames=4, height=48, width=64))


@pytest.fixture(scope="module")
def walk(tiny):
    return begin(tiny)


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def cells(book: Book, name: str) -> list[str]:
    """A table's row by its first cell, without that cell."""
    (line,) = [line for part in book.parts for line in part.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ---- The page ------------------------------------------------------------------------------------------------------


def test_the_page_is_whole(walk, tmp_path, capsys):
    """Every section, every picture that it names, and functions that are where it says they are."""
    path = walkthrough_sections.walk_through(walk, Book(tmp_path))
    text = path.read_text(encoding="utf-8")
    assert (
        capsys.readouterr().out.strip() == re.sub(r"!\[.*?\]\(.*?\)\n\n", "", text).strip()
    )  # pictures are not printed
    assert {p.name for p in tmp_path.iterdir()} == {"walkthrough.md", "video.mp4", *(f"{n}.png" for n in PICTURES)}
    assert sorted(re.findall(r"\]\((\w+)\.png\)", text)) == sorted(PICTURES)
    for name in PICTURES:
        assert np.ptp(np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))) > 50  # not blank
    headings = re.findall(r"^## (Section 2\.\d|Algorithm 1)", text, re.MULTILINE)
    assert headings == ["Section 2.1"] * 3 + ["Section 2.2"] + ["Section 2.3"] * 2 + ["Algorithm 1"] * 2
    named = re.findall(r"`([\w/]+)\.py` `([\w.]+)`", text)
    assert len(named) > 12
    for file, name in named:
        thing = importlib.import_module(file.replace("/", "."))
        for part in name.split("."):
            thing = getattr(thing, part)
    assert re.search(r"differs from this one by at most (\S+)\.", text)[1] == "0.0e+00"  # from the sampler's own step
    for before, line in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        assert not (before.startswith("|") and line.startswith("!"))  # a picture would become a table's row


def test_any_trajectory_is_brought_to_the_frames(tiny):
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    walk = begin(tiny, Trajectory(boxes, ["box"], "a blue box"), seed=3)
    assert walk.trajectory.boxes.shape == (1, 4, 4)
    assert torch.equal(walk.state.z, Streams((3,)).draw("latent", (4, 4, 6, 8)))
    assert torch.equal(walk.text[1:], tiny.text_encoder.encode(["a blue box"]))


# ---- The sections --------------------------------------------------------------------------------------------------


def test_masks_are_those_of_the_unet(walk, book):
    made = walkthrough_sections.masks(walk, book)
    assert list(made) == [(6, 8), (3, 4), (2, 2)]
    for (h, w), (M_self, M_cross) in made.items():
        assert torch.equal(M_self, walk.control.mask("self", h, w).dense())
        assert torch.equal(M_cross[..., 1:], walk.control.mask("cross", h, w).dense()[..., 1:])  # but for the start
        share = M_self.float().mean().item()
        assert cells(book, f"{h} x {w}")[2:4] == [f"4 x {h * w} x {h * w}", f"{share:.3f}"]
    assert not made[6, 8][0].all()


def test_the_subjects_words_are_bold(walk, book):
    M_y = walkthrough_sections.subject_words(walk, book)
    assert M_y.sum() == 2
    assert "> start · a · **red** · **ball** · moving · over · the · grass · end · padding x" in book.parts[0]


def test_normalized_outputs_are_a_permutation_of_the_unmasked(walk, book):
    for kind, found in walkthrough_sections.mask_normalization(walk, book).items():
        A_u, A_m, A_n = found.A_u, found.A_m, found.matched
        assert A_u.shape[0] == 8  # 2 F
        assert torch.equal(A_n.flatten(1).sort().values, A_u.flatten(1).sort().values)
        assert not torch.equal(A_m.flatten(1).sort().values, A_u.flatten(1).sort().values)
        _, *printed, distance = cells(book, kind)
        assert printed == [f"{variance(a):.6f}" for a in (A_u, A_m, A_n)]
        assert printed[2] == printed[0] != printed[1]
        assert float(distance) < 1e-5


def test_tau_is_eq_1_of_the_clean_estimate(walk, book):
    G_g, G_p = walkthrough_sections.temporal_prior(walk, book)
    eps_uncond, eps_text = walk.predict(walk.state.z)
    eps = eps_uncond + walk.settings.guidance_scale * (eps_text - eps_uncond)
    tau = temporal_consistency(predict_clean(walk.state.z, eps, walk.alpha_bar), walk.trajectory.boxes).item()
    rho = [float(r) for r in cells(book, "rho of red ball")[0].split(", ")]
    assert float(cells(book, "tau")[0]) == pytest.approx(tau, abs=2e-6)
    assert (len(rho), np.mean(rho)) == (3, pytest.approx(tau, abs=1e-3))
    assert torch.allclose(G_p, -eps / (1 - walk.alpha_bar) ** 0.5, atol=1e-5)
    assert cells(book, "grad tau, 1 x 4 x 4 x 6 x 8")[0] == f"rms {rms(G_g):.3e}"


@pytest.mark.parametrize("through", ["unet", "text-half", "tweedie"])
def test_the_gradient_is_the_samplers(walk, book, through):
    """One whole step by the sections, by each gradient of the prior, is the sampler's step."""
    walk = replace(walk, settings=replace(walk.settings, prior_gradient=through, c_g=strength(1000.0, *LATENTS)))
    z = walkthrough_sections.refinement(walk, book, *walk.gradients(walk.state.z)[:2])
    walkthrough_sections.denoising_step(walk, book, z)
    assert float(re.search(r"by at most (\S+)\.", book.parts[-3])[1]) < 1e-5


def test_one_iteration_is_the_sum_of_its_terms(walk, book):
    c_g = strength(10.0, *LATENTS)
    walk = replace(walk, settings=replace(walk.settings, iterations=1, prior_gradient="tweedie", c_g=c_g))
    G_g, G_p = walk.gradients(walk.state.z)[:2]
    after = walkthrough_sections.refinement(walk, book, G_g, G_p)
    eta_l, eta_k = 0.05 * (1 - walk.alpha_bar), (0.05 * 1.95 * (1 - walk.alpha_bar)) ** 0.5
    terms = [eta_l * 10 * G_g, eta_l * G_p, eta_k * walk.draw_noise(0)]
    assert torch.allclose(after, walk.state.z + sum(terms), atol=1e-5)
    names = ["eta_l c_g grad tau", "eta_l grad log p", "eta_k eps"]
    alone = re.search(r"take tau from (\S+) to (\S+) if the predicted noise stayed", book.parts[0])
    assert float(alone[2]) > float(alone[1])  # a small step along the gradient
    assert [float(cells(book, name)[0]) for name in names] == pytest.approx([rms(x) for x in terms], abs=1e-5)
    assert cells(book, "z after")[2] == f"{variance(after):.5f}"


# ---- Parts ---------------------------------------------------------------------------------------------------------


def test_the_hook_sees_the_last_call_and_is_gone():
    module = nn.Linear(2, 2)
    arguments, _, output = last_call(module, lambda: (module(torch.zeros(1, 2)), module(torch.ones(1, 2))))
    assert torch.equal(arguments[0], torch.ones(1, 2)) and torch.equal(output, module(torch.ones(1, 2)))
    assert not module._forward_hooks


def test_text_parts():
    assert where(temporal_consistency) == "`adaptation/temporal_prior.py` `temporal_consistency`"
    assert table(("a", "b"), (1, 2.5)) == "| a | b |\n|---|---|\n| 1 | 2.5 |"


def test_frames_without_the_subject_have_no_crop():
    """Present in frames 0, 1 and 3 of 4: one pair, so one rho."""
    boxes = torch.full((1, 4, 4), torch.nan)
    boxes[0, [0, 1, 3]] = torch.tensor([0.0, 0.0, 0.5, 0.5])
    frames, magnitude = np.zeros((4, 16, 16, 3), np.uint8), torch.ones(4, 2, 2)
    assert walkthrough_pictures.prior(frames, boxes, [0.5], magnitude).startswith(b"\x89PNG")
    with pytest.raises(StopIteration):
        walkthrough_pictures.prior(frames, boxes, [], magnitude)


# ---- The command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--boxes", "no.json"], "no.json: the trajectory file cannot be read"),
        (["--model", "no/folder/here"], "no/folder/here"),
        (["--seed", "-1"], "a seed must be an integer from 0"),
        (["--out", "file"], "file is not a folder that can be written to"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert walkthrough.main(arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ") and sentence in line
    assert (printed.out, [p.name for p in tmp_path.iterdir()]) == ("", ["file"])


def test_without_matplotlib_one_sentence_tells_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert walkthrough.main(["--out", str(tmp_path / "out")]) == 2
    assert "needs matplotlib; install it with" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        walkthrough.main(["--steps", "3"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("unrecognized arguments: --steps 3")
