"""The server by plain HTTP: who is let in, how much and how long it listens, which files it gives, what runs leave."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import train_free
from app.arguments import parse_request
from app.draw import draw_page, page_options
from app.server import web
from app.server.site import FILES, Site
from app.server.studio import Studio
from app.server.web import Server
from app.server.work import work
from weights import load

BALL = {"prompt": "a red ball over the grass", "subject": "red ball", "keyframes": {"0": [0, 0, 0.5, 0.5], "3": None}}
ASKED = {"drawing": json.dumps(BALL), "method": "full", "seed": "3", "steps": "2"}
SECONDS = 60  # for what takes less than one on a machine that has nothing else to do


class Visitor:
    """What asks the server, and may pretend to be someone else."""

    def __init__(self, server: Server, gate: threading.Event) -> None:
        self.port, self.token, self.gate = server.server_port, server.token, gate

    def ask(self, path, body=None, method=None, token=None, **headers):
        """(status, content); the body is JSON unless it is bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        sent = {"Content-Type": "application/json"} if content is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        method = method or ("GET" if body is None else "POST")
        connection.request(method, f"/{self.token if token is None else token}/{path}", content, sent)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def json(self, path, body=None, **headers):
        status, content = self.ask(path, body, **headers)
        return status, json.loads(content)

    def runs(self):
        return self.json("state")[1]["runs"]

    def wait(self, status, number=1):
        """Until the run has this status; returns what is told of it."""
        end = time.monotonic() + SECONDS
        while (run := self.runs()[number - 1])["status"] != status:
            assert time.monotonic() < end, run
            time.sleep(0.02)
        return run

    def raw(self, content: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        connection.sendall(content)
        return connection


@pytest.fixture
def visitor(pipeline, tmp_path, monkeypatch):
    """A server in an empty working folder, whose runs stand still where the gate is closed."""
    monkeypatch.chdir(tmp_path)
    gate, over = threading.Event(), threading.Event()
    gate.set()

    def before(*_):
        gate.wait(SECONDS)
        if over.is_set():
            raise KeyboardInterrupt

    def until_interrupted():
        with suppress(KeyboardInterrupt):
            work(studio)

    pipeline.unet.register_forward_pre_hook(before)
    request = parse_request(["--draw"])
    studio, server = Studio(request, pipeline, 0.5, Path("outputs")), Server()
    server.answer = Site(studio, partial(draw_page, **page_options(request, pipeline.defaults), served=True))
    threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()
    worker = threading.Thread(target=until_interrupted, daemon=True)
    worker.start()
    yield Visitor(server, gate)
    over.set()
    gate.set()
    server.shutdown()
    server.server_close()
    studio.start(ASKED, replace=True)  # in whose first step Ctrl-C comes
    worker.join(SECONDS)
    assert not worker.is_alive()


# ---- A run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_what_the_command_makes(visitor, pipeline, monkeypatch):
    monkeypatch.setattr(load, "load_pipeline", lambda *_: pipeline)
    assert visitor.json("start", ASKED) == (200, {"run": 1})
    ours = Path(visitor.wait("done")["folder"])
    command = ["--boxes", "outputs/drawn.json", "--method", "full", "--seed", "3", "--steps", "2", "--device", "cpu"]
    assert train_free.main([*command, "--out", "theirs"]) == 0

    def told(folder):
        run = json.loads((folder / "run.json").read_text())
        return {name: run[name] for name in run.keys() - {"seconds", "arguments", "peak_bytes"}}

    names = {str(path.relative_to(ours)) for path in ours.rglob("*")}
    assert names == {str(path.relative_to("theirs")) for path in Path("theirs").rglob("*")}
    assert told(ours) == told(Path("theirs")) and told(ours)["seed"] == 3
    for name in ("trajectory.json", "frames.png", "video.mp4", "boxes.mp4", "frames/0003.png"):
        assert (ours / name).read_bytes() == Path("theirs", name).read_bytes()
    assert [path.name for path in Path("outputs").glob("*.unfinished")] == []


def test_the_state_tells_what_has_changed_and_a_file_is_found_by_its_run(visitor):
    visitor.json("start", ASKED)
    run = visitor.wait("done")
    assert (run["step"], run["steps"], run["frames"], run["method"]) == (2, 2, 4, "full")
    assert run["boxes"] == [[[0, 0, 0.5, 0.5]] * 3 + [None]]
    assert [picture["step"] in (1, 2) for picture in run["pictures"]].count(True) >= 1
    assert all(picture["source"].startswith("data:image/png;base64,") for picture in run["pictures"])
    assert any("Temporal consistency" in chart for chart in run["charts"])
    version = visitor.json("state")[1]["version"]
    assert visitor.json(f"state?since={version}")[1]["runs"] == []
    for name in FILES:
        status, content = visitor.ask(f"runs/1/{name}")
        assert (status, content) == (200, Path(run["folder"], name).read_bytes())


def test_without_preview_the_bits_are_the_same(visitor):
    visitor.json("start", ASKED)
    first = visitor.wait("done")
    assert visitor.json("preview", {"on": False})[0] == 200
    visitor.json("start", ASKED)
    second = visitor.wait("done", 2)
    assert first["pictures"] != [] and second["pictures"] == []
    assert first["group"] == second["group"]
    one, two = (Path(run["folder"]) for run in (first, second))
    assert (one / "frames.png").read_bytes() == (two / "frames.png").read_bytes()


def test_a_run_is_stopped_kept_and_resumed_to_the_same_bits(visitor):
    visitor.json("start", ASKED)
    whole = Path(visitor.wait("done")["folder"])
    visitor.gate.clear()
    assert visitor.json("start", ASKED) == (200, {"run": 2})
    visitor.wait("running", 2)
    visitor.json("stop", {"run": 2})
    visitor.gate.set()
    run = visitor.wait("stopped", 2)
    assert run["step"] == 1 and run["resumable"] and "--resume" in run["sentence"]
    assert Path(run["folder"]).name.endswith(".unfinished") and (Path(run["folder"]) / "state.safetensors").is_file()
    assert visitor.ask("runs/2/run.json")[0] == 404
    assert visitor.json("resume", {"run": 2})[0] == 200
    resumed = Path(visitor.wait("done", 2)["folder"])
    assert (resumed / "frames.png").read_bytes() == (whole / "frames.png").read_bytes()
    assert json.loads((resumed / "run.json").read_text())["resumed"][0]["step"] == 1
    assert visitor.json("resume", {"run": 2})[0] == 400


def test_one_run_at_a_time_and_one_that_waits(visitor):
    visitor.gate.clear()
    visitor.json("start", ASKED)
    visitor.wait("running")
    status, answer = visitor.json("start", ASKED)
    assert status == 409 and answer["busy"]
    assert len(visitor.runs()) == 1
    for seed in ("4", "5"):  # the later one takes the earlier one's place
        assert visitor.json("start", {**ASKED, "seed": seed, "replace": True})[0] == 200
    visitor.gate.set()
    assert visitor.wait("done", 3)["seed"] == "5"
    assert [run["status"] for run in visitor.runs()] == ["stopped", "stopped", "done"]
    assert [run["resumable"] for run in visitor.runs()] == [True, False, False]


@pytest.mark.parametrize(
    ("asked", "about", "sentence"),
    [
        ({"seed": "-1"}, "seed", "argument --seed: must be from 0 to 18446744073709551615, got -1"),
        ({"seed": "1 2"}, "seed", "argument --seed: invalid int value: '1 2'"),
        ({"seed": "--resume"}, "seed", "invalid int value: '--resume'"),
        ({"steps": "many"}, "steps", "argument --steps: invalid int value: 'many'"),
        ({"steps": "0"}, "steps", "steps must be"),
        ({"method": "magic"}, "method", "argument --method: invalid choice: 'magic'"),
        ({"drawing": "{"}, "", "drawn.json: the file is not JSON"),
        ({"drawing": "\ud800"}, "", "drawn.json: the file is not UTF-8"),
        ({"seed": 3}, "", "must be texts"),
    ],
)
def test_a_slip_gets_the_commands_sentence_at_its_place(visitor, asked, about, sentence):
    status, answer = visitor.json("start", ASKED | asked)
    assert (status, answer["about"]) == (400, about)
    assert sentence in answer["error"]
    assert visitor.runs() == []


def test_what_only_the_checkpoint_can_refuse_is_told_of_the_run(visitor):
    visitor.json("start", {**ASKED, "steps": "1001"})
    run = visitor.wait("refused")
    assert run["about"] == "steps" and "1001" in run["sentence"] and not run["resumable"]
    visitor.json("start", ASKED)  # and the next one goes well
    visitor.wait("done", 2)
    assert len([path for path in Path("outputs").iterdir() if path.is_dir()]) == 1


def test_what_is_drawn_is_there_when_the_page_is_opened_again(visitor):
    status, page = visitor.ask("")
    assert status == 200 and b"a red ball moving over the ocean" in page
    drawing = {"frames": 4, "prompt": "a </script> cat", "subjects": [{"words": "cat", "keyframes": {}}]}
    assert visitor.json("draft", {"drawing": drawing})[0] == 200
    assert rb'"a \u003c/script> cat"' in visitor.ask("")[1]


# ---- Who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "state", "runs/1/video.mp4"])
@pytest.mark.parametrize("token", ["", "x", "../x", "state"])
def test_without_the_token_there_is_nothing(visitor, token, path):
    assert visitor.ask(path, token=token)[0] == 403
    assert visitor.ask("start", ASKED, token=token)[0] == 403
    assert visitor.ask(path, token=visitor.token[:-1])[0] == 403
    assert visitor.runs() == []


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_host_is_refused_so_that_rebinding_a_name_reads_nothing(visitor, host):
    assert visitor.ask("state", Host=host.format(port=visitor.port))[0] == 403
    assert visitor.ask("state", Host=f"localhost:{visitor.port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}"])
