import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors

from tests.helpers import file_names
from weights import hub
from weights.files import CheckpointError
from weights.hub import find_checkpoint
from weights.load import recommended_defaults

COMMIT = "1f35e3dc3350d649f342bb7618fe34ac8fae5c9e"
SETTINGS = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
]
NETWORKS = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
SAFE = [f"{name}.safetensors" for name in NETWORKS]
HALF = [f"{name}.fp16.safetensors" for name in NETWORKS]
PICKLED = [f"{name}.bin" for name in ("text_encoder/pytorch_model", *NETWORKS[1:])]
# The two repositories as they are on the hub
ZEROSCOPE = [
    *SETTINGS,
    *SAFE,
    *PICKLED,
    "README.md",
    "zs2_576w/open_clip_pytorch_model.bin",
    "zs2_576w/open_clip_pytorch_model.safetensors",
    "zs2_576w/text2video_pytorch_model.pth",
]
MODELSCOPE = [*SETTINGS, *SAFE, *HALF, *PICKLED, "unet/diffusion_pytorch_model.fp16.bin", "README.md"]


class Hub:
    """The hub's library with one repository in it, which counts what is asked of it and what is fetched."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.asked: list[str] = []
        self.error: Exception | None = None

    def put(self, *names: str) -> None:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")

    def fetched(self) -> list[str]:
        return file_names(self.cache)

    def names(self) -> list[str]:
        return file_names(self.folder)

    def model_info(self, repo, *, revision=None):
        self.asked.append(f"list {repo} {revision}")
        if self.error:
            raise self.error
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in self.names()])

    def snapshot_download(self, repo, *, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            if not self.cache.exists():
                raise errors.LocalEntryNotFoundError("not in the cache")
            return str(self.cache)
        self.asked.append(f"download {repo} {revision}")
        if self.error:
            raise self.error
        for name in self.names():
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, self.cache / name)
        return str(self.cache)


@pytest.fixture
def library(tmp_path, monkeypatch):
    fake = Hub(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=fake.model_info))
    return fake


def without_init(kind):
    """An error of the hub's library, whose constructors differ from version to version."""
    return type(kind.__name__, (kind,), {"__init__": lambda self: None, "__str__": lambda self: "as\nthe hub says"})()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zeroscope_is_fetched_at_the_commit_with_safetensors(library, tmp_path, dtype):
    library.put(*ZEROSCOPE)
    assert find_checkpoint("zeroscope", dtype) == tmp_path / "cache"
    assert library.fetched() == sorted(SETTINGS + SAFE)
    assert set(library.asked) == {f"{what} cerspense/zeroscope_v2_576w {COMMIT}" for what in ("list", "download")}


def test_the_fp16_variant_is_fetched_for_float16(library):
    library.put(*MODELSCOPE)
    find_checkpoint("ali-vilab/text-to-video-ms-1.7b", torch.float16)
    assert library.fetched() == sorted(SETTINGS + HALF)
    assert set(library.asked) == {f"{what} ali-vilab/text-to-video-ms-1.7b None" for what in ("list", "download")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_and_the_full_weights_for_other_types(library, dtype):
    library.put(*MODELSCOPE)
    find_checkpoint("ali-vilab/text-to-video-ms-1.7b@main", dtype)
    assert library.fetched() == sorted(SETTINGS + SAFE)
    assert library.asked[0] == "list ali-vilab/text-to-video-ms-1.7b main"


def test_pickles_are_fetched_where_there_is_nothing_else(library):
    library.put(*SETTINGS, *PICKLED, "train_free.json", "unet/other.bin")
    find_checkpoint("owner/name")
    assert library.fetched() == sorted([*SETTINGS, *PICKLED, "train_free.json"])


def test_for_settings_no_weights_are_fetched(library):
    library.put(*SETTINGS, *SAFE, "train_free.json")
    (library.folder / "train_free.json").write_text('{"frames": 5}')
    assert recommended_defaults("owner/name").frames == 5
    assert library.fetched() == sorted([*SETTINGS, "train_free.json"])
    library.asked.clear()
    assert recommended_defaults("owner/name").frames == 5 and library.asked == []
    find_checkpoint("owner/name")  # what was fetched is no whole checkpoint
    assert library.fetched() == sorted([*SETTINGS, *SAFE, "train_free.json"])


def test_shards_are_fetched_as_the_index_says(library):
    library.put(*SETTINGS, *SAFE[:1], *SAFE[2:], *(f"unet/{i}-of-3.safetensors" for i in range(4)))
    index = library.folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "1-of-3.safetensors", "b": "3-of-3.safetensors"}}')
    find_checkpoint("owner/name@refs/pr/46")
    unet = [f"unet/{index.name}", "unet/1-of-3.safetensors", "unet/3-of-3.safetensors"]
    assert library.fetched() == sorted([*SETTINGS, SAFE[0], SAFE[2], *unet])
    assert library.asked[0] == "list owner/name refs/pr/46"


