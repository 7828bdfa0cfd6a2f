"""What the tiny checkpoint is built of: U-Net, scheduler and text encoder as its files describe them, and the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weights.train_tiny.tokenizer import LENGTH

if TYPE_CHECKING:
    from transformers import CLIPTextConfig, CLIPTokenizer

TEXT_WIDTH = 64  # of what the text encoder hands to the U-Net
UNET = {
    "_class_name": "UNet3DConditionModel",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [32, 64, 64],
    "cross_attention_dim": TEXT_WIDTH,
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


def text_config(vocabulary: CLIPTokenizer) -> CLIPTextConfig:
    """CLIP's text model, two layers of width 64, with the exact gelu as in Zeroscope's."""
    from transformers import CLIPTextConfig  # takes seconds

    return CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=TEXT_WIDTH, intermediate_size=256,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH, hidden_act="gelu",
        projection_dim=64, bos_token_id=vocabulary.bos_token_id, eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )  # fmt: skip
