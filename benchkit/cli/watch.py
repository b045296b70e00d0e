"""`benchkit watch`: a live page of what a workspace's sweeps are at."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.app import console, print_note
from benchkit.cli.options import DEFAULT_WORKSPACE, MetricFiles, Storage, Workspace, complete_study
from benchkit.study.study import study_name

if TYPE_CHECKING:
    from benchkit.sweep.orchestration import Request
    from benchkit.sweep.progress import View

Names = Annotated[list[str], typer.Argument(help="Names of studies; without one, all.", autocompletion=complete_study)]
HostName = Annotated[str, typer.Option("--host", help="The address to listen at.")]
Port = Annotated[
    int | None,
    typer.Option(min=0, max=65535, show_default=False, help="The port to listen at; 8765, or any where that is taken."),
]
AllowHost = Annotated[
    list[str], typer.Option(metavar="NAME", help="A name by which a proxy calls this page; may be repeated.")
]
Inherited = Annotated[
    int, typer.Option("--socket", hidden=True, help="A socket that a sweep gave, with which it ends.")
]


def watch(
    studies: Names = [],
    host: HostName = "127.0.0.1",
    port: Port = None,
    allow_host: AllowHost = [],
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
    plugin: MetricFiles = [],
    inherited: Inherited = -1,
) -> None:
    """Serve a live page of STUDIES: progress, ranking, curves, search, failures. It reads and changes nothing.

    The page opens by the address that is printed, with a token; where the output is no terminal, a file that you alone
    can read has the address. Ctrl-C ends it.
    """
    from benchkit.watch.access import access_to
    from benchkit.watch.along import end_with
    from benchkit.watch.server import serve
    from benchkit.watch.watched import Watch

    names = [study_name(name) for name in studies]
    access = access_to(workspace, host, allow_host)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        watched = Watch(workspace, storage, names)
        if inherited >= 0:
            end_with(sys.stdin.fileno(), watched)
            serve(watched, access, socket.socket(fileno=inherited))
            return
        with listening_page(workspace, host, port) as sock:
            print_note("the page reads and changes nothing; Ctrl-C ends it")
            serve(watched, access, sock)
    except KeyboardInterrupt:
        if inherited < 0:
            print_note("the page has ended")


@contextmanager
def listening_page(workspace: Path, host: str, port: int | None) -> Iterator[socket.socket]:
    """Yield the socket of a workspace's page, and tell its address: on a terminal, else in a file of the user's own."""
    from benchkit.watch.access import access_to, address_of, file_of, listening_socket, write_address

    with listening_socket(host, port) as sock:
        address = address_of(sock, host, access_to(workspace, host, ()).token)
        file = None if console(stderr=True).is_terminal else file_of(sock)
        try:
            if file is not None:
                write_address(file, address)
            print_note(f"watch at {address}" if file is None else f"watch at the address in {file}")
            yield sock
        finally:
            if file is not None:
                file.unlink(missing_ok=True)


@contextmanager
def watching_beside(request: Request, *, quiet: bool) -> Iterator[View]:
    """Yield the view of a sweep that fits here, while a process of its own serves the live page."""
    from benchkit.cli.live import watching
    from benchkit.watch.along import PageAlong

    with (
        listening_page(request.workspace, "127.0.0.1", None) as sock,
        watching(quiet=quiet) as view,
        PageAlong(view, sock, request.workspace, request.storage, request.study.name, request.plugins) as along,
    ):
        yield along
