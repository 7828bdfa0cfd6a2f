"""The frozen text-to-video model, written from scratch; its weights are found and loaded elsewhere.

In the order in which data passes:
    config.py            sizes, from a checkpoint's own config.json
    text.py              the prompt to L vectors, and which of its tokens are a subject's
    unet.py              the 3-D U-Net, out of layers.py (convolutions) and transformers.py
    transformers.py      where a control's masks reach an attention, in space and in time
    attention.py         Sections 2.1 and 2.2: A_u, A_m and the matched output; grouped_attention.py needs no N x N mask
    vae.py               latents to pixels and back
May import adaptation.
"""
