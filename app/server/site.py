"""What lies under which address of the page.

GET  (nothing)         the page
GET  state?since=N     all runs that have changed after version N
GET  runs/N/NAME       a file of a finished run, one of FILES
POST start             a run of a drawing: {drawing, resample, method, seed, steps, replace}
POST stop, resume      {run: N}, and replace to resume
POST preview           {on}: whether pictures are made after each step
POST draft             what the page holds, for when it is opened again
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.server.studio import Busy, Run, Studio, place_of
from app.server.web import Refused, Reply, json_reply
from ending import explain

FILES = {
    "video.mp4": "video/mp4",
    "boxes.mp4": "video/mp4",
    "report.html": "text/html; charset=utf-8",
    "trajectory.json": "application/json",
    "run.json": "application/json",
}


@dataclass(frozen=True)
class Site:
    """Answers requests that `web.Server` has let through."""

    studio: Studio
    page: Callable[..., str]  # page(draft=...) is the page as HTML

    def __call__(self, method: str, path: str, given: Mapping[str, Any]) -> Reply:
        """See `web.Answer`."""
        if method == "GET":
            return self._get(path, given)
        try:
            return json_reply(self._post(path, given))
        except Busy:
            return json_reply({"busy": True, "error": "a run is under way"}, 409)
        except (ValueError, OSError) as error:
            sentence = explain(error) or str(error)
            return json_reply({"error": sentence, "about": place_of(sentence)}, 400)

    def _get(self, path: str, query: Mapping[str, Any]) -> Reply:
        if path == "":
            return Reply(self.page(draft=self.studio.draft).encode(), "text/html; charset=utf-8")
        if path == "state":
            since = query.get("since", "0")
            return json_reply(self.studio.told(int(since) if re.fullmatch("[0-9]{1,15}", since, re.ASCII) else 0))
        if found := re.fullmatch(r"runs/([1-9][0-9]{0,8})/([a-z0-9]+\.[a-z0-9]+)", path, re.ASCII):
            return self._file(self._run(int(found[1])), found[2])
        raise Refused(404, "there is nothing under this address")

    def _file(self, run: Run, name: str) -> Reply:
        """A file is found by the run's number and its place in FILES, never by a path that was asked for."""
        if name not in FILES or run.folder is None:
            raise Refused(404, "there is no such file")
        try:
            return Reply((run.folder / name).read_bytes(), FILES[name])
        except OSError:
            raise Refused(404, "the run's folder no longer holds this file") from None

    def _post(self, path: str, given: Mapping[str, Any]) -> dict[str, Any]:
        studio, replace = self.studio, given.get("replace") is True
        if path == "start":
            return {"run": studio.start(given, replace).number}
        if path == "stop":
            studio.stop(self._run(given.get("run")))
        elif path == "resume":
            studio.resume(self._run(given.get("run")), replace)
        elif path == "preview":
            studio.preview = given.get("on") is True
        elif path == "draft":
            studio.draft = dict(given)
        else:
            raise Refused(404, "there is nothing under this address")
        return {}

    def _run(self, number: object) -> Run:
        if (run := self.studio.find(number)) is None:
            raise Refused(404, "there is no such run")
        return run
