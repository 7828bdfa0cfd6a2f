"""From what was seen to numbers: `tracking` judges a subject's boxes in one video, `distribution` compares two sets of
features (FID, KID, JEDi), and `intervals` say how far a number over some videos can be trusted.

Imports NumPy, torch and SciPy alone.
"""