def test_another_page_is_refused(visitor, origin):
    origin = origin.format(port=visitor.port)
    assert visitor.ask("start", ASKED, Origin=origin)[0] == 403
    assert visitor.ask("state", Origin=origin)[0] == 403
    assert visitor.ask("state", Origin=f"http://127.0.0.1:{visitor.port}")[0] == 200
    assert visitor.runs() == []


def test_a_form_of_another_page_starts_nothing(visitor):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert visitor.ask("start", ASKED, Content_Type=kind)[0] == 415
    assert visitor.ask("start", method="GET")[0] == 404
    assert visitor.ask("start", ASKED, method="PUT")[0] == 501
    assert visitor.runs() == []


def test_it_listens_on_this_machine_alone(visitor):
    with socket.socket() as probe:  # another address of this machine
        probe.settimeout(5)
        assert probe.connect_ex(("127.0.0.2", visitor.port)) != 0


@pytest.mark.parametrize(
    "path",
    [
        "runs/1/../../../../etc/passwd",
        "runs/1/..%2f..%2fbegun.json",
        "runs/1/%2e%2e/drawn.json",
        "runs/1//etc/passwd",
        "runs/1/frames/0000.png",
        "runs/1/state.safetensors",
        "runs/1/begun.json",
        "runs/1/video.mp4/",
        "runs/01/video.mp4",
        "runs/-1/video.mp4",
        "runs/0/video.mp4",
        "runs/2/video.mp4",
        "runs/999999999/video.mp4",
        "runs/1e0/video.mp4",
        "runs/١/video.mp4",
        "../drawn.json",
        "outputs/drawn.json",
        "http://127.0.0.1/",
    ],
)
def test_no_path_leads_out_of_the_files_of_a_run(visitor, path):
    visitor.json("start", {**ASKED, "steps": "1"})
    visitor.wait("done")
    with visitor.raw(
        f"GET /{visitor.token}/{path} HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n\r\n".encode()
    ) as ours:
        answer = http.client.HTTPResponse(ours)
        answer.begin()
        assert answer.status == 404


