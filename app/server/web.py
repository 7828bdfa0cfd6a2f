"""HTTP on this machine alone: who may ask, how much, and how long. What is answered is handed in.

Any web page that a user visits can send requests to 127.0.0.1, and by rebinding its name it can even read the answers.
So each request needs the token that only the address printed in the terminal holds, and a Host and an Origin that are
this server's own. What is asked for has a small bounded size and a bounded time, as have all connections together.
"""

import hmac
import json
import secrets
import socket
import socketserver
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

HOST = "127.0.0.1"
LONGEST_BODY = 2**20  # bytes
CONNECTIONS = 96  # at a time; more are closed at once
SILENCE = 10  # seconds until the next byte
PATIENCE = 30  # seconds for a connection in all
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Refused(Exception):
    """A request that is not answered: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What goes back."""

    content: bytes
    media_type: str = "application/json"
    status: int = 200


# answer(method, path below the token, query or JSON body) -> reply; may raise Refused
Answer = Callable[[str, str, Mapping[str, Any]], Reply]


def json_reply(value: Mapping[str, Any], status: int = 200) -> Reply:
    """An object as JSON."""
    return Reply(json.dumps(value, allow_nan=False).encode(), status=status)


class Server(ThreadingHTTPServer):
    """Listens on a port of 127.0.0.1 from the start, and answers when it has been told how and `serve_forever` runs."""

    daemon_threads = True
    block_on_close = False  # a connection that hangs does not hold up the end
    request_queue_size = 128

    def __init__(self, port: int = 0) -> None:
        """port: 0 = a free one. One that is taken is a ValueError."""
        self.token = secrets.token_urlsafe(32)
        self.answer: Answer = _not_ready
        self.connections: dict[Any, float] = {}  # when each was opened
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            reason = f"port {port} of {HOST} cannot be served ({error.strerror})"
            raise ValueError(f"{reason}; name another with --port, or leave it out") from None

    def server_bind(self) -> None:
        """As a TCP server, without looking up a name for the address as an HTTP server does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def address(self) -> str:
        """Of the page, token and all."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, str]:
        """What a browser on this machine calls it."""
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, unless there are too many already."""
        if len(self.connections) >= CONNECTIONS:
            self.shutdown_request(request)
            return
        self.connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The end of a connection."""
        self.connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: ends connections that take too long, however busy they look."""
        for request, opened in list(self.connections.items()):
            if time.monotonic() - opened > PATIENCE:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # its thread then reads the end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no fault; all else is one of the program, whose traceback is wanted."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request to a connection."""

    server: Server
    timeout = SILENCE
    server_version, sys_version = "train-free", ""

    def do_GET(self) -> None:
        """The address says it all."""
        self._reply(lambda path, query: self.server.answer("GET", path, query))

    def do_POST(self) -> None:
        """The body says what is wanted, in JSON."""
        self._reply(lambda path, _: self.server.answer("POST", path, self._body()))

    def _reply(self, answer: Callable[[str, dict[str, str]], Reply]) -> None:
        try:
            reply = answer(*self._checked())
        except Refused as refused:
            reply = json_reply({"error": str(refused)}, refused.status)
        self.send_response(reply.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.media_type)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content)

    def _checked(self) -> tuple[str, dict[str, str]]:
        """The path below the token and the query, of a request that comes from the page itself."""
        host, origin = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(host) != 1 or host[0].lower() not in self.server.hosts:
            raise Refused(403, "the request is for another host")
        if origin not in ([], *([f"http://{name}"] for name in self.server.hosts)):
            raise Refused(403, "the request is from another page")
        path, _, query = self.path.partition("?")
        start, _, rest = path.removeprefix("/").partition("/")
        if not hmac.compare_digest(start.encode(), self.server.token.encode()) or path != f"/{start}/{rest}":
            raise Refused(403, "the address is not the one that was printed in the terminal")
        return rest, dict(parse_qsl(query, max_num_fields=8))

    def _body(self) -> dict[str, Any]:
        """A JSON object, read only when its size is known to be small."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "the body must be application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "the body must have a Content-Length")
        if len(length) > 12 or int(length) > LONGEST_BODY:
            raise Refused(413, f"the body is larger than {LONGEST_BODY} bytes")
        content = self.rfile.read(int(length))
        if len(content) != int(length):
            raise Refused(400, "the body is shorter than its Content-Length")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body is not a JSON object")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses: in as few words, and without repeating what was sent."""
        self.send_response_only(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """The terminal is for the runs."""


def _not_ready(*_: object) -> Reply:
    raise Refused(503, "the checkpoint is still being loaded")
