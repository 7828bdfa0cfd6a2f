"""A Hugging Face hub on 127.0.0.1: the endpoints that its client uses, with repositories that a test fills."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".bin", ".pth")  # what the hub stores in git-lfs, and sends from another host


@dataclass
class Repository:
    """Commits, each with its files, and the revisions that name them."""

    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]  # revision: commit


@dataclass
class FakeHub:
    """What lies on the hub, what it was asked, and its faults."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET unet/config.json", a file's with " from BYTE" where resumed
    breaks: dict[str, int] = field(default_factory=dict)  # file: the connection is cut after so many bytes, then 503
    sent: dict[str, bytes] = field(default_factory=dict)  # file: what is sent in place of what is listed
    refusal: tuple[int, str] | None = None  # status and X-Error-Code of every answer
    endpoint: str = ""
    storage: str = ""

    def put(self, repo: str, files: dict[str, bytes | str], revision: str = "main", commit: str | None = None) -> str:
        """A commit with these files, and a revision that names it; returns the commit."""
        files = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        commit = commit or hashlib.sha1(repr((repo, sorted(files))).encode()).hexdigest()
        repository = self.repositories.setdefault(repo, Repository({}, {}))
        repository.commits[commit] = files
        repository.revisions[revision] = repository.revisions[commit] = commit
        return commit

    def put_folder(self, repo: str, folder: Path, revision: str = "main", commit: str | None = None) -> str:
        """The same with the files of a folder."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.put(repo, files, revision, commit)

    def fetched(self) -> list[str]:
        """The files that were sent, or begun to be, in the order of the alphabet."""
        return sorted({words[1] for line in self.asked if (words := line.split())[0] == "GET"} - {"list", "tree"})


def describe(name: str, data: bytes) -> dict:
    """A file as the hub lists it, in both of its spellings."""
    large = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"type": "file", "path": name, "rfilename": name, "size": len(data), "oid": blob, "blobId": blob}
    return entry | ({"lfs": large | {"oid": large["sha256"]}} if name.endswith(LARGE) else {})


class Handler(BaseHTTPRequestHandler):
    """Answers for the FakeHub that its server belongs to."""

    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub: FakeHub = self.server.hub
        path = unquote(urlsplit(self.path).path).strip("/")
        if hub.refusal:
            return self.answer(hub.refusal[0], headers={"X-Error-Code": hub.refusal[1]})
        if path.startswith("storage/"):
            return self.send_large(path.removeprefix("storage/"))
        kind, _, rest = path.partition("/models/") if path.startswith("api/") else ("file", "", path)
        for repo, repository in hub.repositories.items():
            if rest == repo or rest.startswith(f"{repo}/"):
                return self.route(repo, repository, kind, rest.removeprefix(repo).strip("/"))
        return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def route(self, repo: str, repository: Repository, kind: str, rest: str) -> None:
        """An API call on a repository, or one of its files."""
        verb, _, rest = rest.partition("/")  # resolve/REVISION/FILE, revision/REVISION, tree/REVISION, or nothing
        known = sorted(repository.revisions, key=len, reverse=True)
        revision = next((r for r in known if rest == r or rest.startswith(f"{r}/")), None if verb else "main")
        if revision is None:
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        commit, name = repository.revisions[revision], rest.removeprefix(revision).strip("/")
        files = repository.commits[commit]
        if kind == "api":
            self.server.hub.asked.append(f"{self.command} {'tree' if verb == 'tree' else 'list'} {repo} {revision}")
            listed = [describe(*item) for item in sorted(files.items())]
            answer = listed if verb == "tree" else {"id": repo, "sha": commit, "siblings": listed}
            return self.answer(200, json.dumps(answer))
        if name not in files:
            return self.answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        entry = describe(name, files[name])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            self.server.hub.asked.append(f"{self.command} {name}")
            return self.answer(200, self.server.hub.sent.get(name, files[name]), headers)
        sha256 = entry["lfs"]["sha256"]
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(entry["size"])}
        return self.answer(302, headers=headers | {"Location": f"{self.server.hub.storage}/storage/{sha256}/{name}"})

    def send_large(self, rest: str) -> None:
        """A file, or what follows the byte from which it is wanted; cut off where the test says so."""
        hub: FakeHub = self.server.hub
        sha256, _, name = rest.partition("/")
        contents = (data for r in hub.repositories.values() for files in r.commits.values() for data in files.values())
        data = hub.sent.get(name) or next(d for d in contents if hashlib.sha256(d).hexdigest() == sha256)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        hub.asked.append(f"{self.command} {name}" + (f" from {start}" if start else ""))
        if name in hub.breaks and start:
            return self.answer(503)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.answer(206 if start else 200, data[start:], headers, cut=hub.breaks.get(name))

    def answer(
        self, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = cut is not None


@contextmanager
def serve() -> Iterator[FakeHub]:
    """A hub with nothing on it, listening on two ports of 127.0.0.1: the hub's own, and that of its large files."""
    hub = FakeHub()
    with ExitStack() as stack:
        for place in ("endpoint", "storage"):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            server.hub, server.daemon_threads = hub, True
            Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            setattr(hub, place, f"http://127.0.0.1:{server.server_address[1]}")
        yield hub


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[FakeHub]:
    """The hub's client with its cache in tmp_path / "cache" and a fake hub for a mirror; it reaches nothing else."""
    connect = socket.socket.connect

    def stay(self, address):
        assert address[0] == "127.0.0.1", f"a request to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", stay)
    with serve() as fake:
        resolve = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.endpoint + resolve)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # so that small files arrive in parts
        yield fake