def test_answers_are_for_the_page_alone(visitor):
    connection = http.client.HTTPConnection("127.0.0.1", visitor.port, timeout=SECONDS)
    connection.request("GET", f"/{visitor.token}/state")
    headers = connection.getresponse().headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["Referrer-Policy"] == "no-referrer" and "Access-Control-Allow-Origin" not in headers


# ---- How much, and how long ------------------------------------------------------------------------------------------


def test_a_hundred_megabytes_are_refused_unread(visitor):
    declared = visitor.ask("start", b"", method="POST", Content_Length=str(100 * 2**20))
    assert declared[0] == 413
    start = f"POST /{visitor.token}/start HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\n"
    sent = 0
    with visitor.raw(
        f"{start}Content-Type: application/json\r\nContent-Length: {100 * 2**20}\r\n\r\n".encode()
    ) as ours:
        with suppress(ConnectionError):
            for _ in range(100):
                ours.sendall(b" " * 2**20)
                sent += 1
        assert sent < 100  # the server has hung up long before
    assert visitor.ask("start", b"{}", Content_Length="-1")[0] == 411
    assert visitor.ask("start", b"{}", Content_Length="9" * 5000)[0] == 413
    assert visitor.ask("state")[0] == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_what_is_no_object_is_refused(visitor, body):
    assert visitor.ask("start", body)[0] == 400


