"""Write a training's results as a folder of Zeroscope's form: `python -m weights.train_tiny.export FROM TO`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model.config import VAEConfig
from model.vae import AutoencoderKL

UNET = {
    "_class_name": "UNet3DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64],
    "cross_attention_dim": 64,
    "down_block_types": ["CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
    "downsample_padding": 1,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 16,
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"],
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
INDEX = {
    "_class_name": "TextToVideoSDPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet3DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def load_vae(folder: Path) -> AutoencoderKL:
    """The trained autoencoder, float32."""
    vae = AutoencoderKL(VAEConfig.from_dict(json.loads((folder / "config.json").read_text())))
    vae.load_state_dict({k: v.float() for k, v in load_file(folder / "diffusion_pytorch_model.safetensors").items()})
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(source: Path, target: Path) -> None:
    """The averaged weights of `source/unet.pt`, with vae/ and tokenizer/ beside it, as float16 files in `target`."""
    snapshot = torch.load(source / "unet.pt", map_location="cpu", weights_only=True)
    parts = {"unet.": {}, "text_encoder.": {}}
    for name, p in snapshot["average"].items():
        prefix = next(part for part in parts if name.startswith(part))
        parts[prefix][name[len(prefix) :]] = p.half().contiguous()
    write_json(target / "unet" / "config.json", UNET)
    write_json(target / "scheduler" / "scheduler_config.json", SCHEDULER)
    write_json(target / "model_index.json", INDEX)
    save_file(parts["unet."], target / "unet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    save_text_encoder(source / "tokenizer", parts["text_encoder."], target / "text_encoder")
    if source != target:
        for part in ("vae", "tokenizer"):
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)


def save_text_encoder(vocabulary: Path, state: dict, target: Path) -> None:
    """config.json as transformers writes it; names begin with `text_model.`, as in Zeroscope's file."""
    from transformers import CLIPTextModel, CLIPTokenizer

    from weights.train_tiny.unet import text_config

    model = CLIPTextModel(text_config(CLIPTokenizer.from_pretrained(vocabulary)))
    model.load_state_dict(state)
    model.config.save_pretrained(target)
    named = {"text_model." + name.removeprefix("text_model."): p.half() for name, p in model.state_dict().items()}
    save_file(named, target / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    export(arguments.source, arguments.target)
