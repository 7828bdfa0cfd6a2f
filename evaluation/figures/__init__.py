"""Pictures: `video` writes and reads frames and draws boxes on them; `compare` puts runs side by side, `masks_picture`
shows which cells see which, `activations` and `distributions` draw the paper's Figures 2 and 3.

May import the rooms below, and no other folder of evaluation.
"""
