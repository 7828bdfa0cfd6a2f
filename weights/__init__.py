"""From a name to a checkpoint in memory. In the order in which data passes:

`hub` finds the folder, or has it fetched by `download`; `files` says which files of it count and opens them; `text`
builds the text model and reads the tokenizer; `fill` holds tensors against a network's and moves them in; `load` does
all of it, from a name to a pipeline; `memory` says whether a run of that pipeline fits into a GPU, `savings` what would
make it fit, `circumstances` what its bits depend on. `convert` rewrites pickled weights as safetensors. `tiny/` is the
embedded checkpoint, `train_tiny/` made it.

May import model, sampling and adaptation; app and evaluation import it.
"""
