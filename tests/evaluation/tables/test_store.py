"""Videos on disk: found again if and only if they are whole and were made in the same way."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.benchmarks.items import make_items
from evaluation.tables import store as store_module
from evaluation.tables.store import Row, Store, share, worker, worker_device
from sampling.generate import recommended
from storage import read_sealed, write_sealed

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), dtype=np.uint8)
RECORD = {"failure": None, "tau": 0.1234567890123, "latent_std": 1.0}


@pytest.fixture
def written(store, item, row):
    """A store that has the video."""
    store.write_record(item, row, FRAMES, RECORD)
    return store


# ---- What is to be made ----------------------------------------------------------------------------------------------


def test_a_row_knows_all_that_makes_its_videos(pipeline):
    settings = recommended(pipeline, "plain")
    row = Row.of(pipeline, settings, 8, "blurry")
    assert row == Row(settings, "0123456789abcdef", "float32", 8, 32, 48, "blurry")
    pipeline.unet.to(torch.bfloat16)
    assert Row.of(pipeline, settings, 8, "blurry") == replace(row, dtype="bfloat16")


def test_items_and_rows_are_read_back(tmp_path, row):
    store, items = Store(tmp_path / "new" / "folder"), make_items("pairs", "tiny", 2, 4)
    rows = {"mask": row, "other": replace(row, settings=replace(row.settings, where=("decoder", "mid")))}
    store.save(items, rows)
    assert store.items() == items
    assert store.rows() == rows
    assert list(store.rows(["other", "mask"])) == ["other", "mask"]
    assert store.rows(["other"]) == {"other": rows["other"]}


def test_another_list_in_one_folder_is_refused(store, item, row):
    """Rows of a folder are compared over its one list; a second list would leave some with videos that no one reads."""
    other = [replace(item, id="b"), item]
    for items in (other, [replace(item, seed=1)]):
        with pytest.raises(ValueError, match=r"has the videos of another list of items \(1 of .* take another --out"):
            store.save(items, {"more": row})
    assert store.items() == [item]
    assert list(store.rows()) == ["mask"]
    store.save([item], {"more": row})
    assert list(store.rows()) == ["mask", "more"]


def test_what_is_noted_is_read_back_by_kind(store):
    store.note("suites", "a: b", {"boxes": {"class": "C"}})
    store.note("references", "world:3", [1])
    store.note("references", "world:3", [2])
    assert store.noted("suites") == {"a: b": {"boxes": {"class": "C"}}}
    assert store.noted("references") == {"world:3": [2]}
    assert store.noted("others") == {}


def test_rows_stay_until_their_label_is_used_again(store, item, row):
    other, changed = replace(row, model="f" * 16), replace(row, frames=8)
    store.save([item], {"other": other})
    assert store.rows() == {"mask": row, "other": other}
    store.save([item], {"mask": changed})
    assert store.rows() == {"mask": changed, "other": other}


def test_rows_that_several_processes_note_at_once_are_all_there(store, item, row, monkeypatch):
    """A lock belongs to the opened file, so that threads exclude each other as processes do."""
    read = store_module.read_json
    monkeypatch.setattr(store_module, "read_json", lambda path: (read(path), time.sleep(0.02))[0])
    labels = [f"row-{n}" for n in range(6)]
    with ThreadPoolExecutor(len(labels)) as pool:
        list(pool.map(lambda label: store.save([item], {label: row}), labels))
    assert set(store.rows()) == {"mask", *labels}


@pytest.mark.parametrize("content", [None, "", '{"mask": {', "[]", "{}"])
def test_rows_that_are_not_whole_are_one_sentence_and_written_anew(store, item, row, content):
    path = store.root / "rows.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=r"rows\.json is not there or not whole; run .*generate. first"):
        store.rows()
    store.save([item], {"mask": row})
    assert store.rows() == {"mask": row}


def test_a_row_that_is_not_known_is_one_sentence(store):
    with pytest.raises(ValueError, match=r"rows\.json knows no row 'plain'; it has mask"):
        store.rows(["mask", "plain"])


def test_rows_of_another_version_are_one_sentence(store):
    path = store.root / "rows.json"
    noted = json.loads(path.read_text())
    noted["mask"]["settings"]["speed"] = 3
    path.write_text(json.dumps(noted))
    with pytest.raises(ValueError, match="has rows of another version of this program"):
        store.rows()


# ---- Videos ----------------------------------------------------------------------------------------------------------


def test_a_video_and_its_record_are_read_back(written, item, row):
    record = written.read_record(item, row)
    assert {name: record[name] for name in RECORD} == RECORD
    assert np.array_equal(written.read_frames(item, row), FRAMES)


def test_a_record_without_a_video(store, item, row):
    store.write_record(item, row, None, RECORD | {"failure": "not finite"})
    assert store.read_record(item, row) == {"video": None, **RECORD, "failure": "not finite"}
    assert [path.suffix for path in (store.root / "files").iterdir()] == [".json"]


def test_the_same_video_is_the_same_files(written, item, row, tmp_path):
    again = Store(tmp_path / "again")
    again.save([item], {"mask": row})
    again.write_record(item, row, FRAMES, RECORD)

    def files(store):
        return {path.name: path.read_bytes() for path in (store.root / "files").iterdir()}

    assert files(again) == files(written)
    assert len(files(written)) == 2  # nothing else is left behind


@pytest.mark.parametrize(
    "change",
    [
        {"model": "f" * 16},
        {"dtype": "float16"},
        {"frames": 5},
        {"height": 40},
        {"width": 40},
        {"negative_prompt": "blurry"},
        {"steps": 3},
        {"where": ("decoder", "mid")},
        {"mask_normalization": True},
        {"trailing": 14},
    ],
)
def test_a_video_made_in_another_way_is_another(written, item, row, change):
    own = change.keys() & {field for field in asdict(row) if field != "settings"}
    other = replace(row, **change) if own else replace(row, settings=replace(row.settings, **change))
    assert written.read_record(item, other) is None
    assert written.read_record(item, replace(row)) is not None  # an equal row finds it


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"prompt": "a red ball and more"}, {"boxes": (((0, 0, 1, 1),) * 4,)}, {"id": "b"}]
)
def test_a_video_of_another_item_is_another(written, item, row, change):
    item_now = replace(item, prompt="a red ball", subjects=("red ball",))
    written.write_record(item_now, row, FRAMES, RECORD)
    assert written.read_record(item_now, row) is not None
    assert written.read_record(replace(item_now, **change), row) is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def garble(path):
    path.write_bytes(b"[1, 2]")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("suffix", [".json", ".mkv"])
@pytest.mark.parametrize("damage", [truncate, flip, empty, zero, garble, remove])
def test_a_video_or_record_that_is_not_whole_is_none(written, item, row, suffix, damage):
    damage(written.record_path(item, row).with_suffix(suffix))
    assert written.read_record(item, row) is None
    written.write_record(item, row, FRAMES, RECORD)
    assert written.read_record(item, row) is not None


def test_a_figure_changed_by_hand_is_found_out(written, item, row):
    path = written.record_path(item, row)
    path.write_text(path.read_text().replace("0.1234567890123", "0.9234567890123"))
    assert json.loads(path.read_text())["tau"] == 0.9234567890123  # JSON all the same
    assert written.read_record(item, row) is None


def test_a_video_of_another_length_is_refused(store, item, row):
    store.write_record(item, row, FRAMES[:3], RECORD)
    with pytest.raises(ValueError, match=f"the video of {item.id} has 3 frames, not 4; make it again"):
        store.read_frames(item, row)


def test_what_json_cannot_say_is_not_written(store, item, row):
    with pytest.raises(ValueError, match="nan"):
        store.write_record(item, row, None, RECORD | {"tau": float("nan")})
    assert store.read_record(item, row) is None


def test_sealed_content_is_read_back_in_its_order(tmp_path):
    content = {"b": [1.5, None, (0.1, "x")], "a": {"c": 1e-300}}
    write_sealed(tmp_path / "a.json", content)
    assert json.dumps(read_sealed(tmp_path / "a.json")) == json.dumps(content)
    assert read_sealed(tmp_path / "b.json") is None


# ---- Sharing the work ------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_the_whole_without_overlap(count, workers):
    things = list(range(count))
    shares = [share(things, (i, workers)) for i in range(1, workers + 1)]
    assert sorted(thing for part in shares for thing in part) == things
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.fixture
def launched(monkeypatch):
    """launched(RANK, WORLD_SIZE), None = not set."""

    def launched(*values):
        for name, value in zip(("RANK", "WORLD_SIZE"), values, strict=True):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    launched(None, None)
    return launched


def test_who_is_told_by_torchrun_or_said(launched):
    assert worker() == (1, 1)
    assert worker((2, 3)) == (2, 3)
    launched("4", "5")
    assert worker() == (5, 5)
    assert share("abcdefghij", (5, 5)) == "ej"
    launched("0", "1")  # a launcher of one worker on each machine, and the machines by hand
    assert worker((2, 3)) == (2, 3)


def test_a_share_given_to_all_workers_of_a_launcher_is_refused(launched):
    """Two workers with --shard 1/2 would make the first half twice, and no one the second."""
    for rank in "01":
        launched(rank, "2")
        with pytest.raises(ValueError, match=r"--shard 1/2 would be the share of each of the launcher's 2 workers"):
            worker((1, 2))


@pytest.mark.parametrize("values", [("1", None), (None, "2"), ("2", "2"), ("x", "2"), ("-1", "2"), ("", "")])
def test_half_of_a_launcher_is_refused(launched, values):
    """RANK 1 alone would be worker 2 of 1, and skip the first item."""
    launched(*values)
    with pytest.raises(ValueError, match=f"has RANK {values[0]} and WORLD_SIZE {values[1]}, but a launcher sets both"):
        worker()


def test_each_worker_of_a_machine_has_its_own_gpu(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert worker_device("cuda") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert [worker_device(device) for device in ("cuda", "cuda:1", "cpu")] == ["cuda:3", "cuda:1", "cpu"]
