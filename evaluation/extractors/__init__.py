"""What frames show: `protocols` says what a detector, a scorer and features are. `pretrained` finds and loads networks
for `owl_clip` (boxes, CLIP scores), `inception` and `vjepa` (features); `stand_ins` measure the tiny world without any.

May import figures.video (what frames are), weights and storage; no metrics and no tables.
"""
