"""Figure 4: rows, labels and boxes where they belong, and no video made twice."""

import json

import av
import numpy as np
from PIL import Image

from evaluation.figures.compare import draw_labels, draw_rows, run_methods, write_comparison
from evaluation.figures.video import draw_boxes, enlarge
from sampling.generate import generate, method_settings

TWO = ("plain", "mask")


def test_rows_are_the_methods_from_the_same_noise(pipeline, ball):
    results = run_methods(pipeline, ball, method_settings(pipeline, TWO), seed=3)
    assert list(results) == list(TWO)
    assert {result.seed for result in results.values()} == {3}
    for method, settings in method_settings(pipeline, TWO).items():
        assert np.array_equal(results[method].frames, generate(pipeline, None, ball, settings, seed=3).frames)
    assert not np.array_equal(results["plain"].frames, results["mask"].frames)


def test_nothing_is_made_twice(pipeline, ball):
    methods = method_settings(pipeline, ["mask", "full", "full[unet]"])
    known = generate(pipeline, None, ball, methods["mask"])
    pipeline.unet.calls = 0
    results = run_methods(pipeline, ball, methods, known=[known])
    assert pipeline.unet.calls == 2 * (2 + 1)  # full alone: two steps of M + 1 calls
    assert results["mask"] is known
    assert results["full"] is results["full[unet]"]


def test_options_reach_every_run(pipeline, ball):
    steps = []
    results = run_methods(
        pipeline, ball, method_settings(pipeline, TWO), prompt="the red ball", progress=lambda s: steps.append(s.step)
    )
    assert steps == [1, 2, 1, 2]
    assert {result.prompt for result in results.values()} == {"the red ball"}


def test_the_picture_has_a_labelled_row_for_each_method(pipeline, ball):
    """32 x 48 pixels in blocks of 8 x 8: rows of 256 with a gap of 4; four frames of 384 with three gaps of 4."""
    methods = method_settings(pipeline, TWO)
    results = run_methods(pipeline, ball, methods, 0)
    picture, video = draw_rows(results, ball)
    width = draw_labels(TWO, 256)[0].shape[1]
    assert picture.shape == (2 * 256 + 4, width + 4 * 384 + 3 * 4, 3)
    assert video.shape == (4, 2 * 256 + 4, width + 384, 3)
    assert picture.dtype == video.dtype == np.uint8
    for row, method in enumerate(TWO):
        marked = draw_boxes(enlarge(results[method].frames), ball.boxes.numpy())
        rows = slice(row * 260, row * 260 + 256)
        assert np.array_equal(video[:, rows, width:], marked)
        for i in range(4):
            left = width + i * 388
            assert np.array_equal(picture[rows, left : left + 384], marked[i])
        assert np.array_equal(picture[rows, :width], draw_labels(TWO, 256)[row])
    assert (picture[256:260] == 255).all()


def test_labels_are_written_and_differ():
    plain, mask, long = draw_labels(["plain", "mask", "full[text-half]"], 100)
    assert plain.shape == mask.shape == long.shape
    dark = [(label < 128).all(-1) for label in (plain, mask, long)]
    assert all(d.any() for d in dark)
    assert not np.array_equal(plain, mask)
    assert not dark[2][:, -2:].any()  # the longest fits
    rows = np.nonzero(dark[0].any(1))[0]
    assert abs(rows.mean() - 50) < 8  # in the middle


def test_a_long_video_is_shown_by_eight_frames(pipeline, ball):
    """Of 12 frames: linspace(0, 11, 8) = 0, 1.6, 3.1, 4.7, 6.3, 7.9, 9.4, 11, rounded."""
    long = ball.resample(12)
    results = run_methods(pipeline, long, method_settings(pipeline, ["plain"]), frames=12)
    picture, video = draw_rows(results, long)
    width = draw_labels(["plain"], 256)[0].shape[1]
    assert video.shape[0] == 12
    assert picture.shape[1] == width + 8 * 384 + 7 * 4
    for column, frame in enumerate([0, 2, 3, 5, 6, 8, 9, 11]):
        left = width + column * 388
        assert np.array_equal(picture[:, left : left + 384], video[frame, :, width:])


def test_files(pipeline, ball, tmp_path):
    results = run_methods(pipeline, ball, method_settings(pipeline, TWO))
    write_comparison(tmp_path, results, ball, fps=8)
    picture, video = draw_rows(results, ball)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "compare.png")), picture)
    with av.open(str(tmp_path / "compare.mp4")) as container:
        assert container.streams.video[0].average_rate == 8
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert read.shape[0] == 4
    assert np.abs(read[:, : video.shape[1], : video.shape[2]].astype(int) - video).mean() < 6
    rows = json.loads((tmp_path / "compare.json").read_text())
    assert list(rows) == list(TWO)
    assert rows["mask"]["settings"]["frozen_steps"] == 4
    assert [record["t"] for record in rows["plain"]["records"]] == [501, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"compare.png", "compare.mp4", "compare.json"}
