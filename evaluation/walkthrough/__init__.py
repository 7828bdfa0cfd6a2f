"""One denoising step of one video, taken apart: `sections` calls the paper's equations one after the other on what
`book` has begun with, and tells and draws (`pictures`) what each is given and makes of it.

May import figures, and all rooms below evaluation.
"""
