"""`benchkit watch`: a live page of what a workspace's sweeps are at."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from benchkit.cli.completion import complete_study
from benchkit.cli.options import DEFAULT_WORKSPACE, Storage, Workspace

Names = Annotated[list[str], typer.Argument(help="Names of studies; without one, all.", autocompletion=complete_study)]
HostName = Annotated[str, typer.Option("--host", help="The address to listen at.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at; 0 takes any that is free.")]
AllowHost = Annotated[
    list[str], typer.Option(metavar="NAME", help="A name by which a proxy calls this page; may be repeated.")
]


def watch(
    studies: Names = [],  # noqa: B006
    host: HostName = "127.0.0.1",
    port: Port = 8765,
    allow_host: AllowHost = [],  # noqa: B006
    workspace: Workspace = DEFAULT_WORKSPACE,
    storage: Storage = "",
) -> None:
    """Serve a live page of STUDIES: progress, ranking, curves, search, failures. It reads and changes nothing.

    The page opens by the address that is printed, with a token; where the output is no terminal, a file that you alone
    can read has the address. Ctrl-C ends it.
    """
    from benchkit.cli.app import print_note, print_text
    from benchkit.sweep.stopping import stoppable
    from benchkit.watch.access import access_to, write_address
    from benchkit.watch.server import listening_socket, serve
    from benchkit.watch.watched import Watch

    names = [name.removesuffix(".toml").rpartition("/")[2] for name in studies]
    watched = Watch(workspace, storage, names)
    access = access_to(workspace, host, allow_host)
    sock = listening_socket(host, port)
    number = sock.getsockname()[1]
    address = f"http://{f'[{host}]' if ':' in host else host}:{number}/?token={access.token}"
    file = None if sys.stdout.isatty() else write_address(address, number)
    try:
        with stoppable():
            print_text(f"watch at {address}" if file is None else f"watch at the address in {file}")
            sys.stdout.flush()
            print_note("the page reads and changes nothing; Ctrl-C ends it")
            serve(watched, access, sock)
    except KeyboardInterrupt:
        print_note("the page has ended")
    finally:
        if file is not None:
            file.unlink(missing_ok=True)
