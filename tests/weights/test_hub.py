"""Names, folders, and what the hub's own client fetches from a hub on this machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

import weights.hub
from tests.helpers import file_names
from tests.hub import serve
from weights.files import CheckpointError
from weights.hub import find_checkpoint
from weights.load import recommended_defaults

ROOT = Path(__file__).parents[2]
REPO = "cerspense/zeroscope_v2_576w"
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
UNET, VAE = SAFE[1:]
# The repository as it is on the hub: its main branch, and a pull request's commit on top of it
MAIN = [
    *SETTINGS,
    *PICKLED,
    "README.md",
    "zs2_576w/open_clip_pytorch_model.bin",
    "zs2_576w/text2video_pytorch_model.pth",
]
PULL_REQUEST = [*MAIN, *SAFE, "zs2_576w/open_clip_pytorch_model.safetensors"]


def contents(names, size=10_000) -> dict[str, bytes]:
    """Files that differ from each other, the weights of `size` bytes."""
    return {
        name: name.encode() * (size // len(name) if "." + name.split(".")[-1] in (".bin", ".safetensors") else 1)
        for name in names
    }


@pytest.fixture
def zeroscope(hub):
    """The hub with Zeroscope on it, as there; its weights have 10 kB each."""
    hub.put(REPO, contents(MAIN))
    hub.put(REPO, contents(PULL_REQUEST), "refs/pr/46", COMMIT)
    return hub


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache" / "models--cerspense--zeroscope_v2_576w"


def whole(folder: Path, names=(*SETTINGS, *SAFE)) -> bool:
    """Whether these files are in a snapshot and no others, each as on the hub."""
    expected = contents(names)
    return {name: (folder / name).read_bytes() for name in file_names(folder)} == expected


def refused(*arguments) -> str:
    """The one sentence of a refusal."""
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- Which files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zeroscope_is_fetched_at_the_commit_with_safetensors(zeroscope, cache, dtype):
    folder = find_checkpoint("zeroscope", dtype)
    assert folder == cache / "snapshots" / COMMIT
    assert whole(folder)
    assert zeroscope.fetched() == sorted(SETTINGS + SAFE)
    assert Counter(zeroscope.asked)[f"GET list {REPO} {COMMIT}"] == 1


def test_the_same_by_its_pull_request(zeroscope, cache):
    assert whole(find_checkpoint(f"{REPO}@refs/pr/46"))
    assert (cache / "refs" / "refs" / "pr" / "46").read_text() == COMMIT


def test_pickles_where_there_is_nothing_else(zeroscope):
    assert whole(find_checkpoint(REPO), [*SETTINGS, *PICKLED])
    assert not any("zs2_576w" in name or "README" in name for name in zeroscope.fetched())


@pytest.mark.parametrize(
    ("dtype", "weights"), [(torch.float16, HALF), (torch.float32, SAFE), (torch.bfloat16, SAFE), (torch.float64, SAFE)]
)
def test_the_fp16_variant_is_fetched_for_float16_alone(hub, dtype, weights):
    hub.put("owner/name", contents([*SETTINGS, *SAFE, *HALF, *PICKLED, "unet/diffusion_pytorch_model.fp16.bin"]))
    assert whole(find_checkpoint("owner/name", dtype), [*SETTINGS, *weights])


def test_for_settings_no_weights_are_fetched(hub):
    hub.put("owner/name", contents([*SETTINGS, *SAFE]) | {"train_free.json": '{"frames": 5}'})
    assert recommended_defaults("owner/name").frames == 5
    assert hub.fetched() == sorted([*SETTINGS, "train_free.json"])
    hub.asked.clear()
    assert recommended_defaults("owner/name").frames == 5 and hub.asked == []
    find_checkpoint("owner/name")  # what was fetched is no whole checkpoint
    assert hub.fetched() == sorted(SAFE)


def test_shards_are_fetched_as_the_index_says(hub):
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    files = contents([*SETTINGS, SAFE[0], SAFE[2], *(f"unet/{i}-of-3.safetensors" for i in range(4))])
    files[index] = b'{"weight_map": {"a": "1-of-3.safetensors", "b": "3-of-3.safetensors"}}'
    hub.put("owner/name", files, "refs/pr/46")
    find_checkpoint("owner/name@refs/pr/46")
    unet = [index, "unet/1-of-3.safetensors", "unet/3-of-3.safetensors"]
    assert hub.fetched() == sorted([*SETTINGS, SAFE[0], SAFE[2], *unet])
    del hub.repositories["owner/name"].commits[hub.put("owner/name", files, "v2")]["unet/1-of-3.safetensors"]
    assert refused("owner/name@v2").startswith("owner/name on the hub lacks unet/1-of-3.safetensors, which its index")


# ---- What is said before -------------------------------------------------------------------------------------------


def test_how_much_will_be_fetched_is_said_before_it_begins(zeroscope, cache, capfd):
    find_checkpoint("zeroscope")
    size = sum(map(len, contents([*SETTINGS, *SAFE]).values()))
    said = capfd.readouterr().err.splitlines()[0]
    assert said == f"fetching {REPO}: 12 files of together {size / 1000:.3g} kB from {zeroscope.endpoint} to {cache}"
    find_checkpoint("zeroscope")
    assert capfd.readouterr().err == ""


def test_where_there_is_no_room_nothing_is_fetched(zeroscope, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=29_000))
    said = refused("zeroscope")
    assert said.startswith(
        f"{REPO} needs 30.2 kB in {cache}, where 29 kB are free; make room, or set HF_HOME to a folder"
    )
    assert zeroscope.fetched() == []


# ---- Broken off, wrong, missing ------------------------------------------------------------------------------------


def test_a_broken_download_goes_on_where_it_stopped(zeroscope, cache, capfd):
    zeroscope.breaks[VAE] = 4_500
    said = refused("zeroscope")
    assert said.startswith(
        f"{REPO} is not a folder, not whole in the cache, and cannot be fetched from {zeroscope.endpoint}"
    )
    assert "503 Service Unavailable" in said and "what has arrived is kept: check the network and start again" in said
    assert not (cache / "snapshots" / COMMIT / VAE).exists()

    zeroscope.breaks.clear()
    zeroscope.asked.clear()
    capfd.readouterr()
    assert whole(find_checkpoint("zeroscope"))
    sent = [line for line in zeroscope.asked if UNET in line or VAE in line]
    assert sent == [f"GET {VAE} from 4000"]  # here in thousands; the U-Net had come before
    assert ", 14 kB of them here already, from" in capfd.readouterr().err
    assert not list(cache.rglob("*.part"))


def test_and_goes_on_by_itself_where_only_the_connection_broke(zeroscope, monkeypatch):
    """The client tries again by itself when a connection is lost, from the byte that it has."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: zeroscope.breaks.clear())
    zeroscope.breaks[UNET] = 4_500
    assert whole(find_checkpoint("zeroscope"))
    assert [line for line in zeroscope.asked if UNET in line] == [f"GET {UNET}", f"GET {UNET} from 4000"]


