"""The server of the live page: a few addresses that only read, and a stream of what is new for each viewer."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from benchkit.watch.access import HEADERS, Access
from benchkit.watch.live_sections import log_text
from benchkit.watch.rendering import assets, rendered_list, rendered_note, rendered_page
from benchkit.watch.watched import LiveState, Watch

FIRST = 10.0
"""Seconds that a page waits for the first look at its study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds between two pings, until who does not read is dropped, and that the server takes to end."""

    ping: float = 10.0
    stalled: float = 30.0
    ending: float = 3.0


class Viewers:
    """Whoever has a stream open: all wait for the next change of a study, and none has more than one state in wait."""

    def __init__(self, watch: Watch, times: Times) -> None:
        self.watch, self.times = watch, times
        self.run = secrets.token_hex(4)
        self.count = 0
        self.ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()

    def begin(self) -> None:
        """Take part in the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self.watch.changed = lambda study: self.notify()

    def notify(self) -> None:
        """Wake all streams; any thread may call it."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def end(self) -> None:
        """End all streams."""
        self.ended = True
        self.notify()

    def state(self, shown: LiveState) -> str:
        """Return what a page calls the state that it shows."""
        return f"{self.run}.{shown.version}"

    def version(self, state: str) -> int:
        """Return the version of a page's state, -1 where another run of the server made it."""
        run, _, version = state.partition(".")
        return int(version) if run == self.run and version.isascii() and version.isdigit() else -1

    async def first(self, study: str) -> LiveState | None:
        """Return what a study shows as soon as it was looked at once; None where there is no such study."""
        end = time.monotonic() + FIRST
        while (watched := self.watch.study(study)) is not None:
            news = self._news
            if watched.shown.version or time.monotonic() > end:
                return watched.shown
            with suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), 0.5)
        return None

    async def events(self, study: str, state: str) -> AsyncIterator[str]:
        """Yield what is new after a state, always the newest, as server-sent events."""
        sent = self.version(state)
        self.count += 1
        try:
            yield "retry: 2000\n\n"
            while not self.ended:
                news, watched = self._news, self.watch.study(study)
                if watched is None:
                    return
                shown = watched.shown
                if shown.version > max(sent, 0):
                    yield self._event(shown, sent)
                    sent = shown.version
                    continue
                try:
                    await asyncio.wait_for(news.wait(), self.times.ping)
                except TimeoutError:
                    yield "event: ping\ndata: {}\n\n"
            yield "event: ended\ndata: {}\n\n"
        finally:
            self.count -= 1

    def _event(self, shown: LiveState, sent: int) -> str:
        news = {name: html for name, html in shown.parts.items() if shown.changed[name] > sent}
        told = {
            "state": self.state(shown),
            "title": shown.title,
            "order": list(shown.parts),
            "parts": news,
            "note": shown.note,
        }
        return f"id: {told['state']}\ndata: {json.dumps(told, allow_nan=False)}\n\n"


