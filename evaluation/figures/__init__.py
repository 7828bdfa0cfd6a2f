"""Pictures: `video` writes and reads frames and draws boxes on them; `compare` puts runs side by side, `masks_picture`
shows which cells see which, `activations` draws the paper's Figure 2.

May import the rooms below, and no other folder of evaluation.
"""