@pytest.mark.parametrize(
    "sent", [contents(PULL_REQUEST)[UNET][:-1], contents(PULL_REQUEST)[UNET] + b"x", b"\0" * 10_000]
)
def test_a_mirror_that_sends_something_else(zeroscope, cache, sent):
    true = contents(PULL_REQUEST)[UNET]
    assert len(true) == 10_000
    zeroscope.sent[UNET] = sent
    listed = f"{len(true)} bytes with SHA-256 {hashlib.sha256(true).hexdigest()[:12]}..."
    assert refused("zeroscope") == (
        f"{UNET} of {REPO} arrived as {len(sent)} bytes, which are not the {listed} that the hub lists; "
        "start again, or name another mirror in HF_ENDPOINT"
    )
    assert not (cache / "snapshots" / COMMIT / UNET).exists()
    zeroscope.sent.clear()
    assert whole(find_checkpoint("zeroscope"))  # nothing wrong was kept


def test_a_small_file_of_another_size(zeroscope):
    zeroscope.sent["vae/config.json"] = b"{"
    assert refused("zeroscope").startswith(f"vae/config.json of {REPO} did not arrive with the 15 bytes")
    zeroscope.sent.clear()
    assert whole(find_checkpoint("zeroscope"))


@pytest.mark.parametrize("name", [UNET, "tokenizer/vocab.json"])
def test_what_was_cut_short_in_the_cache_is_fetched_again(zeroscope, name, monkeypatch):
    folder = find_checkpoint("zeroscope")
    with (folder / name).open("r+b") as file:
        file.truncate(5)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "not whole in the cache" in refused("zeroscope")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    zeroscope.asked.clear()
    assert whole(find_checkpoint("zeroscope"))
    assert zeroscope.fetched() == [name]


def test_what_was_removed_from_the_cache_is_fetched_again(zeroscope):
    folder = find_checkpoint("zeroscope")
    (folder / UNET).resolve().unlink()
    zeroscope.asked.clear()
    assert whole(find_checkpoint("zeroscope"))
    assert zeroscope.fetched() == [UNET]


def test_several_at_once_fetch_each_file_once(zeroscope):
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(find_checkpoint, ["zeroscope"] * 3))
    assert len(set(folders)) == 1 and whole(folders[0])
    assert all(Counter(zeroscope.asked)[f"GET {name}"] == 1 for name in SAFE)


# ---- Without network -----------------------------------------------------------------------------------------------


def test_a_cached_snapshot_asks_nobody(zeroscope):
    folder = find_checkpoint("zeroscope")
    zeroscope.asked.clear()
    zeroscope.refusal = 503, ""
    assert find_checkpoint("zeroscope", torch.float16) == folder
    assert zeroscope.asked == []


