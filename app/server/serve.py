"""From the command line to a page that is open, and the end of it."""

import sys
import threading
import webbrowser
from functools import partial
from pathlib import Path

from app.arguments import Request
from app.draw import draw_page, page_options
from app.folder import check_output
from app.job import load_checkpoint, read_trajectory
from app.server.site import Site
from app.server.studio import Studio
from app.server.web import Server
from app.server.work import work


def serve(request: Request) -> None:
    """Load the checkpoint once, open the page, and make what is asked for there until Ctrl-C.

    --out is the folder that the runs' folders go to.
    """
    check_output(request.out, several=True)
    read_trajectory(request, request.frames)  # a fault is told before weights are loaded
    server = Server(request.port or 0)
    try:
        pipeline, seconds = load_checkpoint(request)
        studio = Studio(request, pipeline, seconds, request.out or Path("outputs"))

        page = partial(draw_page, **page_options(request, pipeline.defaults), served=True)
        page()  # refuses a size that cannot be drawn
        server.answer = Site(studio, page)
        listening = threading.Thread(target=server.serve_forever, daemon=True)
        listening.start()
        print(server.address, flush=True)
        print("the page is served as long as this runs; Ctrl-C ends it", file=sys.stderr)
        if not request.no_browser:
            webbrowser.open(server.address)
        try:
            work(studio)
        finally:
            server.shutdown()
    finally:
        server.server_close()
