import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers import file_names
from weights import convert
from weights.convert import main
from weights.load import load_pipeline


@pytest.fixture
def pickled(checkpoint):
    """A checkpoint as on Zeroscope's main branch, with other files beside it."""
    for part in checkpoint.weights:
        checkpoint.pickle(part)
    (checkpoint.folder / "zs2_576w").mkdir()
    (checkpoint.folder / "zs2_576w" / "open_clip_pytorch_model.bin").write_text("large")
    checkpoint.change("train_free.json", frames=8)
    return checkpoint.folder


def contents(folder):
    return {name: (folder / name).read_bytes() for name in file_names(folder)}


def test_writes_safetensors_and_copies_the_rest(pickled, tmp_path, capsys):
    assert main([str(pickled), str(tmp_path / "out")]) == 0
    assert file_names(tmp_path / "out") == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "train_free.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert (tmp_path / "out/tokenizer/vocab.json").read_bytes() == (pickled / "tokenizer/vocab.json").read_bytes()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 13 and f"wrote {tmp_path}/out/unet/diffusion_pytorch_model.safetensors" in printed


def test_names_and_types_stay(pickled, tmp_path):
    main([str(pickled), str(tmp_path / "out")])
    for source, target in (
        ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
        ("text_encoder/pytorch_model.bin", "text_encoder/model.safetensors"),
    ):
        before, after = torch.load(pickled / source, weights_only=True), load_file(tmp_path / "out" / target)
        assert before.keys() == after.keys()
        assert all(before[n].dtype == after[n].dtype and torch.equal(before[n], after[n]) for n in before)
    assert after["text_model.embeddings.position_ids"].dtype == torch.int64
    with safe_open(tmp_path / "out" / target, "pt") as file:
        assert file.metadata() == {"format": "pt"}  # without it transformers refuses the file


def test_the_result_loads_to_the_same_networks(pickled, tmp_path):
    main([str(pickled), str(tmp_path / "out")])
    with pytest.warns(UserWarning, match="pickled"):
        before = load_pipeline(pickled)
    after = load_pipeline(tmp_path / "out")  # no warning: pytest makes it an error
    for one, other in ((before.unet, after.unet), (before.text_encoder.model, after.text_encoder.model)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_permissions_are_the_sources(pickled, tmp_path):
    (pickled / "unet/diffusion_pytorch_model.bin").chmod(0o640)
    main([str(pickled), str(tmp_path / "out")])
    assert (tmp_path / "out/unet/diffusion_pytorch_model.safetensors").stat().st_mode & 0o777 == 0o640


def test_in_its_own_folder(pickled):
    before = contents(pickled)
    assert main([str(pickled), str(pickled)]) == 0
    after = contents(pickled)
    assert after.items() >= before.items() and len(after) == len(before) + 3


def test_shards(checkpoint, tmp_path):
    whole = load_pipeline(checkpoint.folder)
    shards = checkpoint.shard("text_encoder")
    index = checkpoint.folder / "text_encoder" / "model.safetensors.index.json"
    for shard in shards:
        path = checkpoint.folder / "text_encoder" / shard
        torch.save(load_file(path), path.with_name("pytorch_" + shard.replace(".safetensors", ".bin")))
        path.unlink()
    text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
    index.with_name("pytorch_model.bin.index.json").write_text(text)
    index.unlink()
    assert main([str(checkpoint.folder), str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out/text_encoder/model.safetensors.index.json").read_text())
    assert set(written["weight_map"].values()) == set(shards)
    after = load_pipeline(tmp_path / "out")
    assert torch.equal(after.text_encoder.encode(["a ball"]), whole.text_encoder.encode(["a ball"]))
    assert main([str(checkpoint.folder), str(tmp_path / "out")]) == 0  # all kept


def test_safetensors_are_copied(checkpoint, tmp_path):
    assert main([str(checkpoint.folder), str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == contents(checkpoint.folder)


def test_tensors_that_share_memory(pickled, tmp_path):
    path = pickled / "unet" / "diffusion_pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    tensors["down_blocks.0.resnets.0.norm1.bias"] = tensors["conv_in.bias"]  # a safetensors file has no such thing
    torch.save(tensors, path)
    assert main([str(pickled), str(tmp_path / "out")]) == 0
    after = load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors")
    assert torch.equal(after["down_blocks.0.resnets.0.norm1.bias"], after["conv_in.bias"])


def test_nothing_is_overwritten(pickled, tmp_path, capsys):
    out = tmp_path / "out"
    main([str(pickled), str(out)])
    for name in ("unet/diffusion_pytorch_model.safetensors", "unet/config.json"):
        kept = (out / name).read_bytes()
        (out / name).write_bytes(b"mine")
        assert main([str(pickled), str(out)]) == 2
        assert f"{out / name} exists and holds something else; give an OUT folder" in capsys.readouterr().err
        assert (out / name).read_bytes() == b"mine"
        (out / name).write_bytes(kept)


def test_other_weights_of_the_same_shapes_are_something_else(pickled, tmp_path, capsys):
    main([str(pickled), str(tmp_path / "out")])
    path = pickled / "vae" / "diffusion_pytorch_model.bin"
    torch.save({name: tensor + 1 for name, tensor in torch.load(path, weights_only=True).items()}, path)
    assert main([str(pickled), str(tmp_path / "out")]) == 2
    assert "vae/diffusion_pytorch_model.safetensors exists and holds something else" in capsys.readouterr().err


def test_an_interrupted_run_can_be_repeated(pickled, tmp_path, monkeypatch, capsys):
    original, written = convert.save_file, []

    def interrupted(tensors, path, metadata):
        original(tensors, path, metadata)
        if written:
            raise KeyboardInterrupt
        written.append(path)

    monkeypatch.setattr(convert, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([str(pickled), str(tmp_path / "out")])
    half_way = contents(tmp_path / "out")
    assert sum(name.endswith(".safetensors") for name in half_way) == 1  # the second was not whole
    assert not any(name.endswith(".part") for name in half_way)
    monkeypatch.undo()
    capsys.readouterr()
    assert main([str(pickled), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("kept") for line in printed) == len(half_way)
    assert sum(line.startswith("wrote") for line in printed) == 2
    assert contents(tmp_path / "out").items() > half_way.items()


def test_a_full_disk_leaves_no_half_file(pickled, tmp_path, monkeypatch, capsys):
    def full(tensors, path, metadata):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "save_file", full)
    assert main([str(pickled), str(tmp_path / "out")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not [name for name in file_names(tmp_path / "out") if "diffusion" in name]


def test_a_pickle_that_wants_to_run_code_is_refused(pickled, bomb, tmp_path, capsys):
    torch.save({"a": bomb}, pickled / "unet" / "diffusion_pytorch_model.bin")
    assert main([str(pickled), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "is refused, since opening it would run code" in error and error.count("\n") == 1
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("source", ["nowhere", "file"])
def test_what_is_no_checkpoint(tmp_path, capsys, source):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / source), str(tmp_path / "out")]) == 2
    assert f"weights.convert: {tmp_path / source} is not a folder" in capsys.readouterr().err
    assert main([str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert "is not a whole checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "weights.convert", str(tmp_path / "nowhere"), str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr == f"weights.convert: {tmp_path / 'nowhere'} is not a folder; give the folder of a checkpoint\n"
