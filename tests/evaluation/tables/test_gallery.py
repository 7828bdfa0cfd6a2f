"""Pictures have the right rows in the right order, from the videos that the numbers are about."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks.items import save_items
from evaluation.tables import gallery
from evaluation.tables.gallery import strip, write_failures, write_montage
from evaluation.tables.store import Store

HEIGHT, GAP = 128, 4  # of 32 x 48 pixels, each as 4 x 4
WIDTH = 4 * 192 + 3 * GAP  # four frames and what is between them
MADE = {"failure": None, "tau": None, "latent_std": None}


def plain(level):
    return np.full((4, 32, 48, 3), level, np.uint8)


@pytest.fixture
def filled(tmp_path, item, row):
    """Three items and two rows, each video of one grey level: 10 times the item's number, plus 100 for the mask."""
    items = [replace(item, id=f"item-{n}") for n in range(3)]
    rows = {"plain": replace(row, settings=replace(row.settings, frozen_steps=0)), "mask": row}
    store = Store(tmp_path / "evaluation")
    store.save(items, rows)
    for n, one in enumerate(items):
        store.write_record(one, rows["plain"], plain(10 * n), MADE)
        store.write_record(one, rows["mask"], plain(10 * n + 100), MADE)
    ious = {"plain": (0.5, 0.25, 0.75), "mask": (0.1, 0.3, 0.1)}
    tracks = {
        label: [{"id": f"item-{n}", "subject": "red ball", "iou": iou} for n, iou in enumerate(values)]
        for label, values in ious.items()
    }
    return store, {
        label: {"row": asdict(row), "tracks": {"static": tracks[label][:2], "moving": tracks[label][2:]}}
        for label, row in rows.items()
    }


@pytest.fixture
def texts(monkeypatch):
    """The labels that are drawn."""
    seen = []
    draw = gallery.draw_labels
    monkeypatch.setattr(gallery, "draw_labels", lambda texts, height: seen.extend(texts) or draw(texts, height))
    return seen


def levels(path):
    """The grey level of each row of a picture, as most of its last frame's pixels have it."""
    picture = np.asarray(Image.open(path))
    rows = [picture[y : y + HEIGHT, -192:] for y in range(0, len(picture), HEIGHT + GAP)]
    return [int(np.bincount(row.ravel()).argmax()) for row in rows]


def test_a_strip_shows_all_frames_with_their_boxes(filled, item):
    store, _ = filled
    one, row = store.items()[1], store.rows()["mask"]
    picture = strip(store, one, row)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    for frame, box in enumerate(one.trajectory.boxes[0].numpy()):
        shown = picture[:, frame * (192 + GAP) :][:, :192]
        x, y = (box[:2] * (192, 128)).astype(int)
        assert shown[y, x].tolist() == [0, 255, 255]  # the box's upper left corner
        assert np.bincount(shown.ravel()).argmax() == 110


def test_a_montage_has_a_row_for_each_method_of_each_item(filled, texts, tmp_path):
    write_montage(*filled, tmp_path / "montage.png", count=3)
    assert levels(tmp_path / "montage.png") == [0, 100, 10, 110, 20, 120]
    assert texts == [f"{label}\nitem-{n}" for n in range(3) for label in ("plain", "mask")]


def test_a_montage_of_few_is_from_all_over_the_list(filled, texts, tmp_path):
    write_montage(*filled, tmp_path / "montage.png", count=2)
    assert levels(tmp_path / "montage.png") == [0, 100, 20, 120]


def test_failures_are_the_worst_first_of_each_method(filled, texts, tmp_path):
    write_failures(*filled, tmp_path / "failures.png", count=2)
    assert levels(tmp_path / "failures.png") == [10, 0, 100, 120]
    assert texts == [
        "plain\nitem-1\nred ball: IoU 25 %",
        "plain\nitem-0\nred ball: IoU 50 %",
        "mask\nitem-0\nred ball: IoU 10 %",
        "mask\nitem-2\nred ball: IoU 10 %",
    ]


@pytest.mark.parametrize("loss", ["missing", "broken", "failed"])
def test_no_video_is_grey(filled, tmp_path, loss):
    store, results = filled
    one, row = store.items()[0], store.rows()["plain"]
    video = store.record_path(one, row).with_suffix(".mkv")
    if loss == "missing":
        video.unlink()
    elif loss == "broken":
        video.write_bytes(video.read_bytes()[:-1])
    else:
        store.write_record(one, row, None, MADE | {"failure": "not finite"})
    write_montage(store, results, tmp_path / "montage.png", count=1)
    assert levels(tmp_path / "montage.png") == [128, 100]


def test_pictures_are_of_the_rows_that_were_measured(filled, tmp_path):
    """Another model has taken the row's name since."""
    store, results = filled
    row = replace(store.rows()["mask"], model="f" * 16)
    store.save(store.items(), {"mask": row})
    store.write_record(store.items()[0], row, plain(200), MADE)
    write_montage(store, results, tmp_path / "montage.png", count=1)
    assert levels(tmp_path / "montage.png") == [0, 100]


def test_results_of_other_items_are_one_sentence(filled, tmp_path):
    store, results = filled
    save_items(store.root / "bench.jsonl", store.items()[1:])
    with pytest.raises(ValueError, match=r"has no item item-0; run `python -m evaluation reduce` again"):
        write_failures(store, results, tmp_path / "failures.png", count=2)
