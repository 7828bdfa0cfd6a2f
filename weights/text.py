"""CLIP's text model and tokenizer, built by transformers as a checkpoint's own folders describe them.

transformers is imported where it is needed, because that takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model.config import TextConfig

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")  # those a tokenizer must have


def build_text_model(config: Mapping[str, Any]) -> CLIPTextModel:
    """CLIP's text model from a text_encoder/config.json, on torch's current device; weights are not loaded here."""
    from transformers import CLIPTextConfig, CLIPTextModel

    kind = config.get("model_type", CLIPTextConfig.model_type)
    if kind != CLIPTextConfig.model_type:
        raise ValueError(f"config key 'model_type' is {kind!r}; only {CLIPTextConfig.model_type!r} is supported")
    sizes: dict[str, Any] = asdict(TextConfig.from_dict(config))
    sizes |= {"bos_token_id": 0, "eos_token_id": 0}  # unused; their defaults lie outside a smaller vocabulary
    try:
        model = CLIPTextModel(CLIPTextConfig(**sizes))
    except Exception as error:  # transformers checks values in many places, each with an error of its own
        raise ValueError(
            f"transformers cannot build a CLIPTextModel from it ({type(error).__name__}: {error})"
        ) from error
    for module in model.modules():
        if hasattr(module, "position_ids"):  # not in files, so it must have its values even if the model is on meta
            module.position_ids = torch.arange(model.config.max_position_embeddings, device="cpu")[None]
    return model


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from a tokenizer/ folder, with the pad token that the folder says. Asks no network."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
        ids = {name: getattr(tokenizer, f"{name}_id") for name in SPECIAL}
    except Exception as error:
        raise ValueError(
            f"transformers cannot read a CLIPTokenizer from it ({type(error).__name__}: {error})"
        ) from error
    for name, number in ids.items():
        if number is None:
            raise ValueError(f"the tokenizer has no {name}; tokenizer_config.json must name one")
    limit = tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 3:
        raise ValueError(f"model_max_length must be a number of at least 3, for start, a word and end, got {limit!r}")
    return tokenizer
