"""Where networks come from, and that none is used with weights of its own making."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from evaluation.extractors import pretrained
from evaluation.extractors.pretrained import find, load_image_processor, load_model
from tests.helpers import file_names
from weights.files import CheckpointError

SETTINGS = ["config.json", "merges.txt", "preprocessor_config.json", "vocab.json"]
OTHERS = ["README.md", "flax_model.msgpack", "onnx/config.json", "tf_model.h5"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 8, "max_position_embeddings": 8, "bos_token_id": 6, "eos_token_id": 7},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    folder = tmp_path_factory.mktemp("models") / "clip"
    transformers.CLIPModel(config).half().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(clip, tmp_path):
    return shutil.copytree(clip, tmp_path / "clip")


def contents(*names: str) -> dict[str, str]:
    """Files that differ from each other; an index names the first two shards."""
    index = json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    return {name: index if "index" in name else name for name in names}


# ---- Finding -------------------------------------------------------------------------------------------------------


def test_a_folder_is_named_by_its_content(clip, copy, tmp_path):
    first, second = find(clip), find(str(copy))
    assert (first.folder, first.name, first.revision) == (clip, "clip", second.revision)
    (copy / "config.json").write_text((copy / "config.json").read_text() + "\n")
    assert find(copy).revision != first.revision


@pytest.mark.parametrize(
    ("there", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (
            ["model.safetensors.index.json", "1.safetensors", "2.safetensors", "3.safetensors", "pytorch_model.bin"],
            ["1.safetensors", "2.safetensors", "model.safetensors.index.json"],
        ),
    ],
)
def test_only_what_is_read_is_fetched_and_only_once(hub, there, fetched):
    commit = hub.put("owner/name", contents(*SETTINGS, *OTHERS, *there), "v2")
    found = find("owner/name@v2")
    assert hub.fetched() == file_names(found.folder) == sorted([*SETTINGS, *fetched])
    assert (found.name, found.revision, found.folder.name) == ("owner/name", commit, commit)
    hub.refusal = 503, ""
    assert find("owner/name@v2") == found
    (found.folder / fetched[0]).unlink()
    with pytest.raises(CheckpointError, match=r"^owner/name .*cannot be fetched from http://127.0.0.1"):
        find("owner/name@v2")  # an interrupted download is not taken for a whole one


def test_another_kind_of_repository(hub):
    hub.put("owner/name", contents("config.json", "README.md"))
    with pytest.raises(CheckpointError, match=r"^owner/name on the hub has no config.json with model.safetensors or"):
        find("owner/name")


def test_without_network_and_cache(tmp_path, monkeypatch):
    """The hub's own library, told to stay offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"^google/owlvit-large-patch14 .*HF_HUB_OFFLINE forbids to fetch"):
        find("google/owlvit-large-patch14")


def test_names_of_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder /no/such; give a model's folder or a hub name"):
        find("/no/such")
    with pytest.raises(CheckpointError, match=r"is not a model's folder: it needs config.json and model.safetensors"):
        find(tmp_path)


# ---- Loading -------------------------------------------------------------------------------------------------------


def test_a_network_is_loaded_in_full_precision_and_frozen(clip):
    model = load_model("CLIPModel", find(clip), "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    saved = load_file(clip / "model.safetensors")["visual_projection.weight"]
    assert torch.equal(model.visual_projection.weight, saved.float())


def test_a_missing_weight_is_an_error_not_a_random_one(copy):
    path = copy / "model.safetensors"
    weights = load_file(path)
    del weights["visual_projection.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 of the weights of CLIPModel, the first is visual_projection"):
        load_model("CLIPModel", find(copy), "cpu")
    load_model("CLIPModel", find(copy), "cpu", unused=("visual_projection.",))


def test_another_kind_of_model(clip):
    with pytest.raises(CheckpointError, match=r"config.json has model_type 'clip', OwlViTForObject.* needs 'owlvit'"):
        load_model("OwlViTForObjectDetection", find(clip), "cpu")


def test_a_broken_file_is_one_sentence(copy):
    (copy / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(CheckpointError, match=r"clip cannot be read as CLIPModel \(.*\); download it again") as caught:
        load_model("CLIPModel", find(copy), "cpu")
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there(clip):
    with pytest.raises(CheckpointError, match=r"device 'nowhere' cannot be used here .* try 'cpu'"):
        load_model("CLIPModel", find(clip), "nowhere")


def test_an_older_transformers(clip):
    with pytest.raises(ImportError, match=r"^transformers [\d.]+ has no NewModel; pip install -U transformers"):
        load_model("NewModel", find(clip), "cpu")


def test_pillows_processor_is_chosen_where_there_are_two(clip, copy, monkeypatch):
    kind = "CLIPImageProcessor"
    with pytest.raises(CheckpointError, match=f"has no preprocessor_config.json that {kind} can read"):
        load_image_processor(kind, find(clip))
    ours = SimpleNamespace(from_pretrained=lambda folder, local_files_only: ("pillow", folder))
    current = sys.modules["transformers"]  # it replaces itself while it is imported
    monkeypatch.setattr(current, f"{kind}Pil", ours, raising=False)
    assert load_image_processor(kind, find(copy)) == ("pillow", str(copy))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": {"height": 8, "width": 9}, "resample": 2}, "squashed to 8x9 by Pillow's bilinear"),
        (
            {
                "size": {"shortest_edge": 8},
                "crop_size": {"height": 6, "width": 7},
                "resample": 3,
                "do_center_crop": True,
            },
            "shortest edge 8 by Pillow's bicubic, centre crop 6x7",
        ),
    ],
)
def test_a_resize_in_words(settings, words):
    assert pretrained.describe_resize(SimpleNamespace(to_dict=lambda: settings)) == words
