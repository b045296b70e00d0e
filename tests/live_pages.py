"""A live page's server in a thread of this process, and a client that reads it as `curl` would."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tiny_study import PATIENCE

from benchkit.watch.access import Access, access_to, listening_socket
from benchkit.watch.server import Server, Times, make_server
from benchkit.watch.watched import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePage:
    """A running server, and how to ask it."""

    port: int
    access: Access
    watch: Watch
    server: Server

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.access.token}"

    def headers(self, **more: str) -> dict[str, str]:
        return {"Cookie": f"{self.access.cookie}={self.access.token}", **more}

    def ask(
        self, path: str = "/", headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """Return status, headers and text; without `headers` those of somebody who has the cookie are sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers=self.headers() if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def page(self, study: str = "tiny") -> str:
        status, _, text = self.ask(f"/?{urlencode({'study': study})}")
        assert status == 200, text
        return text

    @contextmanager
    def stream(self, study: str = "tiny", state: str = "", buffer: int = 0) -> Iterator[Stream]:
        """Yield the events of a study; a `buffer` of few bytes makes a reader stall soon."""
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", self.port))
        lines = [f"GET /events?{urlencode({'study': study, 'state': state})} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers().items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        stream = Stream(sock)
        try:
            yield stream
        finally:
            stream.content.close()
            sock.close()


class Stream:
    """Server-sent events as they come."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.content = http.client.HTTPResponse(sock)

    def blocks(self) -> Iterator[dict[str, str]]:
        """Yield each event's fields until the server ends the stream."""
        self.content.begin()
        fields: dict[str, str] = {}
        for raw in self.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield fields
                fields = {}

    def told(self) -> Iterator[dict[str, Any]]:
        """Yield what the unnamed events say, pings left out."""
        for block in self.blocks():
            if "data" in block and "event" not in block:
                yield json.loads(block["data"], parse_constant=lambda word: 1 / 0)


@contextmanager
def live_page(
    workspace: Path, *names: str, times: Times | None = None, every: float = 0.05, **more: Any
) -> Iterator[LivePage]:
    """Serve a workspace at a free port of this machine."""
    watch = Watch(workspace, "", names, every=every)
    access = access_to(workspace, "127.0.0.1", more.get("allowed", ()))
    sock = listening_socket("127.0.0.1", more.get("port", 0))
    server = make_server(watch, access, times)
    threads = [threading.Thread(target=watch.run), threading.Thread(target=server.run, args=([sock],))]
    for thread in threads:
        thread.start()
    try:
        yield LivePage(port=sock.getsockname()[1], access=access, watch=watch, server=server)
    finally:
        server.handle_exit(signal.SIGINT, None)
        watch.stop()
        for thread in threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in threads), "the server does not end"


@contextmanager
def kept_ports(count: int) -> Iterator[list[int]]:
    """Yield ports at which servers may listen again and again, and which nobody is given by chance meanwhile.

    A socket that listens to nothing stands at each; a server that reuses addresses, as most do, joins it on Linux.
    """
    with ExitStack() as kept:
        sockets = [kept.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        if sys.platform != "linux":
            kept.close()
        yield ports


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it is never so"
        time.sleep(0.02)