def test_a_cached_snapshot_asks_nobody(library):
    library.put(*ZEROSCOPE)
    find_checkpoint("zeroscope")
    library.asked.clear()
    library.error = RuntimeError("no network")
    assert find_checkpoint("zeroscope", torch.float16) == library.cache
    assert library.asked == []


def test_an_interrupted_download_is_completed(library):
    library.put(*ZEROSCOPE)
    find_checkpoint("zeroscope")
    (library.cache / SAFE[1]).unlink()
    find_checkpoint("zeroscope")
    assert library.fetched() == sorted(SETTINGS + SAFE)


def test_a_snapshot_that_lacks_only_what_we_do_not_read_is_whole(library, monkeypatch):
    library.put(*ZEROSCOPE)
    find_checkpoint("zeroscope")
    library.asked.clear()
    incomplete = errors.LocalEntryNotFoundError("README.md is missing")
    incomplete.snapshot_path = str(library.cache)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: (_ for _ in ()).throw(incomplete))
    assert find_checkpoint("zeroscope") == library.cache
    assert library.asked == []


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionError("[Errno -3] Temporary failure in name resolution"), "cannot be fetched from the hub"),
        (without_init(errors.OfflineModeIsEnabled), r"cannot be fetched .*as the hub says\); check the network"),
        (without_init(errors.RepositoryNotFoundError), "neither a folder here nor a public repository on the hub"),
        (without_init(errors.GatedRepoError), "asks for consent to its terms"),
        (without_init(errors.RevisionNotFoundError), "has no revision 'v3'; check what follows the @"),
    ],
)
def test_what_the_hub_refuses(library, error, fault):
    library.put(*ZEROSCOPE)
    library.error = error
    with pytest.raises(CheckpointError, match=f"^owner/name .*{fault}") as caught:
        find_checkpoint("owner/name@v3")
    assert "\n" not in str(caught.value)


def test_a_repository_of_another_kind(library):
    library.put("README.md", "config.json", "model.safetensors")
    with pytest.raises(CheckpointError, match="owner/name on the hub is no checkpoint of this form, it has no unet/"):
        find_checkpoint("owner/name")
    library.put(*SETTINGS, *SAFE[:2])
    with pytest.raises(CheckpointError, match="owner/name has no weights in vae/"):
        find_checkpoint("owner/name")
    assert library.fetched() == []


def test_without_network_and_cache(tmp_path, monkeypatch):
    """The hub's own library, told to stay offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"^cerspense/zeroscope_v2_576w .*cannot be fetched.*check the network"):
        find_checkpoint("zeroscope")


def test_without_network_from_the_cache(tmp_path, monkeypatch):
    """The hub's own library and its own form of cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--cerspense--zeroscope_v2_576w" / "snapshots" / COMMIT
    for name in SETTINGS + SAFE:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text("{}")
    assert find_checkpoint("zeroscope") == snapshot


# Names and folders


def test_tiny_is_the_embedded_one(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("tiny") == Path(hub.__file__).parent / "tiny"
    assert find_checkpoint("./tiny") == find_checkpoint(Path("tiny")) == Path("tiny")


def test_a_folder_comes_before_the_hub(library, tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("owner/name") == Path("owner/name")
    assert find_checkpoint("~/owner/name") == tmp_path / "owner" / "name"
    assert library.asked == []


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "./owner/name/sub", "owner/name@", "a b/c", "../x"])
def test_a_folder_that_is_not_there(library, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no folder .*; give a checkpoint's folder, 'tiny'"):
        find_checkpoint(name)
    assert library.asked == []


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("")
    with pytest.raises(CheckpointError, match=r"model.safetensors is a file; give the checkpoint's folder"):
        find_checkpoint(path)


def test_a_home_folder_of_nobody_is_no_folder():
    with pytest.raises(CheckpointError, match="there is no folder ~nobody-of-this-name/x"):
        find_checkpoint("~nobody-of-this-name/x")
