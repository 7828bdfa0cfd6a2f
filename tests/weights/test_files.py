import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from weights import files
from weights.files import CheckpointError, check_folder, choose_weights, open_weights, read_json, shards, weight_files

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).half(), "b": torch.ones(4), "c": torch.zeros(2, 2).bfloat16()}


# Which files


@pytest.mark.parametrize(
    ("names", "full", "half"),
    [
        (["model.safetensors"], "model.safetensors", "model.safetensors"),
        (["model.fp16.safetensors"], "model.fp16.safetensors", "model.fp16.safetensors"),
        (["model.safetensors", "model.fp16.safetensors"], "model.safetensors", "model.fp16.safetensors"),
        (["pytorch_model.fp16.bin", "model.safetensors"], "model.safetensors", "model.safetensors"),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], "pytorch_model.bin", "pytorch_model.fp16.bin"),
        (["pytorch_model.bin", "model.fp16.safetensors"], "model.fp16.safetensors", "model.fp16.safetensors"),
        (["model.safetensors.index.json", "pytorch_model.bin"], *["model.safetensors.index.json"] * 2),
        (["model.safetensors.index.fp16.json", "model.safetensors"], "model.safetensors", None),
        (["model.safetensors.fp16.index.json", "model.safetensors"], "model.safetensors", None),
        (["model.fp16.safetensors.index.json", "model.safetensors"], "model.safetensors", None),
        (["pytorch_model.bin.index.json"], *["pytorch_model.bin.index.json"] * 2),
    ],
)
def test_the_best_of_the_files_there_are(names, full, half):
    """half = None stands for the first name."""
    assert choose_weights("text_encoder", [*names, "config.json"], False, "here") == full
    assert choose_weights("text_encoder", [*names, "config.json"], True, "here") == (half or names[0])


def test_no_weights_at_all():
    with pytest.raises(CheckpointError, match=r"here has no weights in unet/: expected diffusion_pytorch_model.safe"):
        choose_weights("unet", ["config.json", "model.safetensors", "open_clip_pytorch_model.bin"], False, "here")


def test_an_index_names_each_file_once(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "2.safetensors", "y": "1.safetensors", "z": "2.safetensors"}}))
    assert shards(index) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "..",
        "",
        "a\\b.safetensors",
        "run.py",
    ],
)
def test_an_index_stays_in_its_folder(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="is not a weight file beside it; do not trust this checkpoint"):
        shards(index)


@pytest.mark.parametrize("value", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"x": 1}}])
def test_an_index_without_a_map(tmp_path, value):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="has no weight_map"):
        shards(index)


def test_shards_that_are_missing_are_named(checkpoint):
    names = checkpoint.shard("unet")
    assert [path.name for path in weight_files(checkpoint.folder, "unet", False)] == names
    for name in names[1:]:
        (checkpoint.folder / "unet" / name).unlink()
    with pytest.raises(CheckpointError, match=f"index.json needs {names[1]}, {names[2]} beside it"):
        weight_files(checkpoint.folder, "unet", False)


def test_a_whole_folder(checkpoint):
    check_folder(checkpoint.folder)
    (checkpoint.folder / "model_index.json").unlink()  # is not read
    check_folder(checkpoint.folder)


def test_all_that_a_folder_lacks_is_named_at_once(checkpoint):
    (checkpoint.folder / "scheduler" / "scheduler_config.json").unlink()
    (checkpoint.folder / "scheduler").rmdir()
    (checkpoint.folder / "tokenizer" / "merges.txt").unlink()
    (checkpoint.folder / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"scheduler/, vae/config.json, tokenizer/merges.txt missing"):
        check_folder(checkpoint.folder)


# JSON


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"a": 1', "is not JSON .*; download it again"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "holds a JSON list where an object belongs"),
        (b"null", "holds a JSON NoneType where an object belongs"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, fault):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(path))} {fault}") as error:
        read_json(path)
    assert "\n" not in str(error.value)


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        read_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path)