def test_a_cache_without_the_client_s_list_is_taken_as_it_is(zeroscope, cache):
    """Older clients keep no list of sizes."""
    folder = find_checkpoint("zeroscope")
    moved = cache.with_name("moved")
    shutil.copytree(cache / "snapshots", moved / "snapshots")
    shutil.rmtree(cache)
    moved.rename(cache)
    zeroscope.asked.clear()
    assert find_checkpoint("zeroscope") == folder and whole(folder) and zeroscope.asked == []


def test_offline_with_nothing_in_the_cache(zeroscope, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused("zeroscope") == (
        f"{REPO} is not a folder and not whole in the cache {tmp_path / 'cache'}, and HF_HUB_OFFLINE forbids to fetch "
        "it; unset it, or set HF_HOME to where the repository was fetched"
    )
    assert zeroscope.asked == []


def test_the_command_with_a_mirror_and_then_without_network(pristine, tmp_path):
    """As a user runs it, with variables of the environment; a process that could reach nothing but 127.0.0.1."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(
        "import socket\n"
        "connect = socket.socket.connect\n"
        "def stay(self, address):\n"
        "    assert address[0] == '127.0.0.1', address\n"
        "    return connect(self, address)\n"
        "socket.socket.connect = stay\n"
    )
    places = {"HF_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join([str(guard), str(ROOT)])}
    small = ["--prompt", "ball", "--device", "cpu", "--steps", "2"]
    small += ["--frames", "2", "--height", "16", "--width", "16"]

    def run(out: str, **more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "train_free.py"), "--model", "zeroscope", *small, "--out", out]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | places | more
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    with serve() as hub:
        hub.put_folder(REPO, pristine, "refs/pr/46", COMMIT)
        first = run("first", HF_ENDPOINT=hub.endpoint)
        assert first.returncode == 0, first.stderr
        assert f"from {hub.endpoint} to {tmp_path / 'home' / 'hub'}" in first.stderr
        assert hub.fetched() == file_names(pristine)
        gone = hub.endpoint
    second = run("second", HF_ENDPOINT=gone, HF_HUB_OFFLINE="1")
    assert second.returncode == 0 and "fetching" not in second.stderr, second.stderr
    one, other = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("first", "second"))
    assert one["records"] == other["records"]


# ---- What the hub refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "fault"),
    [
        (500, "", r"cannot be fetched from http://127.0.0.1:\d+ \(HfHubHTTPError"),
        (401, "RepoNotFound", "neither a folder here nor a public repository on the hub"),
        (403, "GatedRepo", "asks for consent to its terms"),
        (404, "RevisionNotFound", "has no revision 'v3'; check what follows the @"),
    ],
)
def test_what_the_hub_refuses(hub, status, code, fault):
    hub.refusal = status, code
    with pytest.raises(CheckpointError, match=f"^owner/name .*{fault}") as caught:
        find_checkpoint("owner/name@v3")
    assert "\n" not in str(caught.value)


def test_where_no_hub_answers(hub, monkeypatch):
    with serve() as other:
        gone = other.endpoint
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    assert f"cannot be fetched from {gone} (ConnectError" in refused("owner/name")


def test_a_repository_of_another_kind(hub):
    hub.put("owner/name", contents(["README.md", "config.json", "model.safetensors"]))
    assert refused("owner/name").startswith("owner/name on the hub is no checkpoint of this form, it has no unet/")
    hub.put("owner/other", contents([*SETTINGS, *SAFE[:2]]))
    assert refused("owner/other").startswith("owner/other has no weights in vae/")
    assert hub.fetched() == []


# ---- Names and folders ---------------------------------------------------------------------------------------------


def test_tiny_is_the_embedded_one(tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("tiny") == Path(weights.hub.__file__).parent / "tiny"
    assert find_checkpoint("./tiny") == find_checkpoint(Path("tiny")) == Path("tiny")


def test_a_folder_comes_before_the_hub(hub, tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("owner/name") == Path("owner/name")
    assert find_checkpoint("~/owner/name") == tmp_path / "owner" / "name"
    assert hub.asked == []


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "./owner/name/sub", "owner/name@", "a b/c", "../x"])
def test_a_folder_that_is_not_there(hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no folder .*; give a checkpoint's folder, 'tiny'"):
        find_checkpoint(name)
    assert hub.asked == []


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("")
    with pytest.raises(CheckpointError, match=r"model.safetensors is a file; give the checkpoint's folder"):
        find_checkpoint(path)


def test_a_home_folder_of_nobody_is_no_folder():
    with pytest.raises(CheckpointError, match="there is no folder ~nobody-of-this-name/x"):
        find_checkpoint("~nobody-of-this-name/x")
