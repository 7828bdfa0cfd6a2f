"""The page that makes videos: a server on this machine alone, for `train_free.py --draw`.

serve.py    from the command line to a page that is open, and the end of it
web.py      HTTP: who may ask, how much, and how long; it knows nothing of videos
site.py     what lies under which address
studio.py   the runs of a session, and the one place where the server's threads meet
work.py     one run after the other, by the code of the command, in the main thread
preview.py  what a run looks like so far, at a bounded cost
"""