# Tensors


def write(path, tensors=TENSORS):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization="old" not in path.name)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "old.bin"])
@pytest.mark.parametrize("chunk", [1, 12, 10**9])
def test_tensors_are_read_as_they_were_written(tmp_path, name, chunk, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", chunk)
    file = open_weights(write(tmp_path / name))
    assert {n: (e.shape, e.dtype) for n, e in file.entries.items()} == {
        "a": ((2, 3), "F16"),
        "b": ((4,), "F32"),
        "c": ((2, 2), "BF16"),
    }
    read = {n: t.clone() for n, t in file.tensors(["c", "a"])}
    assert list(read) == ["c", "a"]
    assert all(torch.equal(read[n], TENSORS[n]) and read[n].dtype == TENSORS[n].dtype for n in read)


def test_a_chunk_at_a_time_is_mapped(tmp_path, monkeypatch):
    path = write(tmp_path / "x.safetensors", {f"{i}": torch.full((8,), float(i)) for i in range(6)})  # 32 bytes each
    monkeypatch.setattr(files, "CHUNK", 64)
    opened, original = [], files.safe_open
    file = open_weights(path)
    monkeypatch.setattr(files, "safe_open", lambda *a: opened.append(a) or original(*a))
    assert [float(t[0]) for _, t in file.tensors(map(str, range(5)))] == [0, 1, 2, 3, 4]
    assert len(opened) == 3  # two, two and one


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "old.bin"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"<!doctype html><title>Not found</title>",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: b"Entry not found",
    ],
)
def test_damaged_files_are_named(tmp_path, name, spoil):
    path = write(tmp_path / name)
    path.write_bytes(spoil(path.read_bytes()))
    kind = "safetensors" if path.suffix == ".safetensors" else "PyTorch"
    with pytest.raises(CheckpointError) as error:
        open_weights(path)
    message = str(error.value)
    assert message.startswith(f"{path} is not a whole {kind} file (") and message.endswith("; download it again")
    assert "\n" not in message and "weights_only" not in message


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_a_pointer_of_git_lfs(tmp_path, name):
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2822615188\n")
    with pytest.raises(CheckpointError, match="is only Git LFS's pointer to the weights; run `git lfs pull`"):
        open_weights(path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_weights_that_cannot_be_opened(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        open_weights(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"no{name} cannot be read"):
        open_weights(tmp_path / f"no{name}")


@pytest.mark.parametrize("name", ["x.bin", "old.bin"])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, bomb, name):
    path = write(tmp_path / name, {"a": bomb})
    with pytest.raises(CheckpointError, match=r"is refused, since opening it would run code that it brings along") as e:
        open_weights(path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [[TENSORS["a"]], {"state": TENSORS}, {"a": 1}, TENSORS["a"], {0: TENSORS["a"]}])
def test_a_pickle_of_something_else(tmp_path, content):
    with pytest.raises(CheckpointError, match="holds something else than names and tensors"):
        open_weights(write(tmp_path / "x.bin", content))


@pytest.mark.parametrize("tensor", [TENSORS["a"].float().to_sparse(), TENSORS["a"].to("meta")])
def test_a_pickle_of_tensors_that_are_no_plain_numbers(tmp_path, tensor):
    with pytest.raises(CheckpointError, match=r"x.bin holds b as no plain tensor;"):
        open_weights(write(tmp_path / "x.bin", {"a": TENSORS["a"], "b": tensor}))


def test_types_without_a_float_are_spelt_too(tmp_path):
    for name in ("x.safetensors", "x.bin"):
        write(tmp_path / name, {"a": torch.arange(3)})
    assert open_weights(tmp_path / "x.safetensors").entries["a"].dtype == "I64"
    assert open_weights(tmp_path / "x.bin").entries["a"].dtype == "torch.int64"


def test_the_fixtures_tensors_are_plain_safetensors(checkpoint):
    assert load_file(checkpoint.file("unet"))["conv_in.weight"].dtype == torch.float16
