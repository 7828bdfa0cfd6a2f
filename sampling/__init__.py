"""From noise to a video: `sampler` is Algorithm 1, line by line, and `generate` hands it a pipeline's networks.

`settings` holds every switch and the named methods, which `generate` lays over what a checkpoint recommends. A step is
made of `schedule` and `ddim`, of `guidance`, and of `denoise`, the call of the U-Net.

May import adaptation alone: networks are handed in.
"""
