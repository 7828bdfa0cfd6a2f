"""One run of the command, as `train_free.py` at the top calls it. In the order in which data passes:

`arguments` reads the command line; `job` loads the pipeline and settles boxes, settings and a plan for each video;
`unfinished` keeps a video's steps while it is made, so that it can go on; `running` makes one video; `folder` writes
what came out, `report` a page about it, with curves by `chart`. `draw` is the page on which boxes are drawn, and `page`
what both pages are put together with, from the parts in `pages/`.

May import adaptation, model, sampling and weights, and of evaluation the figures; only train_free.py imports it.
"""
