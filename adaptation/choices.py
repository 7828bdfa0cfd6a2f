"""What the switches of masks and of Mask Normalization may be. Without torch, so that a command has it at once."""

BLOCKS = ("encoder", "mid", "decoder")
# What "one distribution" spans: dimensions of an attention output (..., tokens, channels).
AXES = {"channel": (-2,), "joint": (-2, -1)}
MASK_CHOICES = {
    "where": (*BLOCKS, "temporal"),
    "attention": ("self", "cross"),
    "normalize_in": ("self", "cross"),
    "grid": ("stride", "cover"),
    "start_token": ("hidden", "background"),
    "axis": tuple(AXES),
    "gradient": ("straight-through", "exact"),
}
