"""From what was seen to numbers: `tracking` judges a subject's boxes in one video and says how far a mean over many can
be trusted, `distribution` compares two sets of features (FID, KID, JEDi).

Imports NumPy and torch alone.
"""
