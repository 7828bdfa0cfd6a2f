"""What a run's bits depend on beside its settings: weights, device, threads and versions."""

import platform
from importlib import metadata
from typing import Any

import torch

PACKAGES = ("train-free", "torch", "transformers", "tokenizers", "safetensors", "einops", "numpy", "av", "pillow")


def circumstances(pipeline: Any) -> dict[str, Any]:
    """Weights, device, threads and versions, ready for JSON: with the same ones a CPU computes the same bits."""
    weight = next(pipeline.unet.parameters())
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "model": {"name": pipeline.name, "fingerprint": pipeline.fingerprint},
        "device": str(weight.device),
        "device_name": torch.cuda.get_device_name(weight.device) if weight.is_cuda else processor,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """Of Python, this program and what it is built on; None = not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
