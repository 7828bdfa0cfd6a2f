"""report.html: what stands in a run's folder is on the page, and the page works in a real browser."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from app.folder import describe, peak_bytes, write_run
from app.report import column, main, make_report, mark_words, repeating_command, write_report
from evaluation.figures.activations import Activations, write_activations
from evaluation.figures.video import write_png
from sampling.generate import generate, recommended


@pytest.fixture
def folder(pipeline, ball, tmp_path):
    """A run as train_free.py writes it: 4 frames, 2 steps, the full method."""
    pipeline.unet.checkpoint_activations = False
    result = generate(pipeline, None, ball, recommended(pipeline, "full"))
    facts = {"arguments": ["--prompt", "a b", "--eta=0"], "method": "full", "fps": 8, "negative_prompt": ""}
    facts |= describe(pipeline, result, ball, {"loading": 1.5})
    return write_run(tmp_path / "run", result, ball, 8, facts)


def edit(folder, **changes):
    run = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(run))


# ---- The page as a text --------------------------------------------------------------------------------------------


def test_prompt_settings_times_and_command_are_on_the_page(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    assert 'a <mark style="--color: #00ffff">red ball</mark> over the grass</h1>' in page
    assert "full on small, seed 0, 4 frames of 48 × 32 pixels" in page
    assert '<tr><th scope="row">c_g</th><td>4600</td></tr>' in page
    assert '<tr><th scope="row">loading</th><td>1.5 s</td>' in page
    assert "peak memory, process" in page
    assert '<code id="command">python train_free.py --prompt &#x27;a b&#x27; --eta=0</code>' in page
    assert page.count("<video ") == 2
    assert [re.findall("<title>(.*?)</title>", page)[i] for i in (1, 2, 3)] == [
        "Temporal consistency tau (Eq. 1)",
        "RMS of the three terms of Eq. 2",
        "Standard deviation of the latents",
    ]


def test_a_run_without_boxes_has_one_video_and_no_tau(pipeline, tmp_path):
    pipeline.unet.checkpoint_activations = False
    result = generate(pipeline, "the grass")
    facts = {"arguments": [], "method": "plain", "fps": 8} | describe(pipeline, result, None, {})
    page = make_report(write_run(tmp_path / "run", result, None, 8, facts))
    assert page.count("<video ") == 1
    assert re.findall("<title>(.*?)</title>", page)[1:] == ["Standard deviation of the latents"]
    assert "<mark" not in page


def test_terms_that_are_zero_are_left_out(folder):
    """c_g = 0 leaves a prior of 0, gamma = 0 all three terms, which a logarithmic axis cannot show."""
    run = json.loads((folder / "run.json").read_text())
    records = [record | {"rms_prior": [0.0], "rms_score": [0.0], "rms_noise": [0.0]} for record in run["records"]]
    edit(folder, records=records)
    assert "RMS of the three terms" not in make_report(folder)


def test_activations_and_pictures_are_shown_where_they_are(folder):
    write_activations(folder, Activations({"plain": [0.5, 0.4], "mask": [0.6, 0.5]}, 1))
    write_png(folder / "compare.png", np.zeros((4, 4, 3), np.uint8))
    page = make_report(folder)
    assert "Variance of the second decoder block" in page and "mask: 0.6 at step 1, 0.5 at step 2." in page
    assert "mask: 0.1 at step 1, 0.1 at step 2." in page  # its distance from the unmasked run
    assert page.count('<img src="data:image/png;base64,') == 1


def test_nothing_in_a_run_is_taken_for_html(folder):
    hostile = {"prompt": "a red ball </title><script>alert(1)</script>", "method": "<i>", "negative_prompt": "<s>"}
    edit(folder, **hostile, arguments=["--prompt", "<b>"], subjects=["<u>"], seconds={"<q>": 1.0})
    page = make_report(folder)
    assert [tag for tag in ("<script>alert", "<i> on", "<b>", "<s>", "<u>", "<q>") if tag in page] == []
    assert all(tag in page for tag in ("&lt;script&gt;alert", "&lt;i&gt; on", "&lt;b&gt;", "&lt;s&gt;", "&lt;q&gt;"))


@pytest.mark.parametrize(
    ("prompt", "subjects", "html"),
    [
        ("a Red  ball, redder", ["red ball"], "a [Red  ball], redder"),
        ("ball by ball", ["ball"], "[ball] by [ball]"),
        ("the dog's bed & dog", ["dog"], "the [dog]&#x27;s bed &amp; [dog]"),
        ("a cat, a dog", ["dog", "cat"], "a [cat], a [dog]"),
        ("a cat", ["dog"], "a cat"),
        ("a a a", ["a a"], "[a a] a"),
    ],
)
def test_words_are_marked_wherever_they_stand(prompt, subjects, html):
    marked = re.sub("<mark.*?>", "[", mark_words(prompt, subjects)).replace("</mark>", "]")
    assert marked == html


def test_each_subject_has_the_colour_of_its_boxes():
    assert re.findall("--color: (#......)", mark_words("a cat, a dog", ["dog", "cat"])) == ["#ff00ff", "#00ffff"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "python train_free.py"),
        (["--out", "a b", "--eta", "0"], "python train_free.py --eta 0"),
        (["--seed", "1", "7", "--eta", "0"], "python train_free.py --eta 0 --seed 7"),
        (["--prompt", "a", "--prompt=b c"], "python train_free.py '--prompt=b c'"),
        (["--prompt", "b c"], "python train_free.py --prompt 'b c'"),
        (["--box-from", "0,0,1,1", "--subject", "b"], "python train_free.py --box-from 0,0,1,1 --subject b"),
        (["--boxes=a.json", "--eta", "0"], "python train_free.py --eta 0 --boxes 'my run/trajectory.json'"),
        (
            ["--seed", "1", "7", "--prompt", "b c", "--prompt", "d", "--subject", "b", "--boxes", "a", "--resample"],
            "python train_free.py --boxes 'my run/trajectory.json' --seed 7",
        ),
    ],
)
def test_the_command_repeats_this_video_alone(arguments, command):
    run = {"arguments": arguments, "seed": 7, "prompt": "b c"}
    assert repeating_command(run, Path("my run")) == command


def test_the_command_names_the_folder_that_the_run_became(pipeline, ball, tmp_path):
    """Another one took the name while the files were written."""
    pipeline.unet.checkpoint_activations = False
    result = generate(pipeline, None, ball, recommended(pipeline, "mask"))
    facts = {"arguments": ["--boxes", "a.json"], "method": "mask", "fps": 8} | describe(pipeline, result, ball, {})
    for taken, name in ((False, "run"), (True, "other-2")):

        def take(_folder, taken=taken):
            if taken:
                (tmp_path / "other").mkdir()

        folder = write_run(tmp_path / name.removesuffix("-2"), result, ball, 8, facts, [take])
        assert folder == tmp_path / name
        assert f"--boxes {folder / 'trajectory.json'}</code>" in (folder / "report.html").read_text(encoding="utf-8")


def test_where_a_run_was_resumed_is_told(folder):
    assert '<tr><th scope="row">resumed after step</th><td>–</td></tr>' in make_report(folder)
    edit(folder, resumed=[{"step": 3}, {"step": 7}])
    assert '<tr><th scope="row">resumed after step</th><td>3, 7</td></tr>' in make_report(folder)


def test_a_column_is_a_number_for_each_step():
    assert column([{"t": 9, "tau": [0.5]}, {"t": 4, "tau": None}], "tau") == [0.5, None]
    assert column([{"t": 9, "tau": [0.5]}, {"t": 4, "tau": None}], "t") == [9, 4]


def test_memory_is_measured_in_bytes():
    """Python with torch takes more than 50 MB, and far less than a TB."""
    import torch

    peak = peak_bytes(torch.device("cpu"))
    assert 50e6 < peak["process"] < 1e12
    assert peak["gpu"] is None


# ---- The command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_the_page(folder, capsys):
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_run_with_former_names_is_refused(folder, capsys):
    settings = json.loads((folder / "run.json").read_text())["settings"]
    edit(folder, settings={**settings, "normalize": True})
    assert main([str(folder)]) == 2
    version = "run.json was written by another version of this program: settings has the unknown key 'normalize'"
    assert version in capsys.readouterr().err


def test_what_is_no_run_is_said_in_one_sentence(folder, tmp_path, capsys):
    for name in ("video.mp4", "report.html"):
        (folder / name).unlink()
    edit(tmp_path / "run", records=[])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text('{"prompt": "a"}')
    for name, sentence in (
        ("nowhere", "has no run.json; give the folder that a run wrote"),
        ("run", "has no video.mp4"),
        ("broken", "run.json is not JSON"),
        ("old", "run.json has no subjects; it was not written by this version"),
    ):
        assert main([str(tmp_path / name)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and sentence in said and said.count("\n") == 1
        assert not (tmp_path / name / "report.html").exists()


# ---- In a browser --------------------------------------------------------------------------------------------------


def test_the_page_plays_both_videos_together(folder, page):
    page.get(write_report(folder).as_uri())
    state = "return videos.map((v) => [v.readyState, v.duration, v.currentTime, v.paused])"
    wait(lambda: all(ready == 4 for ready, *_ in page.execute_script(state)))
    assert [duration for _, duration, _, _ in page.execute_script(state)] == [0.5, 0.5]  # 4 frames at 8 a second
    page.execute_script("scrubber.value = 3; scrubber.dispatchEvent(new Event('input'))")
    wait(lambda: not page.execute_script("return videos.some((v) => v.seeking)"))
    assert [t for _, _, t, _ in page.execute_script(state)] == [pytest.approx(3.5 / 8, abs=0.01)] * 2
    assert page.execute_script("return [number.textContent, frameNow()]") == ["3 / 3", 3]
    page.find_element("id", "play").click()
    wait(lambda: len({page.execute_script("return scrubber.value") for _ in range(20)}) > 1)  # round and round
    page.find_element("id", "play").click()
    wait(lambda: all(paused for *_, paused in page.execute_script(state)))
    first, second = (t for _, _, t, _ in page.execute_script(state))
    assert abs(first - second) <= 1 / 8


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits(folder, page, width):
    page.get(write_report(folder).as_uri())
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    )
    script = "return [document.documentElement.scrollWidth, videos[0].clientWidth]"
    content, video = page.execute_script(script)
    charts = page.execute_script(
        "return [...document.querySelectorAll('svg')].map((s) => s.getBoundingClientRect().width)"
    )
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert content <= width
    assert min(charts) > 300 and video > 300


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