@pytest.mark.parametrize(
    "wish", [{}, {"run": 0}, {"run": 2}, {"run": "1"}, {"run": None}, {"run": 1.5}, {"run": 1 << 99}]
)
def test_a_run_that_is_not_there_is_no_run(visitor, wish):
    visitor.json("start", {**ASKED, "steps": "1"})
    visitor.wait("done")
    assert visitor.ask("stop", wish)[0] == 404
    assert visitor.ask("resume", wish)[0] == 404


def test_fifty_at_once_are_answered(visitor):
    visitor.json("start", ASKED)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: visitor.ask("state" if n % 2 else "")[0], range(50)))
    assert answers == [200] * 50
    visitor.wait("done")
    with ThreadPoolExecutor(50) as pool:  # and of fifty that press at once, one is served
        answers = list(pool.map(lambda _: visitor.ask("start", ASKED)[0], range(50)))
    assert answers.count(200) >= 1 and set(answers) <= {200, 409}


def test_connections_that_say_nothing_hold_up_nobody_and_are_ended(visitor, monkeypatch):
    begun = (
        f"POST /{visitor.token}/start HTTP/1.1\r\nHost: 127.0.0.1:{visitor.port}\r\nContent-Type: application/json\r\n"
    )
    kinds = (b"", b"GET", begun.encode(), f"{begun}Content-Length: 1000\r\n\r\n{{".encode())
    half_open = [visitor.raw(kind) for kind in kinds for _ in range(10)]
    assert visitor.ask("state")[0] == 200
    monkeypatch.setattr(web, "PATIENCE", 0)  # as if it had run out for all of them
    for connection in half_open:
        with suppress(ConnectionError):
            while connection.recv(1000):
                pass  # an answer in words, for some; then the end
        connection.close()
    monkeypatch.undo()
    assert visitor.ask("state")[0] == 200


def test_more_connections_than_there_is_room_for_are_closed_at_once(visitor, monkeypatch):
    monkeypatch.setattr(web, "CONNECTIONS", 4)
    held = [visitor.raw() for _ in range(4)]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        visitor.ask("state")
    for connection in held:
        connection.close()
    end = time.monotonic() + SECONDS
    while True:
        try:
            assert visitor.ask("state")[0] == 200
            break
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < end
            time.sleep(0.02)
