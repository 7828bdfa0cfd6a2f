"""The paper's equations as functions of plain tensors, and the trajectory that they hold a video to. Knows no network.

In the order in which data passes:
    trajectory.py             boxes of each subject, frame by frame (the paper's b), from a file (trajectory_file.py)
    attention_masks.py        Section 2.1: boxes and words to M_self and M_cross; kept by grouped_mask.py
    mask_normalization.py     Section 2.2: A_m gets the values of A_u; sorted by fast_sort.py
    temporal_prior.py         Section 2.3, Eq. 1: tau, how alike a subject is from frame to frame
    intrinsic_denoising.py    Section 2.3, Eq. 2: one step of refinement
    trailblazer.py            a baseline of the tables, no part of the method
    control.py, choices.py    what a network is handed, masks or the baseline's edit; what their switches may be
    letters.py                what any text must be
Imports no other room, and `storage.py` alone beside itself.
"""