class Guard:
    """What stands before every route: Host, method and token are held to their rules, and headers are added."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        response = self._refusal(Request(scope))
        await (response or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        hosts = request.headers.getlist("host")
        if refused := self._access.refusal(request.method, hosts[0] if len(hosts) == 1 else ""):
            return PlainTextResponse(refused[1], refused[0])
        if token := request.query_params.get("token"):
            return self._first_visit(token, request.query_params.get("study", ""))
        if self._access.knows(request.cookies.get(self._access.cookie, "")):
            return None
        words = "Open it by the whole address that benchkit watch gave, with its token."
        return HTMLResponse(rendered_note("This page is not open to everyone", words), 403)

    def _first_visit(self, token: str, study: str) -> Response:
        """Take the token from an address into a cookie; it is in no address any more then."""
        if not self._access.knows(token):
            return HTMLResponse(rendered_note("This address is not valid any more", "Its token is another's."), 403)
        response = RedirectResponse(_address(study), 303)
        response.set_cookie(self._access.cookie, self._access.token, httponly=True, samesite="lax", path=None)
        return response


def _address(study: str) -> str:
    return f"./?{urlencode({'study': study})}" if study else "./"


def make_app(viewers: Viewers, access: Access) -> ASGIApp:
    """Return the application; every address in it is relative, so that a proxy may put it below any path."""
    files, making = {asset.name: asset for asset in assets().values()}, asyncio.Lock()

    async def page(request: Request) -> Response:
        studies = viewers.watch.studies
        name = request.query_params.get("study", "")
        if not name and len(studies) != 1:
            return HTMLResponse(rendered_list({one: _address(one) for one in studies}))
        name = name or studies[0]
        shown = await viewers.first(name)
        if shown is None:
            return _absent()
        state = viewers.state(shown)
        return HTMLResponse(rendered_page(shown.title or name, name, dict(shown.parts), dict(shown.headings), state))

    async def events(request: Request) -> Response:
        name = request.query_params.get("study", "")
        if viewers.watch.study(name) is None:
            return _absent()
        state = request.headers.get("last-event-id") or request.query_params.get("state", "")
        headers = {"Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(viewers.events(name, state), media_type="text/event-stream", headers=headers)

    async def log(request: Request) -> Response:
        watched = viewers.watch.study(request.query_params.get("study", ""))
        folder = watched and watched.shown.logs.get(request.query_params.get("trial", ""))
        text = await asyncio.to_thread(log_text, folder, viewers.watch.workspace) if folder else None
        return PlainTextResponse(text) if text is not None else _absent()

    async def asset(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            return _absent()
        kept = {"Cache-Control": "private, max-age=31536000, immutable"}
        async with making:
            text = await asyncio.to_thread(found.text)
        return Response(text, media_type=found.media_type, headers=kept)

    routes = [Route("/", page), Route("/events", events), Route("/log", log), Route("/{name}", asset)]
    return Guard(Starlette(routes=routes, exception_handlers={404: lambda request, error: _absent()}), access)


def _absent() -> Response:
    return PlainTextResponse("There is nothing at this address.", 404)


LOOKS = 10
"""How often a reader that takes nothing is looked at until it is dropped."""


class Dropping(H11Protocol):
    """A connection whose reader is dropped where it takes nothing for a while: nothing piles up for it here.

    It is looked at `LOOKS` times in that while, and nobody looks while this process stands still, as on a machine that
    sleeps: its readers could take nothing then.
    """

    stalled = 30.0

    def connection_made(self, transport: Any) -> None:
        """Let nothing wait in this process but what was last written."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        self._late: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Drop the reader unless it takes some of what is there in time, again and again."""
        super().pause_writing()
        self._look_later(LOOKS)

    def _look_later(self, left: int) -> None:
        size = self.transport.get_write_buffer_size()
        self._late = self.loop.call_later(self.stalled / LOOKS, self._look, size, left - 1)

    def _look(self, before: int, left: int) -> None:
        took = self.transport.get_write_buffer_size() < before
        if left or took:
            self._look_later(LOOKS if took else left)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """Let it stay."""
        super().resume_writing()
        self._forgive()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forgive()
        super().connection_lost(exc)

    def _forgive(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """uvicorn's server, which ends the streams at the first signal."""

    def __init__(self, config: uvicorn.Config, viewers: Viewers) -> None:
        super().__init__(config)
        self.viewers = viewers

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin."""
        self.viewers.begin()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End."""
        super().handle_exit(sig, frame)
        self.viewers.end()


def make_server(watch: Watch, access: Access, times: Times | None = None) -> Server:
    """Return the server of what is watched, ready to `run` on a socket."""
    times = times or Times()
    viewers = Viewers(watch, times)
    config = uvicorn.Config(
        make_app(viewers, access),
        http=type("Dropping", (Dropping,), {"stalled": times.stalled}),
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(times.ending),
    )
    return Server(config, viewers)


def serve(watch: Watch, access: Access, sock: socket.socket) -> None:
    """Serve until a signal says to end."""
    server = make_server(watch, access)
    threading.Thread(target=watch.run, daemon=True).start()
    try:
        server.run(sockets=[sock])
    finally:
        watch.stop()
