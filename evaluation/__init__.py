"""The paper's tables and figures: which videos to make, what they show, and the numbers of it.

Commands lie here and may use all: `__main__` makes Tables 1 and 2, `ablate` one table of every part or of a sweep,
`variance` Figure 2 over many tracks, with the options of `options`; `asked` turns arguments into things. Below them, in
the order in which data passes: `benchmarks` lists the videos, `tables` makes them, `extractors` see what they show,
`metrics` turn that into numbers, `tables` again writes these down, and `figures` draws. `walkthrough` shows one
denoising step. Nothing here imports app. Figures and metrics import no other folder, so that a run
of the script can draw.
"""
