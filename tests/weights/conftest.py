"""Small random checkpoints in Zeroscope's folder form."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.config import UNetConfig, VAEConfig
from model.unet import UNet3D
from model.vae import AutoencoderKL
from tests.hub import hub  # noqa: F401  (a fixture)
from weights.files import CheckpointError
from weights.text import build_text_model
from weights.train_tiny import tokenizer

LENGTH = 16
UNET = {
    "_class_name": "UNet3DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 4,
    "block_out_channels": [8, 16],
    "cross_attention_dim": 8,
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "downsample_padding": 1,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 8,
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "out_channels": 3,
    "scaling_factor": 0.5,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 8,
    "intermediate_size": 16,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": LENGTH,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "projection_dim": 8,
    "torch_dtype": "float16",
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
SAFE = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


class Checkpoint:
    """A checkpoint folder, to be spoilt in a test."""

    weights = SAFE

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, part: str) -> Path:
        return self.folder / SAFE[part]

    def tensors(self, part: str) -> dict[str, torch.Tensor]:
        return load_file(self.file(part))

    def store(self, part: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, self.file(part), metadata={"format": "pt"})

    def change(self, name: str, **values) -> None:
        """Set keys of a JSON file."""
        path = self.folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values if path.exists() else values))

    def pickle(self, part: str) -> Path:
        """The part's weights as a .bin, with Zeroscope's names."""
        name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
        tensors = self.tensors(part)
        if part == "text_encoder":
            tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
        self.file(part).unlink()
        torch.save(tensors, self.folder / part / name)
        return self.folder / part / name

    def shard(self, part: str, index: str | None = None) -> list[str]:
        """The part's weights in three files with an index."""
        names = sorted(self.tensors(part))
        stem = self.file(part).name.removesuffix(".safetensors")
        files = [f"{stem}-{i + 1:05}-of-00003.safetensors" for i in range(3)]
        place = {name: files[i % 3] for i, name in enumerate(names)}
        for file in files:
            save_file({n: t for n, t in self.tensors(part).items() if place[n] == file}, self.folder / part / file)
        self.file(part).unlink()
        self.change(f"{part}/{index or stem + '.safetensors.index.json'}", metadata={}, weight_map=place)
        return files


def random_weights(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {n: (0.1 * torch.randn(p.shape, generator=g)).half() for n, p in sorted(network.state_dict().items())}


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer.write(folder / "tokenizer")
    checkpoint = Checkpoint(folder)
    checkpoint.change("tokenizer/tokenizer_config.json", model_max_length=LENGTH)
    words = len(json.loads((folder / "tokenizer" / "vocab.json").read_text()))
    text = TEXT | {"vocab_size": words}
    for name, config in (("unet", UNET), ("vae", VAE), ("text_encoder", text)):
        (folder / name).mkdir()
        checkpoint.change(f"{name}/config.json", **config)
    (folder / "scheduler").mkdir()
    checkpoint.change("scheduler/scheduler_config.json", **SCHEDULER)
    checkpoint.change("model_index.json", _class_name="TextToVideoSDPipeline")
    checkpoint.store("unet", random_weights(UNet3D(UNetConfig.from_dict(UNET)), 0))
    checkpoint.store("vae", random_weights(AutoencoderKL(VAEConfig.from_dict(VAE)), 1))
    clip = random_weights(build_text_model(text), 2)
    checkpoint.store("text_encoder", {"text_model." + n.removeprefix("text_model."): t for n, t in clip.items()})
    return folder


@pytest.fixture
def checkpoint(pristine, tmp_path) -> Checkpoint:
    """A copy for one test."""
    shutil.copytree(pristine, tmp_path / "checkpoint")
    return Checkpoint(tmp_path / "checkpoint")


@pytest.fixture
def bomb(tmp_path):
    """Makes the folder tmp_path / "exploded" when it is unpickled."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    return Bomb()


@pytest.fixture
def refusal():
    """refusal(call) is what the CheckpointError says that the call raises: one sentence."""

    def run(call, *arguments) -> str:
        with pytest.raises(CheckpointError) as error:
            call(*arguments)
        assert "\n" not in str(error.value)
        return str(error.value)

    return run
