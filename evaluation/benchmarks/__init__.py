"""Which videos to make: `tracks` draws random boxes and `prompts` lists words; `items` joins both into a list of items
and keeps it in a file, and `peekaboo` reads one from the files that were released with that method.

May import adaptation (trajectories), the tiny world's scenes and storage; no other folder of evaluation.
"""
