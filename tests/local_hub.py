"""A hub of data sets on this machine: what the client of the Hugging Face hub asks for, from a folder of files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@contextmanager
def local_hub(repositories: dict[str, Path]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield the address, the paths that were asked for, and the commit of each data set by its name."""
    commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in repositories}
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            """Print nothing."""

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            for name, folder in repositories.items():
                if path.startswith(f"/api/datasets/{name}"):
                    self.send(described(path, name, folder, commits[name]), "application/json", body)
                    return
                if path.startswith(f"/datasets/{name}/resolve/"):
                    file = folder / path.removeprefix(f"/datasets/{name}/resolve/").partition("/")[2]
                    if file.is_file():
                        self.send(file.read_bytes(), "application/octet-stream", body, commits[name])
                        return
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content: bytes, kind: str, body: bool, commit: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if commit:
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked, commits
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


def described(path: str, name: str, folder: Path, commit: str) -> bytes:
    """Return what a hub tells of a data set: its commit and files, and of a tree their sizes."""
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    if "/tree/" in path:
        rows = [
            {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": digest(folder / file)}
            for file in files
        ]
        return json.dumps(rows).encode()
    siblings = [{"rfilename": file} for file in files]
    return json.dumps({"id": name, "sha": commit, "siblings": siblings, "private": False}).encode()
