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
from weights.train_tiny.architecture import INDEX, SCHEDULER, UNET, text_config


def load_vae(folder: Path) -> AutoencoderKL:
    """The trained autoencoder, float32."""
    vae = AutoencoderKL(VAEConfig.from_dict(json.loads((folder / "config.json").read_text())))
    vae.load_state_dict({k: v.float() for k, v in load_file(folder / "diffusion_pytorch_model.safetensors").items()})
    vae.eval().requires_grad_(False)
    return vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's own types lack this form


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def export(source: Path, target: Path) -> None:
    """The averaged weights of `source/unet.pt`, with vae/ and tokenizer/ beside it, as float16 files in `target`."""
    snapshot = torch.load(source / "unet.pt", map_location="cpu", weights_only=True)
    parts: dict[str, dict[str, torch.Tensor]] = {"unet.": {}, "text_encoder.": {}}
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
