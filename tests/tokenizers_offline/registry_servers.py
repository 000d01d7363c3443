"""Real HTTP servers on the loopback that speak as much of npm's and the model hub's protocols as a fetch needs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote


class LoopbackServer:
    """Serves `answer(path)` in a thread, for clients that run in this or another process."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.respond(with_body=True)

            def do_HEAD(self) -> None:
                self.respond(with_body=False)

            def respond(self, *, with_body: bool) -> None:
                path = unquote(self.path.partition("?")[0])
                owner.asked.append(path)
                status, headers, body = owner.answer(path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class NpmRegistry(LoopbackServer):
    """Packages by name: (version, tarball)."""

    def __init__(self, packages: dict[str, tuple[str, bytes]]) -> None:
        super().__init__()
        self._packages = packages

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        name = path.strip("/").removesuffix(".tgz")
        if name not in self._packages:
            return 404, {}, b"{}"
        version, tarball = self._packages[name]
        if path.endswith(".tgz"):
            return 200, {"Content-Type": "application/octet-stream"}, tarball
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        dist = {"tarball": f"{self.url}/{name}.tgz", "integrity": integrity}
        about = {"name": name, "version": version, "dist": dist}
        packument = {"name": name, "dist-tags": {"latest": version}, "versions": {version: about}}
        return 200, {"Content-Type": "application/json"}, json.dumps(packument).encode()


class ModelHub(LoopbackServer):
    """Repositories by name: {commit: {path: bytes}}; the last commit is the newest."""

    def __init__(self, repositories: dict[str, dict[str, dict[str, bytes]]]) -> None:
        super().__init__()
        self._repositories = repositories

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for name, commits in self._repositories.items():
            newest = list(commits)[-1]
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                about = {"id": name, "modelId": name, "sha": newest, "siblings": []}
                return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
            if path.startswith(f"/{name}/resolve/"):
                revision, _, file = path.removeprefix(f"/{name}/resolve/").partition("/")
                commit = newest if revision == "main" else revision
                if commit not in commits:
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b""
                headers = {"X-Repo-Commit": commit}
                data = commits[commit].get(file)
                if data is None:
                    return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
                return 200, {**headers, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, data
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
